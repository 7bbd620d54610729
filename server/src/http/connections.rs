//! Connections: takes them, bounds their number and how long a client may keep one for nothing, and ends them.
//!
//! In: a listener and the routes. Never looks into a request.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::metrics::Metrics;

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// How long a request's header may take, from the connection's start or the end of the answer before it; so also
    /// how long a connection may be idle.
    pub silence_max: Duration,
    /// How long a client may take nothing of an answer.
    pub unread_max: Duration,
}

impl Default for ConnectionLimits {
    /// - 512 connections are those of 85 browsers, of six each; hyper holds up to 400 KiB of a header, so that they
    ///   take 200 MiB at worst; and they leave half of the usual 1,024 descriptors to segments and collectors.
    /// - 30 s are longer than any network takes for a header, and shorter than what fills the 512 with the
    ///   connections that 15 new ones a second leave behind. The page asks again over a new one.
    /// - 60 s are eight retransmissions: a client that did not read for so long is away or stopped.
    fn default() -> Self {
        Self {
            connections_max: 512,
            silence_max: Duration::from_secs(30),
            unread_max: Duration::from_secs(60),
        }
    }
}

/// What serves connections.
pub struct HttpServer {
    /// The routes.
    pub router: Router,
    /// The limits.
    pub limits: ConnectionLimits,
    /// Where closed connections are counted.
    pub metrics: Arc<Metrics>,
}

impl HttpServer {
    /// Serves until `stop` is done; then closes idle connections and lets running requests end.
    pub async fn serve(self, mut listener: TcpListener, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(self.limits.connections_max));
        let connections = GracefulShutdown::new();
        let mut stop = pin!(stop);
        loop {
            // Axum's `accept` waits a second when there are no descriptors, and never fails.
            let (stream, _) = tokio::select! {
                accepted = Listener::accept(&mut listener) => accepted,
                () = &mut stop => break,
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.metrics.count_closed_connection("limit");
                continue;
            };
            let connection = connections.watch(self.connect(stream));
            let metrics = Arc::clone(&self.metrics);
            tokio::spawn(async move {
                if let Err(err) = connection.await {
                    count_error(&metrics, &err);
                }
                drop(place);
            });
        }
        drop(listener);
        connections.shutdown().await;
    }

    fn connect(
        &self,
        stream: TcpStream,
    ) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
        let unread_ms = self.limits.unread_max.as_millis() as u32;
        if let Err(err) = set_tcp_user_timeout(&stream, unread_ms) {
            debug!(%err, "failed to bound the time that a client may not read");
        }
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.silence_max)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(self.router.clone()),
            )
    }
}

fn count_error(metrics: &Metrics, err: &hyper::Error) {
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
