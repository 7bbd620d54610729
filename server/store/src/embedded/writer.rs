//! The writer: the only thread that adds windows.
//!
//! In: windows over a bounded queue. Out: windows in blocks and their logs, and an answer for each. Group commit: all queued windows
//! are written together, with one `fdatasync` a log, and answered after it.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use model::Window;
use segment::{Builder, Digest, LogWriter};
use tracing::{error, warn};
use ulid::Ulid;

use super::block::Block;
use super::directory::LOGS;
use super::disk::DiskFile;
use super::files::write_all_at;
use super::hour_limits::{HourCounts, HourLimits};
use super::plan::hour_of;
use super::sequences::Sequences;
use super::shared::{Shared, now_ms};
use super::span::HOUR_MS;
use crate::{Appended, StoreError};

/// Milliseconds after the end of its hour at which a block becomes a segment, so that the hour can be merged.
const LATE_MS: i64 = 60_000;

/// Blocks that get windows: this hour's, that of the hour before, and two for collectors that return after a longer time.
const OPEN_MAX: usize = 4;

/// Windows of one commit, and their rows: bounded so that the first does not wait for long.
const BATCH_WINDOWS_MAX: usize = 64;
const BATCH_ROWS_MAX: usize = 200_000;

/// Interval of the search for blocks that are old enough.
const TICK: Duration = Duration::from_secs(5);

/// Work for the writer.
pub enum Job {
    /// A window to be stored.
    Append(Box<AppendJob>),
    /// All blocks become segments; answers when they get no more windows.
    SealAll(SyncSender<()>),
}

/// A window on its way to the disk.
pub struct AppendJob {
    /// The window.
    pub window: Window,
    /// The digest of its content.
    pub digest: Digest,
    /// Receives the answer.
    pub reply: SyncSender<Result<Appended, StoreError>>,
}

/// A block that gets windows, and its log.
struct OpenBlock {
    block: Arc<Block>,
    log: LogWriter,
    file: Arc<dyn DiskFile>,
    opened_at: Instant,
}

/// The writer.
pub struct Writer {
    shared: Arc<Shared>,
    /// Bytes of all blocks in memory.
    bytes_max: usize,
    /// Time after which a block becomes a segment.
    block_time: Duration,
    /// By the start of their hour.
    open: BTreeMap<i64, OpenBlock>,
    hour_counts: HourCounts,
}

impl Writer {
    /// A writer without blocks.
    pub fn new(
        shared: Arc<Shared>,
        bytes_max: usize,
        block_time: Duration,
        hour_limits: HourLimits,
    ) -> Self {
        Self {
            hour_counts: HourCounts::new(hour_limits),
            shared,
            bytes_max,
            block_time,
            open: BTreeMap::new(),
        }
    }

