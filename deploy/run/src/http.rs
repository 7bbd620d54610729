//! GET requests to programs on this machine, limited in time and size; without TLS and redirects to
//! other hosts.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A machine's flame graph with 200,000 nodes is about 10 MB of JSON; an answer ten times larger is
/// an error.
const ANSWER_BYTES_MAX: u64 = 128 << 20;
/// A query of everything takes less than a second; this limits the wait for a hung server.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Requests `path` with `parameters`, and returns the status and the body as text, for any status.
///
/// # Errors
/// There is no answer, or it is too large or not UTF-8.
pub fn get(address: SocketAddr, path: &str, parameters: &[(&str, &str)]) -> Result<(u16, String)> {
    let url = url(address, path, parameters);
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .new_agent();
    let mut answer = agent
        .get(&url)
        .call()
        .with_context(|| format!("failed to get `{url}`"))?;
    let body = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()
        .with_context(|| format!("failed to read the answer of `{url}`"))?;
    Ok((answer.status().as_u16(), body))
}

/// Requests `path` with `parameters`, and fails unless the status is 200.
///
/// # Errors
/// Those of [`get`], and another status; the error has the answer's text.
pub fn get_text(address: SocketAddr, path: &str, parameters: &[(&str, &str)]) -> Result<String> {
    match get(address, path, parameters)? {
        (200, body) => Ok(body),
        (status, body) => bail!(
            "`{}` answered {status}: {}",
            url(address, path, parameters),
            body.trim()
        ),
    }
}

/// Requests JSON from `path` with `parameters`, and fails unless the status is 200.
///
/// # Errors
/// Those of [`get_text`], and a body that is not JSON.
pub fn get_json(address: SocketAddr, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
    let body = get_text(address, path, parameters)?;
    serde_json::from_str(&body).with_context(|| {
        format!(
            "`{}` did not answer in JSON",
            url(address, path, parameters)
        )
    })
}

/// The URL of [`get`], which also works in `go tool pprof` and a browser.
#[must_use]
pub fn url(address: SocketAddr, path: &str, parameters: &[(&str, &str)]) -> String {
    let mut url = format!("http://{address}{path}");
    for (i, (name, value)) in parameters.iter().enumerate() {
        url.push(if i == 0 { '?' } else { '&' });
        url.push_str(name);
        url.push('=');
        percent_encode(value, &mut url);
    }
    url
}

/// Keeps RFC 3986's unreserved characters and replaces every other byte by `%XX`.
fn percent_encode(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // SANITY: writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_encoded() {
        let address = "127.0.0.1:7070".parse().unwrap();
        assert_eq!(
            url(
                address,
                "/api/v1/top",
                &[("query", r#"{comm="a b"}"#), ("limit", "5")]
            ),
            "http://127.0.0.1:7070/api/v1/top?query=%7Bcomm%3D%22a%20b%22%7D&limit=5"
        );
    }
}
