//! The whole server in one process, over a temporary directory and two loopback ports: windows go in over gRPC, and
//! answers come out over HTTP.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::io::Read;

use flate2::read::GzDecoder;
use model::text::window_at;
use model::{ContainerAccount, ContainerUsage, LabelSet};
use pprof::protos::{Message, Profile, Sample};
use proto::v1;
use running::Running;
use serde_json::{Value, json};
use test_push::push_request;

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
    comm=sort,node=a | main 0x1f@/lib/libb.so | 5
";

/// A server with two windows of 10 s: the text, and 10 s later the text again.
async fn filled() -> (Running, i64) {
    let server = Running::start().await;
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
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
        (&json!("a"), &json!(2), &json!(3), &json!(40), &json!(0)),
    );
    // The second collector started before, by its ninth window.
    assert_eq!(node["overlap_ns"], json!(200_000_000));
    assert_eq!(node["outcomes"], json!({"complete": 40}));
}

/// An account of a container of the node `a`, in milliseconds.
fn account(id: &str, kernel_ms: u64, throttled_ms: u64, unread_ms: u64) -> ContainerAccount {
    const MS: u64 = 1_000_000;
    ContainerAccount {
        labels: LabelSet::from_sorted([("container_id", id), ("node", "a")]).unwrap(),
        usage: ContainerUsage {
            kernel_ns: kernel_ms * MS,
            throttled_ns: throttled_ms * MS,
            unread_ns: unread_ms * MS,
            excluded_samples: u64::from(id == "excluded") * 8,
        },
    }
}

/// Check that the kernel's accounts of containers are summed up beside the samples of all their series, that one without samples has
/// an account and no series, that windows without accounts do not count, and that all of it survives a restart and a lost catalog.
#[tokio::test(flavor = "multi_thread")]
async fn containers_have_two_accounts() {
    let server = Running::start().await;
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
    let text = "
        comm=sh,container_id=cart,node=a | main | 30
        comm=cart,container_id=cart,exe=/bin/cart,node=a | main work | 70
        comm=db,container_id=db,node=a | main | 25
        comm=bash,node=a | main | 9
    ";
    for sequence in 1..=3 {
        let mut window = window_at(text, start_ms + 10_000 * (sequence as i64 - 1), sequence);
        window.head.account.stolen_ns = 5;
        // A collector that does not read accounts sent the first.
        if sequence > 1 {
            window.containers = vec![
                account("cart", 1010, 0, 0),
                account("db", 100, 40, 150),
                account("excluded", 80, 0, 0),
            ];
        }
        server.push(push_request(&window)).await.unwrap();
    }
    let server = server.restart().await;
    let answer = server.json("/api/v1/containers").await;
    assert_eq!(
        (&answer["count"], &answer["stolen_ns"]),
        (&json!(3), &json!(10))
    );
    let [cart, db, excluded] = answer["containers"].as_array().unwrap().as_slice() else {
        panic!("{answer}");
    };
    assert_eq!(
        *excluded,
        json!({
            "labels": {"container_id": "excluded", "node": "a"}, "samples": 0, "sampled_ns": 0, "kernel_ns": 160_000_000,
            "ratio": null, "ratio_deviation": null, "throttled_ns": 0, "unread_ns": 0, "excluded_samples": 16,
        })
    );
    let number = |value: &Value| value.as_f64().unwrap();
    assert_eq!(
        (&cart["samples"], &cart["kernel_ns"]),
        (&json!(200), &json!(2_020_000_000_u64))
    );
    assert!((number(&cart["ratio"]) - 2.0 / 2.02).abs() < 1e-9, "{cart}");
    assert!(
        (number(&cart["ratio_deviation"]) - 0.07).abs() < 1e-3,
        "{cart}"
    );
    // 500 ms were sampled, of which the kernel's account lacks 300.
    assert_eq!(
        (&db["ratio"], &db["throttled_ns"]),
        (&json!(1.0), &json!(80_000_000))
    );
    assert_eq!(answer["total"]["kernel_ns"], json!(2_380_000_000_u64));

    let one = server
        .json("/api/v1/containers?query={container_id=%22db%22}")
        .await;
    assert_eq!((&one["containers"][0], &one["count"]), (db, &json!(1)));
    let cut = server.json("/api/v1/containers?limit=1").await;
    assert_eq!(
        (&cut["containers"][0], &cut["rest"]["kernel_ns"]),
        (cart, &json!(360_000_000))
    );
    for (sort, expected) in [
        ("kernel", [cart, db, excluded]),
        ("sampled", [cart, db, excluded]),
        ("ratio", [db, cart, excluded]),
        ("throttled", [db, cart, excluded]),
        ("excluded", [excluded, cart, db]),
    ] {
        let sorted = server
            .json(&format!("/api/v1/containers?sort={sort}"))
            .await;
        assert_eq!(sorted["containers"], json!(expected), "{sort}");
    }
    let values = server.json("/api/v1/label/container_id/values").await;
    assert_eq!(
        values["values"],
        json!(["cart", "db"]),
        "an account is no series"
    );
    let nodes = server.json("/api/v1/nodes").await;
    assert_eq!(nodes["nodes"][0]["stolen_ns"], json!(15));

    let server = server
        .restart_after(|folder| std::fs::remove_dir_all(folder.join("catalog")).unwrap())
        .await;
    assert_eq!(server.json("/api/v1/containers").await, answer);
}

