//! Where windows are in time: late ones, ones of other lengths, and those of clocks that are wrong. docs/api.md has the rules.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::time::{Duration, Instant};

use model::text::window_at;
use proto::v1;
use running::Running;
use serde_json::{Value, json};
use test_push::push_request;
use tonic::Code;

const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    server::serve::http::routes::now_ms()
}

/// A window of so many samples of 10 ms.
fn push_of(samples: u64, start_ms: i64, window_ms: i64, sequence: u64) -> v1::PushRequest {
    let lines = format!("comm=a,node=a | main | {samples}");
    let mut window = window_at(&lines, start_ms, sequence);
    window.head.window_ms = window_ms;
    push_request(&window)
}

async fn push(server: &Running, request: v1::PushRequest) {
    assert!(!server.push(request).await.unwrap().duplicate);
}

async fn samples(server: &Running, from_ms: i64, to_ms: i64) -> u64 {
    let path = format!("/api/v1/flamegraph?from={from_ms}&to={to_ms}");
    server.json(&path).await["samples"].as_u64().unwrap()
}

/// The steps of a range: what is covered, and the values.
async fn steps(server: &Running, from_ms: i64, to_ms: i64, parameters: &str) -> [Value; 2] {
    let path = format!("/api/v1/timeseries?from={from_ms}&to={to_ms}{parameters}");
    let answer = server.json(&path).await;
    [
        answer["covered_ms"].clone(),
        answer["series"][0]["values"].clone(),
    ]
}

