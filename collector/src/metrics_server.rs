//! `/metrics`, `/healthz` and `/readyz` on a local port.

use std::{future, net::SocketAddr};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use listen::{ConnectionLimits, Hosts, HttpServer, ListenMetrics, Protocol};
use metrics::Exposition;
use tokio::net::TcpListener;

use crate::{
    health::{Answer, Health},
    metrics::{PREFIX, SharedRegistry},
    threads::spawn,
};

#[derive(Clone)]
struct Served {
    registry: SharedRegistry,
    health: Health,
}

/// Serves metrics and probes from a thread of its own, as long as the process lives, and returns the address that it listens on. On a
/// loopback address it answers to `localhost` and `allowed_hosts` only.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve_metrics(
    listen: SocketAddr,
    allowed_hosts: &[String],
    registry: SharedRegistry,
    health: Health,
) -> Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the metrics server")?;
    let listener = runtime
        .block_on(TcpListener::bind(listen))
        .with_context(|| format!("failed to listen on `{listen}` for /metrics: use --metrics-listen to choose another address"))?;
    let address = listener.local_addr()?;
    let metrics = ListenMetrics::default();
    metrics.register(registry.write().sub_registry_with_prefix(PREFIX));
    let router = Router::new()
        .route("/metrics", get(encode_metrics))
        .route("/healthz", get(check_health))
        .route("/readyz", get(check_readiness))
        .with_state(Served { registry, health });
    let server = HttpServer {
        router,
        protocol: Protocol::Http1,
        hosts: Hosts::of(address, allowed_hosts),
        limits: ConnectionLimits::of_probes(),
        metrics,
        refusal_body: None,
    };
    spawn("metrics", move || {
        runtime.block_on(server.serve(listener, future::pending()))
    })?;
    Ok(address)
}

/// Text 0.0.4, unless the scraper asks for OpenMetrics.
async fn encode_metrics(State(served): State<Served>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted: Vec<_> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let exposition = Exposition::from_accept(&accepted.join(","));
    let encoded = exposition.encode(&served.registry.read());
    match encoded {
        Ok(text) => {
            let kind = exposition.content_type();
            let headers = [(header::CONTENT_TYPE, kind), (header::VARY, "accept")];
            (headers, text).into_response()
        }
        Err(err) => {
            tracing::error!(%err, "failed to write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn check_health(State(served): State<Served>) -> Response {
    answer(served.health.check_health())
}

async fn check_readiness(State(served): State<Served>) -> Response {
    answer(served.health.check_readiness())
}

fn answer(Answer { is_well, text }: Answer) -> Response {
    let status = if is_well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;
    use crate::probe::ask_readiness;

    fn serve() -> SocketAddr {
        serve_health(Health::default())
    }

    fn serve_health(health: Health) -> SocketAddr {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let names = ["node1.example".to_owned()];
        serve_metrics(any_port, &names, SharedRegistry::default(), health).unwrap()
    }

    /// Sends a request without the empty line behind its header.
    fn begin(address: SocketAddr, host: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn ask(address: SocketAddr, host: &str) -> String {
        let mut answer = String::new();
        let mut stream = begin(address, host);
        stream.write_all(b"\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Check that clients which send half a request take no more than the limit of connections, and that others are answered
    /// meanwhile.
    #[test]
    fn half_open_connections_give_way() {
        let address = serve();
        let count = ConnectionLimits::of_probes().connections_max + 5;
        let half_open: Vec<TcpStream> = (0..count).map(|_| begin(address, "localhost")).collect();
        let answer = ask(address, "localhost");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let closed = format!("{PREFIX}_connections_closed_total{{reason=\"gave_way\"}} 6\n");
        assert!(answer.contains(&closed), "{answer}");
        drop(half_open);
    }

    /// Check that a probe gets the state of now, and that `ready` reads it.
    #[test]
    fn probes_get_the_state() {
        let health = Health::default();
        let address = serve_health(health.clone());
        health.readiness.hold("pod_labels", "no pod is listed yet");
        let text = "not ready\npod_labels: no pod is listed yet\n".to_owned();
        assert_eq!(ask_readiness(address).unwrap(), (false, text));
        health.readiness.release("pod_labels");
        let text = "ready\n".to_owned();
        assert_eq!(ask_readiness(address).unwrap(), (true, text));
    }

    /// Check that a page whose own name points at the loopback address reads nothing.
    #[test]
    fn foreign_names_are_refused() {
        let address = serve();
        for host in ["localhost", "127.0.0.1:7072", "node1.example"] {
            let answer = ask(address, host);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        }
        let answer = ask(address, "evil");
        assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
        let counted = format!("{PREFIX}_other_host_requests_total 1\n");
        assert!(ask(address, "localhost").contains(&counted));
    }
}
