//! Metrics of the server's process. Each stage registers its own metrics; this module knows none of them.

use std::fs;

use metrics::{Registry, register_figures, register_program};
use rustix::time::{ClockId, clock_gettime};

/// Prefix of the server's metrics.
pub const PREFIX: &str = "pilotlight_server";

/// Registers version, start time, memory and CPU time, under the names that Prometheus' clients give them.
pub fn register_process(registry: &mut Registry) {
    register_program(registry, PREFIX, env!("CARGO_PKG_VERSION"));
    register_figures(registry.sub_registry_with_prefix("process"), |figures| {
        let resident_bytes = read_resident_bytes().unwrap_or(0);
        figures.gauge("resident_memory_bytes", "Resident memory", resident_bytes);
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        figures.counter("cpu_seconds", "CPU time, user and system", cpu_seconds);
    });
}

fn read_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
