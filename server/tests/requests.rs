//! Forms of requests and answers: POST, compression, and what is refused before a route is reached.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use flate2::read::GzDecoder;
use model::text::window_at;
use running::{HttpResponse, Running, get_with, read_response};
use serde_json::{Value, json};
use test_push::push_request;

const TEXT: &str = "
    comm=rustc,node=a | main parse read@[kernel] | 12 | thread=worker outcome=truncated
    comm=sort,node=a | main 0x1f@/lib/libb.so | 5
";

/// Its colours are random.
const SVG: &str = "flamegraph.svg";

/// Routes of queries, and a parameter of their own as the URL and as the body has it.
fn routes() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("labels", "", json!({})),
        ("label/comm/values", "", json!({})),
        ("series", "&limit=1", json!({"limit": 1})),
        (
            "timeseries",
            "&by=comm&step=10s",
            json!({"by": "comm", "step": "10s"}),
        ),
        (
            "flamegraph",
            "&path=[\"main\",\"parse\"]",
            json!({"path": ["main", "parse"]}),
        ),
        (SVG, "&min_width=0.5", json!({"min_width": 0.5})),
        (
            "top",
            "&sort=total&offset=1",
            json!({"sort": "total", "offset": "1"}),
        ),
        ("stacks", "&limit=3", json!({"limit": 3})),
        ("lines", "&function=parse", json!({"function": "parse"})),
        ("unknown", "", json!({})),
        ("pprof", "", json!({})),
        ("folded", "", json!({})),
        ("nodes", "", json!({})),
        ("containers", "&sort=sampled", json!({"sort": "sampled"})),
    ]
}

/// A server with a window, and its start.
async fn filled(text: &str) -> (Running, i64) {
    let server = Running::start().await;
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
    let window = window_at(text, start_ms, 1);
    server.push(push_request(&window)).await.unwrap();
    (server, start_ms)
}

