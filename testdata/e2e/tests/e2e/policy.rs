//! A policy that changes while the collector and programs run: what it excludes leaves no sample, and all of it is counted.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::labels::{Cgroups, start_in};
use crate::names::{begin_early_in_window, compile, range};
use crate::rig::{Range, Rig, now_ms};

/// A rule for a unit, and one for pods: nobody tells of the test's pod, so that it may be of this namespace.
const RULES: &str =
    "rules: [{action: deny, units: [pe-denied.service]}, {action: deny, namespaces: [secret]}]";

/// Time within which a rule has to hold.
const RULE_TIME: Duration = Duration::from_secs(5);

/// Samples in a window of each program, on a machine where other tests run.
const SAMPLES_MIN: u64 = 20;

/// Programs that run until this is dropped.
#[derive(Default)]
struct Burners(Vec<Child>);

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Check that a rule stops the samples of a unit in the kernel and those of an undecided pod in the collector, that each is counted
/// there and at its cgroup, that other samples go on, and that the accounts still balance.
pub(crate) fn check() -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let policy = directory.path().join("policy.yaml");
    fs::write(&policy, "default: allow\n").context("failed to write the policy")?;
    let option = format!("--policy-file={}", policy.display());
    let mut rig = Rig::start_with("policy", &[&option])?;
    let cgroups = Cgroups::new("policy");
    let container_id = format!("{:064x}", std::process::id());
    let pod = format!("kubepods/pod{:032x}/{container_id}", std::process::id());
    let mut burners = Burners::default();
    begin_early_in_window()?;
    let started_ms = now_ms()?;
    for (comm, path) in [
        ("pe-denied", "pe-denied.service"),
        ("pe-free", "pe-free.service"),
        ("pe-pod", &pod),
    ] {
        let program: PathBuf = directory.path().join(comm);
        compile(&program, "burn", &[])?;
        let burner = start_in(&cgroups.make(path)?, &program, "600")?;
        burners.0.push(burner);
    }
    rig.wait_stored(started_ms)?;
    let before = range(started_ms, started_ms);
    for comm in ["pe-denied", "pe-free", "pe-pod"] {
        let samples = count(&rig, comm, before)?;
        ensure!(samples >= SAMPLES_MIN, "`{comm}` has {samples} samples");
    }

    fs::write(&policy, RULES).context("failed to write the policy")?;
    let is_enforced = |metrics: &run::metrics::Metrics| {
        let sum = |name, label, value| metrics.sum_where(name, &[(label, value)]);
        let excluded = sum("pilotlight_collector_outcomes_total", "outcome", "excluded");
        let undecided = sum("pilotlight_collector_dropped_total", "stage", "undecided");
        excluded.is_some_and(|count| count > 20.0) && undecided.is_some_and(|count| count > 20.0)
    };
    rig.wait_metrics(0, "samples to be excluded", RULE_TIME, is_enforced)?;
    let next_ms = now_ms()? / 10_000 * 10_000 + 10_000;
    rig.wait_stored(next_ms)?;
    let after = range(next_ms, next_ms);
    for comm in ["pe-denied", "pe-pod"] {
        let samples = count(&rig, comm, after)?;
        ensure!(samples == 0, "`{comm}` has {samples} samples");
    }
    let samples = count(&rig, "pe-free", after)?;
    ensure!(samples >= SAMPLES_MIN, "`pe-free` has {samples} samples");
    for (label, value) in [
        ("unit", "pe-denied.service"),
        ("container_id", &container_id),
    ] {
        let query = format!(r#"{{{label}="{value}"}}"#);
        let answer = rig.get_json("/api/v1/containers", &query, after, &[])?;
        let account = &answer["containers"][0];
        let excluded = account["excluded_samples"].as_u64().unwrap_or(0);
        ensure!(
            excluded >= SAMPLES_MIN && account["samples"] == 0,
            "{answer}"
        );
    }
    drop(burners);
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

/// Samples of a process.
fn count(rig: &Rig, comm: &str, range: Range) -> Result<u64> {
    let query = format!(r#"{{comm="{comm}"}}"#);
    let answer = rig.get_json("/api/v1/series", &query, range, &[])?;
    let series = answer["series"].as_array().context("no `series`")?;
    Ok(series
        .iter()
        .filter_map(|series| series["samples"].as_u64())
        .sum())
}
