//! Collectors that stop in the middle, over real sockets: they block no other collector, and time out.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Request, StatusCode, Uri};
use axum::routing::post;
use axum::{Router, middleware};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use listen::{ConnectionLimits, Hosts, HttpServer, ListenMetrics, Protocol};
use metrics::{Exposition, Registry};
use model::text::window_at;
use running::Running;
use server::metrics::PREFIX;
use server::receive::ReceiveMetrics;
use server::receive::grpc::unary::receive;
use server::receive::grpc::{ReceiveLimits, Receiver};
use test_push::push_request;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Time that a test waits for a condition; only a failure takes as long.
const DEADLINE: Duration = Duration::from_secs(30);

/// Short, so that tests of timeouts are quick.
const SHORT: Duration = Duration::from_millis(200);

/// A prefix that announces 1,000 bytes.
const STALLED: &[u8] = &[0, 0, 0, 3, 232];

const PUSH: &str = "/pilotlight.v1.Ingest/Push";

/// A body of some bytes, and then one more at each interval, for ever.
struct Stalling {
    first: Option<Bytes>,
    drip: Option<tokio::time::Interval>,
}

impl Stalling {
    fn after(bytes: &'static [u8]) -> Self {
        Self {
            first: Some(Bytes::from_static(bytes)),
            drip: None,
        }
    }
}

