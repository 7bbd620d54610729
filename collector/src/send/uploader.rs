//! The thread that sends files with symbols, when the server asks for them.
//!
//! One file at a time and no faster than it may, over a connection of its own, so that no window waits for it. The server
//! keeps the pieces that it has: after a break it gives their length, and the upload resumes there if the file is still the same.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use metrics::{Figures, Registry};
use proto::v1::symbols_client::SymbolsClient;
use proto::v1::{
    BeginUploadRequest, FileRange, FinishUploadRequest, Segment, SymbolOffer, UploadPieceRequest,
};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::{debug, info};

use super::backoff::Backoff;
use super::link::{Link, SendError, is_transport_error};
use super::pending_uploads::PendingUploads;
use crate::blocking_pool::BlockingPool;
use crate::file::UnnamedReason;
use crate::metrics::Stats;
use crate::threads::spawn;
use crate::upload::{FileSource, Offer, Offers, Pace, SourceError, open_source};

/// Bytes of one piece; the server takes 1 MiB. At the default pace 16 go in a second.
const PIECE_BYTES: usize = 256 << 10;

/// Deadline for the end of the thread. It may wait for a file system that does not answer, and is abandoned then.
const END_TIME: Duration = Duration::from_secs(1);

/// Limits of sending files.
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
    /// Time for which a file is retried without any success. A restart of the server takes seconds.
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

/// The end of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UploadEnd {
    /// The server has made an index of it.
    Stored,
    /// The server has equal or better symbols by now.
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

/// Counts since the start, and the files that wait now.
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
    /// Uploads that ended, by the place in [`UploadEnd::ALL`].
    pub ends: [u64; UploadEnd::ALL.len()],
}

impl UploadStats {
    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.counter(
            "uploads_asked",
            "Files with symbols that the server asked for",
            self.asked,
        );
        figures.counters(
            "uploads",
            "Files that the server asked for and that came to an end, by what that was",
            ["result"],
            UploadEnd::ALL
                .into_iter()
                .zip(self.ends)
                .map(|(end, count)| ([end.as_str()], count)),
        );
        figures.gauge(
            "uploads_waiting",
            "Files that the server asked for and that wait or are on their way",
            self.waiting,
        );
        figures.counter(
            "uploaded_bytes",
            "Bytes of files with symbols that the server took",
            self.sent_bytes,
        );
        figures.counter(
            "upload_resumed_bytes",
            "Bytes of files with symbols that the server still had after a break",
            self.resumed_bytes,
        );
        figures.counter(
            "upload_retries",
            "Tries to send a file that failed and were repeated",
            self.retries,
        );
    }
}

/// Sends files from a thread of its own.
#[derive(Debug)]
pub struct Uploader {
    stats: Stats<UploadStats>,
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
        wanted: PendingUploads,
        (offers, pool): (Offers, BlockingPool),
    ) -> Result<Self, SendError> {
        let link = Link::prepare(&options.server, options.connect_time)?;
        let (closing, is_closing) = watch::channel(false);
        let (end, ended) = mpsc::channel();
        let shown: Stats<UploadStats> = Stats::default();
        let carrier = UploadThread {
            backoff: Backoff::new(options.retry_first, options.retry_max),
            pace: Pace::new(options.bytes_per_second),
            started: Instant::now(),
            options,
            wanted,
            offers,
            pool,
            shown: shown.clone(),
            endpoint: link.endpoint,
            client: None,
            stats: UploadStats::default(),
        };
        spawn("upload", move || {
            link.runtime.block_on(carrier.run(is_closing));
            // No caller may wait for it.
            let _ = end.send(());
        })?;
        Ok(Self {
            stats: shown,
            closing,
            ended,
        })
    }

    /// Statistics of what was sent, also after the end.
    pub fn watch(&self) -> Stats<UploadStats> {
        self.stats.clone()
    }

    /// Registers the counts of files and bytes.
    pub fn register(&self, registry: &mut Registry) {
        self.stats.register(registry, UploadStats::show);
    }
}

