//! The chart in a cluster: installed with its defaults, asked for the profile of a pod, upgraded, and
//! removed.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::wait::wait_for_answer;
use run::http;
use run::metrics::Metrics;

use crate::accounting::PodsAccount;
use crate::release::{
    COLLECTOR, COLLECTORS, NAMESPACE, RELEASE, START_TIMEOUT, apply, collector_address,
    describe_pods, helm, kubectl, now_ms, service_address, wait_for_rollout,
};
use crate::tools::{ask_tool, repository, run, run_script, run_tool};
use crate::workloads::Workloads;
use crate::{accounting, identity, images, policy, rights, upgrade, workloads};

/// A namespace in which pods with the collector's rights are refused until it is labelled.
const NAMESPACE_MANIFEST: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: profiling, labels: {pod-security.kubernetes.io/enforce: baseline}}
"#;

pub(crate) fn check() -> Result<()> {
    images::build()?;
    let mut files = ["pilotlight-collector", "pilotlight-server"]
        .map(|name| repository().join(format!("target/images/{name}.tar")))
        .map(|file| file.display().to_string())
        .to_vec();
    files.extend(workloads::make_images()?);
    run_script::<&str>("testdata/cluster/up", &[])?;
    let result = run_script("testdata/cluster/load", &files).and_then(|_| check_in_cluster());
    let logs = result.is_err().then(describe_pods);
    run_script::<&str>("testdata/cluster/down", &[])?;
    result.with_context(|| logs.unwrap_or_default())
}

fn check_in_cluster() -> Result<()> {
    apply(NAMESPACE_MANIFEST)?;
    let notes = helm("install", &[])?;
    check_nodes_in_notes(&notes)?;
    check_refused_until_labelled(&notes)?;
    wait_for_rollout()?;
    rights::check_account(&[])?;
    rights::check_capabilities()?;

    let http = service_address()?;
    let from_ms = now_ms()?;
    let (pods, beyond) = check_workloads(http, "cgroup-v1", "3")?;
    check_node(http, from_ms)?;
    check_metrics(http)?;
    check_own_names(http, from_ms)?;
    if follow_cgroup_v2(http)? {
        check_workloads(http, "cgroup-v2", "2")?;
    }
    check_reason_in_events()?;

    upgrade::check(http)?;
    // The profiles are in the volume, which the server's new pod has.
    let stored = identity::check_shares(http, &pods)?;
    ensure!(
        stored == beyond,
        "beyond: {stored:?}, before the upgrade {beyond:?}"
    );
    rights::check_without_api_server(http)?;
    let policy = ["--set=collector.policy.enabled=true"];
    helm("upgrade", &policy)?;
    wait_for_rollout()?;
    policy::check(http)?;
    check_uninstall()?;
    check_volume_without_fs_group()
}

/// Runs a pod of each kind, with so many CPU seconds for each program, and checks their names, their functions, and the CPU time of
/// all pods. Returns the pods, and the functions that are beyond the limit in this sample of them, but not in a second one.
fn check_workloads(
    http: SocketAddr,
    namespace: &str,
    seconds: &str,
) -> Result<(Workloads, BTreeSet<String>)> {
    let (pods, beyond) = sample_workloads(http, namespace, seconds)?;
    if beyond.functions.is_empty() && !beyond.has_other_time {
        return Ok((pods, beyond.functions));
    }
    let (_, again) = sample_workloads(http, &format!("{namespace}-again"), seconds)?;
    let both: Vec<_> = beyond.functions.intersection(&again.functions).collect();
    ensure!(
        both.is_empty(),
        "{both:?} have wrong shares in all pods, in two samples"
    );
    ensure!(
        !(beyond.has_other_time && again.has_other_time),
        "the CPU time of all pods is not the kernel's, in two samples"
    );
    Ok((pods, beyond.functions))
}

/// What is beyond its limit in a sample of all pods, so that a second one must decide.
struct Beyond {
    functions: BTreeSet<String>,
    /// The CPU time of all pods is not the kernel's.
    has_other_time: bool,
}

fn sample_workloads(
    http: SocketAddr,
    namespace: &str,
    seconds: &str,
) -> Result<(Workloads, Beyond)> {
    let account = PodsAccount::start()?;
    let pods = Workloads::run(namespace, seconds)?;
    let functions = identity::check(http, &pods)?;
    let has_other_time = !account.agrees(http)?;
    accounting::check_memory()?;
    let beyond = Beyond {
        functions,
        has_other_time,
    };
    Ok((pods, beyond))
}