/// Sends the head of a request and its body.
fn send(http: SocketAddr, head: &str, body: &[u8]) -> HttpResponse {
    let mut stream = TcpStream::connect(http).unwrap();
    let length = body.len();
    let head = format!(
        "{head} HTTP/1.1\r\nhost: {http}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The server may answer before it has read everything.
    let _ = stream.write_all(body);
    read_response(&mut stream).unwrap()
}

fn post(http: SocketAddr, path: &str, body: &str) -> HttpResponse {
    send(http, &format!("POST {path}"), body.as_bytes())
}

fn error(response: &HttpResponse) -> Value {
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    body["error"].clone()
}

/// Check that each query route has the same answer to POST as to GET, with an own parameter too.
#[tokio::test(flavor = "multi_thread")]
async fn posts_are_answered_as_gets() {
    let (server, start_ms) = filled(TEXT).await;
    for (route, url, own) in routes() {
        let (from, to) = (start_ms, start_ms + 10_000);
        let got = server
            .get(&format!(
                "/api/v1/{route}?query={{node=\"a\"}}&from={from}&to={to}{url}"
            ))
            .await;
        assert_eq!(got.status, 200, "{route}: {}", got.text());
        let mut body = json!({"query": "{node=\"a\"}", "from": from, "to": to.to_string()});
        let own = own.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(own);
        let posted = post(server.http, &format!("/api/v1/{route}"), &body.to_string());
        assert_eq!(posted.status, 200, "{route}");
        assert_eq!(posted.header("content-type"), got.header("content-type"));
        assert!(posted.body == got.body || route == SVG, "{route}");
    }
}

/// Check that a path that is too long for a URL reaches the route.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_path_fits_into_a_body() {
    let names: Vec<String> = (0..800)
        .map(|depth| format!("f{depth}::{}", "t".repeat(200)))
        .collect();
    let text = format!("comm=deep,node=a | {} | 3", names.join(" "));
    let (server, _) = filled(&text).await;
    let body = json!({"path": names, "query": "{comm=\"deep\"}"}).to_string();
    assert!(body.len() > 1 << 16);
    let answer = post(server.http, "/api/v1/flamegraph", &body);
    assert_eq!(answer.status, 200);
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["path_total_ns"], json!(30_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bodies_are_refused() {
    let (server, _) = filled(TEXT).await;
    for (body, kind, parameter, words) in [
        ("", "bad_parameter", Value::Null, "not a JSON object"),
        (
            "query={}",
            "bad_parameter",
            Value::Null,
            "not a JSON object",
        ),
        (
            "[1]",
            "bad_parameter",
            Value::Null,
            "an object with the parameters",
        ),
        (
            r#"{"limit": 1} x"#,
            "bad_parameter",
            Value::Null,
            "trailing",
        ),
        (
            r#"{"limit": true}"#,
            "bad_parameter",
            json!("limit"),
            "neither a text",
        ),
        (
            r#"{"limit": {"a": 1}}"#,
            "bad_parameter",
            json!("limit"),
            "neither a text",
        ),
        (
            r#"{"limit": 1.5}"#,
            "bad_parameter",
            json!("limit"),
            "whole number",
        ),
        (
            r#"{"limit": 1, "limit": 2}"#,
            "bad_parameter",
            json!("limit"),
            "twice",
        ),
        (
            r#"{"from": "now-1h"}"#,
            "bad_parameter",
            json!("from"),
            "twice",
        ),
        (
            r#"{"limti": 1}"#,
            "unknown_parameter",
            json!("limti"),
            "no parameter",
        ),
        (
            r#"{"query": "{comm=x}"}"#,
            "bad_selector",
            json!("query"),
            "quoted",
        ),
    ] {
        let answer = post(server.http, "/api/v1/top?from=now-2h", body);
        let error = error(&answer);
        assert_eq!(
            (answer.status, &error["kind"]),
            (400, &json!(kind)),
            "{body}"
        );
        assert_eq!(error["parameter"], parameter, "{body}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{body}: {message}");
    }
    let large = format!("{{\"query\": \"{}\"}}", "x".repeat(2 << 20));
    let answer = post(server.http, "/api/v1/top", &large);
    assert_eq!(
        (answer.status, &error(&answer)["kind"]),
        (413, &json!("body_too_large"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused_with_the_right_ones() {
    let (server, _) = filled(TEXT).await;
    for (head, allow) in [
        ("PUT /api/v1/top", "GET,HEAD,POST"),
        ("POST /api/v1/status", "GET,HEAD"),
        ("DELETE /metrics", "GET,HEAD"),
        ("POST /api/v1/debuginfo/00ff", "PUT,GET,HEAD,DELETE"),
    ] {
        let answer = send(server.http, head, b"");
        assert_eq!(answer.status, 405, "{head}");
        assert_eq!(answer.header("allow"), allow, "{head}");
        assert_eq!(answer.header("content-type"), "application/json");
        let (method, path) = head.split_once(' ').unwrap();
        let error = error(&answer);
        assert_eq!(error["kind"], json!("method_not_allowed"));
        assert_eq!(
            error["message"],
            json!(format!("{path} does not take {method}"))
        );
    }
}

/// Check that requests that are refused before a route say why, on a new connection and after another request.
#[tokio::test(flavor = "multi_thread")]
async fn requests_with_a_large_head_are_refused_with_words() {
    let (server, _) = filled(TEXT).await;
    let uri = format!("GET /api/v1/top?query={} HTTP/1.1", "x".repeat(1 << 16));
    let fields = (0..101).map(|number| format!("\r\nx-{number}: 1"));
    let fields = format!("GET /healthz HTTP/1.1{}", fields.collect::<String>());
    for (head, status, kind, hint) in [
        (&uri, 414, "uri_too_long", "POST"),
        (&fields, 431, "header_too_large", "fewer"),
    ] {
        for is_first in [true, false] {
            let mut stream = TcpStream::connect(server.http).unwrap();
            if !is_first {
                write!(stream, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"ok\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    answer.push(byte[0]);
                }
            }
            write!(stream, "{head}\r\nhost: localhost\r\n\r\n").unwrap();
            let answer = read_response(&mut stream).unwrap();
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("content-type"), "application/json");
            let error = error(&answer);
            assert_eq!(error["kind"], json!(kind));
            assert!(error["hint"].as_str().unwrap().contains(hint), "{error}");
        }
    }
}

/// Check that answers are the same with each compression, and that a pprof is not compressed twice.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_as_the_client_wants() {
    let (server, start_ms) = filled(TEXT).await;
    for (route, url, _) in routes() {
        let path = format!("/api/v1/{route}?query={{}}&from={start_ms}&to=now{url}");
        // Relative times are those of the request.
        let path = path.replace("to=now", &format!("to={}", start_ms + 10_000));
        let plain = server.get(&path).await;
        assert_eq!(plain.header("content-encoding"), "");
        for (accepted, coding) in [("gzip, deflate", "gzip"), ("gzip, br, zstd", "zstd")] {
            let headers = format!("accept-encoding: {accepted}\r\n");
            let packed = get_with(server.http, &path, &headers).unwrap();
            if route == "pprof" {
                assert_eq!(packed.header("content-encoding"), "");
                assert_eq!(packed.body, plain.body);
                continue;
            }
            assert_eq!(packed.header("content-encoding"), coding, "{route}");
            assert_eq!(packed.header("vary"), "accept-encoding");
            assert_eq!(packed.header("content-type"), plain.header("content-type"));
            let mut unpacked = Vec::new();
            match coding {
                "gzip" => GzDecoder::new(packed.body.as_slice())
                    .read_to_end(&mut unpacked)
                    .unwrap(),
                _ => zstd::Decoder::new(packed.body.as_slice())
                    .unwrap()
                    .read_to_end(&mut unpacked)
                    .unwrap(),
            };
            assert!(unpacked == plain.body || route == SVG, "{route}");
            assert!(unpacked.len() > 10);
        }
    }
}
