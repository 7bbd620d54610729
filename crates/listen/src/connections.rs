//! Serves the connections of a listener within limits on their number and on the time that a client
//! may waste.
//!
//! Looks only at the request's host name, never at the rest of a request.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use axum::serve::Listener;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower::ServiceExt;
use tracing::debug;

use super::hosts::{HostRefusal, Hosts};
use super::metrics::ListenMetrics;
use super::refusals::{Refusal, RefusalBody};
use super::slots::{Activity, Client, HolderSnapshot, Slot, SlotHolder, SlotPool};

/// The protocol of a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1, for browsers and probes.
    Http1,
    /// HTTP/2 with prior knowledge, for gRPC.
    Http2,
}

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Maximum time for a request's header, from the connection's start or the end of the previous
    /// answer; so also the maximum time for which a connection may be idle.
    pub silence_max: Duration,
    /// Maximum time in which a client reads nothing of an answer.
    pub unread_max: Duration,
    /// Maximum time in which a client reads an answer slower than
    /// [`BYTES_PER_SECOND_MIN`](super::slots::BYTES_PER_SECOND_MIN).
    pub slow_max: Duration,
}

impl Default for ConnectionLimits {
    /// - 512 connections serve 85 browsers with six each. hyper buffers up to 400 KiB of a header, so
    ///   they take at most 200 MiB.
    /// - 30 s is more than any network takes for a header. The page retries over a new connection.
    /// - 60 s is eight retransmissions: a client that reads nothing for so long is gone or stopped,
    ///   and one that reads less than 1 MB only keeps the answer in the server's memory.
    fn default() -> Self {
        Self {
            connections_max: 512,
            silence_max: Duration::from_secs(30),
            unread_max: Duration::from_secs(60),
            slow_max: Duration::from_secs(60),
        }
    }
}

impl ConnectionLimits {
    /// Limits for collectors: their windows are at most 30 s long, so two minutes of silence mean
    /// that the collector is gone.
    pub fn of_collectors(connections_max: usize) -> Self {
        Self {
            connections_max,
            silence_max: Duration::from_secs(120),
            ..Self::default()
        }
    }

    /// Limits for probes: a few orchestrators and Prometheus servers, with one connection each and
    /// an immediate request.
    pub fn of_probes() -> Self {
        Self {
            connections_max: 64,
            silence_max: Duration::from_secs(10),
            unread_max: Duration::from_secs(20),
            slow_max: Duration::from_secs(20),
        }
    }

    /// Sets a connection's socket options.
    pub fn prepare(&self, stream: &TcpStream) {
        // An answer has several small segments. Without this, the second waits for the
        // acknowledgement of the first, which the other side delays by 40 ms.
        if let Err(err) = stream.set_nodelay(true) {
            debug!(%err, "failed to send segments at once");
        }
        let unread_ms = self.unread_max.as_millis() as u32;
        if let Err(err) = set_tcp_user_timeout(stream, unread_ms) {
            debug!(%err, "failed to bound the time that a client may not read");
        }
    }
}

/// A collector that vanished is detected after the sum of these two.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// HTTP/2 receive window of each connection. It allows 20 MB a second at a round trip of 12 ms, and
/// 2,048 connections take at most 512 MiB.
const UNREAD_BYTES_MAX: u32 = 256 << 10;

/// Concurrent requests on a connection: a proxy may send those of many collectors over one.
const STREAMS_MAX: u32 = 128;

/// Maximum interval between checks for expired connections; a time-out is exact to a quarter of its
/// length.
const EXPIRY_CHECK_MAX: Duration = Duration::from_secs(5);

/// Serves the connections of one listener.
pub struct HttpServer {
    /// The routes.
    pub router: Router,
    /// The protocol of all connections.
    pub protocol: Protocol,
    /// The accepted host names.
    pub hosts: Hosts,
    /// Limits of all connections.
    pub limits: ConnectionLimits,
    /// Counts closed connections.
    pub metrics: ListenMetrics,
    /// The body of answers to requests whose head is too large; `None`: they have none.
    pub refusal_body: Option<RefusalBody>,
}

