//! The listeners of a whole server: their routes, and the host names that they answer to.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use running::{Running, get};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Status and body of the answer to a raw request.
fn send(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// Check that a page whose name points at the loopback address reads nothing, and is told why.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_on_loopback_addresses_answer_to_local_names_only() {
    let server = Running::start_with(&["--allowed-host=prof.example"]).await;
    for address in [server.http, server.admin] {
        let port = address.port();
        let ask = |host: &str| {
            let request =
                format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            send(address, &request)
        };
        for host in [
            "localhost",
            &format!("127.0.0.1:{port}"),
            "[::1]:1",
            "prof.example:80",
        ] {
            assert_eq!(ask(host).0, 200, "{host}");
        }
        let (status, answer) = ask(&format!("evil.example:{port}"));
        assert_eq!(status, 421, "{answer}");
        assert!(
            answer.contains("evil.example") && answer.contains("--allowed-host"),
            "{answer}"
        );
        let old = "GET /healthz HTTP/1.0\r\n\r\n";
        assert_eq!(send(address, old).0, 200);
        let whole = "GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        assert_eq!(send(address, whole).0, 421);
    }
    // Routes that change something are not reached either.
    let delete =
        "DELETE /api/v1/debuginfo/00ff HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(send(server.http, delete).0, 421);
    let metrics = server.get("/metrics").await.text();
    let counted = "pilotlight_server_other_host_requests_total 5";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_say_a_local_name_too() {
    let server = Running::start().await;
    let check = async |name: &str| {
        let endpoint = Endpoint::new(format!("http://{}", server.grpc)).unwrap();
        let endpoint = endpoint.origin(format!("http://{name}").parse().unwrap());
        let mut client = HealthClient::new(endpoint.connect().await.unwrap());
        client
            .check(HealthCheckRequest::default())
            .await
            .map(|_| ())
    };
    check("localhost:1").await.unwrap();
    let refused = check("evil.example").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("--allowed-host"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_on_other_addresses_answer_to_any_name() {
    let server = Running::start_with(&["--http-listen=0.0.0.0:0"]).await;
    let address = SocketAddr::from(([127, 0, 0, 1], server.http.port()));
    let request = "GET /healthz HTTP/1.1\r\nhost: pilotlight.shop.svc\r\nconnection: close\r\n\r\n";
    assert_eq!(send(address, request).0, 200);
}

/// Check that probes are answered while all browsers' connections are taken, and that their port has no other routes.
#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_however_many_connections_the_page_has() {
    let server = Running::start().await;
    let mut half_open = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(server.http).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: local").unwrap();
        half_open.push(stream);
    }
    for (address, path, text) in [
        (server.admin, "/healthz", "ok"),
        (server.admin, "/readyz", "ready"),
        (
            server.admin,
            "/metrics",
            "connections_closed_total{reason=\"gave_way\"}",
        ),
        (server.http, "/healthz", "ok"),
        (server.http, "/readyz", "ready"),
    ] {
        let answer = tokio::task::spawn_blocking(move || get(address, path, "test"));
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text().contains(text), "{path}: {}", answer.text());
    }
    for path in ["/", "/api/v1/series", "/debug/pprof/profile?seconds=1"] {
        assert_eq!(
            get(server.admin, path, "test").unwrap().status,
            404,
            "{path}"
        );
    }
}
