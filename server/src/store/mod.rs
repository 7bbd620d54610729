//! Keeps windows, and finds them by time and labels.
//!
//! In: checked windows from `receive`. Out: label sets, sums and samples to `query`. Knows nothing of the wire,
//! of selectors' syntax or of what a query does with the samples.
//!
//! The embedded store: a segment file takes the windows of one block (an hour), `sled` is the catalog that finds
//! them, and a cache keeps decoded windows. The segments are the truth; the catalog can be made from them.

pub mod block;
pub mod cache;
pub mod catalog;
pub mod columns;
pub mod directory;
pub mod embedded;
pub mod join;
pub mod log;
pub mod record;
pub mod recovery;
pub mod segment;
pub mod space;

use std::sync::Arc;

use crate::profile::{LabelSet, Row, Tables, Window, WindowKey};

pub use embedded::{EmbeddedStore, StoreOptions};
pub use record::WindowTotals;

/// Number of a series; the store draws it when it sees the label set for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u64);

/// A stretch of time, `from` included, `to` excluded. Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First millisecond.
    pub from_ms: i64,
    /// First millisecond after it.
    pub to_ms: i64,
}

impl TimeRange {
    /// Says whether there is no time in it.
    pub fn is_empty(self) -> bool {
        self.from_ms >= self.to_ms
    }

    /// Says whether a time lies in it.
    pub fn contains(self, time_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&time_ms)
    }
}

/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable now.
    Stored,
    /// It was durable before.
    Duplicate,
}

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The disk or the catalog failed.
    #[error("{0}")]
    Failed(String),
    /// The store is being closed.
    #[error("the server is stopping")]
    Stopping,
}

/// Which series a query wants.
pub struct SeriesFilter<'a> {
    /// Labels that must have these values; these are looked up.
    pub equal: Vec<(&'a str, &'a str)>,
    /// Says whether a label set is wanted; asked for all that have those values.
    pub matches: &'a dyn Fn(&LabelSet) -> bool,
}

/// Series that were found, sorted by number.
#[derive(Clone, Debug, Default)]
pub struct SeriesTable {
    entries: Vec<(SeriesId, Arc<LabelSet>)>,
}

impl SeriesTable {
    /// Makes a table; entries may come in any order and more than once.
    pub fn new(mut entries: Vec<(SeriesId, Arc<LabelSet>)>) -> Self {
        entries.sort_by_key(|(id, _)| *id);
        entries.dedup_by_key(|(id, _)| *id);
        Self { entries }
    }

    /// The series of both tables.
    pub fn union(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        Self::new(self.entries)
    }

    /// Those series that a test says yes to.
    pub fn filter(mut self, mut is_kept: impl FnMut(SeriesId) -> bool) -> Self {
        self.entries.retain(|(id, _)| is_kept(*id));
        self
    }

    /// Position of a series in the table, if it is wanted.
    pub fn position(&self, id: SeriesId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |(id, _)| *id).ok()
    }

    /// The labels at a position.
    pub fn labels(&self, position: usize) -> &LabelSet {
        &self.entries[position].1
    }

    /// The label sets.
    pub fn iter(&self) -> impl Iterator<Item = &LabelSet> {
        self.entries.iter().map(|(_, labels)| &**labels)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The samples of one window, their stacks and tags numbered in the tables that come with them.
#[derive(Clone, Debug)]
pub struct WindowRows {
    /// The window.
    pub key: WindowKey,
    /// Its length in milliseconds.
    pub window_ms: i64,
    /// The window's series; [`Row::series`] is a position in it.
    pub series: Vec<SeriesId>,
    /// The samples.
    pub rows: Vec<Row>,
}

/// Windows that share their tables.
pub struct Part<'a> {
    /// What the rows refer to.
    pub tables: &'a Tables,
    /// The windows, by time.
    pub windows: &'a [Arc<WindowRows>],
}

/// How much a store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreNumbers {
    /// Series in the catalog.
    pub series: usize,
    /// Sealed segments.
    pub sealed_segments: usize,
    /// Bytes of decoded windows in memory.
    pub cache_bytes: usize,
}

/// A place where windows are kept. All methods may block; call them from threads that may.
pub trait Store: Send + Sync {
    /// Keeps a window. Returns when it is durable.
    ///
    /// # Errors
    /// It is not kept.
    fn append(&self, window: Window) -> Result<Appended, StoreError>;

    /// Finds series of blocks that the range touches; some may have no window in the range itself.
    ///
    /// # Errors
    /// The catalog failed.
    fn find_series(
        &self,
        range: TimeRange,
        filter: &SeriesFilter<'_>,
    ) -> Result<SeriesTable, StoreError>;

    /// Finds the series that have a window in the range. Cheaper than to look at the windows.
    ///
    /// # Errors
    /// As [`Self::scan_totals`].
    fn list_series(
        &self,
        range: TimeRange,
        filter: &SeriesFilter<'_>,
    ) -> Result<SeriesTable, StoreError>;

    /// Shows the sums of each window in the range, by time.
    ///
    /// # Errors
    /// The catalog or the disk failed. Single damaged windows are counted and left out.
    fn scan_totals(
        &self,
        range: TimeRange,
        visit: &mut dyn FnMut(&WindowTotals),
    ) -> Result<(), StoreError>;

    /// Shows the samples of each window in the range that has one of the series, by time. Samples of other
    /// series in these windows are shown too.
    ///
    /// # Errors
    /// As [`Self::scan_totals`].
    fn scan_rows(
        &self,
        range: TimeRange,
        series: &SeriesTable,
        visit: &mut dyn FnMut(&Part<'_>),
    ) -> Result<(), StoreError>;

    /// Says whether windows can be appended now.
    ///
    /// # Errors
    /// Why not.
    fn check_writable(&self) -> Result<(), StoreError>;

    /// How much there is, for the metrics.
    fn numbers(&self) -> StoreNumbers;
}