impl HttpServer {
    /// Serves until `stop` completes; then closes idle connections, and waits for running requests.
    pub async fn serve(self, mut listener: TcpListener, stop: impl Future<Output = ()>) {
        let slots = SlotPool::new(self.limits.connections_max);
        let connections = GracefulShutdown::new();
        let mut stop = pin!(stop);
        let shortest = self.limits.silence_max.min(self.limits.slow_max);
        let mut expiry_check = tokio::time::interval(EXPIRY_CHECK_MAX.min(shortest / 4));
        loop {
            // Axum's `accept` never fails: it waits a second if no descriptors are left.
            let (stream, address) = tokio::select! {
                accepted = Listener::accept(&mut listener) => accepted,
                _ = expiry_check.tick() => {
                    self.expire(&slots);
                    continue;
                }
                () = &mut stop => break,
            };
            let Some(taken) = slots.acquire(Client::new(address.ip())) else {
                self.metrics.count_closed_connection("limit");
                continue;
            };
            if taken.is_preempted {
                self.metrics.count_closed_connection("gave_way");
            }
            self.connect(stream, taken.slot, &connections);
        }
        drop(listener);
        connections.shutdown().await;
    }

    /// Closes the connections whose time-outs hyper does not check: all time-outs of HTTP/2, and
    /// those of answers.
    fn expire(&self, slots: &SlotPool) {
        let ConnectionLimits {
            silence_max,
            slow_max,
            ..
        } = self.limits;
        let is_silent = |state: HolderSnapshot| {
            self.protocol == Protocol::Http2
                && state.activity < Activity::Transferring
                && state.time > silence_max
        };
        for (reason, count) in [
            ("silent", slots.expire(is_silent)),
            ("slow", slots.expire_slow(slow_max)),
        ] {
            (0..count).for_each(|_| self.metrics.count_closed_connection(reason));
        }
    }

    fn connect(&self, stream: TcpStream, slot: Slot, connections: &GracefulShutdown) {
        self.limits.prepare(&stream);
        let shared = Arc::new(Shared {
            holder: Arc::clone(slot.holder()),
            is_answered: AtomicBool::new(false),
            is_routed: AtomicBool::new(false),
        });
        let service = RequestService {
            router: self.router.clone(),
            protocol: self.protocol,
            hosts: self.hosts.clone(),
            metrics: self.metrics.clone(),
            shared: Arc::clone(&shared),
            slots: Arc::clone(slot.slots()),
            info: stream.connect_info(),
        };
        let stream = TokioIo::new(CountingStream {
            stream,
            shared,
            refusal_body: self.refusal_body,
            refusal: None,
        });
        let metrics = self.metrics.clone();
        match self.protocol {
            Protocol::Http1 => {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(self.limits.silence_max)
                    .serve_connection(stream, service);
                tokio::spawn(keep(connections.watch(connection), slot, metrics));
            }
            Protocol::Http2 => {
                let connection = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .keep_alive_interval(KEEPALIVE)
                    .keep_alive_timeout(KEEPALIVE_ANSWER)
                    .initial_stream_window_size(UNREAD_BYTES_MAX)
                    .initial_connection_window_size(UNREAD_BYTES_MAX)
                    .max_concurrent_streams(STREAMS_MAX)
                    .serve_connection(stream, service);
                tokio::spawn(keep(connections.watch(connection), slot, metrics));
            }
        }
    }
}

/// Serves a connection until it ends or its slot is revoked.
async fn keep(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    slot: Slot,
    metrics: ListenMetrics,
) {
    tokio::select! {
        result = connection => {
            if let Err(err) = result {
                count_error(&metrics, &err);
            }
        }
        () = slot.holder().revoked() => {}
    }
}

fn count_error(metrics: &ListenMetrics, err: &hyper::Error) {
    let source = std::error::Error::source(err).and_then(|source| source.downcast_ref());
    let is_unread = source.is_some_and(|err: &io::Error| err.kind() == io::ErrorKind::TimedOut);
    if is_unread {
        metrics.count_closed_connection("unread");
    } else if err.is_timeout() {
        metrics.count_closed_connection("silent");
    } else {
        debug!(%err, "a connection failed");
    }
}

/// State shared by a connection's requests, answers and stream.
struct Shared {
    holder: Arc<SlotHolder>,
    /// The answer was passed to hyper, which may not have written all of it yet.
    is_answered: AtomicBool,
    /// A request was passed to the routes, and its answer was not written as a whole yet.
    is_routed: AtomicBool,
}