/// Makes the collector follow the cgroups of version 2, which are beside those of version 1: their tree is mounted in the place of all
/// trees. Returns whether it does now; where there is only version 2, it did before.
fn follow_cgroup_v2(http: SocketAddr) -> Result<bool> {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    if !Path::new(UNIFIED).join("cgroup.procs").exists() {
        return Ok(false);
    }
    let volume = format!(r#"{{"name": "cgroup", "hostPath": {{"path": "{UNIFIED}"}}}}"#);
    let patch = format!(r#"{{"spec": {{"template": {{"spec": {{"volumes": [{volume}]}}}}}}}}"#);
    kubectl(&["patch", "daemonset", COLLECTOR, "--patch", &patch])?;
    wait_for_rollout()?;
    wait_for_answer("a report of version 2", || {
        let nodes = http::get_text(http, "/api/v1/nodes", &[])?;
        Ok(nodes.contains("v2 at /sys/fs/cgroup").then_some(true))
    })
}

/// Check that pod security refuses the collectors, and that the command of the notes helps.
fn check_refused_until_labelled(notes: &str) -> Result<()> {
    wait_for_answer("the event of refused pods", || {
        let events = kubectl(&["get", "events", "--field-selector", "reason=FailedCreate"])?;
        Ok(events.contains("violates PodSecurity").then_some(()))
    })?;
    let command = notes
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("kubectl label namespace"))
        .context("the notes have no command for the namespace's label")?;
    let words: Vec<&str> = command.split_whitespace().collect();
    ask_tool(&words).map(drop)
}

/// Check that the commands of the notes for nodes that are not profiled work; this cluster has none of them.
fn check_nodes_in_notes(notes: &str) -> Result<()> {
    let lines = notes.lines().map(str::trim);
    let commands = lines.filter(|line| line.starts_with("kubectl get nodes"));
    let commands: Vec<_> = commands.map(|line| line.replace('\'', "")).collect();
    ensure!(commands.len() == 2, "{notes}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let nodes = ask_tool(&words)?;
        ensure!(nodes.is_empty(), "`{command}` finds {nodes}");
    }
    Ok(())
}

/// Check that the samples have the node's name in the cluster, not the pod's.
fn check_node(http: SocketAddr, from_ms: u64) -> Result<()> {
    let from = from_ms.to_string();
    let nodes = http::get_json(http, "/api/v1/nodes", &[("query", "{}"), ("from", &from)])?;
    let names: Vec<_> = nodes["nodes"]
        .as_array()
        .context("no nodes")?
        .iter()
        .map(|node| &node["node"])
        .collect();
    ensure!(names == ["node"], "{nodes}");
    Ok(())
}

/// Check that the metrics of the alerts and the dashboard exist, and that the collector's pod sees
/// the node's cgroups.
fn check_metrics(http: SocketAddr) -> Result<()> {
    let collector = collector_address()?;
    let admin = SocketAddr::new(http.ip(), 7073);
    let mut exposed = http::get_text(collector, "/metrics", &[])?;
    let mounted = Metrics::parse(&exposed).sum("pilotlight_collector_host_cgroups_mounted");
    ensure!(
        mounted == Some(1.0),
        "the collector does not see the node's cgroups: {mounted:?}"
    );
    exposed.push_str(&http::get_text(admin, "/metrics", &[])?);
    let metrics = Metrics::parse(&exposed);
    // What the server leaves of the chart's limit: the comment on `server.resources` has the arithmetic.
    let kind = [("kind", "child_bytes")];
    let child_bytes = metrics.sum_where("pilotlight_server_symbol_limits", &kind);
    ensure!(
        child_bytes == Some(f64::from(480 << 20)),
        "the child that reads files with symbols may take {child_bytes:?} bytes"
    );
    http::get_text(admin, "/readyz", &[])?;
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = fs::read_to_string(repository().join("deploy/chart/files").join(file))
            .context("failed to read a file of the chart")?;
        let names = text.split(|char: char| !char.is_ascii_lowercase() && char != '_');
        let names: BTreeSet<&str> = names
            .filter(|name| name.starts_with("pilotlight_"))
            .collect();
        ensure!(names.len() > 4, "{file} has no metrics");
        for name in names {
            ensure!(metrics.sum(name).is_some(), "{file}: no metric {name}");
        }
    }
    Ok(())
}

