//! The page, from the binary itself.

use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};

use super::error::{ApiError, ErrorKind};

/// A file of the page.
struct PageFile {
    /// Path without the leading slash.
    path: &'static str,
    /// Checksum of the bytes, quoted.
    etag: &'static str,
    /// Content.
    bytes: &'static [u8],
}

// `PAGE_FILES`, sorted by path: made by build.rs from ui/dist; empty when the page was not built.
include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// Vite names files below this folder by a hash of their content.
const HASHED_FOLDER: &str = "assets/";

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Pilotlight</title>\
<p>This server was built without its page. Run <code>deploy/build page</code>, then build the server again.\
<p>The <a href=\"api/v1/series\">API</a> and <a href=\"metrics\">metrics</a> work without it.";

/// Serves a file of the page; another path without a further slash gets its start, if a browser asks. Deeper ones do not: the page's
/// URLs are relative.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if method != Method::GET && method != Method::HEAD {
        let error = ApiError::new(
            ErrorKind::NotFound,
            format!("there is no {method} {}", uri.path()),
        );
        return error.into_response();
    }
    if let Some(file) = find_file(path) {
        return serve_file(file, &headers);
    }
    let is_own = path.is_empty() || accepts_html(&headers) && !path.contains('/');
    if !is_own {
        let error = ApiError::new(
            ErrorKind::NotFound,
            format!("there is nothing at {}", uri.path()),
        );
        return error
            .with_hint("the routes are below /api/v1")
            .into_response();
    }
    match find_file("index.html") {
        Some(start) => serve_file(start, &headers),
        None => Html(NOT_BUILT).into_response(),
    }
}

fn find_file(path: &str) -> Option<&'static PageFile> {
    let found = PAGE_FILES
        .binary_search_by(|file| file.path.cmp(path))
        .ok()?;
    PAGE_FILES.get(found)
}

fn serve_file(file: &PageFile, headers: &HeaderMap) -> Response {
    let cache = if file.path.starts_with(HASHED_FOLDER) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let shared = [(CACHE_CONTROL, cache), (ETAG, file.etag)];
    let known = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == file.etag.as_bytes());
    if known {
        return (StatusCode::NOT_MODIFIED, shared).into_response();
    }
    (
        shared,
        [(CONTENT_TYPE, content_type(file.path))],
        file.bytes,
    )
        .into_response()
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("json" | "map" | "webmanifest") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
