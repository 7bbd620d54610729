//! The one thread that writes.
//!
//! In: prepared windows over a bounded queue. Out: records in segments, entries in the catalog, an answer for
//! each window. All windows that wait are written together, with one `fdatasync` a segment, and answered after
//! it; so the cost of a sync is shared when many nodes send at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use hashbrown::{HashMap, HashSet};
use tracing::{error, info, warn};
use ulid::Ulid;

use super::block::Block;
use super::catalog::{Catalog, CatalogError, RecordPlace};
use super::directory::Directory;
use super::record::{PreparedWindow, finish_record};
use super::segment::{self, FRAME_BYTES, FooterEntry};
use super::space::Space;
use super::{Appended, SeriesId, StoreError};
use crate::metrics::Metrics;
use crate::profile::LabelSet;

/// A segment is sealed when it has this many bytes: it is read whole when it is scanned or merged.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// Segments that are written at the same time, one a block: now, an hour ago, and two for collectors that come
/// back after a longer time.
const ACTIVE_MAX: usize = 4;

/// Windows that are written together, and their bytes: bounded so that the first does not wait for long.
const BATCH_WINDOWS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 16 << 20;

/// How often segments of past blocks are looked for.
const TICK: Duration = Duration::from_secs(30);

/// A block's segment is sealed when the block ended this long ago; what comes later makes a segment of its own.
const SEAL_AFTER_MS: i64 = 10 * 60 * 1000;

/// Label sets whose number and posting are kept in memory while writing; as many as the catalog keeps decoded.
const KNOWN_MAX: usize = 100_000;

/// A window on its way to the disk.
pub struct AppendJob {
    /// The window.
    pub window: PreparedWindow,
    /// Where the answer goes.
    pub reply: SyncSender<Result<Appended, StoreError>>,
}

/// A segment that is being written.
pub struct ActiveSegment {
    /// Its name.
    pub id: Ulid,
    /// Its file.
    pub file: File,
    /// Bytes that are durable.
    pub length: u64,
    /// Its windows.
    pub entries: Vec<FooterEntry>,
}

/// The writer's state.
pub struct Log {
    directory: Arc<Directory>,
    catalog: Arc<Catalog>,
    metrics: Arc<Metrics>,
    space: Arc<Space>,
    active: BTreeMap<Block, ActiveSegment>,
    next_series: SeriesId,
    /// Numbers that the catalog has.
    numbers: HashMap<LabelSet, SeriesId>,
    /// Series that the catalog has in a block.
    posted: BTreeMap<Block, HashSet<SeriesId>>,
}

/// A window of a batch: written, and to be put in the catalog.
struct Written {
    job: AppendJob,
    ids: Vec<SeriesId>,
    place: RecordPlace,
}

