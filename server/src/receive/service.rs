//! The gRPC service: admits, checks, appends, answers.

use std::sync::Arc;
use std::time::SystemTime;

use proto::v1;
use proto::v1::ingest_server::Ingest;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::{debug, warn};

use super::check::{CheckLimits, check_layouts, check_push};
use super::lacking::find_lacking;
use super::refusal::{Refusal, RefusalReason};
use crate::metrics::Metrics;
use crate::profile::unnamed::UnnamedCounts;
use crate::store::{Appended, Store, StoreError};
use crate::symbol::known_layouts::LayoutSource;
use crate::symbol::{BuildId, Intake, Shelf};

/// Permits are of this size, so that their number fits a semaphore's 32 bits.
const PERMIT_BYTES: u64 = 1 << 10;

/// Takes profiles.
pub struct IngestService {
    store: Arc<dyn Store>,
    symbols: Arc<Shelf>,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    limits: CheckLimits,
    /// Bytes of unfolded profiles that are worked on at once, in permits.
    memory: Arc<Semaphore>,
}

/// What a service works with.
pub struct IngestParts {
    /// Where windows go.
    pub store: Arc<dyn Store>,
    /// What learns where files are loaded.
    pub symbols: Arc<Shelf>,
    /// What says which files a collector is asked for.
    pub intake: Arc<Intake>,
    /// What counts.
    pub metrics: Arc<Metrics>,
}

/// A window that was taken, and what its collector is asked for.
struct Taken {
    appended: Appended,
    wanted: Vec<BuildId>,
}

impl IngestService {
    /// A service that works on profiles of `memory_bytes_max` in all at once; a single profile may be larger.
    pub fn new(parts: IngestParts, limits: CheckLimits, memory_bytes_max: u64) -> Self {
        let permits = permits_for(memory_bytes_max.max(limits.profile_bytes_max));
        let IngestParts {
            store,
            symbols,
            intake,
            metrics,
        } = parts;
        Self {
            store,
            symbols,
            intake,
            metrics,
            limits,
            memory: Arc::new(Semaphore::new(permits as usize)),
        }
    }

    async fn take(&self, request: v1::PushRequest) -> Result<Taken, Refusal> {
        // The stated length is checked before it is trusted for anything else.
        let wanted = permits_for(request.profile_bytes.min(self.limits.profile_bytes_max));
        let stopping = |_| Refusal::new(RefusalReason::Stopping, "the server is stopping");
        let memory = Arc::clone(&self.memory)
            .acquire_many_owned(wanted)
            .await
            .map_err(stopping)?;
        let (store, symbols, intake, metrics, limits) = (
            Arc::clone(&self.store),
            Arc::clone(&self.symbols),
            Arc::clone(&self.intake),
            Arc::clone(&self.metrics),
            self.limits,
        );
        let work = move || {
            let received_bytes = request.profile_zstd.len() as u64;
            let files = check_layouts(&request.file_layouts)?;
            let window = check_push(&request, now_ms(), limits)?;
            let lacking = find_lacking(&files, &window.tables);
            let instance = window.head.key.instance;
            let rows = window.rows.len();
            let counts = UnnamedCounts::of(&window);
            drop(request);
            let appended = store.append(window)?;
            drop(memory);
            for file in &files {
                if let Some(layout) = &file.layout {
                    symbols.learn_layout(&file.build_id, layout, LayoutSource::Profile);
                }
            }
            metrics.add_received_bytes(received_bytes);
            match appended {
                Appended::Stored => {
                    metrics.count_window("stored", rows);
                    metrics.count_samples(&counts);
                }
                Appended::Duplicate => metrics.count_window("duplicate", 0),
            }
            let wanted = intake.choose(instance, &lacking);
            Ok(Taken { appended, wanted })
        };
        let panicked = |_| {
            Refusal::new(
                RefusalReason::Store,
                "the server failed; its log has the reason",
            )
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|err| Err(panicked(err)))
    }
}

#[tonic::async_trait]
impl Ingest for IngestService {
    async fn push(
        &self,
        request: Request<v1::PushRequest>,
    ) -> Result<Response<v1::PushResponse>, Status> {
        let from = request.remote_addr();
        let request = request.into_inner();
        let (node, sequence) = (request.node.clone(), request.sequence);
        match self.take(request).await {
            Ok(Taken { appended, wanted }) => {
                debug!(node, sequence, ?appended, ?wanted, "took a window");
                Ok(Response::new(v1::PushResponse {
                    duplicate: appended == Appended::Duplicate,
                    wanted_build_ids: wanted.iter().map(ToString::to_string).collect(),
                }))
            }
            Err(refusal) => {
                self.metrics.count_refused(refusal.reason.name());
                warn!(?node, sequence, ?from, reason = refusal.reason.name(), %refusal, "refused a window");
                Err(refusal.into())
            }
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(err: StoreError) -> Self {
        let reason = match err {
            StoreError::DiskFull(_) => RefusalReason::DiskFull,
            StoreError::Failed(_) => RefusalReason::Store,
            StoreError::Stopping => RefusalReason::Stopping,
        };
        Self::new(reason, err.to_string())
    }
}

fn permits_for(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES))
        .unwrap_or(u32::MAX)
        .max(1)
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as i64)
}
