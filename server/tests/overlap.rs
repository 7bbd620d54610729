//! Two collectors of one node: what both sampled counts once, on all routes alike, and the answers say so.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use model::text::window_at;
use model::{ContainerAccount, ContainerUsage, LabelSet, Window};
use running::Running;
use serde_json::{Value, json};
use test_push::push_request;

const SAMPLE_NS: u64 = 10_000_000;

/// Every route that answers with JSON about the samples of a selection.
const ROUTES: [&str; 10] = [
    "labels",
    "label/comm/values",
    "series",
    "timeseries",
    "flamegraph",
    "top",
    "lines?function=main",
    "stacks",
    "unknown",
    "containers",
];

fn path(route: &str, from_ms: i64, to_ms: i64) -> String {
    let separator = if route.contains('?') { '&' } else { '?' };
    format!("/api/v1/{route}{separator}from={from_ms}&to={to_ms}")
}

/// The start of an hour that ended, so that windows lie at both sides of it.
fn hour_ms() -> i64 {
    let now_ms = server::serve::http::routes::now_ms();
    now_ms - now_ms % 3_600_000 - 3_600_000
}

fn window(instance: u8, sequence: u64, start_ms: i64, window_ms: i64, lines: &str) -> Window {
    let mut window = window_at(lines, start_ms, sequence);
    window.head.key.instance = [instance; 16];
    window.head.window_ms = window_ms;
    window.containers = vec![ContainerAccount {
        labels: LabelSet::from_sorted([("node", "a"), ("pod", "p")]).unwrap(),
        usage: ContainerUsage {
            kernel_ns: SAMPLE_NS,
            ..ContainerUsage::default()
        },
    }];
    window
}

/// The samples of a range by each route, which must be the same.
async fn samples(server: &Running, from_ms: i64, to_ms: i64) -> u64 {
    let number = |value: &Value| value.as_u64().unwrap();
    let ask = async |route: &str| server.json(&path(route, from_ms, to_ms)).await;
    let graph = ask("flamegraph").await;
    let top = ask("top").await;
    let stacks = ask("stacks").await;
    let unknown = ask("unknown").await;
    let series = ask("series?limit=9").await;
    let lines = ask("timeseries?limit=9&unit=samples&by=comm").await;
    let nodes = ask("nodes").await;
    let containers = ask("containers").await;
    let folded = server.get(&path("folded", from_ms, to_ms)).await.text();
    let of_series = series["series"].as_array().unwrap().iter();
    let of_series = of_series
        .map(|entry| number(&entry["samples"]))
        .sum::<u64>();
    let of_lines = lines["series"].as_array().unwrap().iter();
    let of_lines = of_lines
        .map(|entry| number(&entry["total_ns"]))
        .sum::<u64>();
    let of_folded = folded.lines();
    let of_folded = of_folded.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    let pprof = server.get(&path("pprof?query={}", from_ms, to_ms)).await;
    let samples = number(&graph["samples"]);
    let all = [
        number(&top["samples"]),
        number(&stacks["samples"]),
        number(&unknown["samples"]),
        of_series,
        of_lines / SAMPLE_NS,
        number(&nodes["nodes"][0]["samples"]),
        number(&nodes["nodes"][0]["sampled_ns"]) / SAMPLE_NS,
        number(&containers["total"]["samples"]),
        of_folded.sum(),
        sum_pprof(&pprof.body),
    ];
    assert_eq!(all, [samples; 10]);
    samples
}

fn sum_pprof(gzipped: &[u8]) -> u64 {
    use pprof::protos::Message as _;
    use std::io::Read as _;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(gzipped)
        .read_to_end(&mut bytes)
        .unwrap();
    let profile = pprof::protos::Profile::decode(bytes.as_slice()).unwrap();
    profile
        .sample
        .iter()
        .map(|sample| sample.value[0] as u64)
        .sum()
}