impl Log {
    /// A writer that goes on with the segments that recovery left open.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn new(
        directory: Arc<Directory>,
        catalog: Arc<Catalog>,
        metrics: Arc<Metrics>,
        space: Arc<Space>,
        active: BTreeMap<Block, ActiveSegment>,
    ) -> Result<Self, CatalogError> {
        let next_series = catalog.next_series()?;
        let (numbers, posted) = Default::default();
        Ok(Self {
            directory,
            catalog,
            metrics,
            space,
            active,
            next_series,
            numbers,
            posted,
        })
    }

    /// Writes until the queue is closed and empty.
    pub fn run(mut self, queue: &Receiver<AppendJob>) {
        let mut ticked = Instant::now();
        loop {
            match queue.recv_timeout(TICK) {
                Ok(first) => self.write_batch(collect_batch(first, queue)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.seal_past_blocks();
            }
        }
        if let Err(err) = self.catalog.flush() {
            warn!(%err, "failed to flush the catalog; it is completed from the segments at the next start");
        }
    }

    fn write_batch(&mut self, jobs: Vec<AppendJob>) {
        let mut by_block: BTreeMap<Block, Vec<AppendJob>> = BTreeMap::new();
        let mut in_batch = HashSet::new();
        let mut repeats = Vec::new();
        for job in jobs {
            let key = job.window.head.key;
            match self.catalog.is_seen(&key) {
                Ok(true) => answer(&job, Ok(Appended::Duplicate)),
                Ok(false) if in_batch.insert((key.instance, key.sequence)) => {
                    by_block
                        .entry(Block::of(key.start_ms))
                        .or_default()
                        .push(job);
                }
                // The same message twice at the same time: answered when it is known what became of the first.
                Ok(false) => repeats.push(job),
                Err(err) => answer(&job, Err(catalog_failed(&err))),
            }
        }
        for (block, jobs) in by_block {
            self.write_block(block, jobs);
        }
        for job in repeats {
            answer(
                &job,
                match self.catalog.is_seen(&job.window.head.key) {
                    Ok(true) => Ok(Appended::Duplicate),
                    Ok(false) => Err(StoreError::Failed(
                        "the same message failed just now; send it again".into(),
                    )),
                    Err(err) => Err(catalog_failed(&err)),
                },
            );
        }
    }

    /// Writes the windows of one block, and answers all of them.
    fn write_block(&mut self, block: Block, jobs: Vec<AppendJob>) {
        let mut bytes = Vec::new();
        let mut written = Vec::new();
        let mut fresh = HashMap::new();
        for job in jobs {
            let encoded = self
                .number_series(&job.window.series, &mut fresh)
                .map_err(|err| catalog_failed(&err));
            let encoded = encoded.and_then(|ids| match finish_record(&job.window, &ids) {
                Ok(record) => Ok((ids, record)),
                Err(err) => Err(StoreError::Failed(format!(
                    "failed to encode a window: {err}"
                ))),
            });
            match encoded {
                Ok((ids, record)) => {
                    let offset = (bytes.len() + FRAME_BYTES) as u64;
                    segment::put_record(&mut bytes, &record);
                    // The segment and its length so far are not known before it is open.
                    let place = RecordPlace {
                        segment: Ulid::nil(),
                        offset,
                        length: record.len() as u32,
                    };
                    written.push(Written { job, ids, place });
                }
                Err(err) => answer(&job, Err(err)),
            }
        }
        if written.is_empty() {
            return;
        }
        if let Err(err) = self.append_bytes(block, &bytes, &mut written) {
            written
                .iter()
                .for_each(|window| answer(&window.job, Err(err.clone())));
            return;
        }
        match self.insert_windows(block, &written) {
            Ok(()) => {
                self.remember_numbers(&written);
                written
                    .iter()
                    .for_each(|window| answer(&window.job, Ok(Appended::Stored)));
            }
            Err(err) => {
                error!(%err, "failed to write the catalog");
                self.catalog.note_failure(&err);
                self.take_back(block, &written);
                written
                    .iter()
                    .for_each(|window| answer(&window.job, Err(catalog_failed(&err))));
            }
        }
        self.seal_if_full(block);
        self.forget_old();
    }

    /// Finds or draws the numbers of label sets. New ones stay in `fresh` until the catalog has them.
    fn number_series(
        &mut self,
        series: &[LabelSet],
        fresh: &mut HashMap<LabelSet, SeriesId>,
    ) -> Result<Vec<SeriesId>, CatalogError> {
        let mut ids = Vec::with_capacity(series.len());
        for labels in series {
            let known = self
                .numbers
                .get(labels)
                .or_else(|| fresh.get(labels))
                .copied();
            let id = match known {
                Some(id) => id,
                None => {
                    let id = match self.catalog.find_number(labels)? {
                        Some(id) => id,
                        None => {
                            let id = self.next_series;
                            self.next_series = SeriesId(id.0 + 1);
                            id
                        }
                    };
                    fresh.insert(labels.clone(), id);
                    id
                }
            };
            ids.push(id);
        }
        Ok(ids)
    }

    /// Appends records to the block's segment and waits until they are durable.
    fn append_bytes(
        &mut self,
        block: Block,
        bytes: &[u8],
        written: &mut [Written],
    ) -> Result<(), StoreError> {
        self.space.take(bytes.len() as u64)?;
        let segment = open_active(&mut self.active, &self.directory, block)
            .map_err(|err| disk_error(&err, "create"))?;
        let started = Instant::now();
        let result = segment
            .file
            .write_all_at(bytes, segment.length)
            .and_then(|()| segment.file.sync_data());
        self.metrics.observe_sync(started.elapsed());
        if let Err(err) = result {
            // What was written of it was never acknowledged. After a failed sync nobody knows what the disk has:
            // the segment is not written any more, and is scanned at the next start.
            warn!(%err, segment = %segment.id, "failed to append, cutting the segment back");
            let is_full = err.kind() == io::ErrorKind::StorageFull;
            if is_full {
                self.space.note_refused(bytes.len() as u64);
            }
            let cut = segment
                .file
                .set_len(segment.length)
                .and_then(|()| segment.file.sync_data());
            if let Err(err) = &cut {
                error!(%err, segment = %segment.id, "failed to cut a segment back");
            }
            if !is_full || cut.is_err() {
                self.active.remove(&block);
            }
            return Err(disk_error(&err, "append to"));
        }
        for window in written {
            window.place.segment = segment.id;
            window.place.offset += segment.length;
            let RecordPlace {
                segment: _,
                offset,
                length,
            } = window.place;
            segment.entries.push(FooterEntry {
                key: window.job.window.head.key,
                offset,
                length,
            });
        }
        segment.length += bytes.len() as u64;
        self.metrics.add_stored_bytes(bytes.len() as u64);
        Ok(())
    }

    /// Puts written windows in the catalog, what finds them first.
    fn insert_windows(&mut self, block: Block, written: &[Written]) -> Result<(), CatalogError> {
        if !self.posted.contains_key(&block) {
            let known = self.catalog.block_series(block)?.into_iter().collect();
            self.posted.insert(block, known);
        }
        let mut fresh: BTreeMap<SeriesId, &LabelSet> = BTreeMap::new();
        let mut unposted: BTreeMap<SeriesId, &LabelSet> = BTreeMap::new();
        let posted = self.posted.entry(block).or_default();
        for window in written {
            for (id, labels) in window.ids.iter().zip(&window.job.window.series) {
                if !self.numbers.contains_key(labels) {
                    fresh.insert(*id, labels);
                }
                if !posted.contains(id) {
                    unposted.insert(*id, labels);
                }
            }
        }
        let fresh: Vec<_> = fresh.into_iter().collect();
        let unposted: Vec<_> = unposted.into_iter().collect();
        self.catalog.insert_series(&fresh)?;
        self.catalog.insert_postings(block, &unposted)?;
        for window in written {
            self.catalog
                .insert_window(&window.job.window.head.key, window.place)?;
        }
        posted.extend(unposted.iter().map(|(id, _)| *id));
        Ok(())
    }

    fn remember_numbers(&mut self, written: &[Written]) {
        for window in written {
            for (id, labels) in window.ids.iter().zip(&window.job.window.series) {
                if !self.numbers.contains_key(labels) {
                    self.numbers.insert(labels.clone(), *id);
                }
            }
        }
    }

    /// Takes records out again that the catalog could not take, so that a repeat is not stored twice.
    fn take_back(&mut self, block: Block, written: &[Written]) {
        self.posted.remove(&block);
        // No further record may come to a place that the catalog may have for one of these.
        let Some(segment) = self.active.remove(&block) else {
            return;
        };
        let start = written
            .iter()
            .map(|window| window.place.offset - FRAME_BYTES as u64)
            .min();
        let cut = segment
            .file
            .set_len(start.unwrap_or(segment.length))
            .and_then(|()| segment.file.sync_data());
        if let Err(err) = cut {
            error!(%err, segment = %segment.id, "failed to cut a segment back; its last windows may come twice");
        }
    }

    fn seal_if_full(&mut self, block: Block) {
        if self
            .active
            .get(&block)
            .is_some_and(|segment| segment.length >= SEGMENT_BYTES_MAX)
        {
            self.seal(block);
        }
        while self.active.len() > ACTIVE_MAX {
            let Some(oldest) = self.active.keys().copied().find(|active| *active != block) else {
                return;
            };
            self.seal(oldest);
        }
    }

    fn seal_past_blocks(&mut self) {
        let now_ms = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |age| age.as_millis() as i64);
        let past: Vec<_> = self
            .active
            .keys()
            .copied()
            .filter(|block| block.end_ms() + SEAL_AFTER_MS < now_ms)
            .collect();
        past.into_iter().for_each(|block| self.seal(block));
    }

    fn seal(&mut self, block: Block) {
        let Some(segment) = self.active.remove(&block) else {
            return;
        };
        self.posted.remove(&block);
        match seal_segment(&segment, &self.catalog) {
            Ok(length) => info!(segment = %segment.id, %block, bytes = length, "sealed a segment"),
            // It stays as it is, whole but without a footer, and is scanned at the next start.
            Err(err) => warn!(%err, segment = %segment.id, "failed to seal a segment"),
        }
    }

    fn forget_old(&mut self) {
        if self.numbers.len() > KNOWN_MAX {
            self.numbers.clear();
        }
        while self.posted.len() > ACTIVE_MAX
            || self.posted.values().map(HashSet::len).sum::<usize>() > KNOWN_MAX
        {
            self.posted.pop_first();
        }
    }
}

