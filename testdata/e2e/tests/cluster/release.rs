//! The release in the running cluster: helm and kubectl, and where its programs answer.

use std::fs;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use e2e::wait::wait_for_answer;
use run::http;

use crate::tools::{ask_tool, repository, run_tool};

/// Time for a roll-out, as in [`e2e::wait::TIMEOUT`]: images are present, so that only starting takes time.
pub(crate) const START_TIMEOUT: &str = "300s";
/// Length of a window, the default of `--window`.
pub(crate) const WINDOW_MS: u64 = 10_000;

pub(crate) const NAMESPACE: &str = "profiling";
pub(crate) const RELEASE: &str = "pilotlight";
pub(crate) const COLLECTOR: &str = "pilotlight-collector";
pub(crate) const SERVER: &str = "pilotlight-server";
/// Selects the collectors' pods.
pub(crate) const COLLECTORS: &str = "app.kubernetes.io/component=collector";

/// Runs `helm install` or `helm upgrade` with default values but the images, and returns its notes.
pub(crate) fn helm(command: &str, options: &[&str]) -> Result<String> {
    let chart = repository().join("deploy/chart").display().to_string();
    let mut arguments = vec![
        "helm",
        command,
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--set=image.repository=localhost",
    ];
    arguments.extend(options);
    ask_tool(&arguments)
}

/// Runs kubectl in the release's namespace.
pub(crate) fn kubectl(arguments: &[&str]) -> Result<String> {
    ask_tool(&[&["kubectl", "--namespace", NAMESPACE], arguments].concat())
}

pub(crate) fn apply(manifest: &str) -> Result<()> {
    let file = repository().join("target/cluster/applied.yaml");
    fs::write(&file, manifest).context("failed to write a manifest")?;
    ask_tool(&["kubectl", "apply", "-f", &file.display().to_string()]).map(drop)
}

/// Waits until the new pods are ready and the old ones are gone: helm returns before the only collector is ready, since one pod of a
/// DaemonSet may be unavailable; and a new collector is ready while the old one still samples, or sends its last windows.
pub(crate) fn wait_for_rollout() -> Result<()> {
    for object in [
        format!("statefulset/{SERVER}"),
        format!("daemonset/{COLLECTOR}"),
    ] {
        kubectl(&["rollout", "status", &object, "--timeout", START_TIMEOUT])?;
    }
    wait_for_answer("the end of the old collector", || {
        Ok((pod_uids(COLLECTORS)?.len() == 1).then_some(()))
    })
}

/// Waits until windows up to this time, Unix milliseconds, are stored.
pub(crate) fn wait_stored(http: SocketAddr, end_ms: u64) -> Result<()> {
    let from = (end_ms.saturating_sub(1) / WINDOW_MS * WINDOW_MS).to_string();
    wait_for_answer("the last window to be stored", || {
        let parameters = [("query", "{}"), ("from", &*from)];
        let nodes = http::get_json(http, "/api/v1/nodes", &parameters)?;
        let stored_ms = nodes["nodes"][0]["end_ms"].as_u64();
        Ok(stored_ms.filter(|stored| *stored >= end_ms).map(drop))
    })
}

/// The address of the server's Service, which is reachable from this machine.
pub(crate) fn service_address() -> Result<SocketAddr> {
    let address = kubectl(&["get", "service", SERVER, "-o", "jsonpath={.spec.clusterIP}"])?;
    Ok(SocketAddr::new(
        address
            .trim()
            .parse()
            .context("the service has no address")?,
        7070,
    ))
}

/// The address at which the collector's newest pod answers probes.
pub(crate) fn collector_address() -> Result<SocketAddr> {
    let newest = "--sort-by=.metadata.creationTimestamp";
    let address = "jsonpath={.items[-1:].status.podIP}";
    let address = kubectl(&["get", "pod", "-l", COLLECTORS, newest, "-o", address])?;
    let address = address.trim().parse();
    Ok(SocketAddr::new(
        address.context("the collector's pod has no address")?,
        7072,
    ))
}

/// The uids of the pods with these labels.
pub(crate) fn pod_uids(selector: &str) -> Result<Vec<String>> {
    let uids = "jsonpath={.items[*].metadata.uid}";
    let uids = kubectl(&["get", "pods", "--selector", selector, "--output", uids])?;
    Ok(uids.split_whitespace().map(str::to_owned).collect())
}

/// State and logs of all pods, for a failed test.
pub(crate) fn describe_pods() -> String {
    let commands: [&[&str]; 3] = [
        &["kubectl", "get", "pods", "-A", "-o", "wide"],
        &["kubectl", "get", "events", "-A"],
        &[
            "kubectl",
            "-n",
            NAMESPACE,
            "logs",
            "-l",
            "app.kubernetes.io/name=pilotlight",
            "--tail=20",
            "--prefix",
        ],
    ];
    let outputs = commands
        .into_iter()
        .filter_map(|command| run_tool(command).ok());
    outputs.map(|said| said.stdout + &said.stderr).collect()
}

pub(crate) fn now_ms() -> Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    u64::try_from(since.as_millis()).context("the clock is far in the future")
}