impl Body for Stalling {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(bytes) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.drip {
            Some(drip) => drip
                .poll_tick(context)
                .map(|_| Some(Ok(Frame::data(Bytes::from_static(&[0]))))),
            None => Poll::Pending,
        }
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Stalling> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// Begins a push that stalls, and returns its future answer.
fn stall(
    sender: &mut SendRequest<Stalling>,
    address: SocketAddr,
    body: Stalling,
) -> impl Future<Output = (StatusCode, String)> + use<> {
    let request = Request::post(format!("http://{address}{PUSH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answer = sender.send_request(request);
    async move {
        let answer = answer.await.unwrap();
        let message = answer.headers().get("grpc-message");
        let message = message.map(|value| value.to_str().unwrap().to_owned());
        (answer.status(), message.unwrap_or_default())
    }
}

/// A message, always the same.
fn valid() -> proto::v1::PushRequest {
    static START_MS: LazyLock<i64> =
        LazyLock::new(|| server::serve::http::routes::now_ms() - 20_000);
    push_request(&window_at("comm=a,node=a | main | 1", *START_MS, 1))
}

async fn health(grpc: SocketAddr) -> HealthClient<Channel> {
    let endpoint = Endpoint::new(format!("http://{grpc}")).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

async fn within<T>(what: &str, time: Duration, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(time, work).await;
    done.unwrap_or_else(|_| panic!("{what} takes longer than {time:?}"))
}

/// Check that 40 messages that stop after five bytes, of one connection or of 40, hold up neither the health check nor pushes.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_messages_stop_neither_other_pushes_nor_the_health_check() {
    for connections in [1, 40] {
        let server = Running::start().await;
        let mut stalled = Vec::new();
        let mut senders = Vec::new();
        for at in 0..40 {
            if at < connections {
                senders.push(connect(server.grpc).await);
            }
            let sender = senders.last_mut().unwrap();
            let answer = stall(sender, server.grpc, Stalling::after(STALLED));
            stalled.push(tokio::spawn(answer));
        }
        tokio::time::sleep(SHORT).await;
        let mut health = health(server.grpc).await;
        let check = health.check(HealthCheckRequest::default());
        let check = within("a health check", DEADLINE, check).await;
        assert_eq!(check.unwrap().into_inner().status, 1);
        for _ in 0..3 {
            let push = within("a push", DEADLINE, server.push(valid()));
            push.await.unwrap();
        }
        stalled.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// A server with one route, and short times.
async fn serve(limits: ReceiveLimits, connections: ConnectionLimits) -> (SocketAddr, Registry) {
    let (received, listened) = (ReceiveMetrics::default(), ListenMetrics::default());
    let mut registry = Registry::default();
    let own = registry.sub_registry_with_prefix(PREFIX);
    received.register(own);
    listened.register(own);
    let receiver = Receiver::new(limits, received);
    let router = Router::new()
        .route(PUSH, post(|body: Bytes| async { body }))
        .layer(middleware::from_fn_with_state(receiver, receive));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = HttpServer {
        router,
        protocol: Protocol::Http2,
        hosts: Hosts::Any,
        limits: connections,
        metrics: listened,
        refusal_body: None,
    };
    tokio::spawn(server.serve(listener, std::future::pending()));
    (address, registry)
}

fn encode(registry: &Registry) -> String {
    Exposition::Text.encode(registry).unwrap()
}

fn short() -> ReceiveLimits {
    ReceiveLimits {
        silence_max: SHORT,
        time_max: 3 * SHORT,
        ..ReceiveLimits::new(1 << 20)
    }
}

fn long_limits() -> ConnectionLimits {
    ConnectionLimits {
        connections_max: 8,
        silence_max: 2 * DEADLINE,
        unread_max: 2 * DEADLINE,
        slow_max: 2 * DEADLINE,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_stops_or_drips_is_refused_in_time_and_counted() {
    let (address, metrics) = serve(short(), long_limits()).await;
    let mut sender = connect(address).await;
    let stopped = stall(&mut sender, address, Stalling::after(STALLED));
    let dripping = Stalling {
        drip: Some(tokio::time::interval(SHORT / 10)),
        ..Stalling::after(STALLED)
    };
    let dripping = stall(&mut sender, address, dripping);
    for answer in [
        within("the end", DEADLINE, stopped).await,
        within("the end", DEADLINE, dripping).await,
    ] {
        assert!(answer.1.contains("too%20slowly"), "{answer:?}");
    }
    let text = encode(&metrics);
    assert!(
        text.contains("windows_refused_total{reason=\"slow\"} 2"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_limit_is_refused_by_its_prefix() {
    let (address, _) = serve(ReceiveLimits::new(1 << 20), long_limits()).await;
    let mut sender = connect(address).await;
    let large = stall(&mut sender, address, Stalling::after(&[0, 0, 0x10, 0, 1]));
    let answer = within("the end", DEADLINE, large).await;
    assert!(answer.1.contains("1048577%20bytes"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_message_is_handed_on_unchanged() {
    let (address, _) = serve(ReceiveLimits::new(1 << 20), long_limits()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let message = Bytes::from_static(&[0, 0, 0, 0, 2, 0x10, 7]);
    let uri: Uri = format!("http://{address}{PUSH}").parse().unwrap();
    let request = Request::post(uri).body(Full::new(message.clone())).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        message
    );
}

/// Check that silent connections do not block a collector, and that their number is bounded.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_give_way_to_a_collector() {
    let (address, metrics) = serve(short(), long_limits()).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let mut sender = connect(address).await;
    let answer = stall(&mut sender, address, Stalling::after(STALLED));
    within("an answer", DEADLINE, answer).await;
    let text = encode(&metrics);
    assert!(
        text.contains("connections_closed_total{reason=\"gave_way\"} 33"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_for_long_is_closed() {
    let limits = ConnectionLimits {
        silence_max: SHORT,
        ..long_limits()
    };
    let (address, metrics) = serve(short(), limits).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let begin = Instant::now();
    let line = "connections_closed_total{reason=\"silent\"} 1";
    while !encode(&metrics).contains(line) {
        assert!(begin.elapsed() < DEADLINE, "it is not closed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Check that an answer is not held back until the collector's side acknowledges its first segment, which takes 40 ms.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_a_single_collector_are_sent_at_once() {
    let server = Running::start().await;
    let mut client = health(server.grpc).await;
    let until = Instant::now() + DEADLINE;
    // Of a held-back answer each try would take 40 ms, also on a busy machine.
    loop {
        let begin = Instant::now();
        client.check(HealthCheckRequest::default()).await.unwrap();
        if begin.elapsed() < Duration::from_millis(35) {
            break;
        }
        assert!(Instant::now() < until, "no answer is sent at once");
    }
}
