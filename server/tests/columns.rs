//! The two forms of a flame graph say the same.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "running/columns.rs"]
mod columns;
mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use columns::columns_to_json;
use flate2::read::GzDecoder;
use model::TimeRange;
use model::text::window_at;
use query::text::tree;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use render::graph::lay_out;
use running::{HttpResponse, Running, get_with};
use serde_json::Value;
use server::serve::http::answer::FlamegraphAnswer;
use server::serve::http::columns::{MEDIA_TYPE, write_columns};
use test_push::push_request;

const HOUR_MS: i64 = 3_600_000;

/// A window of random stacks of few functions, so that they share callers; some frames have no name.
fn random_text(random: &mut StdRng) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(1..60) {
        write!(text, "comm=c{},node=a |", random.random_range(0..3)).unwrap();
        for depth in 0..random.random_range(1..12) {
            match random.random_range(0..10) {
                0 => write!(text, " 0x{}f@/lib/libb.so", random.random_range(1..9)).unwrap(),
                1 => write!(text, " read{depth}@[kernel]").unwrap(),
                _ => write!(text, " f\"{}", random.random_range(0..8)).unwrap(),
            }
        }
        writeln!(text, " | {}", random.random_range(1..1000)).unwrap();
    }
    text
}

fn ask(server: &Running, path: &str, headers: &str) -> HttpResponse {
    let answer = get_with(server.http, path, headers).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut unzipped = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut unzipped).unwrap();
    unzipped
}

/// Check that both forms of the same question say the same: whole and cut graphs, subtrees, and what two collectors sampled at once.
#[tokio::test(flavor = "multi_thread")]
async fn both_forms_say_the_same() {
    let server = Running::start().await;
    let mut random = StdRng::seed_from_u64(7);
    let start_ms = server::serve::http::routes::now_ms() / HOUR_MS * HOUR_MS - HOUR_MS;
    for sequence in 1..=20 {
        let mut window = window_at(
            &random_text(&mut random),
            start_ms + 10_000 * i64::from(random.random_range(0..300)),
            sequence,
        );
        // A collector with another rate.
        if random.random_range(0..2) == 0 {
            window.rows.iter_mut().for_each(|row| row.ns += row.samples);
        }
        window.head.key.instance = [random.random_range(1..3); 16];
        server.push(push_request(&window)).await.unwrap();
    }
    let range = format!("from={start_ms}&to={}", start_ms + HOUR_MS);
    for parameters in [
        "",
        "&max_nodes=2",
        "&max_nodes=40",
        "&query={comm=\"c1\"}",
        "&query={comm=\"nobody\"}",
        "&path=[\"f\\\"1\"]",
        "&path=[\"f\\\"1\"]&max_nodes=5",
    ] {
        let path = format!(
            "/api/v1/flamegraph?{range}{}",
            parameters.replace('\\', "%5C")
        );
        let json = ask(&server, &path, "");
        let accept = format!("accept: {MEDIA_TYPE}\r\n");
        let columns = ask(&server, &path, &accept);
        let expected: Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(columns_to_json(&columns.body), expected, "{path}");
        let gzip = format!("{accept}accept-encoding: gzip\r\n");
        assert_eq!(unzip(&ask(&server, &path, &gzip).body), columns.body);
        assert_eq!(columns.header("content-type"), MEDIA_TYPE);
        assert_eq!(json.header("content-type"), "application/json");
        for answer in [json, columns] {
            let lines = answer.headers.lines();
            let vary: Vec<&str> = lines
                .filter_map(|line| line.strip_prefix("vary: "))
                .collect();
            assert_eq!(vary, ["accept-encoding", "accept"]);
        }
    }
    // A refusal has words in any case.
    let path = format!("/api/v1/flamegraph?{range}&max_nodes=1");
    let refused = get_with(server.http, &path, &format!("accept: {MEDIA_TYPE}\r\n")).unwrap();
    assert_eq!(
        (refused.status, refused.header("content-type").as_str()),
        (400, "application/json")
    );
}

/// Check that the files from which the page's tests read a graph are what the server writes. With `PILOTLIGHT_WRITE_GOLDEN` they are
/// written.
#[test]
fn the_page_is_tested_with_these_bytes() {
    let tree = tree(
        "
        comm=a | main ü\"work read@[kernel] | 900000000000
        comm=a | main 0x1f@/lib/libb.so | 4
        comm=a | main rest one | 2
        comm=a | other | 3
        ",
    );
    let range = TimeRange {
        from_ms: 1_795_312_800_000,
        to_ms: 1_795_313_700_000,
    };
    let answer = || {
        let graph = lay_out(tree.walk(), tree.walk().root(), 7).unwrap();
        FlamegraphAnswer::new(range, &tree, graph, None)
    };
    let json = serde_json::to_vec(&answer()).unwrap();
    let mut bytes = Vec::new();
    let mut without = answer();
    let columns = without.take_columns();
    write_columns(&mut bytes, &without, &columns.list()).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/test/fixture");
    for (name, written) in [("graph.columns", bytes), ("graph.json", json)] {
        let path = folder.join(name);
        if std::env::var_os("PILOTLIGHT_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == written, "{name} differs");
    }
}
