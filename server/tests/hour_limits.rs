//! Limits on what a window, and a node in an hour, may bring: refused with words, counted by reason, and nothing of it stored.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::fmt::Write;

use model::text::window_at;
use prost::Message as _;
use proto::v1;
use running::Running;
use test_push::push_request;
use tonic::{Code, Status};

const HOUR_MS: i64 = 3_600_000;

/// The start of an hour that does not end while a test runs: blocks of past hours are written soon, and count anew.
fn hour_ms() -> i64 {
    let soon_ms = server::serve::http::routes::now_ms() + 9 * 60_000;
    soon_ms - soon_ms % HOUR_MS
}

fn push_of(node: &str, lines: &str, start_ms: i64, sequence: u64) -> v1::PushRequest {
    let mut window = window_at(lines, start_ms, sequence);
    window.head.node = node.to_owned();
    push_request(&window)
}

/// A window of one sample with so many other label sets.
fn with_pods(start_ms: i64, sequence: u64, pods: std::ops::Range<u32>) -> v1::PushRequest {
    let mut request = push_of("n", "comm=a | main | 1", start_ms, sequence);
    request.series.extend(pods.map(|pod| v1::LabelSet {
        labels: vec![v1::Label {
            name: "pod".into(),
            value: format!("pod-{pod:06}"),
        }],
    }));
    request
}

/// The words of a refusal that collectors do not repeat.
fn words(refused: Result<v1::PushResponse, Status>) -> String {
    let status = refused.unwrap_err();
    // Only for this code a collector drops the window and counts it.
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    status.message().to_owned()
}

async fn metric(server: &Running, name: &str) -> u64 {
    let metrics = server.get("/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in {metrics}"))
        .trim()
        .parse()
        .unwrap()
}

async fn refused_for(server: &Running, reason: &str) -> u64 {
    let name = format!("pilotlight_server_windows_refused_total{{reason=\"{reason}\"}}");
    metric(server, &name).await
}

async fn pods(server: &Running) -> usize {
    let answer = server
        .json("/api/v1/label/pod/values?from=0&to=now%2B1d")
        .await;
    answer["values"].as_array().unwrap().len()
}

/// Check that 200,000 label sets in one message are refused, that a node cannot bring them in many messages either, and that the pushes
/// of other nodes into the same hour then write no more than before.
#[tokio::test(flavor = "multi_thread")]
async fn label_sets() {
    let server = Running::start().await;
    let start_ms = hour_ms();
    let other = |sequence| {
        let mut request = push_of("m", "comm=b | main | 1", start_ms, sequence);
        request.collector_instance = vec![9; 16];
        request
    };
    server.push(other(1)).await.unwrap();
    let before = metric(&server, "pilotlight_server_stored_bytes_total").await;
    server.push(other(2)).await.unwrap();
    let alone = metric(&server, "pilotlight_server_stored_bytes_total").await - before;

    let large = with_pods(start_ms, 1, 0..200_000);
    assert!(large.encoded_len() > 4 << 20);
    let message = words(server.push(large).await);
    assert!(message.contains("series has 200001"), "{message}");
    let message = words(server.push(with_pods(start_ms, 1, 0..32_768)).await);
    assert_eq!(
        message,
        "series: 32769 label sets, and at most 32768 are taken"
    );
    assert_eq!(refused_for(&server, "entries").await, 2);
    assert_eq!(pods(&server).await, 0);

    for (sequence, first) in [(1, 0), (2, 30_000)] {
        let request = with_pods(start_ms, sequence, first..first + 30_000);
        server.push(request).await.unwrap();
    }
    let before = metric(&server, "pilotlight_server_stored_bytes_total").await;
    for sequence in 3..13 {
        let first = 30_000 * sequence as u32;
        let request = with_pods(start_ms, sequence, first..first + 30_000);
        let message = words(server.push(request).await);
        let expected = "node \"n\" has 60001 label sets in the hour from ";
        assert!(message.starts_with(expected), "{message}");
        assert!(
            message.contains("brings 30000 more; at most 65536 are taken: "),
            "{message}"
        );
        assert!(message.contains("--hour-series-max"), "{message}");
    }
    assert_eq!(refused_for(&server, "new_series").await, 10);
    assert_eq!(
        metric(&server, "pilotlight_server_stored_bytes_total").await,
        before
    );
    assert_eq!(pods(&server).await, 60_000);

    server.push(other(3)).await.unwrap();
    let after = metric(&server, "pilotlight_server_stored_bytes_total").await - before;
    assert!(after <= alone + 64, "{after} bytes, and {alone} before");
    // What the node had is taken further, and another hour begins anew.
    server
        .push(with_pods(start_ms, 13, 0..30_000))
        .await
        .unwrap();
    let request = with_pods(start_ms - HOUR_MS, 14, 90_000..120_000);
    server.push(request).await.unwrap();
    assert_eq!(pods(&server).await, 90_000);
}