    /// Writes until the queue is closed and empty.
    pub fn run(mut self, queue: &Receiver<Job>) {
        let mut ticked = Instant::now();
        loop {
            match queue.recv_timeout(TICK) {
                Ok(first) => {
                    let (batch, seals) = collect_batch(first, queue);
                    self.write_batch(batch);
                    if !seals.is_empty() {
                        let hours: Vec<i64> = self.open.keys().copied().collect();
                        hours.into_iter().for_each(|hour_ms| self.seal(hour_ms));
                        for reply in seals {
                            let _gone = reply.send(());
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.seal_due();
            }
        }
    }

    fn write_batch(&mut self, jobs: Vec<AppendJob>) {
        let content = self.shared.content();
        let mut by_hour: BTreeMap<i64, Vec<AppendJob>> = BTreeMap::new();
        let mut in_batch = HashSet::new();
        let mut repeats = Vec::new();
        for job in jobs {
            let key = job.window.head.key;
            if let Some(repeat) = content.find_repeat(&key, &job.digest) {
                answer(&job, repeat);
            } else if in_batch.insert((key.instance, key.sequence)) {
                by_hour.entry(hour_of(key.start_ms)).or_default().push(job);
            } else {
                // The same message twice in one batch: answered when the first one is durable or failed.
                repeats.push(job);
            }
        }
        for (hour_ms, jobs) in by_hour {
            self.write_hour(hour_ms, jobs);
        }
        let content = self.shared.content();
        for job in repeats {
            let repeat = content.find_repeat(&job.window.head.key, &job.digest);
            let failed = "the same message failed just now; send it again";
            answer(
                &job,
                repeat.unwrap_or_else(|| Err(StoreError::Failed(failed.into()))),
            );
        }
    }

    /// Writes windows of one hour, and answers all of them.
    fn write_hour(&mut self, hour_ms: i64, jobs: Vec<AppendJob>) {
        let opened = self.check_memory().and_then(|()| {
            self.open_block(hour_ms)
                .map_err(|err| disk_error(&err, "create"))
        });
        if let Err(err) = opened {
            jobs.iter().for_each(|job| answer(job, Err(err.clone())));
            return;
        }
        let Some(open) = self.open.get_mut(&hour_ms) else {
            return;
        };
        let mut bytes = Vec::new();
        let mut added = Vec::new();
        {
            let mut builder = open.block.write();
            for job in jobs {
                match add(&mut self.hour_counts, hour_ms, &mut builder, &job) {
                    Ok(()) => added.push(job),
                    Err(err) => answer(&job, Err(err)),
                }
            }
            open.log.encode(&builder, &mut bytes);
        }
        let written = append_bytes(&self.shared, open, &bytes);
        match written {
            Ok(()) => {
                open.log.commit();
                let messages = added.iter().map(|job| {
                    let key = job.window.head.key;
                    (key.instance, key.sequence)
                });
                open.block.note_durable(messages, open.log.durable_bytes());
                added
                    .iter()
                    .for_each(|job| answer(job, Ok(Appended::Stored)));
            }
            Err((err, is_usable)) => {
                open.log.roll_back(&mut open.block.write());
                added.iter().for_each(|job| answer(job, Err(err.clone())));
                if !is_usable {
                    // Bytes behind the last record are unknown: the log is not continued.
                    self.seal(hour_ms);
                }
            }
        }
        self.seal_if_full(hour_ms);
    }

    /// Blocks wait in memory if they cannot be written as segments.
    fn check_memory(&self) -> Result<(), StoreError> {
        let content = self.shared.content();
        let bytes: usize = content.blocks.iter().map(|block| block.heap_bytes()).sum();
        if bytes <= self.bytes_max {
            return Ok(());
        }
        Err(StoreError::Failed(format!(
            "{} blocks with {} MiB wait to be written as segments, which fails or takes too long; the server's log has the cause",
            content.blocks.len(),
            bytes >> 20
        )))
    }

    fn open_block(&mut self, hour_ms: i64) -> io::Result<()> {
        if self.open.contains_key(&hour_ms) {
            return Ok(());
        }
        let id = Ulid::new();
        let block = Arc::new(Block::new(
            hour_ms,
            id,
            Builder::default(),
            Sequences::default(),
            0,
        ));
        let (disk, root) = (self.shared.directory.disk(), self.shared.directory.path());
        let path = root.join(block.log_path());
        let created = disk.create(&path);
        let synced = created.and_then(|file| disk.sync_folder(&root.join(LOGS)).map(|()| file));
        let file = synced.inspect_err(|_| {
            // An empty log is removed by the next start.
            let _failed = disk.remove(&path);
        })?;
        self.shared
            .change(|content| content.blocks.push(Arc::clone(&block)));
        let open = OpenBlock {
            block,
            log: LogWriter::new(hour_ms),
            file,
            opened_at: Instant::now(),
        };
        self.open.insert(hour_ms, open);
        Ok(())
    }

    fn seal_if_full(&mut self, hour_ms: i64) {
        let is_large = |open: &OpenBlock| {
            let builder = open.block.read();
            builder.is_full() || builder.heap_bytes() > self.bytes_max / 2
        };
        if self.open.get(&hour_ms).is_some_and(is_large) {
            self.seal(hour_ms);
        }
        while self.open.len() > OPEN_MAX {
            let oldest = self.open.keys().copied().find(|other| *other != hour_ms);
            let Some(oldest) = oldest else { return };
            self.seal(oldest);
        }
    }

    fn seal_due(&mut self) {
        let now_ms = now_ms();
        let is_due = |hour_ms: i64, open: &OpenBlock| {
            open.opened_at.elapsed() >= self.block_time
                || now_ms > hour_ms.saturating_add(HOUR_MS + LATE_MS)
                    && open.opened_at.elapsed() >= TICK
        };
        let due = self
            .open
            .iter()
            .filter(|(hour_ms, open)| is_due(**hour_ms, open));
        let due: Vec<i64> = due.map(|(hour_ms, _)| *hour_ms).collect();
        due.into_iter().for_each(|hour_ms| self.seal(hour_ms));
    }

    fn seal(&mut self, hour_ms: i64) {
        if let Some(open) = self.open.remove(&hour_ms) {
            self.shared.seal(open.block);
        }
    }
}

/// Adds a window to the block of its hour, if its node may bring what it has.
fn add(
    hour_counts: &mut HourCounts,
    hour_ms: i64,
    builder: &mut Builder,
    job: &AppendJob,
) -> Result<(), StoreError> {
    let admitted = hour_counts.admit(hour_ms, &job.window, builder)?;
    builder
        .add_message(&job.window, Some(job.digest))
        .map_err(|err| StoreError::Failed(err.to_string()))?;
    hour_counts.count(admitted, builder);
    Ok(())
}

/// Appends records and waits until they are durable. On an error says whether the log is as it was before.
fn append_bytes(
    shared: &Shared,
    open: &mut OpenBlock,
    bytes: &[u8],
) -> Result<(), (StoreError, bool)> {
    shared
        .space
        .take(bytes.len() as u64)
        .map_err(|err| (err, true))?;
    let started = Instant::now();
    let durable_bytes = open.log.durable_bytes();
    let written = write_all_at(&*open.file, bytes, durable_bytes).and_then(|()| open.file.sync());
    shared.metrics.observe_sync(started.elapsed());
    let Err(err) = written else {
        shared.metrics.add_stored_bytes(bytes.len() as u64);
        return Ok(());
    };
    let path = open.block.log_path();
    warn!(%err, path = %path.display(), "failed to append to a log, cutting it back");
    let is_full = err.kind() == io::ErrorKind::StorageFull;
    if is_full {
        shared.space.note_refused(bytes.len() as u64);
    }
    let cut = open
        .file
        .set_len(durable_bytes)
        .and_then(|()| open.file.sync());
    if let Err(err) = &cut {
        error!(%err, path = %path.display(), "failed to cut a log back");
    }
    Err((disk_error(&err, "append to"), is_full && cut.is_ok()))
}

/// Takes what waits: windows, and who waits for all blocks to become segments.
fn collect_batch(first: Job, queue: &Receiver<Job>) -> (Vec<AppendJob>, Vec<SyncSender<()>>) {
    let (mut batch, mut seals, mut rows) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(job) = next {
        match job {
            Job::Append(job) => {
                rows += job.window.rows.len();
                batch.push(*job);
            }
            Job::SealAll(reply) => seals.push(reply),
        }
        let is_full = batch.len() >= BATCH_WINDOWS_MAX || rows >= BATCH_ROWS_MAX;
        next = if is_full { None } else { queue.try_recv().ok() };
    }
    (batch, seals)
}

fn answer(job: &AppendJob, result: Result<Appended, StoreError>) {
    // The sender may be gone; it will send the message again.
    drop(job.reply.send(result));
}

fn disk_error(err: &io::Error, verb: &str) -> StoreError {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::DiskFull(format!("failed to {verb} a log: {err}"))
        }
        _ => StoreError::Failed(format!("failed to {verb} a log: {err}")),
    }
}
