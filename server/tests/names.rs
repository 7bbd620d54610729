//! Frames that the nodes could not name, named by the server in a query.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../query/src/names/table.rs"]
mod table;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::io::Read;
use std::sync::Arc;

use model::text::window_at;
use pprof::protos::{Message, Profile};
use running::Running;
use serde_json::{Value, json};
use table::NameTable;
use test_push::push_request;

const TEXT: &str = "
    comm=cart,node=a | main 0x1f@/lib/libb.so 0x2f@/lib/libb.so | 12
    comm=cart,node=a | main | 8
    comm=cart,node=a | 0x1f@/lib/libb.so | 3 | outcome=no_rows
";

/// A server with a window with unnamed frames, and its source of names.
async fn filled() -> (Running, Arc<NameTable>) {
    let names = Arc::new(NameTable::default());
    let server = Running::start_with_names(Arc::clone(&names) as _).await;
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
    let window = window_at(TEXT, start_ms, 1);
    server.push(push_request(&window)).await.unwrap();
    (server, names)
}

fn learn(names: &NameTable) {
    names.insert("00ff", 0x1f, &[("outer", "b.c", 11)]);
    names.insert("00ff", 0x2f, &[("inlined", "b.h", 7), ("leaf", "b.c", 21)]);
}

async fn folded(server: &Running) -> String {
    server.get("/api/v1/folded").await.text()
}

async fn profile(server: &Running) -> Profile {
    let body = server.get("/api/v1/pprof?query={}").await.body;
    let mut bytes = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(body.as_slice());
    gzip.read_to_end(&mut bytes).unwrap();
    Profile::decode(bytes.as_slice()).unwrap()
}

/// Check that an earlier profile has the names of an upload in each form of answer, and loses them when the upload is
/// removed.
#[tokio::test(flavor = "multi_thread")]
async fn profiles_from_before_an_upload_get_their_names() {
    let (server, names) = filled().await;
    let before = "main 8\nmain;libb.so+0x1f;libb.so+0x2f 12\nlibb.so+0x1f 3\n";
    assert_eq!(folded(&server).await, before);
    learn(&names);
    let after = "main 8\nmain;outer;leaf;inlined 12\nouter 3\n";
    assert_eq!(folded(&server).await, after);

    let top = server.json("/api/v1/top").await;
    let function = |name: &str| -> Value {
        let functions = top["functions"].as_array().unwrap().iter();
        functions
            .clone()
            .find(|f| f["name"] == name)
            .unwrap_or_else(|| panic!("no {name}: {top}"))
            .clone()
    };
    let inlined = function("inlined");
    assert_eq!(
        (&inlined["file"], &inlined["kind"], &inlined["self_samples"]),
        (&json!("b.h"), &json!(2), &json!(12))
    );
    assert_eq!(
        (
            &function("leaf")["total_samples"],
            &function("outer")["total_samples"]
        ),
        (&json!(12), &json!(15))
    );
    let searched = server.json("/api/v1/top?search=inlin").await;
    assert_eq!(searched["count"], json!(1));
    let graph = server
        .json("/api/v1/flamegraph?path=[\"main\",\"outer\"]")
        .await;
    assert_eq!(graph["nodes"]["samples"], json!([12, 12, 12]));
    let stacks = server.json("/api/v1/stacks").await;
    assert_eq!(stacks["stops"]["functions"][0]["name"], json!("outer"));
    let svg = server.get("/api/v1/flamegraph.svg").await.text();
    assert!(svg.contains("inlined") && !svg.contains("libb.so+0x"));

    names.remove("00ff", 0x1f);
    names.remove("00ff", 0x2f);
    assert_eq!(folded(&server).await, before);
}

/// Check that a pprof has the lines, the innermost first, and marks the file as having them.
#[tokio::test(flavor = "multi_thread")]
async fn a_pprof_has_the_lines_that_were_found_later() {
    let (server, names) = filled().await;
    let before = profile(&server).await;
    let mapping = |profile: &Profile| {
        let mut mappings = profile.mapping.iter();
        let name = |at: i64| profile.string_table[at as usize].as_str();
        mappings
            .find(|m| name(m.filename) == "/lib/libb.so")
            .unwrap()
            .clone()
    };
    assert!(!mapping(&before).has_filenames);
    learn(&names);
    let profile = profile(&server).await;
    let mapping = mapping(&profile);
    assert!(mapping.has_filenames && mapping.has_line_numbers && mapping.has_inline_frames);
    let location = profile.location.iter().find(|l| l.address == 0x2f).unwrap();
    let line = |line: &pprof::protos::Line| {
        let function = profile
            .function
            .iter()
            .find(|f| f.id == line.function_id)
            .unwrap();
        let text = |at: i64| profile.string_table[at as usize].as_str();
        format!(
            "{} {} {}:{}",
            text(function.name),
            text(function.system_name),
            text(function.filename),
            line.line
        )
    };
    let lines: Vec<_> = location.line.iter().map(line).collect();
    assert_eq!(lines, ["inlined inlined b.h:7", "leaf leaf b.c:21"]);
}

/// Check that a question looks up each address once, however many windows have it, and finds new symbols.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_asks_for_each_address_once() {
    let (server, names) = filled().await;
    // Two addresses without a name; `main` has its source file.
    for expected in [2, 4] {
        folded(&server).await;
        assert_eq!(names.asked(), expected);
    }
    learn(&names);
    for expected in [6, 8] {
        server.json("/api/v1/top").await;
        assert_eq!(names.asked(), expected);
    }
}

