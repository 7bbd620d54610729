//! `/metrics` and `/healthz` on a local port.

use std::{net::SocketAddr, thread};

use anyhow::{Context as _, Result};
use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

use crate::{accounts::ProcessAccount, metrics::SharedMetrics, send::SenderWatch};

/// Serves the figures from a thread of its own, as long as the process lives.
/// Gives the address that it listens on.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve_metrics(
    listen: SocketAddr,
    metrics: SharedMetrics,
    sender: SenderWatch,
) -> Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("failed to start the metrics server")?;
    let listener = runtime
        .block_on(TcpListener::bind(listen))
        .with_context(|| format!("failed to listen on `{listen}` for /metrics: use --metrics-listen to choose another address"))?;
    let address = listener.local_addr()?;
    let app = Router::new()
        .route("/metrics", get(render_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state((metrics, sender));
    thread::Builder::new()
        .name("metrics".into())
        .spawn(move || {
            if let Err(err) = runtime.block_on(async { axum::serve(listener, app).await }) {
                tracing::error!(%err, "failed to serve /metrics");
            }
        })
        .context("failed to start the thread `metrics`")?;
    Ok(address)
}

async fn render_metrics(
    State((metrics, sender)): State<(SharedMetrics, SenderWatch)>,
) -> impl IntoResponse {
    // A copy, so that rendering holds no stage up.
    let metrics = metrics.lock().clone();
    let text = metrics.render(&sender.stats(), ProcessAccount::read_own());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
