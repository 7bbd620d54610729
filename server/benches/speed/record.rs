//! A server that keeps the pushes of collectors as they come.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use prost::Message as _;
use proto::v1::ingest_server::{Ingest, IngestServer};
use proto::v1::{PushRequest, PushResponse, ReportRequest, ReportResponse};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::process::runtime;
use crate::recording::{RecordingWriter, Summed};

struct Recorder {
    writer: Mutex<RecordingWriter>,
}

#[tonic::async_trait]
impl Ingest for Recorder {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let request = request.into_inner();
        let write = || -> Result<()> {
            let summed = Summed::of(&request)?;
            let mut writer = self.writer.lock().unwrap();
            writer.append(&request.encode_to_vec(), summed)
        };
        write().map_err(|err| Status::internal(format!("{err:#}")))?;
        Ok(Response::new(PushResponse::default()))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Ok(Response::new(ReportResponse::default()))
    }
}

/// Records until SIGTERM.
pub(crate) fn record(listen: SocketAddr, path: &Path) -> Result<()> {
    let recorder = Arc::new(Recorder {
        writer: Mutex::new(RecordingWriter::create(path)?),
    });
    let service = IngestServer::from_arc(Arc::clone(&recorder));
    runtime().block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = async move {
            terminate.recv().await;
        };
        let service = service.max_decoding_message_size(256 << 20);
        let server = Server::builder().add_service(service);
        anyhow::Ok(server.serve_with_shutdown(listen, stop).await?)
    })?;
    let recorder = Arc::into_inner(recorder);
    let recorder = recorder.context("a push is still being written")?;
    recorder.writer.into_inner().unwrap().finish()
}