/// Check that joined lines are summed like stored ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_shown_by_line() {
    let (server, names) = filled().await;
    learn(&names);
    names.insert("00ff", 0x1f, &[("leaf", "b.c", 20)]);
    let lines = server
        .json("/api/v1/lines?function=leaf&binary=/lib/libb.so")
        .await;
    let line = |line: u64, own: u64, total: u64| {
        json!({
            "file": "b.c", "line": line, "self_ns": own * 10_000_000, "self_samples": own,
            "total_ns": total * 10_000_000, "total_samples": total,
        })
    };
    let expected = json!({
        "all_ns": 230_000_000, "self_ns": 30_000_000, "self_samples": 3,
        "total_ns": 150_000_000, "total_samples": 15, "start_line": 1, "count": 2,
        "lines": [line(20, 3, 15), line(21, 0, 12)],
    });
    assert_eq!(lines, expected);
    let most = server.json("/api/v1/lines?function=leaf&limit=1").await;
    assert_eq!(
        (&most["count"], &most["lines"]),
        (&json!(2), &json!([line(20, 3, 15)]))
    );
    let none = server
        .json("/api/v1/lines?function=leaf&file=other.c")
        .await;
    assert_eq!((&none["count"], &none["total_ns"]), (&json!(0), &json!(0)));
}

/// Check that the report adds up, has remedies, and shrinks as names are found.
#[tokio::test(flavor = "multi_thread")]
async fn unnamed_frames_have_a_reason() {
    let (server, names) = filled().await;
    let sums = |own: u64, total: u64| {
        json!({
            "unnamed_self_ns": own * 10_000_000, "unnamed_self_samples": own,
            "unnamed_ns": total * 10_000_000, "unnamed_samples": total,
        })
    };
    let with = |mut value: Value, more: Value| {
        let more = more.as_object().unwrap().clone();
        value.as_object_mut().unwrap().extend(more);
        value
    };
    let unknown = server.json("/api/v1/unknown").await;
    let entry = &unknown["by_binary"]["binaries"][0];
    let advice = entry["reasons"][0]["advice"].as_str().unwrap();
    assert!(
        advice.contains("build id 00ff") && advice.contains("debuginfo upload"),
        "{advice}"
    );
    let words = "no symbol covers the address: the file is stripped, or its compiler gave this code none; and nothing was \
                 found for its build id: no debug file below /usr/lib/debug of the node or its container, and no symbols on \
                 the server";
    let reason = with(sums(15, 15), json!({"reason": "no_symbol", "words": words}));
    let binary = with(
        sums(15, 15),
        json!({
            "binary": "/lib/libb.so", "build_id": "00ff",
            "reasons": [with(reason.clone(), json!({"advice": advice}))],
        }),
    );
    let expected = with(
        sums(15, 15),
        json!({
            "total_ns": 230_000_000, "samples": 23, "reasons": [reason],
            "by_binary": {"count": 1, "rest": null, "binaries": [binary]},
        }),
    );
    assert_eq!(unknown, expected);
    let cut = server.json("/api/v1/unknown?limit=0").await;
    assert_eq!(
        cut["by_binary"]["rest"],
        with(sums(15, 15), json!({"count": 1}))
    );

    // The same in the graph and in the table.
    let graph = server.json("/api/v1/flamegraph").await;
    for field in ["unnamed_ns", "unnamed_self_ns", "total_ns"] {
        assert_eq!(graph[field], unknown[field], "{field}");
    }
    let unnamed = graph["frames"]["unnamed"].as_object().unwrap();
    assert_eq!(unnamed.len(), 2);
    for (frame, why) in unnamed {
        let frame: usize = frame.parse().unwrap();
        assert_eq!(graph["frames"]["kind"][frame], json!(3));
        assert_eq!(why["reason"], json!("no_symbol"));
        let build_id = why["build_id"].as_u64().unwrap() as usize;
        assert_eq!(graph["strings"][build_id], json!("00ff"));
    }
    let top = server.json("/api/v1/top?search=libb.so%2B0x2f").await;
    let function = &top["functions"][0];
    assert_eq!(
        (&function["reason"], &function["build_id"]),
        (&json!("no_symbol"), &json!("00ff"))
    );

    names.insert("00ff", 0x2f, &[("leaf", "b.c", 21)]);
    let unknown = server.json("/api/v1/unknown").await;
    assert_eq!(
        (
            &unknown["unnamed_self_samples"],
            &unknown["unnamed_samples"]
        ),
        (&json!(3), &json!(15))
    );
    names.insert("00ff", 0x1f, &[("outer", "b.c", 11)]);
    let unknown = server.json("/api/v1/unknown").await;
    assert_eq!(
        (&unknown["unnamed_samples"], &unknown["reasons"]),
        (&json!(0), &json!([]))
    );
    let graph = server.json("/api/v1/flamegraph").await;
    assert_eq!(graph["frames"].get("unnamed"), None);

    let metrics = server.get("/metrics").await.text();
    for line in [
        "pilotlight_server_samples_total 23",
        "pilotlight_server_samples_unnamed_total{reason=\"no_symbol\"} 15",
        "pilotlight_server_binary_samples_unnamed_total{binary=\"/lib/libb.so\",reason=\"no_symbol\"} 15",
        "pilotlight_server_locations_unnamed_total{reason=\"no_symbol\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