/// The CPU time that is left out and that counts twice, by each route, as numbers of samples.
async fn overlap(server: &Running, from_ms: i64, to_ms: i64) -> [u64; 2] {
    let mut found = Vec::new();
    for route in ROUTES {
        let answer = server.json(&path(route, from_ms, to_ms)).await;
        let number = |name: &str| answer.get(name).map_or(0, |value| value.as_u64().unwrap());
        found.push([number("overlap_ns"), number("overlap_kept_ns")]);
    }
    let nodes = server.json(&path("nodes", from_ms, to_ms)).await;
    let number = |name: &str| nodes["nodes"][0][name].as_u64().unwrap();
    found.push([number("overlap_ns"), number("overlap_kept_ns")]);
    found.dedup();
    assert_eq!(found.len(), 1, "{found:?}");
    for file in ["folded", "flamegraph.svg", "pprof?query={}"] {
        let header = server
            .get(&path(file, from_ms, to_ms))
            .await
            .header("pilotlight-overlap");
        let expected = match found[0][0] {
            0 => String::new(),
            ns => format!("{ns} ns"),
        };
        assert_eq!(header, expected, "{file}");
    }
    found[0].map(|ns| ns / SAMPLE_NS)
}

/// Check that of two collectors the one that started later counts, that a window of which the other has a part counts whole, and that
/// the answers about the parts of a range add up; in blocks, and in segments after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_collectors_sampled_counts_once() {
    let mut server = Running::start().await;
    let hour_ms = hour_ms();
    let at = |seconds: i64| hour_ms + 1000 * seconds;
    // The older one samples from before the hour on, the later one begins at -14 s.
    let older = "comm=sort,node=a,pod=p | main old | 10\ncomm=gone,node=a,pod=p | main | 1";
    let later = "comm=sort,node=a,pod=p | main new | 20";
    for window in [
        window(
            1,
            500,
            at(-30),
            10_000,
            "comm=sort,node=a,pod=p | main first | 3",
        ),
        window(
            1,
            501,
            at(-20),
            10_000,
            "comm=sort,node=a,pod=p | main part | 5",
        ),
        window(1, 502, at(-10), 10_000, older),
        window(1, 503, at(0), 10_000, older),
        window(1, 504, at(10), 4_000, older),
        window(2, 1, at(-14), 4_000, later),
        window(2, 2, at(-10), 10_000, later),
        window(2, 3, at(0), 10_000, later),
        window(2, 4, at(10), 10_000, later),
    ] {
        server.push(push_request(&window)).await.unwrap();
    }
    for is_restarted in [false, true] {
        if is_restarted {
            server = server.restart().await;
        }
        let (from_ms, to_ms) = (at(-60), at(60));
        assert_eq!(samples(&server, from_ms, to_ms).await, 3 + 5 + 4 * 20);
        // Of the window at -20 s, 4 of 10 s.
        assert_eq!(overlap(&server, from_ms, to_ms).await, [33, 2]);
        for edge_ms in [at(-10), at(0), at(10)] {
            let before = samples(&server, from_ms, edge_ms).await;
            assert_eq!(before + samples(&server, edge_ms, to_ms).await, 88);
        }
        // The windows that cover these are not in the range.
        let answer = server.json(&path("label/comm/values", at(1), at(11))).await;
        assert_eq!(answer["values"], json!(["sort"]));
        assert_eq!(samples(&server, at(-15), at(-13)).await, 20);
        let folded = server.get(&path("folded", from_ms, to_ms)).await.text();
        assert!(!folded.contains("old"), "{folded}");
        let nodes = server.json(&path("nodes", from_ms, to_ms)).await;
        let node = &nodes["nodes"][0];
        assert_eq!(
            (&node["instances"], &node["windows"]),
            (&json!(2), &json!(9))
        );
        assert_eq!(node["missing_windows"], 0);
    }
}

/// Check that a collector that begins where another ends leaves nothing out.
#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_leaves_nothing_out() {
    let server = Running::start().await;
    let hour_ms = hour_ms();
    let at = |seconds: i64| hour_ms + 1000 * seconds;
    for window in [
        window(1, 7, at(-10), 10_000, "comm=a,node=a,pod=p | main | 3"),
        window(1, 8, at(0), 4_321, "comm=a,node=a,pod=p | main | 5"),
        window(2, 1, at(0) + 4_321, 2_000, "comm=a,node=a,pod=p | main | 7"),
        window(2, 2, at(0) + 6_321, 3_679, "comm=a,node=a,pod=p | main | 9"),
    ] {
        server.push(push_request(&window)).await.unwrap();
    }
    assert_eq!(samples(&server, at(-60), at(60)).await, 24);
    assert_eq!(overlap(&server, at(-60), at(60)).await, [0, 0]);
    let answer = server.json(&path("flamegraph", at(-60), at(60))).await;
    assert!(answer.get("overlap_ns").is_none(), "{answer}");
}
