//! Limits of HTTP connections, over real sockets: clients that send nothing, half a request, or do
//! not read the answer.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use listen::{ConnectionLimits, Hosts, HttpServer, ListenMetrics, Protocol};
use metrics::{Exposition, Registry};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Time-out of a condition; only a failing test takes this long.
const DEADLINE: Duration = Duration::from_secs(60);

/// More than the socket buffers of both ends hold.
const LARGE_BYTES: usize = 64 << 20;

const REQUEST: &str = "GET /small HTTP/1.1\r\nhost: test\r\n\r\n";

/// Short, so that tests of time-outs are quick.
const SHORT: Duration = Duration::from_millis(200);

struct Served {
    address: SocketAddr,
    registry: Registry,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn serve(limits: ConnectionLimits) -> Served {
    let router = Router::new()
        .route("/small", get(async || "small"))
        .route("/large", get(async || vec![0_u8; LARGE_BYTES]));
    let metrics = ListenMetrics::default();
    let mut registry = Registry::default();
    metrics.register(registry.sub_registry_with_prefix("test"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = HttpServer {
        router,
        protocol: Protocol::Http1,
        hosts: Hosts::Any,
        limits,
        metrics,
        refusal_body: None,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.serve(listener, async { drop(stopped.await) }));
    Served {
        address,
        registry,
        stop,
        task,
    }
}

/// Limits that no test reaches.
fn long_limits() -> ConnectionLimits {
    ConnectionLimits {
        connections_max: 8,
        silence_max: 2 * DEADLINE,
        unread_max: 2 * DEADLINE,
        slow_max: 2 * DEADLINE,
    }
}

impl Served {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn closed(&self, reason: &str) -> u64 {
        let line = format!("test_connections_closed_total{{reason=\"{reason}\"}} ");
        let text = Exposition::Text.encode(&self.registry).unwrap();
        let count = text.lines().find_map(|text| text.strip_prefix(&line));
        count.map_or(0, |count| count.parse().unwrap())
    }
}

/// Sends a request over an open connection; `None` if it is closed.
fn ask(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(REQUEST.as_bytes()).ok()?;
    let mut answer = String::new();
    let mut byte = [0];
    while !answer.ends_with("small") {
        match stream.read(&mut byte) {
            Ok(1) => answer.push(char::from(byte[0])),
            Ok(_) => return None,
            Err(err) if is_closed(&err) => return None,
            Err(err) => panic!("{err}"),
        }
    }
    Some(answer)
}

fn is_closed(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < DEADLINE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_nothing_or_half_are_closed_and_counted() {
    let server = serve(ConnectionLimits {
        silence_max: SHORT,
        ..long_limits()
    })
    .await;
    let mut silent = server.connect();
    let mut half = server.connect();
    half.write_all(&REQUEST.as_bytes()[..20]).unwrap();
    // On a busy machine a connection may be closed before it asks.
    let mut idle = loop {
        let mut stream = server.connect();
        if let Some(answer) = ask(&mut stream) {
            assert!(answer.starts_with("HTTP/1.1 200"));
            break stream;
        }
    };
    for stream in [&mut silent, &mut half, &mut idle] {
        assert_eq!(stream.read(&mut [0; 64]).unwrap(), 0, "it is closed");
    }
    wait_until("the count", || server.closed("silent") >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_and_counted_until_one_ends() {
    let server = serve(ConnectionLimits {
        connections_max: 2,
        ..long_limits()
    })
    .await;
    let mut kept = [server.connect(), server.connect()];
    for stream in &mut kept {
        assert!(ask(stream).is_some());
    }
    assert!(ask(&mut server.connect()).is_none());
    assert_eq!(server.closed("limit"), 1);
    // The open connections still work, and the slot of a closed one is free again.
    let [mut first, second] = kept;
    assert!(ask(&mut first).is_some());
    drop(second);
    wait_until("a free slot", || ask(&mut server.connect()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = serve(ConnectionLimits {
        unread_max: SHORT,
        ..long_limits()
    })
    .await;
    let mut stream = server.connect();
    stream
        .write_all(REQUEST.replace("small", "large").as_bytes())
        .unwrap();
    wait_until("the end", || server.closed("unread") == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_idle_connections_and_ends() {
    let server = serve(long_limits()).await;
    let mut idle = server.connect();
    let mut silent = server.connect();
    assert!(ask(&mut idle).is_some());
    server.stop.send(()).unwrap();
    tokio::time::timeout(DEADLINE, server.task)
        .await
        .expect("it ends")
        .unwrap();
    for stream in [&mut idle, &mut silent] {
        match stream.read(&mut [0; 64]) {
            Ok(length) => assert_eq!(length, 0),
            Err(err) => assert!(is_closed(&err), "{err}"),
        }
    }
}

/// Check that connections without a request do not keep a slot from one with a request.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_nothing_or_half_give_way_when_there_are_too_many() {
    let server = serve(long_limits()).await;
    let mut half_open = Vec::new();
    for at in 0..40 {
        let mut stream = server.connect();
        if at % 2 == 0 {
            stream.write_all(&REQUEST.as_bytes()[..20]).unwrap();
        }
        half_open.push(stream);
        assert!(ask(&mut server.connect()).is_some(), "after {at}");
    }
    wait_until("the count", || server.closed("gave_way") > 0);
    assert_eq!(server.closed("limit"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_sent_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    assert!(!stream.nodelay().unwrap());
    long_limits().prepare(&stream);
    assert!(stream.nodelay().unwrap());
}
