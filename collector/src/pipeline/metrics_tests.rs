//! Tests of all metrics together.

#[path = "../../../crates/metrics/tests/formats/validators.rs"]
mod validators;

use std::collections::HashSet;

use metrics::Exposition;
use validators::Validators;

use super::*;
use crate::{blocking_pool::BlockingPool, metrics::register_process, send::Uploader};

/// A registry with all that a collector registers. Its stages have not begun.
fn registry() -> Registry {
    let options = SenderOptions::new("http://127.0.0.1:1");
    let sender = Sender::start(options).unwrap();
    let options = UploaderOptions::new("http://127.0.0.1:1", [0; 16], 1);
    let uploader = Uploader::start(
        options,
        PendingUploads::default(),
        (crate::upload::Offers::new("node"), BlockingPool::default()),
    );
    let stats = PipelineStats::default();
    stats
        .unwind
        .lock()
        .count_copied(profiler_bpf::outcome::Outcome::Complete);
    stats.sampling.sampler.lock().first_sample_seconds = Some(0.5);
    let mut registry = Registry::default();
    register_process(&mut registry);
    let stages = Stages {
        sender: sender.watch(),
        queue: Queue::new(1),
        uploader: uploader.as_ref().ok(),
        pool: BlockingPool::default(),
        map_bytes: 7,
        pods: Some(crate::kubernetes::NodePods::default()),
        has_policy: true,
    };
    stats.register(&mut registry, stages);
    registry
}

/// Check that each family is announced once, before its values, and that what others ask for is there.
#[test]
fn families() {
    let text = Exposition::Text.encode(&registry()).unwrap();
    let mut announced = HashSet::new();
    let mut last = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            last = rest.split(' ').next().unwrap();
            assert!(announced.insert(last), "{last}");
        } else if !line.starts_with('#') {
            assert_eq!(line.split(['{', ' ']).next(), Some(last));
        }
    }
    assert!(announced.len() > 60, "{}", announced.len());
    for line in [
        "pilotlight_collector_outcomes_total{outcome=\"ring_full\"} 0",
        "pilotlight_collector_copied_stacks_total{outcome=\"complete\"} 1",
        "pilotlight_collector_dropped_total{stage=\"send\"} 0",
        "pilotlight_collector_oldest_window_seconds{queue=\"name\"} 0.0",
        "pilotlight_collector_frequency_hertz 0",
        "pilotlight_collector_bpf_map_bytes 7",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for name in [
        "pilotlight_collector_build_info",
        "process_start_time_seconds",
    ] {
        assert!(announced.contains(name), "{name}");
    }
}

/// Check that docs/troubleshooting.md has each value of the labels that say why.
#[test]
fn reasons_are_documented() {
    let page = include_str!("../../../docs/troubleshooting.md");
    let text = Exposition::Text.encode(&registry()).unwrap();
    for label in ["reason", "stage", "outcome", "result"] {
        let before = format!("{label}=\"");
        let values = text
            .split(before.as_str())
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        for value in values {
            assert!(page.contains(&format!("`{value}`")), "{label} {value}");
        }
    }
}

/// Check both formats by their own validators, where this machine has them.
#[test]
fn formats() {
    let validators = match Validators::find() {
        Ok(validators) => validators,
        Err(missing) => {
            eprintln!("not checked: there is no {missing}");
            return;
        }
    };
    let registry = registry();
    let text = Exposition::Text.encode(&registry).unwrap();
    validators.check_text(&text).unwrap();
    let openmetrics = Exposition::OpenMetrics.encode(&registry).unwrap();
    validators.check_openmetrics(&openmetrics).unwrap();
}
