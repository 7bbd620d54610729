//! Answers HTTP.
//!
//! In: requests. Out: JSON, text, SVG, pprof, the page. Only this folder knows URLs, statuses and JSON's names.
//! Queries run on threads that may block, a bounded number at a time.

pub mod answer;
pub mod columns;
pub mod debuginfo;
pub mod encoding;
pub mod error;
pub mod flights;
pub mod lane;
pub mod metrics;
pub mod own;
pub mod page;
pub mod parameters;
mod prefix;
pub mod progress;
pub mod questions;
pub mod routes;

use std::sync::Arc;
use std::time::Instant;

use ::metrics::Registry;
use axum::Router;
use axum::body::HttpBody;
use axum::extract::{FromRef, MatchedPath, Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use listen::connections::RequestConnection;
use store::Store;

use self::metrics::HttpMetrics;
use crate::store_state::StoreWatch;
use crate::symbol::IndexStore;
use error::{ApiError, ErrorKind};
use prefix::serve_below;
use questions::Questions;

/// The page may load its own files only. Names of frames come from untrusted programs; should one ever become markup,
/// it still runs nothing.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     font-src 'self'; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// State shared by all routes.
#[derive(Clone)]
pub struct HttpState {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Asks it.
    pub questions: Questions,
    /// Its state, for probes and the page.
    pub store_state: StoreWatch,
    /// Metrics of requests.
    pub metrics: HttpMetrics,
    /// The metrics of all stages.
    pub registry: Arc<Registry>,
    /// The symbols.
    pub symbols: Arc<IndexStore>,
    /// Admits uploads of symbols.
    pub uploads: Arc<tokio::sync::Semaphore>,
    /// Admits one profile of the server itself at a time.
    pub own_profile: Arc<tokio::sync::Mutex<()>>,
}

impl FromRef<HttpState> for Questions {
    fn from_ref(state: &HttpState) -> Self {
        state.questions.clone()
    }
}

/// All routes; with a path prefix, below it as well.
pub fn router(state: HttpState, path_prefix: Option<&str>) -> Router {
    let routes = Router::new()
        .route("/api/v1/labels", get(routes::labels).post(routes::labels))
        .route(
            "/api/v1/label/{name}/values",
            get(routes::label_values).post(routes::label_values),
        )
        .route("/api/v1/series", get(routes::series).post(routes::series))
        .route(
            "/api/v1/timeseries",
            get(routes::timeseries).post(routes::timeseries),
        )
        .route(
            "/api/v1/flamegraph",
            get(routes::flamegraph).post(routes::flamegraph),
        )
        .route(
            "/api/v1/flamegraph.svg",
            get(routes::flamegraph_svg).post(routes::flamegraph_svg),
        )
        .route("/api/v1/top", get(routes::top).post(routes::top))
        .route("/api/v1/stacks", get(routes::stacks).post(routes::stacks))
        .route("/api/v1/lines", get(routes::lines).post(routes::lines))
        .route(
            "/api/v1/unknown",
            get(routes::unknown).post(routes::unknown),
        )
        .route("/api/v1/pprof", get(routes::pprof).post(routes::pprof))
        .route("/api/v1/folded", get(routes::folded).post(routes::folded))
        .route("/api/v1/nodes", get(routes::nodes).post(routes::nodes))
        .route(
            "/api/v1/containers",
            get(routes::containers).post(routes::containers),
        )
        .route(
            "/api/v1/versions",
            get(routes::versions).post(routes::versions),
        )
        .route("/api/v1/status", get(routes::status))
        .route("/api/v1/progress", get(routes::progress))
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
        .method_not_allowed_fallback(refuse_method)
        .layer(middleware::from_fn_with_state(state.clone(), bound_unread))
        .layer(middleware::from_fn_with_state(state.clone(), observe))
        .with_state(state);
    let routes = match path_prefix {
        Some(prefix) => serve_below(prefix, routes),
        None => routes,
    };
    routes.layer(middleware::map_response(harden))
}

/// Routes for orchestrators and Prometheus, on a port that neither profiles nor browsers can fill.
pub fn admin_router(state: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(own::metrics))
        .route("/healthz", get(own::healthz))
        .route("/readyz", get(own::readyz))
        .layer(middleware::map_response(harden))
        .with_state(state)
}

/// The header `allow`, which the router adds, has the methods.
async fn refuse_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(ErrorKind::MethodNotAllowed, message)
}

/// Counts requests by route, not by path: a path may be anything.
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

/// Bounds the bytes of answers that clients have not read.
async fn bound_unread(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let connection: Option<RequestConnection> = request.extensions().get().cloned();
    let response = next.run(request).await;
    let Some(connection) = connection else {
        return response;
    };
    let RequestConnection {
        holder,
        slots,
        metrics,
    } = connection;
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    let note_loss = || metrics.count_closed_connection("gave_way");
    if slots.reserve_unread(
        &holder,
        bytes,
        state.questions.answer_bytes_max(),
        note_loss,
    ) {
        return response;
    }
    state.metrics.count_refused("unread_answers");
    let busy = "answers that clients have not read take too much memory at this moment";
    ApiError::new(ErrorKind::Busy, busy)
        .with_hint("ask again in a few seconds")
        .into_response()
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
