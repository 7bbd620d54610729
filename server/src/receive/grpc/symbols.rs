//! The gRPC service for files that collectors are asked for: checks requests, and hands them to the [`CollectorUploads`].

use std::sync::Arc;

use elf::{BuildId, FileRange};
use proto::v1;
use proto::v1::symbols_server::Symbols;
use tonic::{Code, Request, Response, Status};

use super::check::{check_offer, check_segments};
use crate::symbol::CollectorUploads;
use crate::symbol::collector_uploads::{Offer, StartOutcome, UploadStart};
use crate::symbol::error::{AddError, UploadError};
use crate::symbol::index_store::Added;
use crate::symbol::pending_uploads::Instance;
use crate::symbol::plan::UploadPlan;

/// Takes files from collectors.
pub struct SymbolsService {
    uploads: Arc<CollectorUploads>,
}

impl SymbolsService {
    /// A service that hands files to `uploads`.
    pub fn new(uploads: Arc<CollectorUploads>) -> Self {
        Self { uploads }
    }

    /// Runs blocking work on a thread of its own.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CollectorUploads) -> Result<T, UploadError> + Send + 'static,
    ) -> Result<T, Status> {
        let uploads = Arc::clone(&self.uploads);
        let done = tokio::task::spawn_blocking(move || work(&uploads)).await;
        match done {
            Ok(result) => result.map_err(Status::from),
            Err(_) => Err(Status::unavailable(
                "the server failed; its log has the reason",
            )),
        }
    }
}

#[tonic::async_trait]
impl Symbols for SymbolsService {
    async fn begin_upload(
        &self,
        request: Request<v1::BeginUploadRequest>,
    ) -> Result<Response<v1::BeginUploadResponse>, Status> {
        let request = request.into_inner();
        let (instance, file_id) = check_key(&request.collector_instance, &request.file_id)?;
        let offer = check_offer(request.offer);
        if offer == Offer::None {
            self.run(move |uploads| uploads.give_up(instance, &file_id))
                .await?;
            return Ok(Response::new(v1::BeginUploadResponse {
                unneeded: true,
                ..Default::default()
            }));
        }
        let start = check_start(&request, file_id, offer)?;
        let outcome = self
            .run(move |uploads| uploads.start(instance, &start))
            .await?;
        Ok(Response::new(match outcome {
            StartOutcome::Unneeded => v1::BeginUploadResponse {
                unneeded: true,
                ..Default::default()
            },
            StartOutcome::Resume(received) => v1::BeginUploadResponse {
                unneeded: false,
                received_bytes: received.bytes,
                received_digest: received.digest.to_vec(),
            },
        }))
    }

    async fn upload_piece(
        &self,
        request: Request<v1::UploadPieceRequest>,
    ) -> Result<Response<v1::UploadPieceResponse>, Status> {
        let request = request.into_inner();
        let (instance, file_id) = check_key(&request.collector_instance, &request.file_id)?;
        let take = move |uploads: &CollectorUploads| {
            uploads.take_piece(instance, &file_id, request.position, &request.data)
        };
        let received_bytes = self.run(take).await?;
        Ok(Response::new(v1::UploadPieceResponse { received_bytes }))
    }

    async fn finish_upload(
        &self,
        request: Request<v1::FinishUploadRequest>,
    ) -> Result<Response<v1::FinishUploadResponse>, Status> {
        let request = request.into_inner();
        let (instance, file_id) = check_key(&request.collector_instance, &request.file_id)?;
        let build_id = check_id("build_id", &request.build_id)?;
        let placed = self
            .run(move |uploads| uploads.finish(instance, &file_id, &build_id))
            .await?;
        let stored = matches!(placed, Added::Stored(_));
        Ok(Response::new(v1::FinishUploadResponse { stored }))
    }
}

fn check_key(instance: &[u8], file_id: &str) -> Result<(Instance, BuildId), Status> {
    let instance = Instance::try_from(instance)
        .map_err(|_| Status::invalid_argument("collector_instance must have 16 bytes"))?;
    Ok((instance, check_id("file_id", file_id)?))
}

fn check_id(name: &str, id: &str) -> Result<BuildId, Status> {
    let id = id.parse();
    id.map_err(|err| Status::invalid_argument(format!("{name}: {err}")))
}

fn check_start(
    request: &v1::BeginUploadRequest,
    file_id: BuildId,
    offer: Offer,
) -> Result<UploadStart, Status> {
    if offer == Offer::Unknown {
        return Err(Status::invalid_argument(
            "offer is UNKNOWN: look at the file first",
        ));
    }
    let ranges = request.ranges.iter().map(|range| FileRange {
        offset: range.offset,
        bytes: range.bytes,
    });
    let plan = UploadPlan::new(request.file_bytes, ranges.collect());
    let layout = check_segments(&request.segments);
    Ok(UploadStart {
        file_id,
        build_id: check_id("build_id", &request.build_id)?,
        offer,
        plan: plan.map_err(Status::invalid_argument)?,
        layout: layout.map_err(|err| Status::invalid_argument(format!("segments: {err}")))?,
    })
}

impl From<UploadError> for Status {
    fn from(err: UploadError) -> Self {
        let code = match &err {
            UploadError::NotAsked | UploadError::TooSlow => Code::FailedPrecondition,
            UploadError::Malformed(_) | UploadError::Add(AddError::Refused(_)) => {
                Code::InvalidArgument
            }
            UploadError::TooLarge(..) | UploadError::Add(AddError::DiskFull(_)) => {
                Code::ResourceExhausted
            }
            UploadError::Busy | UploadError::Add(AddError::Failed(_)) => Code::Unavailable,
        };
        Self::new(code, err.to_string())
    }
}
