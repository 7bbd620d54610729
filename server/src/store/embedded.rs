//! The store in plain files.

use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use hashbrown::{HashMap, HashSet};
use tracing::error;
use ulid::Ulid;

use super::block::{BLOCK_MS, Block};
use super::cache::{Cache, DecodedWindow, Shelf, ShelfContent};
use super::catalog::{Catalog, CatalogError, RecordPlace};
use super::directory::Directory;
use super::log::{AppendJob, Log};
use super::record::{
    HEADER_BYTES, RecordHeader, RowBounds, Section, WindowTotals, decode_rows, decode_tables,
    decode_totals, prepare_window,
};
use super::recovery::{RecoveryReport, recover};
use super::space::Space;
use super::{
    Appended, Part, SeriesFilter, SeriesId, SeriesTable, Store, StoreError, StoreNumbers,
    TimeRange, WindowRows,
};
use crate::metrics::Metrics;
use crate::profile::{Window, WindowKey};
use crate::symbol::{NameSource, NoNames};

/// Windows that wait for the writer. The receiver admits fewer pushes at once than this, so that it never fills.
const QUEUE_WINDOWS: usize = 64;

/// Bytes that are read at the start of a record. The header and the sums of 1,000 series are 3 to 6 KB packed.
const TOTALS_READ_BYTES: usize = 8 << 10;

/// What the configuration says about the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of decoded windows that are kept in memory.
    pub cache_bytes_max: usize,
    /// Bytes on the disk that are left free for the catalog.
    pub reserve_bytes: u64,
}

/// The store in plain files.
pub struct EmbeddedStore {
    directory: Arc<Directory>,
    catalog: Arc<Catalog>,
    cache: Cache,
    metrics: Arc<Metrics>,
    space: Arc<Space>,
    names: Arc<dyn NameSource>,
    queue: Mutex<Option<SyncSender<AppendJob>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    report: RecoveryReport,
}

impl EmbeddedStore {
    /// Opens the store, recovers what a crash left, and starts its writer.
    ///
    /// # Errors
    /// Another server has the directory, or it cannot be read or written.
    pub fn open(options: &StoreOptions, metrics: Arc<Metrics>) -> Result<Self> {
        let directory = Arc::new(Directory::lock(&options.path)?);
        let recovered = recover(&directory)?;
        let report = recovered.report;
        let catalog = Arc::new(recovered.catalog);
        let space = Arc::new(Space::new(Arc::clone(&directory), options.reserve_bytes));
        let log = Log::new(
            Arc::clone(&directory),
            Arc::clone(&catalog),
            Arc::clone(&metrics),
            Arc::clone(&space),
            recovered.active,
        )?;
        let (queue, jobs) = sync_channel(QUEUE_WINDOWS);
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || log.run(&jobs));
        let writer = writer.context("failed to start the store's writer")?;
        Ok(Self {
            directory,
            catalog,
            cache: Cache::new(options.cache_bytes_max),
            metrics,
            space,
            names: Arc::new(NoNames),
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            report,
        })
    }

    /// Names what the windows do not from this source, when they are read.
    #[must_use]
    pub fn with_names(mut self, names: Arc<dyn NameSource>) -> Self {
        self.names = names;
        self
    }

    /// What was done when the store was opened.
    pub fn report(&self) -> RecoveryReport {
        self.report
    }

    /// Writes what waits, and stops the writer. Later appends fail.
    pub fn close(&self) {
        drop(
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            error!("the store's writer panicked");
        }
    }

    /// The sums of windows, from the shelf or the disk. Windows that cannot be read are left out.
    fn load_totals(
        &self,
        shelf: &Shelf,
        windows: &[(WindowKey, RecordPlace)],
        files: &mut SegmentFiles<'_>,
    ) -> Vec<(RecordPlace, Arc<WindowTotals>)> {
        let mut loaded = Vec::with_capacity(windows.len());
        for (key, place) in windows {
            if let Some(totals) = shelf.totals(key) {
                loaded.push((*place, totals));
                continue;
            }
            match files
                .open(Block::of(key.start_ms), place.segment)
                .and_then(|file| read_totals(&file, *place, key))
            {
                Ok(totals) => {
                    let totals = Arc::new(totals);
                    shelf.insert_totals(&totals);
                    loaded.push((*place, totals));
                }
                Err(err) => self.report_unreadable(key, &err),
            }
        }
        loaded
    }

    /// Puts samples of windows on the shelf.
    fn load_rows(
        &self,
        shelf: &Shelf,
        wanted: &[(RecordPlace, Arc<WindowTotals>)],
        files: &mut SegmentFiles<'_>,
    ) {
        let missing: Vec<_> = {
            let content = shelf.read();
            wanted
                .iter()
                .filter(|(_, totals)| content.window(&totals.head.key).is_none())
                .collect()
        };
        let mut jobs = Vec::with_capacity(missing.len());
        for (place, totals) in missing {
            match files.open(Block::of(totals.head.key.start_ms), place.segment) {
                Ok(file) => jobs.push((file, *place, Arc::clone(totals))),
                Err(err) => self.report_unreadable(&totals.head.key, &err),
            }
        }
        for (content, failures) in decode_windows(&jobs) {
            shelf.merge_windows(content);
            for (key, err) in &failures {
                self.report_unreadable(key, err);
            }
        }
    }

    fn report_unreadable(&self, key: &WindowKey, err: &anyhow::Error) {
        error!(window = %key, err = %format_args!("{err:#}"), "failed to read a window, its samples are missing from the answer");
        self.metrics.count_unreadable_window();
    }

    fn find_block_series(
        &self,
        block: Block,
        filter: &SeriesFilter<'_>,
    ) -> Result<Vec<SeriesId>, CatalogError> {
        let mut ids: Option<std::collections::HashSet<SeriesId>> = None;
        for (name, value) in &filter.equal {
            let posted = self.catalog.postings(block, name, value)?;
            ids = Some(match ids {
                None => posted,
                Some(ids) => ids.intersection(&posted).copied().collect(),
            });
        }
        let ids = match ids {
            Some(ids) => ids,
            None => self.catalog.block_series(block)?,
        };
        Ok(ids.into_iter().collect())
    }
}

