//! Fetches missing symbols from debuginfod servers, on threads of its own: one HTTP request after the other, bounded
//! in size and time. A fetched file becomes an index like an upload.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use elf::BuildId;
use symbolize::index::Rank;
use tracing::{debug, info, warn};
use ureq::Agent;

use super::error::AddError;
use super::index_store::{Added, IndexStore, IndexSummary};
use super::metrics::SymbolMetrics;

/// Files fetched at once. Servers of distributions answer one request at a time well; the disk and the one child that
/// makes indexes take no more.
const FETCHERS: usize = 2;

/// Timeout of a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A server may have to unpack a package of some GB before it answers.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// For one file: 4 GiB come in this time at 2.4 MB a second.
const FILE_TIME: Duration = Duration::from_secs(1800);

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Why a server gave no file.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("it has none")]
    NotFound,
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the server is stopping")]
    Stopping,
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    NotAdded(#[from] AddError),
}

impl FetchError {
    /// Name in metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::TooLarge(_) => "too_large",
            Self::Stopping => "stopping",
            Self::Failed(_) => "unreachable",
            Self::NotAdded(err) => err.name(),
        }
    }
}

impl From<io::Error> for FetchError {
    fn from(err: io::Error) -> Self {
        Self::Failed(err.to_string())
    }
}

/// Starts the threads, if there are servers to ask. They end when the queue is closed.
///
/// # Errors
/// A thread cannot be started.
pub fn start_fetchers(
    indexes: &Arc<IndexStore>,
    metrics: &SymbolMetrics,
    urls: &[String],
) -> io::Result<()> {
    if urls.is_empty() {
        return Ok(());
    }
    let config = Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIME))
        .timeout_recv_response(Some(ANSWER_TIME))
        .timeout_global(Some(FILE_TIME))
        .http_status_as_error(false)
        .user_agent(concat!("pilotlight-server/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = Agent::from(config);
    for number in 0..FETCHERS {
        let fetcher = Fetcher {
            agent: agent.clone(),
            indexes: Arc::clone(indexes),
            metrics: metrics.clone(),
            urls: urls.to_vec(),
        };
        std::thread::Builder::new()
            .name(format!("fetch-{number}"))
            .spawn(move || fetcher.run())?;
    }
    Ok(())
}

struct Fetcher {
    agent: Agent,
    indexes: Arc<IndexStore>,
    metrics: SymbolMetrics,
    urls: Vec<String>,
}

impl Fetcher {
    fn run(&self) {
        while let Some(build_id) = self.indexes.fetch_queue().pop() {
            let started = Instant::now();
            let mut bytes = 0;
            let result = self.fetch(&build_id, &mut bytes);
            let name = match &result {
                Ok(Added::Stored(_)) => "stored",
                Ok(Added::Unchanged(_)) => "unchanged",
                Err(err) => err.name(),
            };
            self.metrics.fetches.of([name]).inc();
            self.metrics.fetch_bytes.inc_by(bytes);
            match result {
                Ok(_) => {
                    info!(%build_id, bytes, seconds = started.elapsed().as_secs_f32(), "fetched symbols");
                }
                Err(FetchError::NotFound) => debug!(%build_id, "no debuginfod server has symbols"),
                Err(err) => warn!(%build_id, %err, "failed to fetch symbols"),
            }
            // An incomplete result is retried later, not with each query.
            let is_all =
                |found: IndexSummary| found.has_layout && found.head.rank == Rank::DebugInfo;
            if self.indexes.find(&build_id).is_some_and(is_all) {
                self.indexes.fetch_queue().note_found(&build_id);
            } else {
                self.indexes.fetch_queue().note_not_found(&build_id);
            }
        }
    }

    /// Debug information first; then the program itself, if the former is missing or does not have the load segments.
    fn fetch(&self, build_id: &BuildId, bytes: &mut u64) -> Result<Added, FetchError> {
        let present = |check: fn(&IndexSummary) -> bool| {
            self.indexes.find(build_id).as_ref().is_some_and(check)
        };
        let first = if present(|found| found.head.rank == Rank::DebugInfo) {
            Err(FetchError::NotFound)
        } else {
            self.ask_all(build_id, "debuginfo", bytes)
        };
        if present(|found| found.has_layout) {
            return first;
        }
        let second = self.ask_all(build_id, "executable", bytes);
        match (first, second) {
            (Err(FetchError::NotFound), second) => second,
            (first @ Ok(Added::Stored(_)), _) | (first, Err(_)) => first,
            (_, second) => second,
        }
    }

    /// Asks one server after the other, until one has a file that can be used.
    fn ask_all(
        &self,
        build_id: &BuildId,
        what: &str,
        bytes: &mut u64,
    ) -> Result<Added, FetchError> {
        let mut worst = FetchError::NotFound;
        for server in &self.urls {
            let url = format!("{server}/buildid/{build_id}/{what}");
            match self.ask(build_id, &url, bytes) {
                Ok(placed) => return Ok(placed),
                Err(FetchError::NotFound) => {}
                Err(FetchError::Stopping) => return Err(FetchError::Stopping),
                Err(err) => {
                    debug!(url, %err, "a debuginfod server gave no file");
                    worst = err;
                }
            }
        }
        Err(worst)
    }

    fn ask(&self, build_id: &BuildId, url: &str, bytes: &mut u64) -> Result<Added, FetchError> {
        let response = self.agent.get(url).call();
        let mut response = response.map_err(|err| FetchError::Failed(err.to_string()))?;
        match response.status().as_u16() {
            200 => {}
            404 | 410 => return Err(FetchError::NotFound),
            status => {
                return Err(FetchError::Failed(format!(
                    "{url} answered with status {status}"
                )));
            }
        }
        let mut file = self.indexes.make_incoming()?;
        // The client's default limit is for bodies in memory.
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        *bytes += self.save(&mut body, &mut file)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(self.indexes.add(build_id, file, url)?)
    }

    fn save(&self, body: &mut impl Read, file: &mut File) -> Result<u64, FetchError> {
        let bytes_max = self.indexes.file_bytes_max();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut bytes = 0u64;
        loop {
            let length = body.read(&mut chunk)?;
            if length == 0 {
                return Ok(bytes);
            }
            bytes += length as u64;
            if bytes > bytes_max {
                return Err(FetchError::TooLarge(bytes_max));
            }
            if self.indexes.fetch_queue().is_closed() {
                return Err(FetchError::Stopping);
            }
            self.indexes.check_room(CHUNK_BYTES as u64)?;
            file.write_all(&chunk[..length])?;
        }
    }
}
