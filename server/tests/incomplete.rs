//! Damaged segments through the HTTP API: an answer that could not read something tells what, and routes do not disagree.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "running/columns.rs"]
mod columns;
mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use columns::columns_to_json;
use flate2::read::GzDecoder;
use model::text::window_at;
use pprof::protos::{Message, Profile};
use running::{Running, get_with};
use serde_json::Value;
use server::serve::http::columns::MEDIA_TYPE;
use store::{EmbeddedStore, RetentionFlags, RollUp, RollUpAddresses, StoreMetrics, StoreOptions};
use test_push::push_request;
use tokio::time::sleep;

const HOUR_MS: i64 = 3_600_000;

const HOURS: i64 = 6;

const TEXT: &str = "
    comm=rustc,node=a | main parse read@[kernel] | 12 | thread=worker
    comm=sort,node=a | main 0x1f@/lib/libb.so | 5
";

/// Samples and CPU time of a window of the text.
const SAMPLES: u64 = 17;
const NS: u64 = SAMPLES * 10_000_000;

/// Windows of all hours: one each, and a second one in the first.
const WINDOWS: u64 = HOURS as u64 + 1;

/// A server with segments, of which the data were changed while it was stopped.
async fn filled(change: impl FnOnce(&Path)) -> Running {
    let server = Running::start().await;
    let now_ms = server::serve::http::routes::now_ms();
    let first_ms = (now_ms / HOUR_MS - HOURS) * HOUR_MS;
    let later = (1..HOURS).map(|hour| first_ms + hour * HOUR_MS);
    let starts = [first_ms, first_ms + 10_000].into_iter().chain(later);
    for (start_ms, sequence) in starts.zip(1..) {
        let window = window_at(TEXT, start_ms, sequence);
        server.push(push_request(&window)).await.unwrap();
    }
    let settled = |data: &Path| {
        settle(data);
        change(data);
    };
    server.restart_after(settled).await
}

/// Writes all windows as segments.
fn settle(data: &Path) {
    settle_with(data, RetentionFlags::default());
}