/// Check that a collector that cannot sample stays, not ready, and that an event of its pod has the
/// remedy.
fn check_reason_in_events() -> Result<()> {
    let patch = r#"{"spec": {"template": {"spec": {"hostPID": false}}}}"#;
    kubectl(&["patch", "daemonset", COLLECTOR, "--patch", patch])?;
    // The table of events shows the first line alone.
    let messages = "jsonpath={.items[*].message}";
    let unhealthy = "reason=Unhealthy";
    // The probe waits for half a minute before it says that a pod is not ready.
    wait_for_answer("the event of a pod that is not ready", || {
        let events = kubectl(&[
            "get",
            "events",
            "--field-selector",
            unhealthy,
            "-o",
            messages,
        ])?;
        Ok(events.contains("hostPID: true").then_some(()))
    })?;
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let restarts = kubectl(&["get", "pods", "-l", COLLECTORS, "-o", restarts])?;
    ensure!(
        restarts.split_whitespace().all(|count| count == "0"),
        "a collector restarted: {restarts}"
    );
    Ok(())
}

/// Check that the programs, which are stripped in the images, get names from the debug information
/// beside the images.
fn check_own_names(http: SocketAddr, from_ms: u64) -> Result<()> {
    let debug = repository().join("target/images/debug");
    let server = format!("http://{http}");
    let said = run(
        Command::new(repository().join("target/release/pilotlight-server"))
            .args(["debuginfo", "upload", "--server", &server])
            .arg(debug),
    )?;
    ensure!(said.is_success, "{}{}", said.stdout, said.stderr);
    let query =
        r#"{namespace="profiling", workload="pilotlight-collector", container="collector"}"#;
    let from = from_ms.to_string();
    let parameters = [
        ("query", query),
        ("from", from.as_str()),
        ("sort", "total"),
        ("limit", "1000"),
    ];
    wait_for_answer("names of the collector's functions", || {
        let top = http::get_text(http, "/api/v1/top", &parameters)?;
        Ok(top.contains("collector::").then_some(()))
    })
}

/// Check that the claim outlives the release.
fn check_uninstall() -> Result<()> {
    ask_tool(&[
        "helm",
        "uninstall",
        RELEASE,
        "--namespace",
        NAMESPACE,
        "--wait",
    ])?;
    wait_for_answer("the end of the pods", || {
        let selector = "app.kubernetes.io/name=pilotlight";
        let pods = kubectl(&["get", "pods", "--selector", selector, "--output=name"])?;
        Ok(pods.is_empty().then_some(()))
    })?;
    let left = kubectl(&[
        "get",
        "all,configmap,serviceaccount,networkpolicy,poddisruptionbudget,role,rolebinding,clusterrole,clusterrolebinding",
        "-o",
        "name",
    ])?;
    let ours: Vec<&str> = left.lines().filter(|name| name.contains(RELEASE)).collect();
    ensure!(ours.is_empty(), "helm uninstall leaves {ours:?}");
    let claims = kubectl(&["get", "persistentvolumeclaim", "-o", "name"])?;
    ensure!(
        claims.trim() == "persistentvolumeclaim/data-pilotlight-server-0",
        "claims: {claims}"
    );
    Ok(())
}

/// Check a volume that ignores fsGroup: the server says what it lacks, and the init container helps.
fn check_volume_without_fs_group() -> Result<()> {
    kubectl(&["delete", "persistentvolumeclaim", "--all"])?;
    let server_only = [
        "--set=collector.enabled=false",
        "--set=networkPolicy.enabled=false",
        "--set=server.persistence.storageClassName=host-path",
    ];
    helm("install", &server_only)?;
    wait_for_answer("the server's error", || {
        let said = run_tool(&["kubectl", "-n", NAMESPACE, "logs", "pilotlight-server-0"])?;
        Ok(said
            .stdout
            .contains("need `server.initChown` of the chart")
            .then_some(()))
    })?;
    let chown = [
        "--set=server.initChown.enabled=true",
        "--set=server.initChown.image=local/chown:1",
    ];
    helm("upgrade", &[&server_only[..], &chown].concat())?;
    // A StatefulSet does not replace a pod that was never ready.
    kubectl(&["delete", "pod", "pilotlight-server-0"])?;
    kubectl(&[
        "rollout",
        "status",
        "statefulset/pilotlight-server",
        "--timeout",
        START_TIMEOUT,
    ])
    .map(drop)
}