/// Ends the thread. An upload that is under way resumes after the next start.
impl Drop for Uploader {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        let _ = self.ended.recv_timeout(END_TIME);
    }
}

/// Why a try did not finish.
enum UploadError {
    /// Perhaps later.
    Retry(Status),
    /// From the beginning, at once: the server was started again.
    Again,
    /// That is the end.
    End(UploadEnd),
}

impl From<SourceError> for UploadError {
    fn from(err: SourceError) -> Self {
        Self::End(err.into())
    }
}

/// State of the thread.
struct UploadThread {
    options: UploaderOptions,
    wanted: PendingUploads,
    offers: Offers,
    pool: BlockingPool,
    /// The statistics as they are shown.
    shown: Stats<UploadStats>,
    endpoint: Endpoint,
    client: Option<SymbolsClient<Channel>>,
    backoff: Backoff,
    pace: Pace,
    started: Instant,
    stats: UploadStats,
}

impl UploadThread {
    async fn run(mut self, mut closing: watch::Receiver<bool>) {
        loop {
            let wanted = self.wanted.clone();
            let file_id = tokio::select! {
                biased;
                _ = closing.wait_for(|is_closing| *is_closing) => return,
                file_id = wanted.next() => file_id,
            };
            let end = tokio::select! {
                biased;
                _ = closing.wait_for(|is_closing| *is_closing) => UploadEnd::Stopped,
                end = self.send(&file_id) => end,
            };
            self.stats.ends[end as usize] += 1;
            self.wanted.remove_first();
            self.show();
            info!(%file_id, end = end.as_str(), "the server asked for a file");
        }
    }

    /// Sends a file, with as many tries as it takes.
    async fn send(&mut self, file_id: &str) -> UploadEnd {
        self.show();
        let source = match self.open(file_id) {
            Ok(source) => source,
            Err(err) => {
                debug!(%file_id, %err, "failed to open a file that the server asked for");
                self.give_up(file_id).await;
                return err.into();
            }
        };
        self.backoff.reset();
        let mut success = (Instant::now(), self.stats.sent_bytes);
        loop {
            let status = match self.try_to_send(file_id, &source).await {
                Ok(end) => return end,
                Err(UploadError::End(end @ (UploadEnd::Changed | UploadEnd::Gone))) => {
                    self.give_up(file_id).await;
                    return end;
                }
                Err(UploadError::End(end)) => return end,
                Err(UploadError::Again) => Status::unavailable("the server was started again"),
                Err(UploadError::Retry(status)) => status,
            };
            if self.stats.sent_bytes > success.1 {
                success = (Instant::now(), self.stats.sent_bytes);
                self.backoff.reset();
            }
            if success.0.elapsed() > self.options.give_up_time {
                info!(%file_id, %status, "gave up sending a file");
                return UploadEnd::Unreachable;
            }
            debug!(%file_id, %status, "failed to send a file, trying again");
            self.stats.retries += 1;
            self.show();
            tokio::time::sleep(self.backoff.wait()).await;
        }
    }

    fn open(&self, file_id: &str) -> Result<FileSource, SourceError> {
        let gone = SourceError::Missing(UnnamedReason::FileGone);
        let seen = self.offers.find(file_id).ok_or(gone)?;
        let opened = open_source(&seen.file, &self.pool);
        let found = match &opened {
            Ok(source) => source.parts().offer,
            Err(SourceError::Nothing) => Offer::None,
            Err(_) => return opened,
        };
        self.offers.learn(file_id, found);
        if found >= seen.least {
            opened
        } else {
            Err(SourceError::Nothing)
        }
    }

