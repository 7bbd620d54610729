//! A policy in the cluster: a rule that comes while a pod runs stops its samples, in the kernel.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::policy::is_in_force;
use e2e::wait::wait_for_answer;
use run::http;
use run::metrics::Metrics;
use serde_json::{Value, json};

use crate::release::{
    COLLECTOR, NAMESPACE, WINDOW_MS, apply, collector_address, kubectl, now_ms, wait_stored,
};

const CONFIG_MAP: &str = "pilotlight-collector-policy";

/// A rule for the namespace of [`BURNER`].
const RULES: &str = "rules: [{action: deny, namespaces: [payments]}]";

/// A namespace with a pod that uses a processor until it is deleted, and none of the collector's rights.
const BURNER: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: payments}
---
apiVersion: v1
kind: Pod
metadata: {name: ledger, namespace: payments}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
    - {name: burn, image: "local/workload:1", args: ["3600"], resources: {requests: {cpu: 100m}}}
"#;

/// With `collector.policy.enabled`: check that a rule for the namespace of a running pod is put in force, that the kernel counts the
/// samples that it excludes and the store gets none, that the server tells of the pod and the rule, that a mistake leaves the rule in
/// force, and that the samples come back. That it takes less than five seconds is a test of the collector (`collector/tests/policy`),
/// by the times of samples.
pub(crate) fn check(http: SocketAddr) -> Result<()> {
    check_rights()?;
    apply(BURNER)?;
    wait_for_samples(http, now_ms()?)?;

    set_rules(RULES)?;
    let changed = Instant::now();
    let collector = collector_address()?;
    let metrics = || -> Result<Metrics> {
        let text = http::get_text(collector, "/metrics", &[])?;
        Ok(Metrics::parse(&text))
    };
    wait_for_answer("the rule to be in force", || {
        Ok(is_in_force(&metrics()?, RULES).then_some(()))
    })?;
    println!("the rule was in force after {:?}", changed.elapsed());
    wait_for_answer("a sample that the kernel excludes", || {
        let labels = [("outcome", "excluded")];
        let excluded = metrics()?.sum_where("pilotlight_collector_outcomes_total", &labels);
        Ok(excluded.filter(|count| *count > 0.0))
    })?;
    // The window in which the rule came has samples of before.
    let next_ms = (now_ms()? / WINDOW_MS + 1) * WINDOW_MS;
    wait_stored(http, next_ms + WINDOW_MS)?;
    let samples = count_samples(http, next_ms, next_ms + WINDOW_MS)?;
    ensure!(samples == 0, "{samples} samples of the excluded pod");
    let excluded = json!([{"namespace": "payments", "pod": "ledger", "rule": "rule 1: deny namespaces payments"}]);
    wait_for_policy(http, "the excluded pod", |policy| {
        policy["excluded"] == excluded
    })?;

    set_rules("rules:\n- {action: deny}\n")?;
    let policy = wait_for_policy(http, "the mistake", |policy| policy["state"] == "last")?;
    let reason = policy["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains("line 2, rule 1: a rule without a condition"),
        "{policy}"
    );
    ensure!(policy["excluded"] == excluded, "{policy}");

    set_rules("default: allow")?;
    wait_for_samples(http, now_ms()?)?;
    kubectl(&["delete", "namespace", "payments"]).map(drop)
}

/// Check that the collector may read this one ConfigMap and no other.
fn check_rights() -> Result<()> {
    let account = format!("system:serviceaccount:{NAMESPACE}:{COLLECTOR}");
    let list = kubectl(&["auth", "can-i", "--list", "--as", &account])?;
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let maps: BTreeSet<String> = list
        .lines()
        .filter(|line| line.starts_with("configmaps"))
        .map(words)
        .collect();
    let expected = format!("configmaps [] [{CONFIG_MAP}] [get list watch]");
    ensure!(maps == [expected].into(), "{maps:?}");
    Ok(())
}

/// Changes the rules, as `kubectl edit` does.
fn set_rules(text: &str) -> Result<()> {
    let patch = json!({"data": {"policy.yaml": text}}).to_string();
    kubectl(&["patch", "configmap", CONFIG_MAP, "--patch", &patch]).map(drop)
}

/// Waits for samples of the pod in windows that begin after this time.
fn wait_for_samples(http: SocketAddr, from_ms: u64) -> Result<()> {
    wait_for_answer("samples of the pod", || {
        let samples = count_samples(http, from_ms, now_ms()?)?;
        Ok((samples > 20).then_some(()))
    })
}

/// Samples of the pod in windows of this range.
fn count_samples(http: SocketAddr, from_ms: u64, to_ms: u64) -> Result<u64> {
    let (from, to) = (from_ms.to_string(), to_ms.to_string());
    let parameters = [
        ("query", r#"{namespace="payments"}"#),
        ("from", from.as_str()),
        ("to", &to),
    ];
    let answer = http::get_json(http, "/api/v1/series", &parameters)?;
    let series = answer["series"].as_array().context("no `series`")?;
    let samples = series
        .iter()
        .filter_map(|series| series["samples"].as_u64());
    Ok(samples.sum())
}

/// Waits for what the node says of its policy.
fn wait_for_policy(http: SocketAddr, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_for_answer(what, || {
        let nodes = http::get_json(http, "/api/v1/nodes", &[])?;
        let policy = nodes["nodes"][0]["report"]["policy"].clone();
        Ok(is_it(&policy).then_some(policy))
    })
}
