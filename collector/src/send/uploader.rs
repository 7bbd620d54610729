//! The thread that sends files with symbols, when the server asks for them.
//!
//! One file at a time and no faster than it may, over a connection of its own, so that no window waits for it. What the server
//! has of a file stays there: after a break it says how much that is, and the file goes on from there if it is still the same.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::v1::symbols_client::SymbolsClient;
use proto::v1::{
    BeginUploadRequest, FileRange, FinishUploadRequest, Segment, SymbolOffer, UploadPieceRequest,
};
use tokio::sync::{Notify, watch};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::{debug, info};

use super::backoff::Backoff;
use super::link::{Link, SendError};
use super::sender::is_transport_error;
use crate::metrics::SharedMetrics;
use crate::name::UnnamedReason;
use crate::patience::Patience;
use crate::process::BuildId;
use crate::upload::{FileSource, Offer, Offers, Pace, SourceError, open_source};

/// Bytes of one piece; the server takes 1 MiB. At the default pace 16 go in a second.
const PIECE_BYTES: usize = 256 << 10;

/// Files that wait to be sent. The server asks for at most eight at a time.
const WAITING_MAX: usize = 16;

/// How long the thread may take to end. It may wait for a file system that does not answer, and is left alone then.
const END_TIME: Duration = Duration::from_secs(1);

/// How files are sent.
#[derive(Clone, Debug)]
pub struct UploaderOptions {
    /// The server, such as `http://127.0.0.1:7071`.
    pub server: String,
    /// The collector's name in its messages.
    pub instance: [u8; 16],
    /// Bytes a second at most.
    pub bytes_per_second: u64,
    /// Time for a connection.
    pub connect_time: Duration,
    /// Time for a piece.
    pub request_time: Duration,
    /// Time for the server to make an index of a whole file; it gives a child 15 minutes.
    pub finish_time: Duration,
    /// Wait after the first failure; it doubles with each further one.
    pub retry_first: Duration,
    /// The longest wait.
    pub retry_max: Duration,
    /// How long a file is tried without any success. A restart of the server takes seconds.
    pub give_up_time: Duration,
}

impl UploaderOptions {
    /// The defaults.
    pub fn new(server: impl Into<String>, instance: [u8; 16], bytes_per_second: u64) -> Self {
        Self {
            server: server.into(),
            instance,
            bytes_per_second,
            connect_time: Duration::from_secs(5),
            request_time: Duration::from_secs(30),
            finish_time: Duration::from_secs(1200),
            retry_first: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            give_up_time: Duration::from_secs(900),
        }
    }
}

/// What became of a file that the server asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UploadEnd {
    /// The server has made an index of it.
    Stored,
    /// The server had as good by then.
    Unneeded,
    /// Nothing can be named by it.
    Nothing,
    /// It was gone, or could not be opened.
    Gone,
    /// It changed while it was sent.
    Changed,
    /// The server does not take it.
    Refused,
    /// The server does not ask for it any more.
    NotAsked,
    /// The server was away for too long.
    Unreachable,
    /// The collector ends.
    Stopped,
    /// Too many waited.
    Dropped,
}

impl UploadEnd {
    /// All of them, in the order of [`UploadStats::ends`].
    pub const ALL: [Self; 10] = [
        Self::Stored,
        Self::Unneeded,
        Self::Nothing,
        Self::Gone,
        Self::Changed,
        Self::Refused,
        Self::NotAsked,
        Self::Unreachable,
        Self::Stopped,
        Self::Dropped,
    ];

    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Unneeded => "unneeded",
            Self::Nothing => "nothing",
            Self::Gone => "gone",
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::NotAsked => "not_asked",
            Self::Unreachable => "unreachable",
            Self::Stopped => "stopped",
            Self::Dropped => "dropped",
        }
    }
}

impl From<SourceError> for UploadEnd {
    fn from(err: SourceError) -> Self {
        match err {
            SourceError::Missing(_) => Self::Gone,
            SourceError::Nothing => Self::Nothing,
            SourceError::Changed => Self::Changed,
        }
    }
}