/// Waits until all windows are in segments.
async fn wait_for_segments(server: &Running) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !server
        .get("/metrics")
        .await
        .text()
        .contains("\npilotlight_server_blocks 0\n")
    {
        assert!(Instant::now() < deadline, "blocks are not written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Check that windows that come hours late and in any order are at the time of their start, and that none counts as missing; also if
/// their hour is in a segment already.
#[tokio::test(flavor = "multi_thread")]
async fn late_windows() {
    let server = Running::start().await;
    let hour_ms = now_ms() / HOUR_MS * HOUR_MS - 5 * HOUR_MS;
    // The hour's windows but some, and those of hours before and after.
    for sequence in [1, 2, 5, 6] {
        push(
            &server,
            push_of(
                sequence,
                hour_ms + 10_000 * sequence as i64,
                10_000,
                sequence,
            ),
        )
        .await;
    }
    push(&server, push_of(100, hour_ms + 2 * HOUR_MS, 10_000, 7)).await;
    let server = server.restart().await;
    wait_for_segments(&server).await;
    let nodes = server.json("/api/v1/nodes?from=0").await;
    assert_eq!(nodes["nodes"][0]["missing_windows"], 2);
    for sequence in [4, 3] {
        push(
            &server,
            push_of(
                sequence,
                hour_ms + 10_000 * sequence as i64,
                10_000,
                sequence,
            ),
        )
        .await;
    }
    for _ in 0..2 {
        let nodes = server.json("/api/v1/nodes?from=0").await;
        let node = &nodes["nodes"][0];
        assert_eq!(
            (&node["windows"], &node["missing_windows"]),
            (&json!(7), &json!(0))
        );
        assert_eq!(
            samples(&server, hour_ms, hour_ms + HOUR_MS).await,
            1 + 2 + 3 + 4 + 5 + 6
        );
        let (from_ms, to_ms) = (hour_ms + 20_000, hour_ms + 60_000);
        let [_, values] = steps(&server, from_ms, to_ms, "&step=10s&unit=samples").await;
        assert_eq!(values, json!([2.0, 3.0, 4.0, 5.0]));
        // Blocks of past hours are written soon.
        wait_for_segments(&server).await;
    }
}

/// Check that a window counts whole in the step in which it starts, whatever its length, and that a value in cores is its CPU time by
/// the time that it covers.
#[tokio::test(flavor = "multi_thread")]
async fn windows_of_other_lengths() {
    let server = Running::start().await;
    let at = now_ms() / HOUR_MS * HOUR_MS - HOUR_MS;
    // The first two of a collector, a usual one, one of a minute, and one that starts in the middle of a step.
    let windows = [
        (20, 3_000, 2_000),
        (50, 5_000, 5_000),
        (100, 10_000, 10_000),
        (600, 20_000, 60_000),
        (30, 85_000, 10_000),
    ];
    for (sequence, (samples, start_ms, window_ms)) in (1..).zip(windows) {
        push(
            &server,
            push_of(samples, at + start_ms, window_ms, sequence),
        )
        .await;
    }
    let [covered, values] = steps(&server, at, at + 100_000, "&step=10s").await;
    assert_eq!(
        covered,
        json!([7000, 10_000, 60_000, 0, 0, 0, 0, 0, 10_000, 0])
    );
    let expected = json!([0.1, 0.1, 0.1, null, null, null, null, null, 0.03, null]);
    assert_eq!(values, expected);
    let [covered, values] = steps(&server, at, at + 100_000, "&step=10s&unit=samples").await;
    assert_eq!(covered[2], 60_000);
    assert_eq!(
        values,
        json!([70.0, 100.0, 600.0, null, null, null, null, null, 30.0, null])
    );
    let [covered, values] = steps(&server, at, at + 120_000, "&step=1m&unit=samples").await;
    assert_eq!(
        (covered, values),
        (json!([77_000, 10_000]), json!([770.0, 30.0]))
    );
    // A range has a window if it has its start.
    assert_eq!(samples(&server, at + 3_000, at + 5_000).await, 20);
    assert_eq!(samples(&server, at + 3_001, at + 5_001).await, 50);
    assert_eq!(samples(&server, at + 20_001, at + 80_000).await, 0);
    // A step that begins before the range has the windows of the range only.
    let [covered, values] = steps(&server, at + 5_000, at + 20_000, "&step=10s&unit=samples").await;
    assert_eq!(
        (covered, values),
        (json!([5_000, 10_000]), json!([50.0, 100.0]))
    );
    for window_ms in [0, -1, 60_001] {
        let refused = server.push(push_of(1, at, window_ms, 9)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("window_ms is"), "{refused}");
    }
}

/// Check that a clock that is up to ten minutes ahead is believed, that a later one is refused, that a clock that is behind makes late
/// windows, and that one that was set back has two windows at a time.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_wrong() {
    let server = Running::start().await;
    let now_ms = now_ms();
    push(&server, push_of(5, now_ms + 540_000, 10_000, 1)).await;
    assert_eq!(samples(&server, 0, now_ms + 60_000).await, 0);
    assert_eq!(samples(&server, 0, now_ms + 600_000).await, 5);
    let refused = server
        .push(push_of(1, now_ms + 700_000, 10_000, 2))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(
        refused.message().contains("compare the clocks"),
        "{refused}"
    );
    let refused = server
        .push(push_of(1, 1_577_836_799_999, 10_000, 2))
        .await
        .unwrap_err();
    assert!(refused.message().contains("before 2020"), "{refused}");
    push(&server, push_of(7, 1_577_836_800_000, 10_000, 2)).await;
    assert_eq!(samples(&server, 0, now_ms + 60_000).await, 7);

    // Of one collector both count: nobody sampled twice, and the time is covered once.
    let at = now_ms / HOUR_MS * HOUR_MS - HOUR_MS;
    push(&server, push_of(100, at, 10_000, 3)).await;
    push(&server, push_of(100, at, 10_000, 4)).await;
    push(&server, push_of(100, at + 5_000, 10_000, 5)).await;
    let [covered, values] = steps(&server, at, at + 10_000, "").await;
    assert_eq!((covered, values), (json!([15_000]), json!([0.2])));
    let answer = server.json(&format!("/api/v1/flamegraph?from={at}")).await;
    assert_eq!(answer["samples"], 300);
    assert!(answer.get("overlap_ns").is_none(), "{answer}");
}

/// Check that a message with the number of another one is refused and not taken for a repeat, wherever the stored one is, and that the
/// stored one stays.
#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_a_number_is_no_repeat() {
    let mut server = Running::start().await;
    let start_ms = now_ms() - 60_000;
    push(&server, push_of(5, start_ms, 10_000, 1)).await;
    for is_in_segment in [false, true] {
        if is_in_segment {
            server = server.restart().await;
            wait_for_segments(&server).await;
        }
        for other in [
            push_of(6, start_ms, 10_000, 1),
            push_of(5, start_ms - HOUR_MS, 10_000, 1),
            push_of(5, start_ms, 9_000, 1),
        ] {
            let refused = server.push(other).await.unwrap_err();
            // Collectors drop it, and count it.
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            let words = "message 1 of this collector was stored before with other content";
            assert!(refused.message().starts_with(words), "{refused}");
        }
        let repeat = push_of(5, start_ms, 10_000, 1);
        assert!(server.push(repeat).await.unwrap().duplicate);
        let metrics = server.get("/metrics").await.text();
        let refused = "pilotlight_server_windows_refused_total{reason=\"identity\"} 3";
        assert!(metrics.contains(refused), "{metrics}");
        assert_eq!(samples(&server, 0, now_ms()).await, 5);
    }
}
