//! The server about itself: health, metrics, its own CPU profile.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::{Compression, write::GzEncoder};
use metrics::Exposition;
use pprof::ProfilerGuardBuilder;
use pprof::protos::Message;
use store::StoreState;

use super::HttpState;
use super::error::{ApiError, ErrorKind};
use super::parameters::Parameters;

/// Samples a second: not in step with work that happens 100 times a second.
const OWN_HZ: i32 = 99;

/// Longest profile of the server itself.
const OWN_SECONDS_MAX: usize = 120;

/// `GET /metrics`
pub async fn metrics(
    State(state): State<HttpState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accepted = headers.get_all(ACCEPT).iter();
    let accepted: Vec<_> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let exposition = Exposition::from_accept(&accepted.join(","));
    let text = exposition.encode(&state.registry).map_err(|err| {
        ApiError::new(
            ErrorKind::Internal,
            format!("failed to write the metrics: {err}"),
        )
    })?;
    let headers = [(CONTENT_TYPE, exposition.content_type()), (VARY, "accept")];
    Ok((headers, text).into_response())
}

/// `GET /healthz`
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: whether queries are answered. A full disk does not take the page away.
pub async fn readyz(State(state): State<HttpState>) -> Response {
    let StoreState {
        readable,
        writable,
        space: _,
    } = &*state.store_state.borrow();
    let (status, mut text) = match readable {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(err) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {err}\n"),
        ),
    };
    if let Err(err) = writable {
        text.push_str(&format!("degraded: windows are not stored: {err}\n"));
    }
    (status, text).into_response()
}

/// `GET /debug/pprof/profile`
pub async fn profile(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let seconds = parameters
        .allow(&["seconds"])?
        .number("seconds", 10, 1..=OWN_SECONDS_MAX)?;
    let Ok(_alone) = state.own_profile.try_lock() else {
        let busy = ApiError::new(
            ErrorKind::Busy,
            "another profile of the server is being taken",
        );
        return Err(busy.with_hint("ask again when it is done"));
    };
    let failed = |what: &str, err: &dyn std::fmt::Display| {
        ApiError::new(
            ErrorKind::Internal,
            format!("failed to {what} the server's profile: {err}"),
        )
    };
    // A signal inside these libraries could interrupt a holder of a lock that the unwinder takes too.
    let guard = ProfilerGuardBuilder::default()
        .frequency(OWN_HZ)
        .blocklist(&["libc", "libgcc", "pthread", "vdso"])
        .build()
        .map_err(|err| failed("start", &err))?;
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let encode = move || -> Result<Vec<u8>, ApiError> {
        let report = guard.report().build().map_err(|err| failed("read", &err))?;
        let profile = report.pprof().map_err(|err| failed("convert", &err))?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::Write::write_all(&mut gzip, &profile.encode_to_vec())
            .map_err(|err| failed("compress", &err))?;
        gzip.finish().map_err(|err| failed("compress", &err))
    };
    let bytes = tokio::task::spawn_blocking(encode)
        .await
        .map_err(|err| failed("read", &err))??;
    let name = "attachment; filename=\"pilotlight-server.pb.gz\"";
    Ok((
        [
            (CONTENT_TYPE, "application/octet-stream"),
            (CONTENT_DISPOSITION, name),
        ],
        bytes,
    )
        .into_response())
}