/// Counts since the start, and what waits now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadStats {
    /// Files that the server asked for.
    pub asked: u64,
    /// Of them, those that wait or are on their way.
    pub waiting: u64,
    /// Bytes that the server took.
    pub sent_bytes: u64,
    /// Bytes that the server still had after a break.
    pub resumed_bytes: u64,
    /// Tries that failed and were repeated.
    pub retries: u64,
    /// What became of the files, by its place in [`UploadEnd::ALL`].
    pub ends: [u64; UploadEnd::ALL.len()],
}

/// What the server asks for: filled by who hears its answers, emptied by who sends.
#[derive(Clone, Debug, Default)]
pub struct WantedFiles(Arc<Wanted>);

#[derive(Debug, Default)]
struct Wanted {
    state: Mutex<WantedState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct WantedState {
    /// The first is on its way.
    waiting: VecDeque<BuildId>,
    asked: u64,
    dropped: u64,
}

impl WantedFiles {
    /// Adds what an answer asks for. Never waits; what is no build id is left out, and so is what waits already.
    pub fn ask<'a>(&self, build_ids: impl Iterator<Item = &'a str>) {
        let mut state = self.lock();
        for build_id in build_ids.filter_map(BuildId::from_hex) {
            if state.waiting.contains(&build_id) {
                continue;
            }
            state.asked += 1;
            if state.waiting.len() < WAITING_MAX {
                state.waiting.push_back(build_id);
            } else {
                state.dropped += 1;
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }

    async fn next(&self) -> BuildId {
        loop {
            if let Some(build_id) = self.lock().waiting.front() {
                return *build_id;
            }
            self.0.changed.notified().await;
        }
    }

    fn remove_first(&self) {
        self.lock().waiting.pop_front();
    }

    fn lock(&self) -> MutexGuard<'_, WantedState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends files from a thread of its own.
#[derive(Debug)]
pub struct Uploader {
    closing: watch::Sender<bool>,
    ended: mpsc::Receiver<()>,
}

impl Uploader {
    /// Starts the thread. The server need not be there yet.
    ///
    /// # Errors
    /// The address cannot be understood, or the thread not be started.
    pub fn start(
        options: UploaderOptions,
        wanted: WantedFiles,
        (offers, patience): (Offers, Patience),
        metrics: SharedMetrics,
    ) -> Result<Self, SendError> {
        let link = Link::prepare(&options.server, options.connect_time)?;
        let (closing, is_closing) = watch::channel(false);
        let (end, ended) = mpsc::channel();
        let carrier = Carrier {
            backoff: Backoff::new(options.retry_first, options.retry_max),
            pace: Pace::new(options.bytes_per_second),
            started: Instant::now(),
            options,
            wanted,
            offers,
            patience,
            metrics,
            endpoint: link.endpoint,
            client: None,
            stats: UploadStats::default(),
        };
        std::thread::Builder::new()
            .name("upload".into())
            .spawn(move || {
                link.runtime.block_on(carrier.run(is_closing));
                // Nobody may wait for it.
                let _ = end.send(());
            })?;
        Ok(Self { closing, ended })
    }
}

/// Ends the thread; what is on its way goes on another time.
impl Drop for Uploader {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        let _ = self.ended.recv_timeout(END_TIME);
    }
}

/// Why a try came to no end.
enum Trouble {
    /// Perhaps later.
    Retry(Status),
    /// From the beginning, at once: the server was started again.
    Again,
    /// That is the end.
    End(UploadEnd),
}

impl From<SourceError> for Trouble {
    fn from(err: SourceError) -> Self {
        Self::End(err.into())
    }
}

/// The thread's own things.
struct Carrier {
    options: UploaderOptions,
    wanted: WantedFiles,
    offers: Offers,
    patience: Patience,
    metrics: SharedMetrics,
    endpoint: Endpoint,
    client: Option<SymbolsClient<Channel>>,
    backoff: Backoff,
    pace: Pace,
    started: Instant,
    stats: UploadStats,
}

impl Carrier {
    async fn run(mut self, mut closing: watch::Receiver<bool>) {
        loop {
            let wanted = self.wanted.clone();
            let build_id = tokio::select! {
                biased;
                _ = closing.wait_for(|it| *it) => return,
                build_id = wanted.next() => build_id,
            };
            let end = tokio::select! {
                biased;
                _ = closing.wait_for(|it| *it) => UploadEnd::Stopped,
                end = self.send(build_id) => end,
            };
            self.stats.ends[end as usize] += 1;
            self.wanted.remove_first();
            self.show();
            info!(%build_id, end = end.as_str(), "the server asked for a file");
        }
    }

    /// Sends a file, with as many tries as it takes.
    async fn send(&mut self, build_id: BuildId) -> UploadEnd {
        self.show();
        let source = match self.open(build_id) {
            Ok(source) => source,
            Err(err) => {
                debug!(%build_id, %err, "failed to open a file that the server asked for");
                self.give_up(build_id).await;
                return err.into();
            }
        };
        self.backoff.reset();
        let mut success = (Instant::now(), self.stats.sent_bytes);
        loop {
            let status = match self.try_to_send(build_id, &source).await {
                Ok(end) => return end,
                Err(Trouble::End(end @ (UploadEnd::Changed | UploadEnd::Gone))) => {
                    self.give_up(build_id).await;
                    return end;
                }
                Err(Trouble::End(end)) => return end,
                Err(Trouble::Again) => Status::unavailable("the server was started again"),
                Err(Trouble::Retry(status)) => status,
            };
            if self.stats.sent_bytes > success.1 {
                success = (Instant::now(), self.stats.sent_bytes);
                self.backoff.reset();
            }
            if success.0.elapsed() > self.options.give_up_time {
                info!(%build_id, %status, "gave up sending a file");
                return UploadEnd::Unreachable;
            }
            debug!(%build_id, %status, "failed to send a file, trying again");
            self.stats.retries += 1;
            self.show();
            tokio::time::sleep(self.backoff.wait()).await;
        }
    }

    fn open(&self, build_id: BuildId) -> Result<FileSource, SourceError> {
        let gone = SourceError::Missing(UnnamedReason::FileGone);
        let seen = self.offers.find(&build_id).ok_or(gone)?;
        let opened = open_source(&seen.file, build_id, &self.patience);
        let found = match &opened {
            Ok(source) => source.parts().offer,
            Err(SourceError::Nothing) => Offer::None,
            Err(_) => return opened,
        };
        self.offers.learn(&build_id, found);
        match found >= seen.least {
            true => opened,
            false => Err(SourceError::Nothing),
        }
    }

    async fn try_to_send(
        &mut self,
        build_id: BuildId,
        source: &FileSource,
    ) -> Result<UploadEnd, Trouble> {
        let Some(mut position) = self.begin(build_id, source).await? else {
            return Ok(UploadEnd::Unneeded);
        };
        let total_bytes = source.parts().total_bytes();
        while position < total_bytes {
            let piece = source.read(position, PIECE_BYTES)?;
            position = self.send_piece(build_id, position, piece).await?;
        }
        let mut client = self.client();
        let request = FinishUploadRequest {
            collector_instance: self.options.instance.to_vec(),
            build_id: build_id.to_string(),
        };
        let finished = client.finish_upload(request);
        let finished = self.answer(finished, self.options.finish_time).await;
        match finished.map_err(again_if_not_asked)?.stored {
            true => Ok(UploadEnd::Stored),
            false => Ok(UploadEnd::Unneeded),
        }
    }

    /// Says what is to come. Gives where to go on; `None` when nothing is needed.
    async fn begin(
        &mut self,
        build_id: BuildId,
        source: &FileSource,
    ) -> Result<Option<u64>, Trouble> {
        let mut client = self.client();
        let begun = client.begin_upload(self.describe(build_id, source));
        let begun = self.answer(begun, self.options.request_time).await?;
        if begun.unneeded {
            return Ok(None);
        }
        let received = begun.received_bytes;
        if received == 0 || received > source.parts().total_bytes() {
            return Ok(Some(0));
        }
        // Of a file that has changed since, the rest is not put behind that.
        if source.digest(received)?[..] != begun.received_digest[..] {
            return Ok(Some(0));
        }
        self.stats.resumed_bytes += received;
        Ok(Some(received))
    }

    fn describe(&self, build_id: BuildId, source: &FileSource) -> BeginUploadRequest {
        let parts = source.parts();
        let ranges = parts.parts.iter().map(|it| FileRange {
            offset: it.offset,
            bytes: it.bytes,
        });
        let segments = source.segments().iter().map(|it| Segment {
            file_offset: it.file_offset,
            address: it.address,
            bytes: it.bytes,
        });
        BeginUploadRequest {
            collector_instance: self.options.instance.to_vec(),
            build_id: build_id.to_string(),
            offer: SymbolOffer::from(parts.offer).into(),
            file_bytes: parts.file_bytes,
            ranges: ranges.collect(),
            segments: segments.collect(),
        }
    }

    /// Sends a piece when it is its time; gives where the next one begins.
    async fn send_piece(
        &mut self,
        build_id: BuildId,
        position: u64,
        piece: Vec<u8>,
    ) -> Result<u64, Trouble> {
        let bytes = piece.len() as u64;
        let wait = self.pace.wait(self.started.elapsed(), bytes);
        tokio::time::sleep(wait).await;
        let mut client = self.client();
        let request = UploadPieceRequest {
            collector_instance: self.options.instance.to_vec(),
            build_id: build_id.to_string(),
            position,
            data: piece.into(),
        };
        let answer = client.upload_piece(request);
        let answer = self.answer(answer, self.options.request_time).await;
        let received = answer.map_err(again_if_not_asked)?.received_bytes;
        if received != position + bytes {
            return Err(Trouble::Again);
        }
        self.stats.sent_bytes += bytes;
        self.show();
        Ok(received)
    }

    /// Tells the server that a file does not come, so that it asks elsewhere. Once: it finds out by itself.
    async fn give_up(&mut self, build_id: BuildId) {
        let mut client = self.client();
        let request = BeginUploadRequest {
            collector_instance: self.options.instance.to_vec(),
            build_id: build_id.to_string(),
            offer: SymbolOffer::None.into(),
            ..BeginUploadRequest::default()
        };
        let told = client.begin_upload(request);
        let _ = self.answer(told, self.options.request_time).await;
    }

    /// A handle of the connection.
    fn client(&mut self) -> SymbolsClient<Channel> {
        let new = || SymbolsClient::new(self.endpoint.connect_lazy());
        self.client.get_or_insert_with(new).clone()
    }

    /// What the server answers in time.
    async fn answer<T>(
        &mut self,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
        time: Duration,
    ) -> Result<T, Trouble> {
        let result = tokio::time::timeout(time, answer)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let status = match result {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        if is_transport_error(&status) {
            // One that hangs would hang again.
            self.client = None;
        }
        Err(match status.code() {
            Code::FailedPrecondition => Trouble::End(UploadEnd::NotAsked),
            Code::InvalidArgument | Code::Unimplemented | Code::ResourceExhausted => {
                info!(%status, "the server does not take a file");
                Trouble::End(UploadEnd::Refused)
            }
            _ => Trouble::Retry(status),
        })
    }

    fn show(&mut self) {
        let wanted = self.wanted.lock();
        self.stats.asked = wanted.asked;
        self.stats.waiting = wanted.waiting.len() as u64;
        self.stats.ends[UploadEnd::Dropped as usize] = wanted.dropped;
        drop(wanted);
        self.metrics.lock().uploads = self.stats.clone();
    }
}

/// Not asked for a piece of what was begun: the server was started again since, or asks somebody else. It says which when the
/// file is begun again.
fn again_if_not_asked(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::End(UploadEnd::NotAsked) => Trouble::Again,
        trouble => trouble,
    }
}

impl From<Offer> for SymbolOffer {
    fn from(offer: Offer) -> Self {
        match offer {
            Offer::None => Self::None,
            Offer::SymbolTable => Self::SymbolTable,
            Offer::DebugInfo => Self::DebugInfo,
            Offer::Unknown => Self::Unknown,
        }
    }
}
