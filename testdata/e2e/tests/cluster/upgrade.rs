//! Upgrade and rollback of the release, and an end of the server's pod, while a pod loads the node: each moment is sampled once, and
//! nothing is lost.

use std::net::SocketAddr;
use std::ops::Range;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};
use e2e::sampled_once::{WINDOW, WINDOW_MS, check_sampled_once, number};
use e2e::wait::wait_for_answer;
use run::http;
use serde_json::{Value, json};

use crate::release::{NAMESPACE, RELEASE, apply, helm, kubectl, now_ms, wait_for_rollout};
use crate::tools::{ask_tool, run_script};

/// A pod that keeps a processor busy until it is deleted.
const LOAD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: load, namespace: profiling}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: burn, image: "local/workload:1", args: ["3600"]}]
"#;

/// Other names of the images: a new image for the kubelet.
const NEXT_TAG: &str = "next";

/// Check it, with the server at this address.
pub(crate) fn check(http: SocketAddr) -> Result<()> {
    let tag = env!("CARGO_PKG_VERSION");
    let names = ["collector", "server"].map(|program| {
        let image = format!("localhost/pilotlight-{program}");
        format!("{image}:{tag}={image}:{NEXT_TAG}")
    });
    run_script("testdata/cluster/load", &names)?;
    apply(LOAD)?;
    let begun_ms = now_ms()?;
    // Idle processors too, so that each moment counts; and a place for the lock, which the old one lacks. A label tells whose samples
    // they are.
    let window = format!("--set=collector.flags.window={WINDOW}");
    let values = [
        "--set=collector.flags.include-idle=true",
        window.as_str(),
        "--set=collector.cache.hostPath=/var/lib/kubelet/pilotlight",
    ];
    let first = ["--set=collector.flags.label=release=first"];
    helm("upgrade", &[&values[..], &first].concat())?;
    wait_for_rollout()?;
    let revision = current_revision()?;
    let next_tag = format!("--set=image.tag={NEXT_TAG}");
    let second = [&next_tag, "--set=collector.flags.label=release=second"];
    helm("upgrade", &[&values[..], &second].concat())?;
    wait_for_rollout()?;
    ask_tool(&[
        "helm",
        "rollback",
        RELEASE,
        &revision,
        "--namespace",
        NAMESPACE,
    ])?;
    wait_for_rollout()?;
    kubectl(&["delete", "pod", "pilotlight-server-0"])?;
    wait_for_rollout()?;

    check_stored(http, begun_ms)?;
    kubectl(&["delete", "pod", "load"]).map(drop)
}

fn current_revision() -> Result<String> {
    let status = ask_tool(&[
        "helm",
        "status",
        RELEASE,
        "--namespace",
        NAMESPACE,
        "--output=json",
    ])?;
    let status: Value = serde_json::from_str(&status).context("helm's status has another form")?;
    Ok(number(&status, "version")?.to_string())
}

/// Check that no window is missing since the beginning, that no sample was dropped, and that each moment was sampled once by the
/// collectors of the first release, of the second one, and of the first one again.
fn check_stored(http: SocketAddr, begun_ms: u64) -> Result<()> {
    let processors = available_parallelism().context("failed to count the processors")?;
    // The third collector samples now, since the second one's pod is gone. So it has the window that ends next.
    let end_ms = (now_ms()? / WINDOW_MS + 1) * WINDOW_MS;
    let (first, second) = (r#"{release="first"}"#, r#"{release="second"}"#);
    // The service leads to the server's new pod some time after the pod is ready.
    wait_for_answer("the last windows", || {
        let all = ask_account(http, first, &(begun_ms..end_ms))?;
        Ok((number(&all, "end_ms")? >= end_ms).then_some(()))
    })?;
    let second = ask_account(http, second, &(begun_ms..end_ms))?;
    let turn_ms = number(&second, "first_ms")?;
    let accounts = [
        ask_account(http, first, &(begun_ms..turn_ms))?,
        second,
        ask_account(http, first, &(turn_ms..end_ms))?,
    ];
    let gaps = check_sampled_once(&accounts, processors.get() as u64)?;
    println!("not sampled while collectors were replaced: {gaps:?} ms");
    let node = ask_account(http, "{}", &(begun_ms..now_ms()?))?;
    ensure!(
        node["missing_windows"] == 0 && node["dropped"] == json!({}),
        "something was lost: {node}"
    );
    Ok(())
}

/// The account of the only node.
fn ask_account(http: SocketAddr, query: &str, range: &Range<u64>) -> Result<Value> {
    let (from, to) = (range.start.to_string(), range.end.to_string());
    let parameters = [("query", query), ("from", &from), ("to", &to)];
    let mut answer = http::get_json(http, "/api/v1/nodes", &parameters)?;
    Ok(answer["nodes"][0].take())
}
