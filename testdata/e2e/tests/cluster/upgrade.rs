//! Upgrade and rollback of the release, and an end of the server's pod, while a pod loads the node: each moment is sampled once, and
//! nothing is lost.

use std::net::SocketAddr;
use std::ops::Range;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};
use e2e::sampled_once::{WINDOW, WINDOW_MS, check_sampled_once, number};
use run::http;
use run::wait::wait_for;
use serde_json::{Value, json};

use crate::release::{
    NAMESPACE, RELEASE, STORED_TIMEOUT, apply, helm, kubectl, now_ms, wait_for_rollout,
};
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
    // Idle processors too, so that each moment counts; and a place for the lock, which the old one lacks.
    let window = format!("--set=collector.flags.window={WINDOW}");
    let values = [
        "--set=collector.flags.label=measured=yes",
        "--set=collector.flags.include-idle=true",
        window.as_str(),
        "--set=collector.cache.hostPath=/var/lib/kubelet/pilotlight",
    ];
    helm("upgrade", &values)?;
    wait_for_rollout()?;
    let revision = current_revision()?;
    let next_tag = format!("--set=image.tag={NEXT_TAG}");
    let next = [&next_tag, "--set=collector.flags.name-cpu=10"];
    helm("upgrade", &[&values[..], &next].concat())?;
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
/// collectors that sample idle processors.
fn check_stored(http: SocketAddr, begun_ms: u64) -> Result<()> {
    let processors = available_parallelism().context("failed to count the processors")?;
    let processors = processors.get() as u64;
    // The third collector samples now, since the second one's pod is gone. So it has the window that ends next.
    let end_ms = (now_ms()? / WINDOW_MS + 1) * WINDOW_MS;
    let measured = |range: Range<u64>| ask_account(http, r#"{measured="yes"}"#, &range);
    let all = wait_for("the last windows", STORED_TIMEOUT, || {
        // The service leads to the server's new pod some time after the pod is ready.
        let Ok(all) = measured(begun_ms..end_ms) else {
            return Ok(None);
        };
        Ok((number(&all, "end_ms")? >= end_ms).then_some(all))
    })?;
    let range = number(&all, "first_ms")?..end_ms;
    let gaps = check_sampled_once(&range, processors, measured)?;
    println!("not sampled in the windows with a hand-over: {gaps:?} ms");
    ensure!(all["instances"] == 3, "two roll-outs, but: {all}");
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
