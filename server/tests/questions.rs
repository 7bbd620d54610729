//! Many questions at once: they end with their clients, take turns, share answers, and stay within the memory.
//!
//! A source of names that waits for the test keeps questions for stacks running for as long as it is needed.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::text::window_at;
use parking_lot::{Condvar, Mutex};
use query::names::{NameSource, SourceFrame};
use running::{HttpResponse, Running, get_with, read_response};
use serde_json::{Value, json};
use test_push::push_request;

const HOUR_MS: i64 = 3_600_000;

/// Time for anything that a test waits for.
const DEADLINE: Duration = Duration::from_secs(120);

/// A source of names whose look-ups wait until the test lets them go on.
#[derive(Default)]
struct WaitingNames {
    state: Mutex<WaitingState>,
    changed: Condvar,
}

#[derive(Default)]
struct WaitingState {
    calls: usize,
    /// Look-ups that go on, beyond those that all do.
    passes: usize,
    goes_on: bool,
}

impl WaitingNames {
    fn calls(&self) -> usize {
        self.state.lock().calls
    }

    /// Lets one look-up go on.
    fn pass_one(&self) {
        self.state.lock().passes += 1;
        self.changed.notify_all();
    }

    fn go_on(&self) {
        self.state.lock().goes_on = true;
        self.changed.notify_all();
    }
}

/// So that a test that fails ends.
struct GoesOn(Arc<WaitingNames>);

impl Drop for GoesOn {
    fn drop(&mut self) {
        self.0.go_on();
    }
}

impl NameSource for WaitingNames {
    fn knows(&self, _: &str) -> bool {
        false
    }