/// Stacks of so many frames that share no frame with each other.
fn different_stacks(stacks: u32, depth: u32, first: u32) -> String {
    let mut lines = String::new();
    for stack in 0..stacks {
        lines += "comm=a |";
        // All have the same locations, so that only the stacks are many.
        (0..depth)
            .for_each(|frame| write!(lines, " {:#x}", first + (stack + frame) % 5000).unwrap());
        lines += " | 1\n";
    }
    lines
}

/// Check that one message cannot bring the stacks that made each later question take a gigabyte.
#[tokio::test(flavor = "multi_thread")]
async fn stacks_of_a_message() {
    let server = Running::start().await;
    let request = push_of("n", &different_stacks(1_100, 4_096, 1), hour_ms(), 1);
    let message = words(server.push(request).await);
    let expected = "profile: nodes of the tree of stacks: ";
    assert!(message.starts_with(expected), "{message}");
    assert!(
        message.ends_with(" and at most 4194304 are taken"),
        "{message}"
    );
    assert_eq!(refused_for(&server, "entries").await, 1);
    server
        .push(push_of("n", "comm=a | main | 1", hour_ms(), 1))
        .await
        .unwrap();
}

/// Check the limits of an hour on stacks, locations and labels, that a refused window brings nothing, and that the next hour begins
/// anew.
#[tokio::test(flavor = "multi_thread")]
async fn stacks_locations_and_labels_of_an_hour() {
    let limits = [
        "--hour-stacks-max=1000",
        "--hour-locations-max=300",
        "--hour-series-max=4",
    ];
    let server = Running::start_with(&limits).await;
    let start_ms = hour_ms();
    let deep = different_stacks(9, 100, 1);
    server.push(push_of("n", &deep, start_ms, 1)).await.unwrap();
    server.push(push_of("n", &deep, start_ms, 2)).await.unwrap();
    let frames: Vec<String> = (0..100)
        .map(|frame| format!("{:#x}", 100 - frame))
        .collect();
    let turned = format!(
        "comm=a | {} 0x1 | 1\ncomm=a | 0x2 0x1 | 7",
        frames.join(" ")
    );
    let message = words(server.push(push_of("n", &turned, start_ms, 3)).await);
    let expected = "node \"n\" has 900 frames of stacks that no stack before had in the hour from ";
    assert!(message.starts_with(expected), "{message}");
    assert!(
        message.contains(" brings 102 more; at most 1000 are taken: "),
        "{message}"
    );
    assert_eq!(refused_for(&server, "new_stacks").await, 1);

    let many: Vec<String> = (0..200)
        .map(|line| format!("comm=a | {:#x} | 1", 7000 + line))
        .collect();
    let message = words(
        server
            .push(push_of("m", &different_stacks(1, 301, 8000), start_ms, 4))
            .await,
    );
    assert!(
        message.contains("node \"m\" has 0 locations in the hour"),
        "{message}"
    );
    server
        .push(push_of("m", &many.join("\n"), start_ms, 5))
        .await
        .unwrap();
    assert_eq!(refused_for(&server, "new_locations").await, 1);

    let long = format!("comm={0},pod={0} | main | 1", "x".repeat(2100));
    server
        .push(push_of("o", "comm=b | main | 1", start_ms, 6))
        .await
        .unwrap();
    let message = words(server.push(push_of("o", &long, start_ms, 7)).await);
    assert!(
        message.contains("has 5 bytes of labels in the hour"),
        "{message}"
    );
    assert_eq!(refused_for(&server, "new_labels").await, 1);

    let turned = push_of("n", &turned, start_ms - HOUR_MS, 8);
    server.push(turned).await.unwrap();
    let folded = server
        .get("/api/v1/folded?from=0&to=now%2B1d&query={comm=\"a\"}")
        .await
        .text();
    let samples = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    let total: u64 = folded.lines().map(samples).sum();
    assert_eq!(total, 9 + 9 + 200 + 8, "nothing of a refused window");
}