/// The connection of a request, among the request's extensions.
#[derive(Clone)]
pub struct RequestConnection {
    /// The holder of the connection's slot.
    pub holder: Arc<SlotHolder>,
    /// The slots of all connections of the listener.
    pub slots: Arc<SlotPool>,
    /// Counts connections that lose their slot.
    pub metrics: ListenMetrics,
}

/// Passes a connection's requests to the routes.
struct RequestService {
    router: Router,
    protocol: Protocol,
    hosts: Hosts,
    metrics: ListenMetrics,
    shared: Arc<Shared>,
    slots: Arc<SlotPool>,
    info: TcpConnectInfo,
}

impl Service<Request<Incoming>> for RequestService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let holder = &self.shared.holder;
        holder.note_request();
        self.shared.is_routed.store(true, Ordering::Release);
        let (mut parts, body) = request.into_parts();
        if let Err(refusal) = self.hosts.check(&parts) {
            return Box::pin(std::future::ready(Ok(self.refuse(&refusal))));
        }
        parts.extensions.insert(self.info.clone());
        parts.extensions.insert(RequestConnection {
            holder: Arc::clone(holder),
            slots: Arc::clone(&self.slots),
            metrics: self.metrics.clone(),
        });
        let answer = self
            .router
            .clone()
            .oneshot(Request::from_parts(parts, body));
        match self.protocol {
            // Requests of gRPC report their own work.
            Protocol::Http2 => Box::pin(answer),
            Protocol::Http1 => {
                let (work, shared) = (holder.work(), Arc::clone(&self.shared));
                Box::pin(async move {
                    let answer = answer.await?;
                    work.answer();
                    Ok(answer.map(|body| Body::new(Answer { body, shared })))
                })
            }
        }
    }
}

impl RequestService {
    fn refuse(&self, refusal: &HostRefusal) -> Response<Body> {
        let HostRefusal { status, message } = refusal;
        self.metrics.count_other_host();
        debug!(%status, message, "refused a request by its host");
        let mut response = match self.protocol {
            Protocol::Http1 => Response::new(Body::from(format!("{message}\n"))),
            Protocol::Http2 => Status::unavailable(message).into_http(),
        };
        *response.status_mut() = *status;
        response
    }
}

/// The body of an answer; dropping it marks the answer as complete.
struct Answer {
    body: Body,
    shared: Arc<Shared>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.is_answered.store(true, Ordering::Release);
    }
}

/// A stream that counts the bytes written, and gives hyper's own answers a body.
struct CountingStream {
    stream: TcpStream,
    shared: Arc<Shared>,
    refusal_body: Option<RefusalBody>,
    refusal: Option<Refusal>,
}

impl CountingStream {
    /// Writes the answer in place of hyper's own, if this is one. Ready with the length of hyper's.
    fn poll_refusal(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<Option<usize>>> {
        if self.refusal.is_none()
            && let Some(body) = self.refusal_body
            && !self.shared.is_routed.load(Ordering::Acquire)
        {
            self.refusal = Refusal::of(bytes, body);
        }
        let Some(refusal) = &mut self.refusal else {
            return Poll::Ready(Ok(None));
        };
        let replaced = ready!(refusal.poll_write(&mut self.stream, context))?;
        self.refusal = None;
        Poll::Ready(Ok(Some(replaced)))
    }

    fn note(&self, written: io::Result<usize>) -> io::Result<usize> {
        if let Ok(bytes) = written {
            self.shared.holder.note_bytes(bytes);
        }
        written
    }
}

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(replaced) = ready!(self.poll_refusal(context, bytes))? {
            return Poll::Ready(Ok(replaced));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        Poll::Ready(self.note(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.first().map_or(&[][..], |first| first);
        if let Some(replaced) = ready!(self.poll_refusal(context, first))? {
            return Poll::Ready(Ok(replaced));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        Poll::Ready(self.note(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes after it has written everything.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        if self.shared.is_answered.swap(false, Ordering::AcqRel) {
            self.shared.is_routed.store(false, Ordering::Release);
            self.shared.holder.begin(Activity::Idle);
        }
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
