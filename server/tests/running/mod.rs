//! A server inside the test's process, with clients for both of its ports.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "for tests, of which each uses a part"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use proto::v1;
use proto::v1::ingest_client::IngestClient;
use query::names::NameSource;
use server::app::App;
use server::config::Typed;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

pub struct Running {
    pub folder: TempDir,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap(), &[]).await
    }

    pub async fn start_with(options: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), options).await
    }

    /// A server with this source of names.
    pub async fn start_with_names(names: Arc<dyn NameSource>) -> Self {
        Self::start_named(TempDir::new().unwrap(), &[], Some(names)).await
    }

    /// A server with this source of names and these options.
    pub async fn start_with_names_and(names: Arc<dyn NameSource>, options: &[&str]) -> Self {
        Self::start_named(TempDir::new().unwrap(), options, Some(names)).await
    }

    async fn start_in(folder: TempDir, options: &[&str]) -> Self {
        Self::start_named(folder, options, None).await
    }

    async fn start_named(
        folder: TempDir,
        options: &[&str],
        names: Option<Arc<dyn NameSource>>,
    ) -> Self {
        let data = folder.path().to_str().unwrap().to_owned();
        let mut arguments = vec!["server", "--data-dir", &data];
        for listen in [
            "--http-listen=127.0.0.1:0",
            "--grpc-listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
        ] {
            let name = listen.trim_end_matches("127.0.0.1:0");
            if !options.iter().any(|option| option.starts_with(name)) {
                arguments.push(listen);
            }
        }
        arguments.extend(options);
        let mut config = Typed::parse_from(arguments).build().unwrap();
        // The test's own program is not one that makes indexes.
        config.symbols.program = env!("CARGO_BIN_EXE_pilotlight-server").into();
        let app = match names {
            Some(names) => App::open_with_names(config, names).await.unwrap(),
            None => App::open(config).await.unwrap(),
        };
        let (http, grpc) = app.addresses().unwrap();
        let admin = app.admin_address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(app.run(async { drop(stopped.await) }));
        Self {
            folder,
            http,
            grpc,
            admin,
            stop,
            task,
        }
    }

    pub async fn restart(self) -> Self {
        self.restart_after(|_| {}).await
    }

    /// Like [`Self::restart`], with a change of the data directory in between.
    pub async fn restart_after(self, change: impl FnOnce(&Path)) -> Self {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        change(self.folder.path());
        Self::start_in(self.folder, &[]).await
    }

    pub async fn client(&self) -> IngestClient<Channel> {
        connect(self.grpc).await.unwrap()
    }

    pub async fn push(&self, request: v1::PushRequest) -> Result<v1::PushResponse, Status> {
        Ok(self.client().await.push(request).await?.into_inner())
    }

    pub async fn get(&self, path: &str) -> HttpResponse {
        self.get_as(path, "test").await
    }

    pub async fn get_as(&self, path: &str, agent: &str) -> HttpResponse {
        let (http, path, agent) = (self.http, path.to_owned(), agent.to_owned());
        tokio::task::spawn_blocking(move || get(http, &path, &agent).unwrap())
            .await
            .unwrap()
    }

    pub async fn json(&self, path: &str) -> serde_json::Value {
        let response = self.get(path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        serde_json::from_slice(&response.body).unwrap()
    }
}

pub async fn connect(grpc: SocketAddr) -> Result<IngestClient<Channel>, tonic::transport::Error> {
    let client = IngestClient::connect(format!("http://{grpc}")).await?;
    Ok(client.max_encoding_message_size(256 << 20))
}

#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl HttpResponse {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> String {
        let header = self
            .headers
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        header.unwrap_or_default().to_owned()
    }
}

/// Sends a request over its own connection. Only spaces and quotation marks are escaped, as in browsers.
pub fn get(http: SocketAddr, path: &str, agent: &str) -> std::io::Result<HttpResponse> {
    get_with(http, path, &format!("user-agent: {agent}\r\n"))
}

/// As [`get`], with these header lines.
pub fn get_with(http: SocketAddr, path: &str, headers: &str) -> std::io::Result<HttpResponse> {
    let mut stream = TcpStream::connect(http)?;
    let path = path.replace(' ', "%20").replace('"', "%22");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {http}\r\n{headers}connection: close\r\n\r\n"
    )?;
    read_response(&mut stream)
}

/// Reads an answer until the server closes the connection.
pub fn read_response(stream: &mut TcpStream) -> std::io::Result<HttpResponse> {
    let mut bytes = Vec::new();
    // A server that refuses a request without reading all of it resets the connection.
    if let Err(err) = stream.read_to_end(&mut bytes)
        && bytes.is_empty()
    {
        return Err(err);
    }
    let end = bytes
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .ok_or_else(|| std::io::Error::other("no header"))?;
    let headers = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = headers
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Ok(HttpResponse {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    })
}

/// The addresses that a server wrote when it listened: HTTP and gRPC.
pub fn read_addresses(path: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some((
        addresses["http"].as_str()?.parse().ok()?,
        addresses["grpc"].as_str()?.parse().ok()?,
    ))
}
