//! Routes below a path prefix, as of an ingress controller or a proxy that shows several services under one host name.

use std::str::FromStr;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::response::Redirect;
use axum::routing::get;
use tower::Layer;
use tower::util::MapRequestLayer;

/// Serves `routes` below `prefix` as well, which begins with a slash and ends without one. The prefix alone leads to the page with a
/// slash at its end, since the page's URLs are relative.
pub(super) fn serve_below(prefix: &str, routes: Router) -> Router {
    let page = format!("{prefix}/");
    let redirect = async move |uri: Uri| {
        let query = uri.query().map(|query| format!("?{query}"));
        Redirect::temporary(&(page + &query.unwrap_or_default()))
    };
    let cut = prefix.to_owned();
    let strip = MapRequestLayer::new(move |mut request: Request| {
        if let Some(uri) = strip_prefix(request.uri(), &cut) {
            *request.uri_mut() = uri;
        }
        request
    });
    Router::new()
        .route(prefix, get(redirect))
        .fallback_service(strip.layer(routes))
}

/// The URI without the prefix of its path. `None` if its path is not below the prefix.
fn strip_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix(prefix)?;
    let rest = rest.starts_with('/').then_some(rest)?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::from_str(rest).ok();
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that only whole segments of the path are taken away, and that the query stays.
    #[test]
    fn whole_segments_are_stripped() {
        let strip = |uri: &str| {
            let stripped = strip_prefix(&uri.parse().unwrap(), "/team/profiles");
            stripped.map(|uri| uri.to_string())
        };
        for (uri, stripped) in [
            ("/team/profiles/", Some("/")),
            ("/team/profiles/api/v1/top?a=/b", Some("/api/v1/top?a=/b")),
            ("http://a/team/profiles/x", Some("http://a/x")),
            ("/team/profiles", None),
            ("/team/profiles?a=/", None),
            ("/team/profiles2/x", None),
            ("/x/team/profiles/", None),
            ("*", None),
        ] {
            assert_eq!(strip(uri).as_deref(), stripped, "{uri}");
        }
    }
}