/// Writes the footer of a segment and tells the catalog. Returns the file's length.
///
/// # Errors
/// The disk or the catalog failed.
pub fn seal_segment(segment: &ActiveSegment, catalog: &Catalog) -> anyhow::Result<u64> {
    let footer = segment::encode_footer(&segment.entries, segment.length);
    segment.file.write_all_at(&footer, segment.length)?;
    segment.file.sync_all()?;
    let length = segment.length + footer.len() as u64;
    catalog.insert_sealed(segment.id, length)?;
    Ok(length)
}

fn open_active<'a>(
    active: &'a mut BTreeMap<Block, ActiveSegment>,
    directory: &Directory,
    block: Block,
) -> io::Result<&'a mut ActiveSegment> {
    match active.entry(block) {
        std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
        std::collections::btree_map::Entry::Vacant(vacant) => {
            let id = Ulid::new();
            let file = directory.create_segment(block, id)?;
            let length = segment::HEADER_BYTES as u64;
            Ok(vacant.insert(ActiveSegment {
                id,
                file,
                length,
                entries: Vec::new(),
            }))
        }
    }
}

fn collect_batch(first: AppendJob, queue: &Receiver<AppendJob>) -> Vec<AppendJob> {
    let mut bytes = first.window.packed_bytes();
    let mut batch = vec![first];
    while batch.len() < BATCH_WINDOWS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.window.packed_bytes();
        batch.push(next);
    }
    batch
}

fn answer(job: &AppendJob, result: Result<Appended, StoreError>) {
    // Nobody waits any more when the sender went away; it will ask again.
    let _ = job.reply.send(result);
}

fn catalog_failed(err: &CatalogError) -> StoreError {
    StoreError::Failed(err.to_string())
}

fn disk_error(err: &io::Error, verb: &str) -> StoreError {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::DiskFull(format!("failed to {verb} a segment: {err}"))
        }
        _ => StoreError::Failed(format!("failed to {verb} a segment: {err}")),
    }
}
