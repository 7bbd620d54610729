//! The gRPC service: admits, checks, appends, answers.

use std::sync::Arc;
use std::time::SystemTime;

use elf::BuildId;
use model::unnamed::UnnamedCounts;
use proto::v1;
use proto::v1::ingest_server::Ingest;
use store::{Appended, HourLimit, Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};
use tracing::{debug, warn};

use super::check::{CheckLimits, Checked, check_layouts};
use super::missing_names::find_missing_names;
use super::report::check_report;
use crate::receive::metrics::ReceiveMetrics;
use crate::receive::refusal::{Refusal, RefusalReason};
use crate::symbol::known_layouts::LayoutSource;
use crate::symbol::{CollectorUploads, IndexStore};

/// Permits are of this size, so that their number fits a semaphore's 32 bits.
const PERMIT_BYTES: u64 = 1 << 10;

/// The answer when the server has panicked.
const FAILED: &str = "the server failed; its log has the reason";

/// Takes profiles, and reports of nodes.
pub struct IngestService {
    store: Arc<dyn Store>,
    symbols: Arc<IndexStore>,
    uploads: Arc<CollectorUploads>,
    metrics: ReceiveMetrics,
    limits: CheckLimits,
    memory: Memory,
}

/// Parts of a service.
pub struct IngestParts {
    /// Takes windows.
    pub store: Arc<dyn Store>,
    /// Remembers the load segments of files.
    pub symbols: Arc<IndexStore>,
    /// Chooses the files that a collector is asked for.
    pub uploads: Arc<CollectorUploads>,
    /// Metrics.
    pub metrics: ReceiveMetrics,
}

/// A stored window, and the files that its collector is asked for.
struct Taken {
    appended: Appended,
    wanted: Vec<BuildId>,
}

impl IngestService {
    /// A service that works on profiles of at most `memory_bytes_max` together; a single profile may be larger.
    pub fn new(parts: IngestParts, limits: CheckLimits, memory_bytes_max: u64) -> Self {
        let IngestParts {
            store,
            symbols,
            uploads,
            metrics,
        } = parts;
        Self {
            store,
            symbols,
            uploads,
            metrics,
            limits,
            memory: Memory::new(memory_bytes_max.max(limits.profile_bytes_max)),
        }
    }

    async fn take(&self, mut request: v1::PushRequest) -> Result<Taken, Refusal> {
        // The stated length is checked before it is trusted for anything else.
        let stated = request.profile_bytes.min(self.limits.profile_bytes_max);
        let permit = self.memory.reserve(stated).await?;
        let (store, symbols, uploads, metrics, memory, limits) = (
            Arc::clone(&self.store),
            Arc::clone(&self.symbols),
            Arc::clone(&self.uploads),
            self.metrics.clone(),
            self.memory.clone(),
            self.limits,
        );
        let runtime = Handle::current();
        let work = move || {
            let received_bytes = request.profile_zstd.len() as u64;
            let files = check_layouts(&request.file_layouts)?;
            let checked = Checked::new(&mut request, now_ms(), limits)?;
            let wanted = checked.memory_bytes();
            // Released first: two messages that wait for more and hold their share would wait for ever.
            drop(permit);
            let permit = runtime.block_on(memory.reserve(wanted))?;
            let window = checked.into_window()?;
            let lacking = find_missing_names(&files, &window.tables);
            let instance = window.head.key.instance;
            let rows = window.rows.len();
            let counts = UnnamedCounts::of(&window);
            let is_balanced = window.is_balanced();
            drop(request);
            let appended = store.append(window)?;
            drop(permit);
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
                    if !is_balanced {
                        metrics.count_unbalanced();
                    }
                }
                Appended::Duplicate => metrics.count_window("duplicate", 0),
            }
            let wanted = uploads.choose(instance, &lacking);
            Ok(Taken { appended, wanted })
        };
        let panicked = |_| Refusal::new(RefusalReason::Store, FAILED);
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|err| Err(panicked(err)))
    }
}

/// Memory for profiles in work.
#[derive(Clone)]
struct Memory {
    permits: Arc<Semaphore>,
    bytes_max: u64,
}

impl Memory {
    fn new(bytes_max: u64) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits_for(bytes_max) as usize)),
            bytes_max,
        }
    }

    /// Waits until this much memory is free, or all of it.
    async fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let stopping = |_| Refusal::new(RefusalReason::Stopping, "the server is stopping");
        let permits = permits_for(bytes.min(self.bytes_max));
        let memory = Arc::clone(&self.permits).acquire_many_owned(permits);
        memory.await.map_err(stopping)
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
                    wanted_file_ids: wanted.iter().map(ToString::to_string).collect(),
                    ..Default::default()
                }))
            }
            Err(refusal) => {
                self.metrics.count_refused(refusal.reason.name());
                warn!(?node, sequence, ?from, reason = refusal.reason.name(), %refusal, "refused a window");
                Err(refusal.into())
            }
        }
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let from = request.remote_addr();
        let request = request.into_inner();
        let node = request.node.clone();
        let taken = self.take_report(request).await;
        let result = taken
            .as_ref()
            .map_or_else(|refusal| refusal.reason.name(), |()| "kept");
        self.metrics.count_report(result);
        if let Err(refusal) = &taken {
            warn!(?node, ?from, reason = result, %refusal, "refused the report of a node");
        }
        taken?;
        Ok(Response::new(v1::ReportResponse::default()))
    }
}

impl IngestService {
    async fn take_report(&self, request: v1::ReportRequest) -> Result<(), Refusal> {
        let report = check_report(request, now_ms())?;
        let store = Arc::clone(&self.store);
        let kept = tokio::task::spawn_blocking(move || store.put_report(report)).await;
        Ok(kept.unwrap_or_else(|_| Err(StoreError::Failed(FAILED.into())))?)
    }
}

impl From<StoreError> for Refusal {
    fn from(err: StoreError) -> Self {
        let reason = match err {
            StoreError::DiskFull(_) => RefusalReason::DiskFull,
            StoreError::Failed(_) | StoreError::Stopped(_) => RefusalReason::Store,
            StoreError::OtherContent { .. } => RefusalReason::Identity,
            StoreError::HourLimit { limit, .. } => match limit {
                HourLimit::Series => RefusalReason::NewSeries,
                HourLimit::Labels => RefusalReason::NewLabels,
                HourLimit::Stacks => RefusalReason::NewStacks,
                HourLimit::Locations => RefusalReason::NewLocations,
                HourLimit::Nodes => RefusalReason::NewNodes,
            },
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
