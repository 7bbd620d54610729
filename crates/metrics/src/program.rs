//! Metrics of the process itself.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::label::Label;

/// Registers `PREFIX_build_info` with the version, and `process_start_time_seconds` with the
/// current time.
///
/// The latter has no prefix, since all Prometheus clients use this name, and dashboards compute
/// uptimes and restarts from it.
pub fn register_program(registry: &mut Registry, prefix: &str, version: &'static str) {
    registry.sub_registry_with_prefix(prefix).register(
        "build",
        "The running version",
        Info::new([("version", Label::from(version))]),
    );
    let start: Gauge<f64, AtomicU64> = Gauge::default();
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    start.set(since_epoch.map_or(0.0, |since| since.as_secs_f64()));
    registry
        .sub_registry_with_prefix("process")
        .register_with_unit(
            "start_time",
            "Time at which the program started, since 1970",
            Unit::Seconds,
            start,
        );
}
