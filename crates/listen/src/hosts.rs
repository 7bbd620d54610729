//! Checks the host name of requests. Pure.
//!
//! A web page from anywhere can let its own name point to 127.0.0.1 (DNS rebinding). The browser
//! then treats this server as the page's origin, and the page could read all profiles, and upload
//! and delete symbols. Its requests contain that name. Listeners on other addresses accept any
//! name, since the names of Services and Ingresses are unknown here.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::HOST;
use axum::http::{StatusCode, Version, request};

/// The host names that a listener accepts.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// Any name.
    Any,
    /// `localhost`, loopback addresses, and these names.
    Local(Vec<String>),
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRefusal {
    /// Status of the answer.
    pub status: StatusCode,
    /// Text of the answer.
    pub message: String,
}

impl Hosts {
    /// The accepted names of a listener on this address.
    pub fn of(listener: SocketAddr, names: &[String]) -> Self {
        if listener.ip().to_canonical().is_loopback() {
            Self::Local(names.to_vec())
        } else {
            Self::Any
        }
    }

    /// Checks the host name of a request: in its target, in `Host`, or in both.
    ///
    /// # Errors
    /// A name is not accepted, there are several `Host` headers, or the request needs one and has
    /// none.
    pub fn check(&self, request: &request::Parts) -> Result<(), HostRefusal> {
        let Self::Local(names) = self else {
            return Ok(());
        };
        let refuse = |status, message: String| Err(HostRefusal { status, message });
        let mut headers = request.headers.get_all(HOST).iter();
        let header = headers.next();
        if headers.next().is_some() {
            return refuse(StatusCode::BAD_REQUEST, "more than one Host".into());
        }
        let target = request.uri.authority().map(|authority| authority.as_str());
        // Browsers always send a name; HTTP/1.0 clients need not.
        if header.is_none() && target.is_none() && request.version > Version::HTTP_10 {
            return refuse(StatusCode::BAD_REQUEST, "no Host".into());
        }
        let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
        for said in [header.as_deref(), target].into_iter().flatten() {
            if !is_local(said, names) {
                let said: String = said.chars().take(256).collect();
                return refuse(
                    StatusCode::MISDIRECTED_REQUEST,
                    format!(
                        "this address answers to localhost and loopback addresses, and not to {said:?}: a foreign page could \
                         have its name point here; if the name is yours, permit it with --allowed-host"
                    ),
                );
            }
        }
        Ok(())
    }
}

/// Normalizes a name of `--allowed-host`: lower case, without the final dot. `None` for a name with
/// a port or other invalid characters.
pub fn read_name(text: &str) -> Option<String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    (!name.is_empty() && name.bytes().all(is_name)).then_some(name)
}

fn is_local(authority: &str, names: &[String]) -> bool {
    let Some(host) = host_of(authority) else {
        return false;
    };
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => is_loopback(address),
        None => {
            is_loopback(host)
                || read_name(host).is_some_and(|name| name == "localhost" || names.contains(&name))
        }
    }
}

fn is_loopback(address: &str) -> bool {
    let address: Result<IpAddr, _> = address.parse();
    address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The host without the port. Any port is accepted, since a tunnel may change it.
fn host_of(authority: &str) -> Option<&str> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(end);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn local() -> Hosts {
        let names = ["pilotlight.example".to_owned()];
        Hosts::of("127.0.0.1:7070".parse().unwrap(), &names)
    }

    fn check(hosts: &Hosts, target: &str, headers: &[&str], version: Version) -> u16 {
        let mut request = Request::builder().uri(target).version(version);
        for value in headers {
            request = request.header(HOST, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        hosts
            .check(&parts)
            .map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    fn check_host(host: &str) -> u16 {
        check(&local(), "/", &[host], Version::HTTP_11)
    }

    #[test]
    fn a_loopback_listener_answers_to_its_names_only() {
        for host in [
            "localhost",
            "LocalHost:7070",
            "localhost.",
            "127.0.0.1:7070",
            "127.1.2.3",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
            "pilotlight.example",
            "Pilotlight.Example.:443",
        ] {
            assert_eq!(check_host(host), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7070",
            "localhost.evil.example",
            "evil.example.localhost@",
            "a@localhost",
            "127.0.0.1.evil.example",
            "0.0.0.0:7070",
            "192.0.2.1",
            "[2001:db8::1]:7070",
            "[::1]evil",
            "[::1",
            "::1",
            "localhost:7070:7070",
            "localhost:x",
            "pilotlight.example.evil",
            "",
            ":7070",
        ] {
            assert_eq!(check_host(host), 421, "{host}");
        }
    }

    #[test]
    fn other_listeners_answer_to_any_name() {
        for listener in ["0.0.0.0:7070", "[::]:7070", "192.0.2.1:7070"] {
            let hosts = Hosts::of(listener.parse().unwrap(), &[]);
            assert_eq!(check(&hosts, "/", &["evil.example"], Version::HTTP_11), 200);
            assert_eq!(check(&hosts, "/", &[], Version::HTTP_11), 200);
        }
        for listener in ["127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let hosts = Hosts::of(listener.parse().unwrap(), &[]);
            assert_eq!(check(&hosts, "/", &["evil.example"], Version::HTTP_11), 421);
        }
    }

    #[test]
    fn targets_say_a_name_as_headers_do() {
        let hosts = local();
        let check = |target, headers: &[&str], version| check(&hosts, target, headers, version);
        // A target with a name, as in requests to a proxy, and HTTP/2's `:authority`.
        let (http1, http2) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(check("http://localhost:7070/", &["localhost"], http1), 200);
        assert_eq!(check("http://evil.example/", &["localhost"], http1), 421);
        assert_eq!(check("http://localhost/", &["evil.example"], http1), 421);
        assert_eq!(check("http://127.0.0.1:7071/a", &[], http2), 200);
        assert_eq!(check("http://evil.example/a", &[], http2), 421);
        // No name at all.
        assert_eq!(check("/", &[], Version::HTTP_10), 200);
        assert_eq!(check("/", &["evil.example"], Version::HTTP_10), 421);
        assert_eq!(check("/", &[], http1), 400);
        assert_eq!(check("/", &["localhost", "localhost"], http1), 400);
    }

    #[test]
    fn names_are_read() {
        assert_eq!(read_name("Prof.Example."), Some("prof.example".into()));
        for text in ["", ".", "a:7070", "http://a", "a/b", "*.example", "a b"] {
            assert_eq!(read_name(text), None, "{text}");
        }
    }
}
