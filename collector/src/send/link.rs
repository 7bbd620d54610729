//! The connection and the runtime of a sending thread.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Endpoint;
use tonic::{Code, Status};

/// Why there is no sender.
#[derive(Debug, Error)]
pub enum SendError {
    /// The server's address is not one.
    #[error("failed to read server address `{server}`: {source}; write it as http://HOST:PORT")]
    Address {
        /// The address as given.
        server: String,
        /// The parser's error.
        source: tonic::transport::Error,
    },
    /// The thread or its runtime could not be started.
    #[error("failed to start sending: {0}")]
    Thread(#[from] io::Error),
}

/// Endpoint and runtime of one thread.
#[derive(Debug)]
pub(super) struct Link {
    /// A channel to the server, which connects when it is first used.
    pub(super) endpoint: Endpoint,
    /// Runs on the thread that waits for it.
    pub(super) runtime: Runtime,
}

impl Link {
    /// Gets ready, without a word to the server.
    ///
    /// # Errors
    /// The address cannot be understood, or the runtime not be started.
    pub(super) fn prepare(server: &str, connect_time: Duration) -> Result<Self, SendError> {
        let endpoint =
            Endpoint::from_shared(server.to_owned()).map_err(|source| SendError::Address {
                server: server.to_owned(),
                source,
            })?;
        Ok(Self {
            endpoint: endpoint.connect_timeout(connect_time).tcp_nodelay(true),
            runtime: Builder::new_current_thread().enable_all().build()?,
        })
    }
}

/// Whether the server was unreachable or did not answer.
pub(super) fn is_transport_error(status: &Status) -> bool {
    // tonic keeps the connection's own error as the source of the status.
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}