impl Store for EmbeddedStore {
    fn append(&self, window: Window) -> Result<Appended, StoreError> {
        let window = prepare_window(window)
            .map_err(|err| StoreError::Failed(format!("failed to encode a window: {err}")))?;
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (reply, answer) = sync_channel(1);
        queue
            .and_then(|queue| queue.send(AppendJob { window, reply }).ok())
            .ok_or(StoreError::Stopping)?;
        answer
            .recv()
            .unwrap_or(Err(StoreError::Failed("the store's writer stopped".into())))
    }

    fn find_series(
        &self,
        range: TimeRange,
        filter: &SeriesFilter<'_>,
    ) -> Result<SeriesTable, StoreError> {
        let mut judged: HashSet<SeriesId> = HashSet::new();
        let mut found = Vec::new();
        for block in self.catalog.blocks(range) {
            for id in self.find_block_series(block, filter)? {
                if judged.insert(id) {
                    let labels = self.catalog.labels(id)?;
                    if (filter.matches)(&labels) {
                        found.push((id, labels));
                    }
                }
            }
        }
        Ok(SeriesTable::new(found))
    }

    fn list_series(
        &self,
        range: TimeRange,
        filter: &SeriesFilter<'_>,
    ) -> Result<SeriesTable, StoreError> {
        // A series that a whole block has, has a window in it; only where the range begins and ends within a block
        // are the windows themselves looked at.
        let (head, whole, tail) = split_range(range);
        let mut found = SeriesTable::default();
        if !whole.is_empty() {
            found = self.find_series(whole, filter)?;
        }
        for part in [head, tail].into_iter().filter(|part| !part.is_empty()) {
            let mut seen = HashSet::new();
            self.scan_totals(part, &mut |totals| {
                seen.extend(totals.series.iter().copied())
            })?;
            let in_part = self
                .find_series(part, filter)?
                .filter(|id| seen.contains(&id));
            found = found.union(in_part);
        }
        Ok(found)
    }