/// Check that a node that reports is listed with its last report, also one that has sent no window and after a restart, and
/// that ranges before its first report and other nodes' selectors leave it out.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_cannot_sample_are_listed() {
    let (server, _) = filled().await;
    let report = |node: &str, state: v1::NodeState| v1::ReportRequest {
        collector_instance: vec![5; 16],
        node: node.into(),
        version: "9.8.7".into(),
        kernel: "6.1.0".into(),
        state: state.into(),
        reason: "CAP_BPF is missing".into(),
        checks: vec![v1::NodeCheck {
            name: "CAP_BPF".into(),
            outcome: v1::CheckOutcome::Failed.into(),
            found: "missing".into(),
            effect: "no sampling".into(),
            remedy: "add it".into(),
        }],
        policy_revision: "12".into(),
        policy: Some(v1::PolicyReport {
            state: v1::PolicyState::Last.into(),
            reason: "the file is gone".into(),
            excluded: vec![v1::ExcludedPod {
                namespace: "shop".into(),
                pod: "cart".into(),
                rule: "default: deny".into(),
            }],
            excluded_count: 3,
        }),
    };
    for (node, state) in [
        ("a", v1::NodeState::Sampling),
        ("b", v1::NodeState::Starting),
        ("b", v1::NodeState::CannotSample),
    ] {
        let mut client = server.client().await;
        client.report(report(node, state)).await.unwrap();
    }
    let mut nobody = report("", v1::NodeState::Sampling);
    nobody.collector_instance.clear();
    let refused = server.client().await.report(nobody).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);

    let server = server.restart().await;
    let nodes = server.json("/api/v1/nodes").await;
    let [a, b] = nodes["nodes"].as_array().unwrap().as_slice() else {
        panic!("{nodes}");
    };
    assert_eq!(
        (&a["status"], &a["windows"]),
        (&json!("sampling"), &json!(2))
    );
    assert_eq!(
        (&b["status"], &b["windows"]),
        (&json!("cannot_sample"), &json!(0))
    );
    let mut told = b["report"].clone();
    assert!(told["received_ms"].take().as_i64().is_some());
    let check = json!({
        "name": "CAP_BPF", "outcome": "failed", "found": "missing", "effect": "no sampling", "remedy": "add it",
    });
    let excluded = json!({"namespace": "shop", "pod": "cart", "rule": "default: deny"});
    let policy = json!({
        "state": "last", "reason": "the file is gone", "excluded": [excluded], "excluded_count": 3,
    });
    assert_eq!(
        told,
        json!({
            "received_ms": null, "version": "9.8.7", "kernel": "6.1.0", "state": "cannot_sample",
            "reason": "CAP_BPF is missing", "policy_revision": "12", "checks": [check], "policy": policy,
        })
    );
    for (query, expected) in [
        ("/api/v1/nodes?query={node=%22b%22}", 1),
        ("/api/v1/nodes?query={comm=%22sort%22}", 1),
        ("/api/v1/nodes?from=0&to=1000", 0),
    ] {
        let nodes = server.json(query).await;
        let listed = nodes["nodes"].as_array().unwrap().len();
        assert_eq!(listed, expected, "{query}: {nodes}");
    }
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
        "covered_ms": [0, 10_000, 10_000],
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
    assert_eq!(graph["shown_nodes"], json!(6));

    let below = server
        .json("/api/v1/flamegraph?path=[\"main\",\"parse\"]")
        .await;
    assert_eq!(below["nodes"]["samples"], json!([30, 24, 24]));
    assert_eq!(
        (&below["path_total_ns"], &below["total_ns"]),
        (&json!(300_000_000), &json!(400_000_000))
    );
    let cut = server.json("/api/v1/flamegraph?max_nodes=3").await;
    assert_eq!(cut["shown_nodes"], json!(3));
    assert_eq!(
        (&cut["nodes"]["frame"], &cut["nodes"]["cut"]),
        (&json!([-1, 0, -2]), &json!({"2": 2}))
    );
    let none = server
        .json(&format!("/api/v1/flamegraph?to={start_ms}"))
        .await;
    assert_eq!(
        (&none["total_ns"], &none["shown_nodes"]),
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

/// Check that the report on stacks adds up, has the collector's tags, and loses nothing beyond the limit.
#[tokio::test(flavor = "multi_thread")]
async fn stacks_are_reported_by_outcome_by_file_and_by_comparison() {
    let server = Running::start().await;
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
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
        "stops": {"count": 3, "rest": null, "functions": [
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
    assert_eq!(cut["stops"]["count"], json!(3));
    assert_eq!(
        cut["stops"]["rest"],
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
    let pprof = server.get("/api/v1/pprof?query={}").await;
    assert_eq!(pprof.status, 200);
    let labels = read_labels(&pprof.body);
    assert!(
        labels.contains(&("check".into(), "differed".into())),
        "{labels:?}"
    );
}

fn read_profile(body: &[u8]) -> Profile {
    let mut bytes = Vec::new();
    GzDecoder::new(body).read_to_end(&mut bytes).unwrap();
    Profile::decode(bytes.as_slice()).unwrap()
}

/// The text labels of a gzipped pprof's samples.
fn read_labels(body: &[u8]) -> std::collections::BTreeSet<(String, String)> {
    let profile = read_profile(body);
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
    let pprof = server.get("/api/v1/pprof?query={}").await;
    assert_eq!(pprof.status, 200);
    assert_eq!(
        pprof.body,
        server.get("/api/v1/pprof?query={}").await.body,
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
        "pilotlight_server_blocks 1",
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

/// Check that the page and the API answer below a path prefix as at the root, that the page gets the slash which its relative URLs
/// need, and that requests are counted by their routes.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_prefix() {
    let server = Running::start_with(&["--path-prefix=/team/profiles"]).await;
    for path in ["/team/profiles/api/v1/labels", "/api/v1/labels"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let [below, root] = ["/team/profiles/", "/"].map(|path| server.get(path));
    assert_eq!(below.await.body, root.await.body);
    let alone = server.get("/team/profiles?query=%7B%7D").await;
    assert_eq!(alone.status, 307);
    assert_eq!(alone.header("location"), "/team/profiles/?query=%7B%7D");
    assert_eq!(alone.header("x-content-type-options"), "nosniff");
    for path in ["/team/profiles/api/v1/nothing", "/team/profiles2/", "/team"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    let metrics = server.get("/metrics").await.text();
    let counted = "pilotlight_server_queries_total{route=\"/api/v1/labels\",status=\"200\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

/// Check that each invalid request gets a status and an error that name the mistake.
#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named() {
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
    for (path, status, text) in [
        (
            "from=now-5m",
            400,
            "query: the selector is missing; write query={}",
        ),
        (
            "query={comm=~\"rus.+\"}",
            404,
            "the selection {comm=~\"rus. \"} has no samples",
        ),
        ("query={comm=~\"rus.+\"}", 404, "write %2B"),
    ] {
        let path = format!("/api/v1/pprof?{path}");
        let response = server.get_as(&path, "Go-http-client/1.1").await;
        assert_eq!(response.status, status, "{path}");
        assert!(response.text().contains(text), "{}", response.text());
    }
}

/// Check that the status has what is stored, and the limits of a new directory.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_is_kept() {
    let (server, start_ms) = filled().await;
    let kept = &server.json("/api/v1/status").await["kept"];
    assert_eq!(kept["age_ms"], json!(30 * 86_400_000_i64));
    assert!(kept["bytes_max"].as_u64().unwrap() > 0, "{kept}");
    assert!(kept["bytes"].as_u64().unwrap() > 0, "{kept}");
    let oldest_ms = kept["oldest_ms"].as_i64().unwrap();
    assert!(
        (start_ms - 3_600_000..=start_ms).contains(&oldest_ms),
        "{kept}"
    );
    assert_eq!(kept["beyond_defaults"], Value::Null);
}

/// The samples of everything: values, labels and stack as text, sorted.
async fn samples(server: &Running) -> Vec<String> {
    let profile = read_profile(&server.get("/api/v1/pprof?query={}").await.body);
    let text = |at: i64| profile.string_table[at as usize].as_str();
    let frame = |id: u64| {
        let location = profile
            .location
            .iter()
            .find(|found| found.id == id)
            .unwrap();
        let lines = location.line.iter().map(|line| {
            let mut functions = profile.function.iter();
            let function = functions.find(|found| found.id == line.function_id);
            format!("{}:{}", text(function.unwrap().name), line.line)
        });
        format!(
            "{:#x} {}",
            location.address,
            lines.collect::<Vec<_>>().join("<")
        )
    };
    let sample = |sample: &Sample| {
        let labels = sample.label.iter();
        let labels = labels.map(|label| format!("{}={}", text(label.key), text(label.str)));
        let stack = sample.location_id.iter().map(|id| frame(*id));
        let texts: Vec<String> = labels.chain(stack).collect();
        format!("{:?} {}", sample.value, texts.join(", "))
    };
    let mut samples: Vec<String> = profile.sample.iter().map(sample).collect();
    samples.sort();
    samples
}

/// Check that a restart changes no sample. Their order may change: the windows are in a segment soon after it.
#[tokio::test(flavor = "multi_thread")]
async fn stored_windows_survive_a_restart() {
    let (server, _) = filled().await;
    let before = samples(&server).await;
    assert_eq!(before.len(), 3, "{before:#?}");
    let server = server.restart().await;
    assert_eq!(samples(&server).await, before);
    assert!(
        server
            .get("/metrics")
            .await
            .text()
            .contains("pilotlight_server_recovery{kind=\"tail_bytes_cut\"} 0")
    );
}

/// Check that versions come with their times and the version before, are selected by workload, also after a restart, and that labels
/// that they do not have are refused with words.
#[tokio::test(flavor = "multi_thread")]
async fn versions_are_listed() {
    let server = Running::start().await;
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
    for sequence in 1..=3 {
        let lines = format!(
            "exe=/bin/cart,image=cart:{sequence},pod=p{sequence},workload=cart | main@/bin/cart | 1
             exe=/usr/bin/sort,node=a | main@/usr/bin/sort | 1"
        );
        let window = window_at(&lines, start_ms + 10_000 * sequence, sequence as u64);
        server.push(push_request(&window)).await.unwrap();
    }
    let at = |sequence: i64| start_ms + 10_000 * sequence;
    let image = |sequence: i64| {
        json!({"labels": {"workload": "cart"}, "kind": "image", "version": format!("cart:{sequence}"),
               "first_ms": at(sequence), "last_ms": at(sequence),
               "after": (sequence > 1).then(|| format!("cart:{}", sequence - 1))})
    };
    let build = json!({"labels": {"exe": "/usr/bin/sort"}, "kind": "build_id", "version": "00ff",
                       "first_ms": at(1), "last_ms": at(3), "after": null});
    let server = server.restart_after(|_| {}).await;
    let since = |answer: &Value| answer["since_ms"].as_i64().unwrap() <= at(1);
    let answer = server.json("/api/v1/versions").await;
    assert_eq!(
        answer["versions"],
        json!([image(3), image(2), image(1), build])
    );
    assert!(since(&answer) && answer["left_out"] == json!(0));
    let answer = server
        .json("/api/v1/versions?query={workload=%22cart%22}&limit=1")
        .await;
    assert_eq!(
        (&answer["versions"], &answer["count"]),
        (&json!([image(3)]), &json!(3))
    );
    let refused = server.get("/api/v1/versions?query={pod=%22p1%22}").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("no label"));
}
