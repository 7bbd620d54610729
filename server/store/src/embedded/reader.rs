//! Reads windows from segments.

use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::Arc;

use anyhow::{Context, Result};
use hashbrown::HashMap;
use model::{WindowKey, WindowTotals};
use ulid::Ulid;

use super::block::Block;
use super::cache::{BlockRows, DecodedWindow};
use super::catalog::RecordPosition;
use super::directory::Directory;
use super::record::{
    HEADER_BYTES, RecordHeader, RowBounds, Section, decode_rows, decode_tables, decode_totals,
};

/// Bytes read at the start of a record. The header and the sums of 1,000 series are 3 to 6 KB packed.
const TOTALS_READ_BYTES: usize = 8 << 10;

/// Segment files that a query has open.
pub struct SegmentFiles<'a> {
    directory: &'a Directory,
    open: HashMap<Ulid, Arc<File>>,
}

/// Open files a query: far below the usual limit of 1,024 descriptors, with several queries at once.
const OPEN_FILES_MAX: usize = 64;

impl<'a> SegmentFiles<'a> {
    /// No file is open.
    pub fn new(directory: &'a Directory) -> Self {
        Self {
            directory,
            open: HashMap::new(),
        }
    }

    /// Opens the file of a segment, if it is not.
    ///
    /// # Errors
    /// It is gone, or the disk failed.
    pub fn open(&mut self, block: Block, segment: Ulid) -> Result<Arc<File>> {
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

/// Reads the sums of a window.
///
/// # Errors
/// The record is damaged, or the disk failed.
pub fn read_totals(file: &File, place: RecordPosition, key: &WindowKey) -> Result<WindowTotals> {
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
    anyhow::ensure!(totals.head.key == *key, "the record is of another window");
    Ok(totals)
}

/// Threads of a query. Each has its own dictionary for a while, up to 60 MB for a busy block; beyond eight, merging
/// them takes longer than the threads save.
const DECODE_THREADS_MAX: usize = 8;

/// Windows worth a thread: decoding one takes about a millisecond, starting the thread and merging its dictionary a
/// few.
const THREAD_WINDOWS_MIN: usize = 8;

/// A window to read: its segment, its record and its sums.
pub type DecodeJob = (Arc<File>, RecordPosition, Arc<WindowTotals>);

/// A thread's decoded windows, and those that it could not read.
pub type Decoded = (BlockRows, Vec<(WindowKey, anyhow::Error)>);

/// Decodes windows on all cores.
///
/// Each thread takes consecutive windows and fills its own dictionary. A node's windows have mostly the same stacks,
/// so merging the dictionaries of 180 windows each takes a hundredth of filling them. Merged in their order, they
/// give the numbers that one thread alone would give.
pub fn decode_windows(jobs: &[DecodeJob]) -> Vec<Decoded> {
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
