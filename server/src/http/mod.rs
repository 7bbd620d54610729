//! Answers HTTP.
//!
//! In: requests. Out: JSON, text, SVG, pprof, the page. Only this folder knows URLs, statuses and JSON's names.
//! Queries run on threads that may block, a bounded number at a time.

pub mod answer;
pub mod connections;
pub mod debuginfo;
pub mod error;
pub mod gate;
pub mod own;
pub mod page;
pub mod parameters;
pub mod routes;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, put};

use crate::metrics::Metrics;
use crate::store::Store;
use crate::symbol::Shelf;
use gate::Gate;

/// What the page may load: its own files. Names of frames come from programs that nobody has checked; should one
/// ever become markup, it still runs nothing.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     font-src 'self'; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// What all routes share.
#[derive(Clone)]
pub struct HttpState {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The symbols.
    pub symbols: Arc<Shelf>,
    /// Admits uploads of symbols.
    pub uploads: Arc<tokio::sync::Semaphore>,
    /// Admits queries.
    pub gate: Gate,
    /// Admits one profile of the server itself at a time.
    pub own_profile: Arc<tokio::sync::Mutex<()>>,
}

/// All routes.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .route("/api/v1/labels", get(routes::labels))
        .route("/api/v1/label/{name}/values", get(routes::label_values))
        .route("/api/v1/series", get(routes::series))
        .route("/api/v1/timeseries", get(routes::timeseries))
        .route("/api/v1/flamegraph", get(routes::flamegraph))
        .route("/api/v1/flamegraph.svg", get(routes::flamegraph_svg))
        .route("/api/v1/top", get(routes::top))
        .route("/api/v1/stacks", get(routes::stacks))
        .route("/api/v1/lines", get(routes::lines))
        .route("/api/v1/unknown", get(routes::unknown))
        .route("/api/v1/pprof", get(routes::pprof))
        .route("/api/v1/folded", get(routes::folded))
        .route("/api/v1/nodes", get(routes::nodes))
        .route("/api/v1/debuginfo", get(debuginfo::list))
        .route(
            "/api/v1/debuginfo/{build_id}",
            put(debuginfo::upload)
                .get(debuginfo::status)
                .delete(debuginfo::remove),
        )
        .route("/metrics", get(own::metrics))
        .route("/healthz", get(own::healthz))
        .route("/readyz", get(own::readyz))
        .route("/debug/pprof/profile", get(own::profile))
        .fallback(page::serve)
        .layer(middleware::from_fn_with_state(state.clone(), observe))
        .layer(middleware::map_response(harden))
        .with_state(state)
}

/// Counts requests by route, not by path: a path is whatever somebody typed.
async fn observe(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("page", MatchedPath::as_str)
        .to_owned();
    let response = next.run(request).await;
    state
        .metrics
        .observe_query(&route, response.status().as_u16(), started.elapsed());
    response
}

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(PAGE_POLICY));
    response
}