    async fn try_to_send(
        &mut self,
        file_id: &str,
        source: &FileSource,
    ) -> Result<UploadEnd, UploadError> {
        let Some(mut position) = self.begin(file_id, source).await? else {
            return Ok(UploadEnd::Unneeded);
        };
        let total_bytes = source.parts().total_bytes();
        while position < total_bytes {
            let piece = source.read(position, PIECE_BYTES)?;
            position = self.send_piece(file_id, position, piece).await?;
        }
        let mut client = self.client();
        let request = FinishUploadRequest {
            collector_instance: self.options.instance.to_vec(),
            build_id: source.build_id(),
            file_id: file_id.to_owned(),
        };
        let finished = client.finish_upload(request);
        let finished = self.answer(finished, self.options.finish_time).await;
        if finished.map_err(again_if_not_asked)?.stored {
            Ok(UploadEnd::Stored)
        } else {
            Ok(UploadEnd::Unneeded)
        }
    }

    /// Announces the file. Returns the position at which to resume; `None` when the server does not need it.
    async fn begin(
        &mut self,
        file_id: &str,
        source: &FileSource,
    ) -> Result<Option<u64>, UploadError> {
        let mut client = self.client();
        let begun = client.begin_upload(self.describe(file_id, source));
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

    fn describe(&self, file_id: &str, source: &FileSource) -> BeginUploadRequest {
        let parts = source.parts();
        let ranges = parts.parts.iter().map(|part| FileRange {
            offset: part.offset,
            bytes: part.bytes,
        });
        let segments = source.segments().iter().map(|segment| Segment {
            file_offset: segment.file_offset,
            address: segment.address,
            bytes: segment.bytes,
        });
        BeginUploadRequest {
            collector_instance: self.options.instance.to_vec(),
            build_id: source.build_id(),
            file_id: file_id.to_owned(),
            offer: SymbolOffer::from(parts.offer).into(),
            file_bytes: parts.file_bytes,
            ranges: ranges.collect(),
            segments: segments.collect(),
        }
    }

    /// Sends a piece when it is its time; gives where the next one begins.
    async fn send_piece(
        &mut self,
        file_id: &str,
        position: u64,
        piece: Vec<u8>,
    ) -> Result<u64, UploadError> {
        let bytes = piece.len() as u64;
        let wait = self.pace.wait(self.started.elapsed(), bytes);
        tokio::time::sleep(wait).await;
        let mut client = self.client();
        let request = UploadPieceRequest {
            collector_instance: self.options.instance.to_vec(),
            file_id: file_id.to_owned(),
            position,
            data: piece.into(),
            ..UploadPieceRequest::default()
        };
        let answer = client.upload_piece(request);
        let answer = self.answer(answer, self.options.request_time).await;
        let received = answer.map_err(again_if_not_asked)?.received_bytes;
        if received != position + bytes {
            return Err(UploadError::Again);
        }
        self.stats.sent_bytes += bytes;
        self.show();
        Ok(received)
    }

    /// Tells the server that a file does not come, so that it asks elsewhere. Once: it finds out by itself.
    async fn give_up(&mut self, file_id: &str) {
        let mut client = self.client();
        let request = BeginUploadRequest {
            collector_instance: self.options.instance.to_vec(),
            file_id: file_id.to_owned(),
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

    /// The answer, if it comes within `time`.
    async fn answer<T>(
        &mut self,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
        time: Duration,
    ) -> Result<T, UploadError> {
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
            Code::FailedPrecondition => UploadError::End(UploadEnd::NotAsked),
            Code::InvalidArgument | Code::Unimplemented | Code::ResourceExhausted => {
                info!(%status, "the server does not take a file");
                UploadError::End(UploadEnd::Refused)
            }
            _ => UploadError::Retry(status),
        })
    }

    fn show(&mut self) {
        let dropped = &mut self.stats.ends[UploadEnd::Dropped as usize];
        [self.stats.asked, self.stats.waiting, *dropped] = self.wanted.counts();
        *self.shown.lock() = self.stats.clone();
    }
}

/// A server that did not ask for a piece was started again since, or asks another collector now. The next announcement tells
/// which.
fn again_if_not_asked(trouble: UploadError) -> UploadError {
    match trouble {
        UploadError::End(UploadEnd::NotAsked) => UploadError::Again,
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