    fn scan_totals(
        &self,
        range: TimeRange,
        visit: &mut dyn FnMut(&WindowTotals),
    ) -> Result<(), StoreError> {
        let mut files = SegmentFiles::new(&self.directory);
        for block in self.catalog.blocks(range) {
            let shelf = self.cache.shelf(block);
            let windows = self.catalog.windows(block, range)?;
            self.load_totals(&shelf, &windows, &mut files)
                .iter()
                .for_each(|(_, totals)| visit(totals));
            self.cache.shrink();
        }
        Ok(())
    }

    fn scan_rows(
        &self,
        range: TimeRange,
        series: &SeriesTable,
        visit: &mut dyn FnMut(&Part<'_>),
    ) -> Result<(), StoreError> {
        let mut files = SegmentFiles::new(&self.directory);
        for block in self.catalog.blocks(range) {
            let shelf = self.cache.shelf(block);
            let windows = self.catalog.windows(block, range)?;
            let mut wanted = self.load_totals(&shelf, &windows, &mut files);
            wanted.retain(|(_, totals)| {
                totals
                    .series
                    .iter()
                    .any(|id| series.position(*id).is_some())
            });
            // A block that is larger than the whole cache is shown in pieces.
            for piece in wanted.chunks(PIECE_WINDOWS) {
                self.load_rows(&shelf, piece, &mut files);
                shelf.join_names(&*self.names);
                let content = shelf.read();
                let rows: Vec<Arc<WindowRows>> = piece
                    .iter()
                    .filter_map(|(_, totals)| content.window(&totals.head.key).cloned())
                    .collect();
                visit(&Part {
                    tables: content.tables(),
                    windows: &rows,
                });
                drop(content);
                if self.cache.is_full(&shelf) {
                    shelf.clear_windows();
                }
            }
            self.cache.shrink();
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
        {
            return Err(StoreError::Stopping);
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(StoreError::Failed("the store's writer stopped".into()));
        }
        if let Some(err) = self.catalog.failure() {
            return Err(StoreError::Failed(format!("{err}; restart the server")));
        }
        self.space.check()
    }

    fn numbers(&self) -> StoreNumbers {
        StoreNumbers {
            series: self.catalog.series_count(),
            sealed_segments: self.catalog.sealed_count(),
            cache_bytes: self.cache.bytes(),
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl From<CatalogError> for StoreError {
    fn from(err: CatalogError) -> Self {
        Self::Failed(err.to_string())
    }
}

/// The parts of a range before, of, and after the blocks that lie in it as a whole.
fn split_range(range: TimeRange) -> (TimeRange, TimeRange, TimeRange) {
    let TimeRange { from_ms, to_ms } = range;
    let part = |from_ms, to_ms| TimeRange { from_ms, to_ms };
    let first = Block::of(from_ms.saturating_add(BLOCK_MS - 1)).start_ms();
    let last = Block::of(to_ms).start_ms();
    if first >= last {
        return (range, part(to_ms, to_ms), part(to_ms, to_ms));
    }
    (part(from_ms, first), part(first, last), part(last, to_ms))
}

/// Windows of a block that are shown together: a block of one node has 360, so that it is one piece; of 600 nodes'
/// 216,000 windows, a piece has some 4 million rows or 130 MB.
const PIECE_WINDOWS: usize = 4096;

/// Segment files that a query has open.
struct SegmentFiles<'a> {
    directory: &'a Directory,
    open: HashMap<Ulid, Arc<File>>,
}

/// Open files a query: far below the usual limit of 1,024 descriptors, with several queries at once.
const OPEN_FILES_MAX: usize = 64;

impl<'a> SegmentFiles<'a> {
    fn new(directory: &'a Directory) -> Self {
        Self {
            directory,
            open: HashMap::new(),
        }
    }

    fn open(&mut self, block: Block, segment: Ulid) -> Result<Arc<File>> {
        if let Some(open) = self.open.get(&segment) {
            return Ok(Arc::clone(open));
        }
        let path = self.directory.segment_path(block, segment);
        let file =
            File::open(&path).with_context(|| format!("failed to open `{}`", path.display()))?;
        if self.open.len() >= OPEN_FILES_MAX {
            self.open.clear();
        }
        let file = Arc::new(file);
        self.open.insert(segment, Arc::clone(&file));
        Ok(file)
    }
}

fn read_totals(file: &File, place: RecordPlace, key: &WindowKey) -> Result<WindowTotals> {
    let mut bytes = vec![0; TOTALS_READ_BYTES.min(place.length as usize)];
    file.read_exact_at(&mut bytes, place.offset)?;
    let header = RecordHeader::read(&bytes)?;
    let (start, length) = header.place(Section::Totals);
    if start + length > bytes.len() {
        anyhow::ensure!(
            start + length <= place.length as usize,
            "a section is longer than its record"
        );
        bytes.resize(start + length, 0);
        file.read_exact_at(&mut bytes, place.offset)?;
    }
    let totals = decode_totals(&header.unpack(Section::Totals, &bytes[start..start + length])?)?;
    anyhow::ensure!(
        totals.head.key == *key,
        "the record is of another window, {}",
        totals.head.key
    );
    Ok(totals)
}

/// Threads of a query: each has a dictionary of its own for a while, of up to 60 MB for a busy block, and beyond
/// eight, joining these takes longer than what is won.
const DECODE_THREADS_MAX: usize = 8;

/// Windows that a thread is started for: each takes about a millisecond, starting the thread and joining its
/// dictionary some more.
const THREAD_WINDOWS_MIN: usize = 8;

type DecodeJob = (Arc<File>, RecordPlace, Arc<WindowTotals>);

/// What a thread made of its windows, and those that it could not read.
type Decoded = (ShelfContent, Vec<(WindowKey, anyhow::Error)>);

/// Decodes windows on all cores.
///
/// Each thread takes windows that follow each other, and has a dictionary of its own until the end: a node's windows
/// have mostly the same stacks, so that joining the dictionaries of 180 windows each takes a hundredth of filling
/// them. In their order, the results have the numbers that one thread alone would have given.
fn decode_windows(jobs: &[DecodeJob]) -> Vec<Decoded> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = jobs
        .len()
        .div_ceil(threads.min(DECODE_THREADS_MAX))
        .max(THREAD_WINDOWS_MIN);
    let mut shares = jobs.chunks(share);
    let first = shares.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .map(|share| scope.spawn(|| decode_share(share)))
            .collect();
        let mut decoded = vec![decode_share(first)];
        for thread in threads {
            decoded.push(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        decoded
    })
}

fn decode_share(jobs: &[DecodeJob]) -> Decoded {
    let mut decoded = Decoded::default();
    for job in jobs {
        match decode_window(job) {
            Ok(window) => decoded.0.insert(window),
            Err(err) => decoded.1.push((job.2.head.key, err)),
        }
    }
    decoded
}

fn decode_window((file, place, totals): &DecodeJob) -> Result<DecodedWindow> {
    let mut record = vec![0; place.length as usize];
    file.read_exact_at(&mut record, place.offset)?;
    anyhow::ensure!(record.len() >= HEADER_BYTES, "the record is cut");
    let header = RecordHeader::read(&record)?;
    let tables = decode_tables(&header.unpack_from(Section::Stacks, &record)?)?;
    let bounds = RowBounds {
        series: totals.series.len(),
        tag_sets: tables.tag_set_count(),
        stacks: tables.stacks.len(),
    };
    let rows = decode_rows(&header.unpack_from(Section::Rows, &record)?, bounds)?;
    Ok(DecodedWindow {
        totals: Arc::clone(totals),
        tables,
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_split_at_whole_blocks() {
        let split = |from_ms, to_ms| {
            let (head, whole, tail) = split_range(TimeRange { from_ms, to_ms });
            [head, whole, tail].map(|part| (part.to_ms - part.from_ms).max(0) / 1000)
        };
        let hour_ms = BLOCK_MS;
        assert_eq!(split(0, hour_ms), [0, 3600, 0]);
        assert_eq!(split(1000, hour_ms), [3599, 0, 0]);
        assert_eq!(split(0, hour_ms - 1000), [3599, 0, 0]);
        assert_eq!(split(hour_ms - 1000, hour_ms + 1000), [2, 0, 0]);
        assert_eq!(split(hour_ms - 1000, 3 * hour_ms + 2000), [1, 7200, 2]);
    }
}