fn settle_with(data: &Path, retention: RetentionFlags) {
    let options = StoreOptions {
        retention,
        ..StoreOptions::keep_all(data)
    };
    let store = EmbeddedStore::open(&options, StoreMetrics::default()).unwrap();
    store.settle();
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("default/segments")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

const RANGE: &str = "query={node=\"a\"}&from=now-10h&to=now";

fn sum(list: &Value, field: &str) -> u64 {
    let entries = list.as_array().into_iter().flatten();
    entries.map(|entry| entry[field].as_u64().unwrap()).sum()
}

/// Asks all routes about everything. Each has all that there is, or tells that it lacks something; and what a route that shows samples
/// has, with what it tells to be lost, is what routes that read sums have. Returns the CPU time by sums and by samples.
async fn check(server: &Running) -> (u64, u64) {
    let told = |answer: &Value, ns: u64| {
        let incomplete = answer["incomplete"].as_array();
        let is_told = incomplete.is_some_and(|entries| !entries.is_empty());
        assert!(ns <= WINDOWS * NS, "{answer}");
        assert!(ns == WINDOWS * NS || is_told, "{answer}");
    };
    // Routes that read sums.
    let timeseries = format!("/api/v1/timeseries?{RANGE}&step=1h");
    let timeseries = server.json(&timeseries).await;
    let by_sums = sum(&timeseries["series"], "total_ns");
    told(&timeseries, by_sums);
    let series = server.json(&format!("/api/v1/series?{RANGE}")).await;
    assert_eq!(sum(&series["series"], "cpu_ns"), by_sums);
    told(&series, by_sums);
    let nodes = server.json(&format!("/api/v1/nodes?{RANGE}")).await;
    told(&nodes, sum(&nodes["nodes"], "windows") * NS);

    // Routes that read samples.
    let mut by_samples = Vec::new();
    for (route, total) in [
        ("flamegraph", "total_ns"),
        ("top", "total_ns"),
        ("stacks", "total_ns"),
        ("unknown", "total_ns"),
        ("lines?function=parse&", "all_ns"),
    ] {
        let and = if route.contains('?') { "" } else { "?" };
        let answer = server.json(&format!("/api/v1/{route}{and}{RANGE}")).await;
        let ns = answer[total].as_u64().unwrap();
        told(&answer, ns);
        if by_sums == WINDOWS * NS {
            assert_eq!(
                ns + sum(&answer["incomplete"], "cpu_ns"),
                by_sums,
                "{answer}"
            );
        }
        by_samples.push(ns);
    }
    let [ns, ..] = by_samples[..] else {
        panic!("no answer")
    };
    assert_eq!(by_samples, [ns; 5]);

    // The form with columns tells the same.
    let path =
        format!("/api/v1/flamegraph?{RANGE}").replace("now-10h&to=now", "1600000000&to=4000000000");
    let accept = format!("accept: {MEDIA_TYPE}\r\n");
    let columns = get_with(server.http, &path, &accept).unwrap();
    assert_eq!(columns_to_json(&columns.body), server.json(&path).await);

    // Answers that are files.
    let is_whole = ns == WINDOWS * NS;
    let files =
        ["folded", "flamegraph.svg", "pprof"].map(|route| format!("/api/v1/{route}?{RANGE}"));
    for path in &files {
        let answer = server.get(path).await;
        if ns > 0 {
            assert!(
                is_whole || !answer.header("pilotlight-incomplete").is_empty(),
                "{path}"
            );
        }
    }
    if ns > 0 {
        let svg = server.get(&files[1]).await.text();
        assert!(is_whole || svg.contains("incomplete: "));
        let profile = profile_of(server, RANGE).await;
        assert!(is_whole || !profile.comment.is_empty());
        let values = profile.sample.iter().map(|sample| sample.value[1] as u64);
        assert_eq!(values.sum::<u64>(), ns);
    }
    (by_sums, ns)
}

async fn profile_of(server: &Running, range: &str) -> Profile {
    let gzip = server.get(&format!("/api/v1/pprof?{range}")).await.body;
    let mut bytes = Vec::new();
    GzDecoder::new(gzip.as_slice())
        .read_to_end(&mut bytes)
        .unwrap();
    Profile::decode(bytes.as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_segments_have_whole_answers() {
    let server = filled(|_| {}).await;
    for _ in 0..2 {
        assert_eq!(check(&server).await, (WINDOWS * NS, WINDOWS * NS));
    }
}

/// Check that damage anywhere in a segment is told by all routes that lack something by it.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_are_told() {
    let mut lacks = [0, 0];
    for part in 0..24 {
        let flip = |data: &Path| {
            let path = segments(data).remove(0);
            let mut bytes = fs::read(&path).unwrap();
            let at = bytes.len() * part / 24;
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
        };
        let server = filled(flip).await;
        let (by_sums, by_samples) = check(&server).await;
        lacks[0] += u32::from(by_sums < WINDOWS * NS);
        lacks[1] += u32::from(by_samples < WINDOWS * NS);
    }
    // Some of them hit only samples, and some the file as a whole.
    assert!(0 < lacks[0] && lacks[0] < lacks[1], "{lacks:?}");
}

/// Check that damage of a segment is in the status and in the metrics before any question was asked.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_known_without_a_question() {
    let whole = filled(|_| {}).await;
    let status = whole.json("/api/v1/status").await;
    assert_eq!(status["damage"], Value::Array(Vec::new()));

    let flip = |data: &Path| {
        let path = segments(data).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&path, bytes).unwrap();
    };
    let server = filled(flip).await;
    let damage = loop {
        let status = server.json("/api/v1/status").await;
        match status["damage"].as_array().unwrap().first() {
            Some(found) => break found.clone(),
            None => sleep(Duration::from_millis(10)).await,
        }
    };
    assert!(
        damage["reason"].as_str().unwrap().contains(".seg: chunk"),
        "{damage}"
    );
    let metrics = server.get("/metrics").await.text();
    for line in [
        "pilotlight_server_damage_found_total 1",
        "pilotlight_server_damaged_files 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
}

/// Check that answers about windows without addresses say so, in JSON and in a pprof, and that nothing else is missing.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_addresses_are_told() {
    let drop = |data: &Path| {
        let roll_up = RollUp {
            after_ms: 0,
            resolution_ms: 60_000,
        };
        let retention = RetentionFlags {
            roll_ups: vec![roll_up],
            roll_up_addresses: RollUpAddresses::Drop,
            ..RetentionFlags::keep_all()
        };
        settle_with(data, retention);
    };
    let keep = |_: &Path| {};
    for (change, lacks) in [(&drop as &dyn Fn(&Path), true), (&keep, false)] {
        // A day is rolled up when it is over.
        let server = Running::start().await;
        let start_ms = server::serve::http::routes::now_ms() - 72 * HOUR_MS;
        let window = window_at(TEXT, start_ms, 1);
        server.push(push_request(&window)).await.unwrap();
        let server = server.restart_after(change).await;
        let range = "query={node=\"a\"}&from=now-4d";
        let graph = server.json(&format!("/api/v1/flamegraph?{range}")).await;
        assert_eq!(graph["total_ns"].as_u64(), Some(NS));
        assert_eq!(graph["lacks_addresses"].as_bool(), lacks.then_some(true));
        let comments = profile_of(&server, range).await.comment;
        assert_eq!(comments.len(), usize::from(lacks));
    }
}

/// Check that a segment that was cut or removed is told by all routes, with the number of its windows.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_segment_is_told() {
    let remove = |data: &Path| fs::remove_file(&segments(data)[0]).unwrap();
    let cut = |data: &Path| fs::write(&segments(data)[0], b"").unwrap();
    for (change, reason) in [
        (&remove as &dyn Fn(&Path), "is gone"),
        (&cut, "cannot be opened"),
    ] {
        let server = filled(change).await;
        let (by_sums, by_samples) = check(&server).await;
        assert_eq!(by_sums, by_samples);
        let series = server.json(&format!("/api/v1/series?{RANGE}")).await;
        let incomplete = &series["incomplete"];
        let lost = sum(incomplete, "windows");
        assert_eq!(lost * NS + by_sums, WINDOWS * NS, "{series}");
        let found = incomplete[0]["reason"].as_str().unwrap();
        assert!(found.contains(reason), "{found}");
    }
}
