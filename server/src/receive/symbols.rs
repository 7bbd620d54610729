//! The gRPC service for files that collectors are asked for: checks requests, and hands them to the [`Intake`].

use std::sync::Arc;

use proto::v1;
use proto::v1::symbols_server::Symbols;
use tonic::{Code, Request, Response, Status};

use super::check::{check_offer, check_segments};
use crate::symbol::asked::Instance;
use crate::symbol::intake::{Beginning, Begun, IntakeError, Offer};
use crate::symbol::plan::{FileRange, UploadPlan};
use crate::symbol::shelf::{PlaceError, Placed};
use crate::symbol::{BuildId, Intake};

/// Takes files from collectors.
pub struct SymbolsService {
    intake: Arc<Intake>,
}

impl SymbolsService {
    /// A service that hands what it takes to this.
    pub fn new(intake: Arc<Intake>) -> Self {
        Self { intake }
    }

    /// Does something that blocks.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Intake) -> Result<T, IntakeError> + Send + 'static,
    ) -> Result<T, Status> {
        let intake = Arc::clone(&self.intake);
        let done = tokio::task::spawn_blocking(move || work(&intake)).await;
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
        let (instance, build_id) = check_key(&request.collector_instance, &request.build_id)?;
        let offer = check_offer(request.offer);
        if offer == Offer::None {
            self.run(move |intake| intake.give_up(instance, &build_id))
                .await?;
            return Ok(Response::new(v1::BeginUploadResponse {
                unneeded: true,
                ..Default::default()
            }));
        }
        let beginning = check_beginning(&request, build_id, offer)?;
        let begun = self
            .run(move |intake| intake.begin(instance, &beginning))
            .await?;
        Ok(Response::new(match begun {
            Begun::Unneeded => v1::BeginUploadResponse {
                unneeded: true,
                ..Default::default()
            },
            Begun::GoOn(received) => v1::BeginUploadResponse {
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
        let (instance, build_id) = check_key(&request.collector_instance, &request.build_id)?;
        let take = move |intake: &Intake| {
            intake.take_piece(instance, &build_id, request.position, &request.data)
        };
        let received_bytes = self.run(take).await?;
        Ok(Response::new(v1::UploadPieceResponse { received_bytes }))
    }

    async fn finish_upload(
        &self,
        request: Request<v1::FinishUploadRequest>,
    ) -> Result<Response<v1::FinishUploadResponse>, Status> {
        let request = request.into_inner();
        let (instance, build_id) = check_key(&request.collector_instance, &request.build_id)?;
        let placed = self
            .run(move |intake| intake.finish(instance, &build_id))
            .await?;
        let stored = matches!(placed, Placed::Stored(_));
        Ok(Response::new(v1::FinishUploadResponse { stored }))
    }
}

fn check_key(instance: &[u8], build_id: &str) -> Result<(Instance, BuildId), Status> {
    let instance = Instance::try_from(instance)
        .map_err(|_| Status::invalid_argument("collector_instance must have 16 bytes"))?;
    let build_id = build_id
        .parse()
        .map_err(|err| Status::invalid_argument(format!("build_id: {err}")))?;
    Ok((instance, build_id))
}

fn check_beginning(
    request: &v1::BeginUploadRequest,
    build_id: BuildId,
    offer: Offer,
) -> Result<Beginning, Status> {
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
    Ok(Beginning {
        build_id,
        offer,
        plan: plan.map_err(Status::invalid_argument)?,
        layout: layout.map_err(|err| Status::invalid_argument(format!("segments: {err}")))?,
    })
}

impl From<IntakeError> for Status {
    fn from(err: IntakeError) -> Self {
        let code = match &err {
            IntakeError::NotAsked | IntakeError::TooSlow => Code::FailedPrecondition,
            IntakeError::Malformed(_) | IntakeError::Place(PlaceError::Refused(_)) => {
                Code::InvalidArgument
            }
            IntakeError::TooLarge(..) | IntakeError::Place(PlaceError::DiskFull(_)) => {
                Code::ResourceExhausted
            }
            IntakeError::Busy | IntakeError::Place(PlaceError::Failed(_)) => Code::Unavailable,
        };
        Self::new(code, err.to_string())
    }
}
