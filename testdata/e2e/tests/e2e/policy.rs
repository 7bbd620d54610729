//! A policy that changes while the collector and programs run: what it excludes leaves no sample, and all of it is counted.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use e2e::policy::is_in_force;
use e2e::wait::wait_for_answer;
use tempfile::TempDir;

use crate::labels::{Cgroups, start_in};
use crate::names::compile;
use crate::rig::{Range, Rig, now_ms};
use crate::workload::Running;

/// A rule for a unit, and one for pods: nobody tells of the test's pod, so that it may be of this namespace.
const RULES: &str =
    "rules: [{action: deny, units: [pe-denied.service]}, {action: deny, namespaces: [secret]}]";

/// The minimum for a verdict.
const SAMPLES_MIN: u64 = 20;

/// CPU seconds of each program, which runs until it is killed.
const FOREVER: &str = "100000";

/// Check that a rule stops the samples of a unit in the kernel and those of an undecided pod in the collector, that each is counted
/// there and at its cgroup, that other samples go on, and that the accounts still balance. How long that takes is a test of the
/// collector (`collector/tests/policy`), by the times of samples.
pub(crate) fn check() -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let policy = directory.path().join("policy.yaml");
    fs::write(&policy, "default: allow\n").context("failed to write the policy")?;
    let option = format!("--policy-file={}", policy.display());
    let mut rig = Rig::start_with("policy", &[&option])?;
    let cgroups = Cgroups::new("policy");
    let container_id = format!("{:064x}", std::process::id());
    let pod = format!("kubepods/pod{:032x}/{container_id}", std::process::id());
    let mut burners = Running::default();
    let started_ms = now_ms()? / 10_000 * 10_000;
    let programs = [
        ("pe-denied", "pe-denied.service"),
        ("pe-free", "pe-free.service"),
        ("pe-pod", &*pod),
    ];
    for (comm, path) in programs {
        let program = directory.path().join(comm);
        compile(&program, "burn", &[])?;
        let burner = start_in(&cgroups.make(path)?, &program, FOREVER)?;
        burners.0.push(burner);
    }
    for (comm, _) in programs {
        rig.wait_samples(&format!(r#"{{comm="{comm}"}}"#), started_ms, SAMPLES_MIN)?;
    }

    fs::write(&policy, RULES).context("failed to write the policy")?;
    rig.wait_metrics(0, "the rules to be in force", |metrics| {
        is_in_force(metrics, RULES)
    })?;
    rig.wait_metrics(0, "samples to be excluded", |metrics| {
        let is_counted = |name, label, value| {
            let count = metrics.sum_where(name, &[(label, value)]);
            count.is_some_and(|count| count > 0.0)
        };
        is_counted("pilotlight_collector_outcomes_total", "outcome", "excluded")
            && is_counted("pilotlight_collector_dropped_total", "stage", "undecided")
    })?;
    // The window in which the rules came has samples of before.
    let next_ms = now_ms()? / 10_000 * 10_000 + 10_000;
    rig.wait_samples(r#"{comm="pe-free"}"#, next_ms, SAMPLES_MIN)?;
    for (label, value) in [
        ("unit", "pe-denied.service"),
        ("container_id", &container_id),
    ] {
        wait_excluded(&rig, &format!(r#"{{{label}="{value}"}}"#), next_ms)?;
    }
    let after = Range {
        from_ms: next_ms,
        to_ms: now_ms()?,
    };
    for comm in ["pe-denied", "pe-pod"] {
        let samples = rig.count_samples(&format!(r#"{{comm="{comm}"}}"#), after)?;
        ensure!(samples == 0, "`{comm}` has {samples} samples");
    }
    drop(burners);
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

/// Waits until the account of a unit or container has excluded samples, and checks that it has no others.
fn wait_excluded(rig: &Rig, query: &str, from_ms: u64) -> Result<()> {
    let account = wait_for_answer(&format!("excluded samples of {query}"), || {
        let range = Range {
            from_ms,
            to_ms: now_ms()?,
        };
        let mut answer = rig.get_json("/api/v1/containers", query, range, &[])?;
        let account = answer["containers"][0].take();
        let excluded = account["excluded_samples"].as_u64();
        Ok(excluded
            .is_some_and(|excluded| excluded >= SAMPLES_MIN)
            .then_some(account))
    })?;
    ensure!(account["samples"] == 0, "{account}");
    Ok(())
}
