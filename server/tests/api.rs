//! The whole server in one process, over a temporary directory and two loopback ports: windows go in over gRPC, and
//! come out over HTTP.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/profile/text.rs"]
mod text;

use running::Running;
use serde_json::{Value, json};
use text::{push_request, window_at};

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
    comm=sort,node=a | main 0x1f@/lib/libb.so | 5
";

/// A server with two windows of 10 s: the text, and 10 s later the text again.
async fn filled() -> (Running, i64) {
    let server = Running::start().await;
    let start_ms = server::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
    for sequence in 1..=2 {
        let window = window_at(TEXT, start_ms + 10_000 * (sequence as i64 - 1), sequence);
        assert!(!server.push(push_request(&window)).await.unwrap().duplicate);
    }
    (server, start_ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_stored_once_and_a_second_collector_is_kept_apart() {
    let (server, start_ms) = filled().await;
    let mut again = window_at(TEXT, start_ms, 1);
    assert!(server.push(push_request(&again)).await.unwrap().duplicate);
    again.head.key.instance = [8; 16];
    again.head.key.sequence = 9;
    assert!(!server.push(push_request(&again)).await.unwrap().duplicate);
    let nodes = server.json("/api/v1/nodes").await;
    let node = &nodes["nodes"][0];
    assert_eq!(
        (
            &node["node"],
            &node["instances"],
            &node["windows"],
            &node["samples"],
            &node["missing_windows"]
        ),
        (&json!("a"), &json!(2), &json!(3), &json!(60), &json!(0)),
    );
    assert_eq!(node["outcomes"], json!({"complete": 60}));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_series_are_listed() {
    let (server, start_ms) = filled().await;
    assert_eq!(
        server.json("/api/v1/labels").await,
        json!({"labels": ["comm", "node"]})
    );
    assert_eq!(
        server.json("/api/v1/label/comm/values").await,
        json!({"values": ["rustc", "sort"]})
    );
    assert_eq!(
        server.json("/api/v1/label/pod/values").await,
        json!({"values": []})
    );
    let expected = json!({"total": 2, "series": [
        {"labels": {"comm": "rustc", "node": "a"}, "samples": 30, "cpu_ns": 300_000_000},
    ]});
    assert_eq!(server.json("/api/v1/series?limit=1").await, expected);
    // A window is in the range when its start is.
    let path = format!(
        "/api/v1/series?from={}&to={}&query={{comm=\"sort\"}}",
        start_ms + 1,
        start_ms + 10_001
    );
    let expected = json!({"total": 1, "series": [{"labels": {"comm": "sort", "node": "a"}, "samples": 5, "cpu_ns": 50_000_000}]});
    assert_eq!(server.json(&path).await, expected);
    let path = format!(
        "/api/v1/label/comm/values?from={}&to={start_ms}",
        start_ms - 10_000
    );
    assert_eq!(server.json(&path).await, json!({"values": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_over_time_has_gaps_where_nothing_was_sent() {
    let (server, start_ms) = filled().await;
    let range = format!("from={}&to={}", start_ms - 10_000, start_ms + 20_000);
    let expected = json!({
        "from_ms": start_ms - 10_000, "to_ms": start_ms + 20_000, "step_ms": 10_000, "unit": "cores",
        "series": [{"labels": {"comm": "rustc"}, "total_ns": 300_000_000, "values": [null, 0.015, 0.015]}],
        "rest": {"count": 1, "total_ns": 100_000_000, "values": [null, 0.005, 0.005]},
    });
    assert_eq!(
        server
            .json(&format!("/api/v1/timeseries?{range}&by=comm&limit=1"))
            .await,
        expected
    );
    let all = server
        .json(&format!("/api/v1/timeseries?{range}&unit=samples&step=30s"))
        .await;
    assert_eq!(all["series"][0]["labels"], json!({}));
    let total: f64 = all["series"][0]["values"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .sum();
    assert_eq!(total, 40.0);
    assert_eq!(all["rest"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flame_graph_has_every_sample() {
    let (server, start_ms) = filled().await;
    let graph = server.json("/api/v1/flamegraph").await;
    let name = |node: usize| {
        let frame = graph["nodes"]["frame"][node].as_i64().unwrap();
        let string = graph["frames"]["name"][usize::try_from(frame).unwrap()]
            .as_u64()
            .unwrap();
        graph["strings"][string as usize]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(graph["nodes"]["depth"], json!([0, 1, 2, 3, 4, 2]));
    assert_eq!(graph["nodes"]["frame"][0], json!(-1));
    let names: Vec<_> = (1..6).map(name).collect();
    assert_eq!(names, ["main", "parse", "inlined", "read", "libb.so+0x1f"]);
    let kind = |node: usize| {
        let frame = graph["nodes"]["frame"][node].as_u64().unwrap();
        graph["frames"]["kind"][frame as usize].as_u64().unwrap()
    };
    assert_eq!((1..6).map(kind).collect::<Vec<_>>(), [0, 0, 2, 1, 3]);
    assert_eq!(graph["nodes"]["samples"], json!([40, 40, 30, 24, 24, 10]));
    assert_eq!(
        graph["nodes"]["self_ns"],
        json!([0, 0, 60_000_000, 0, 240_000_000, 100_000_000])
    );
    assert_eq!(
        (&graph["total_ns"], &graph["samples"]),
        (&json!(400_000_000), &json!(40))
    );
    assert_eq!(graph["complete_ns"], json!(340_000_000));
    assert_eq!(
        graph["outcomes"],
        json!([{"outcome": "truncated", "complete": false, "samples": 6, "cpu_ns": 60_000_000}])
    );
    assert_eq!(graph["kernel_only_ns"], json!(0));
    assert_eq!(
        (&graph["node_count"], &graph["shown_nodes"]),
        (&json!(6), &json!(6))
    );

    let below = server
        .json("/api/v1/flamegraph?path=[\"main\",\"parse\"]")
        .await;
    assert_eq!(below["nodes"]["samples"], json!([30, 24, 24]));
    assert_eq!(
        (&below["path_total_ns"], &below["total_ns"]),
        (&json!(300_000_000), &json!(400_000_000))
    );
    let cut = server.json("/api/v1/flamegraph?max_nodes=3").await;
    assert_eq!(
        (&cut["node_count"], &cut["shown_nodes"]),
        (&json!(6), &json!(3))
    );
    assert_eq!(
        (&cut["nodes"]["frame"], &cut["nodes"]["cut"]),
        (&json!([-1, 0, -2]), &json!({"2": 4}))
    );
    let none = server
        .json(&format!("/api/v1/flamegraph?to={start_ms}"))
        .await;
    assert_eq!(
        (&none["total_ns"], &none["node_count"]),
        (&json!(0), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_listed() {
    let (server, _) = filled().await;
    let top = server.json("/api/v1/top?limit=1").await;
    let expected = json!({"total_ns": 400_000_000, "samples": 40, "count": 5, "functions": [{
        "name": "read", "binary": "[kernel]", "file": "app.c", "kind": 1,
        "self_ns": 240_000_000, "total_ns": 240_000_000, "self_samples": 24, "total_samples": 24,
    }]});
    assert_eq!(top, expected);
    let found = server
        .json("/api/v1/top?sort=total&search=LIBB&query={comm=\"sort\"}")
        .await;
    assert_eq!(
        (&found["count"], &found["total_ns"]),
        (&json!(1), &json!(100_000_000))
    );
}

/// Check that what is said about stacks adds up, that it has what the collector tagged, and that nothing beyond the
/// limit is lost.
#[tokio::test(flavor = "multi_thread")]
async fn stacks_are_reported_by_outcome_by_file_and_by_comparison() {
    let server = Running::start().await;
    let start_ms = server::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
    let text = "
        comm=cart,exe=/bin/cart | main pay | 80 | check=agreed
        comm=cart,exe=/bin/cart | main pay poll@/lib/libz.so | 10 | outcome=copied
        comm=cart,exe=/bin/cart | main [left] pay | 4 | outcome=middle_left_out
        comm=cart,exe=/bin/cart | poll@/lib/libz.so | 3 | outcome=no_rows check=differed
        comm=cart,exe=/bin/cart | pay | 2 | outcome=cut_by_budget
        comm=cart,exe=/bin/cart | pay poll@/lib/libz.so | 1 | outcome=unreadable
        comm=kworker | kthread@[kernel] | 20
        comm=sort,exe=/bin/sort | main | 5 | check=agreed
    ";
    for sequence in 1..=2 {
        let window = window_at(text, start_ms + 10_000 * (sequence as i64 - 1), sequence);
        server.push(push_request(&window)).await.unwrap();
    }
    let outcome = |outcome: &str, complete: bool, samples: u64| json!({"outcome": outcome, "complete": complete, "samples": samples, "cpu_ns": samples * 10_000_000});
    let stop = |name: &str, binary: &str, outcome: &str, samples: u64| json!({"name": name, "binary": binary, "outcome": outcome, "samples": samples, "cpu_ns": samples * 10_000_000});
    let expected = json!({
        "total_ns": 2_500_000_000_u64, "samples": 250,
        "complete_ns": 2_380_000_000_u64, "complete_samples": 238,
        "kernel_only_ns": 400_000_000, "kernel_only_samples": 40,
        "outcomes": [
            outcome("complete", true, 170), outcome("kernel_only", true, 40), outcome("copied", true, 20),
            outcome("middle_left_out", true, 8), outcome("no_rows", false, 6), outcome("cut_by_budget", false, 4),
            outcome("unreadable", false, 2),
        ],
        "incomplete": {"count": 3, "rest": null, "functions": [
            stop("poll", "/lib/libz.so", "no_rows", 6), stop("pay", "/bin/app", "cut_by_budget", 4), stop("pay", "/bin/app", "unreadable", 2),
        ]},
        "by_binary": {"count": 2, "rest": null, "binaries": [
            {"binary": "/bin/app", "samples": 6, "cpu_ns": 60_000_000, "through_samples": 204, "through_ns": 2_040_000_000_u64,
             "outcomes": [outcome("cut_by_budget", false, 4), outcome("unreadable", false, 2)]},
            {"binary": "/lib/libz.so", "samples": 6, "cpu_ns": 60_000_000, "through_samples": 28, "through_ns": 280_000_000,
             "outcomes": [outcome("no_rows", false, 6)]},
        ]},
        "checks": {"agreed": 170, "differed": 6, "count": 2, "rest": null, "programs": [
            {"exe": "/bin/cart", "agreed": 160, "differed": 6}, {"exe": "/bin/sort", "agreed": 10, "differed": 0},
        ]},
    });
    assert_eq!(server.json("/api/v1/stacks").await, expected);
    let graph = server.json("/api/v1/flamegraph").await;
    for field in ["total_ns", "samples", "complete_ns", "kernel_only_ns"] {
        assert_eq!(graph[field], expected[field], "{field}");
    }

    let cut = server.json("/api/v1/stacks?limit=1").await;
    assert_eq!(cut["incomplete"]["count"], json!(3));
    assert_eq!(
        cut["incomplete"]["rest"],
        json!({"count": 2, "samples": 6, "cpu_ns": 60_000_000})
    );
    assert_eq!(
        cut["by_binary"]["rest"],
        json!({"count": 1, "samples": 6, "cpu_ns": 60_000_000})
    );
    assert_eq!(
        cut["checks"]["rest"],
        json!({"count": 1, "agreed": 10, "differed": 0})
    );
    let one = server.json("/api/v1/stacks?query={comm=\"sort\"}").await;
    assert_eq!(
        (&one["samples"], &one["checks"]["agreed"]),
        (&json!(10), &json!(10))
    );
    assert_eq!(one["by_binary"]["binaries"], json!([]));
    let none = server.json("/api/v1/stacks?query={comm=\"nothing\"}").await;
    assert_eq!(
        (&none["samples"], &none["outcomes"]),
        (&json!(0), &json!([]))
    );

    // The comparison is kept as a label of the samples.
    let pprof = server.get("/api/v1/pprof").await;
    assert_eq!(pprof.status, 200);
    let labels = read_labels(&pprof.body);
    assert!(
        labels.contains(&("check".into(), "differed".into())),
        "{labels:?}"
    );
}

/// The text labels of a gzipped pprof's samples.
fn read_labels(body: &[u8]) -> std::collections::BTreeSet<(String, String)> {
    use pprof::protos::Message;
    use std::io::Read;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(body)
        .read_to_end(&mut bytes)
        .unwrap();
    let profile = pprof::protos::Profile::decode(bytes.as_slice()).unwrap();
    let text = |at: i64| profile.string_table[at as usize].clone();
    profile
        .sample
        .iter()
        .flat_map(|sample| &sample.label)
        .map(|label| (text(label.key), text(label.str)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_forms_have_the_same_samples() {
    let (server, _) = filled().await;
    let folded = server.get("/api/v1/folded").await;
    let expected = "main;parse 6\nmain;parse;inlined;read 24\nmain;libb.so+0x1f 10\n";
    assert_eq!((folded.status, folded.text().as_str()), (200, expected));
    let svg = server
        .get("/api/v1/flamegraph.svg?title=a%3Cb&width=800")
        .await;
    assert_eq!(svg.status, 200);
    assert!(svg.header("content-security-policy").contains("sandbox"));
    assert!(svg.text().contains("libb.so+0x1f"));
    let pprof = server.get("/api/v1/pprof").await;
    assert_eq!(pprof.status, 200);
    assert_eq!(
        pprof.body,
        server.get("/api/v1/pprof").await.body,
        "the same query gives the same bytes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_tells_about_itself() {
    let (server, _) = filled().await;
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(server.get("/readyz").await.text(), "ready\n");
    server.get("/api/v1/top?limit=x").await;
    let metrics = server.get("/metrics").await.text();
    for line in [
        "pilotlight_server_windows_total{result=\"stored\"} 2",
        "pilotlight_server_rows_total 6",
        "pilotlight_server_queries_total{route=\"/api/v1/top\",status=\"400\"} 1",
        "pilotlight_server_series 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'none'")
    );
    assert_eq!(server.get("/api/v1/nothing").await.status, 404);
}

/// Check that each nonsensical request gets the status and the error that say what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let (server, _) = filled().await;
    let table = include_str!("errors.txt");
    let mut checked = 0;
    for case in table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (path, expected) = case.split_once(" -> ").unwrap();
        let response = server.get(path).await;
        let body: Value =
            serde_json::from_slice(&response.body).unwrap_or_else(|err| panic!("{path}: {err}"));
        let error = &body["error"];
        let mut line = format!("{} {}", response.status, error["kind"].as_str().unwrap());
        if let Some(parameter) = error["parameter"].as_str() {
            line += &format!(" {parameter}");
        }
        if let Some(position) = error["position"].as_u64() {
            line += &format!("@{position}");
        }
        line += &format!(": {}", error["message"].as_str().unwrap());
        assert_eq!(line, expected, "{path}");
        checked += 1;
    }
    assert!(checked > 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_tool_gets_errors_as_text() {
    let (server, _) = filled().await;
    let response = server
        .get_as("/api/v1/pprof?query={comm=}", "Go-http-client/1.1")
        .await;
    assert_eq!(
        (response.status, response.header("x-go-pprof").as_str()),
        (400, "1")
    );
    assert_eq!(
        response.text(),
        "query: expected a quoted value at character 6, near \"}\""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_survives_a_restart() {
    let (server, _) = filled().await;
    let before = server.get("/api/v1/pprof").await.body;
    let server = server.restart().await;
    assert_eq!(server.get("/api/v1/pprof").await.body, before);
    assert!(
        server
            .get("/metrics")
            .await
            .text()
            .contains("pilotlight_server_recovery{kind=\"tails_cut\"} 0")
    );
}