    fn name(&self, _: &str, _: &[u64], _: &mut dyn FnMut(usize, &[SourceFrame<'_>])) -> bool {
        let mut state = self.state.lock();
        state.calls += 1;
        while !state.goes_on && state.passes == 0 {
            self.changed.wait(&mut state);
        }
        state.passes = state.passes.saturating_sub(1);
        true
    }
}

/// A window of 40,000 stacks of 300 bytes each, of which 32 are random: 1.3 MB at least, however they are packed, and so a heavy
/// question. One has a frame without a name.
fn large_text() -> String {
    let mut text = String::from("comm=sort,node=a | main 0x1f@/lib/libb.so | 5\n");
    let callers: Vec<String> = (0..6)
        .map(|depth| format!("f{depth}_{}", "c".repeat(35)))
        .collect();
    let callers = callers.join(" ");
    for number in 0_u64..40_000 {
        let digest = blake3::hash(&number.to_le_bytes()).to_hex();
        writeln!(text, "comm=rustc,node=a | main {callers} {digest} | 1").unwrap();
    }
    text
}

struct Asked {
    server: Running,
    names: Arc<WaitingNames>,
    _goes_on: GoesOn,
    range: String,
}

/// A server with a window in each of two hours, so that a question for stacks looks up names twice.
async fn start(text: &str, options: &[&str]) -> Asked {
    let names = Arc::new(WaitingNames::default());
    let server = Running::start_with_names_and(Arc::clone(&names) as _, options).await;
    let now_ms = server::serve::http::routes::now_ms();
    let start_ms = now_ms / HOUR_MS * HOUR_MS;
    let small = "comm=sort,node=a | main 0x1f@/lib/libb.so | 5";
    for (text, start_ms, sequence) in [
        (small, start_ms - 2 * HOUR_MS, 1),
        (text, start_ms - HOUR_MS, 2),
    ] {
        let window = window_at(text, start_ms, sequence);
        server.push(push_request(&window)).await.unwrap();
    }
    Asked {
        server,
        _goes_on: GoesOn(Arc::clone(&names)),
        names,
        range: format!("from={}&to={now_ms}", start_ms - 3 * HOUR_MS),
    }
}

impl Asked {
    fn path(&self, route: &str, parameters: &str) -> String {
        format!("/api/v1/{route}?{}{parameters}", self.range)
    }

    /// Sends a request, and leaves the answer on the way.
    fn send(&self, route: &str, parameters: &str) -> TcpStream {
        self.send_as(route, parameters, "")
    }

    /// As [`Self::send`], with these header lines.
    fn send_as(&self, route: &str, parameters: &str, headers: &str) -> TcpStream {
        let http = self.server.http;
        let mut stream = TcpStream::connect(http).unwrap();
        let path = self.path(route, parameters);
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {http}\r\n{headers}connection: close\r\n\r\n"
        )
        .unwrap();
        stream
    }

    /// The value of a metric, 0 if it has none yet.
    async fn metric(&self, name: &str) -> u64 {
        let text = self.server.get("/metrics").await.text();
        let name = format!("pilotlight_server_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.map_or(0, |value| value.parse().unwrap())
    }

    async fn wait_for_metric(&self, name: &str, expected: u64) {
        let until = Instant::now() + DEADLINE;
        loop {
            let value = self.metric(name).await;
            if value == expected {
                return;
            }
            assert!(
                Instant::now() < until,
                "{name} is {value}, and not {expected}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn wait_for_calls(&self, expected: usize) {
        let until = Instant::now() + DEADLINE;
        while self.names.calls() != expected {
            assert!(Instant::now() < until, "{} look-ups", self.names.calls());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How far a question is: its state, its position, and what is read of all.
    async fn progress(&self, name: &str) -> (String, u64, u64, u64) {
        let path = format!("/api/v1/progress?question={name}");
        let progress = self.server.json(&path).await;
        let number = |field: &str| progress[field].as_u64().unwrap();
        assert!(number("bytes_read") <= number("bytes"), "{progress}");
        (
            progress["state"].as_str().unwrap().to_owned(),
            number("position"),
            number("segments_read"),
            number("segments"),
        )
    }

    async fn wait_for_progress(&self, name: &str, expected: (&str, u64, u64, u64)) {
        let until = Instant::now() + DEADLINE;
        let (state, position, read, all) = expected;
        let expected = (state.to_owned(), position, read, all);
        loop {
            let progress = self.progress(name).await;
            if progress == expected {
                return;
            }
            assert!(Instant::now() < until, "{progress:?}, not {expected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn wait_until_idle(&self) {
        for name in [
            r#"queries_running{lane="light"}"#,
            r#"queries_running{lane="heavy"}"#,
            "query_memory_bytes",
        ] {
            self.wait_for_metric(name, 0).await;
        }
    }
}

fn read(mut stream: TcpStream) -> HttpResponse {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    read_response(&mut stream).unwrap()
}

fn error(response: &HttpResponse) -> Value {
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    body["error"].clone()
}

const SMALL: &str = "comm=rustc,node=a | main 0x2f@/lib/libb.so | 7";

/// Check that the work on a question stops after its client went away: the second block is not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_ends_with_its_client() {
    let asked = start(SMALL, &[]).await;
    let client = asked.send("flamegraph", "");
    asked.wait_for_calls(1).await;
    assert!(asked.metric("query_memory_bytes").await > 0);
    drop(client);
    asked
        .wait_for_metric(r#"queries_stopped_total{reason="cancelled"}"#, 1)
        .await;
    assert_eq!(asked.metric(r#"queries_running{lane="light"}"#).await, 1);
    asked.names.go_on();
    asked.wait_until_idle().await;
    assert_eq!(asked.names.calls(), 1);
    let answer = asked.server.json(&asked.path("flamegraph", "")).await;
    assert_eq!((&answer["samples"], asked.names.calls()), (&json!(12), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_has_a_time() {
    let asked = start(SMALL, &["--query-timeout=200ms"]).await;
    let answer = read(asked.send("top", ""));
    assert_eq!(answer.status, 503);
    let error = error(&answer);
    assert_eq!(error["kind"], json!("timed_out"));
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("0.2 s of --query-timeout"),
        "{error}"
    );
    assert_eq!(answer.header("retry-after"), "");
    asked.names.go_on();
    asked.wait_until_idle().await;
    assert_eq!(asked.names.calls(), 1);
    let stopped = asked
        .metric(r#"queries_stopped_total{reason="timed_out"}"#)
        .await;
    assert_eq!(stopped, 1);
}

/// Check that questions for labels, series and sums are answered while the places of heavy questions are taken and their queue is full,
/// and that a further heavy one is told to come back.
#[tokio::test(flavor = "multi_thread")]
async fn light_questions_pass_heavy_ones() {
    let options = ["--queries-max=1", "--queries-waiting-max=1"];
    let asked = start(&large_text(), &options).await;
    let running = asked.send("flamegraph", "");
    asked.wait_for_calls(1).await;
    assert_eq!(asked.metric(r#"queries_running{lane="heavy"}"#).await, 1);
    let waiting = asked.send("top", "");
    asked
        .wait_for_metric(r#"queries_waiting{lane="heavy"}"#, 1)
        .await;
    for (route, parameters) in [
        ("labels", ""),
        ("label/comm/values", ""),
        ("series", ""),
        ("nodes", ""),
        ("containers", ""),
        ("timeseries", "&by=comm"),
    ] {
        let answer = read(asked.send(route, parameters));
        assert_eq!(answer.status, 200, "{route}: {}", answer.text());
    }
    let refused = read(asked.send("folded", ""));
    assert_eq!(
        (refused.status, &error(&refused)["kind"]),
        (503, &json!("busy"))
    );
    assert_eq!(refused.header("retry-after"), "5");
    let name = r#"queries_refused_total{reason="queue_full"}"#;
    assert_eq!(asked.metric(name).await, 1);
    asked.names.go_on();
    for stream in [running, waiting] {
        assert_eq!(read(stream).status, 200);
    }
    asked.wait_until_idle().await;
}

/// Check that a question that is asked again while it is answered is answered once, also if who asked first goes away.
#[tokio::test(flavor = "multi_thread")]
async fn identical_questions_are_answered_once() {
    let asked = start(SMALL, &[]).await;
    let streams = ["", "", "&limit=200"].map(|parameters| asked.send("stacks", parameters));
    asked.wait_for_metric("queries_joined_total", 1).await;
    asked.wait_for_calls(2).await;
    let [first, second, other] = streams;
    drop(first);
    asked.names.go_on();
    let (second, other) = (read(second), read(other));
    assert_eq!((second.status, second.body), (200, other.body));
    assert_eq!(asked.names.calls(), 4);
    // An answer is not kept, and what came meanwhile is in the next one.
    let answer = asked.server.json(&asked.path("stacks", "")).await;
    assert_eq!((&answer["samples"], asked.names.calls()), (&json!(12), 6));
    assert_eq!(asked.metric("queries_joined_total").await, 1);
    asked.wait_until_idle().await;
}

/// Check that a question for which there is not enough memory says so, and keeps none of it, in all forms of answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_needs_too_much_memory_is_refused() {
    let asked = start(&large_text(), &["--query-bytes-max=4MiB"]).await;
    asked.names.go_on();
    let routes = [
        ("flamegraph", ""),
        ("flamegraph.svg", ""),
        ("top", ""),
        ("stacks", ""),
        ("unknown", ""),
        ("lines", "&function=main"),
        ("folded", ""),
        ("pprof", "&query={}"),
    ];
    for (route, parameters) in routes {
        let answer = read(asked.send(route, parameters));
        assert_eq!(answer.status, 422, "{route}: {}", answer.text());
        let error = error(&answer);
        assert_eq!(error["kind"], json!("too_large"));
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("the 4 MiB of --query-bytes-max"),
            "{message}"
        );
        assert!(
            error["hint"].as_str().unwrap().contains("shorter range"),
            "{error}"
        );
        asked.wait_until_idle().await;
    }
    let name = r#"queries_stopped_total{reason="too_large"}"#;
    assert_eq!(asked.metric(name).await, routes.len() as u64);
    for (route, parameters) in [("series", ""), ("flamegraph", "&query={comm='sort'}")] {
        let answer = read(asked.send(route, parameters));
        assert_eq!(answer.status, 200, "{route}: {}", answer.text());
    }
}

/// Check that an answer is on the account until its client has read it or is gone, and that answers take at most their part of the
/// memory.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_are_bounded() {
    let asked = start(&large_text(), &["--query-bytes-max=72MiB"]).await;
    asked.names.go_on();
    let slow = asked.send("folded", "");
    asked
        .wait_for_metric(r#"queries_running{lane="heavy"}"#, 1)
        .await;
    asked
        .wait_for_metric(r#"queries_running{lane="heavy"}"#, 0)
        .await;
    let unread = asked.metric("query_memory_bytes").await;
    assert!((10 << 20..18 << 20).contains(&unread), "{unread}");
    let refused = read(asked.send("folded", ""));
    assert_eq!(refused.status, 503);
    let message = error(&refused)["message"].to_string();
    assert!(message.contains("have not read"), "{message}");
    assert_eq!(refused.header("retry-after"), "5");
    drop(slow);
    asked.wait_until_idle().await;
    let answer = read(asked.send("folded", ""));
    assert_eq!((answer.status, answer.body.len() > 10 << 20), (200, true));
}

/// Check that an answer that is too long is refused, and its compressed form is not; and that an SVG has only what it shows.
#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_refused() {
    let asked = start(&large_text(), &["--query-bytes-max=36MiB"]).await;
    asked.names.go_on();
    let path = asked.path("folded", "");
    let long = asked.server.get(&path).await;
    assert_eq!(long.status, 422, "{}", long.body.len());
    let error = error(&long);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("9 MiB that answers may have"), "{message}");
    assert!(
        error["hint"].to_string().contains("--compressed"),
        "{error}"
    );
    let gzip = get_with(asked.server.http, &path, "accept-encoding: gzip\r\n").unwrap();
    assert_eq!(gzip.status, 200);

    let svg = |parameters| asked.path("flamegraph.svg", parameters);
    let large = asked.server.get(&svg("&min_width=0")).await;
    assert_eq!(large.status, 422, "{}", large.body.len());
    let narrow = asked.server.get(&svg("")).await;
    assert!(narrow.status == 200 && narrow.body.len() < 100_000);
    asked.wait_until_idle().await;
    let name = r#"queries_stopped_total{reason="long_answer"}"#;
    assert_eq!(asked.metric(name).await, 2);
}

/// Check that a client can ask how far its question is, by the name that it gave it: its position in the queue, then what is read, until
/// it is answered; also of a question that is answered together with another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_tells_how_far_it_is() {
    let asked = start(SMALL, &["--queries-max=1"]).await;
    let send = |route: &str, parameters: &str, name: &str| {
        let header = format!("pilotlight-question: {name}\r\n");
        asked.send_as(route, parameters, &header)
    };
    assert_eq!(asked.progress("first").await.0, "unknown");
    let first = send("flamegraph", "", "first");
    asked.wait_for_calls(1).await;
    // While the first of two parts gets names, the second one is read.
    asked.wait_for_progress("first", ("reading", 0, 1, 2)).await;
    let second = send("top", "", "second");
    asked
        .wait_for_progress("second", ("waiting", 1, 0, 0))
        .await;
    let third = send("stacks", "", "third");
    asked.wait_for_progress("third", ("waiting", 2, 0, 0)).await;
    let joined = send("flamegraph", "", "joined");
    asked
        .wait_for_progress("joined", ("reading", 0, 1, 2))
        .await;

    asked.names.pass_one();
    asked.wait_for_calls(2).await;
    asked
        .wait_for_progress("first", ("rendering", 0, 2, 2))
        .await;
    asked
        .wait_for_progress("joined", ("rendering", 0, 2, 2))
        .await;
    drop(second);
    asked
        .wait_for_progress("second", ("unknown", 0, 0, 0))
        .await;
    asked.wait_for_progress("third", ("waiting", 1, 0, 0)).await;
    asked.names.pass_one();
    assert_eq!(read(first).status, 200);
    assert_eq!(read(joined).status, 200);
    asked.wait_for_progress("third", ("reading", 0, 1, 2)).await;
    asked.names.go_on();
    assert_eq!(read(third).status, 200);
    for name in ["first", "joined", "third"] {
        asked.wait_for_progress(name, ("unknown", 0, 0, 0)).await;
    }
    asked.wait_until_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_with_a_wrong_name_is_refused() {
    let asked = start(SMALL, &[]).await;
    asked.names.go_on();
    for name in ["", "a b", "ä", &"a".repeat(65)] {
        let header = format!("pilotlight-question: {name}\r\n");
        let refused = read(asked.send_as("labels", "", &header));
        let error = error(&refused);
        assert_eq!(
            (refused.status, &error["kind"]),
            (400, &json!("bad_parameter"))
        );
        assert_eq!(error["parameter"], json!("pilotlight-question"));
    }
    let answer = read(asked.send_as("labels", "", "pilotlight-question: aZ_9-\r\n"));
    assert_eq!(answer.status, 200);
    let missing = asked.server.get("/api/v1/progress").await;
    assert_eq!(
        (missing.status, &error(&missing)["parameter"]),
        (400, &json!("question"))
    );
}
