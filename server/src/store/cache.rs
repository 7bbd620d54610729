//! Decoded windows, bounded in bytes.
//!
//! The windows of a block share one dictionary: a node's windows have mostly the same stacks, so that each is
//! kept once, and a query adds up numbers instead of comparing names. The block that was not used for the longest
//! time goes first.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashMap;

use super::block::Block;
use super::join::JoinState;
use super::record::WindowTotals;
use super::{SeriesId, WindowRows};
use crate::profile::{Dictionary, Import, Row, Tables, WindowKey};
use crate::symbol::NameSource;

/// A window that was read from its segment.
pub struct DecodedWindow {
    /// Its sums.
    pub totals: Arc<WindowTotals>,
    /// Its tables.
    pub tables: Tables,
    /// Its samples.
    pub rows: Vec<Row>,
}

/// All shelves.
pub struct Cache {
    bytes_max: usize,
    shelves: Mutex<HashMap<Block, Arc<Shelf>>>,
    clock: AtomicU64,
}

/// What is kept of a block.
#[derive(Default)]
pub struct Shelf {
    totals: RwLock<HashMap<WindowKey, Arc<WindowTotals>>>,
    content: RwLock<ShelfContent>,
    totals_bytes: AtomicUsize,
    content_bytes: AtomicUsize,
    used_at: AtomicU64,
}

/// Samples of windows of a block, with one dictionary.
#[derive(Default)]
pub struct ShelfContent {
    dictionary: Dictionary,
    windows: HashMap<WindowKey, Arc<WindowRows>>,
    rows_bytes: usize,
    joined: JoinState,
}

impl Cache {
    /// An empty cache.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            shelves: Mutex::default(),
            clock: AtomicU64::new(0),
        }
    }

    /// The shelf of a block, made if it is not there.
    pub fn shelf(&self, block: Block) -> Arc<Shelf> {
        let shelf = Arc::clone(self.lock().entry(block).or_default());
        shelf.used_at.store(
            self.clock.fetch_add(1, Ordering::Relaxed),
            Ordering::Relaxed,
        );
        shelf
    }

    /// Drops shelves until the rest is within the bound. A shelf that a query holds lives on until its end.
    pub fn shrink(&self) {
        let mut shelves = self.lock();
        let mut bytes: usize = shelves.values().map(|shelf| shelf.bytes()).sum();
        while bytes > self.bytes_max {
            let oldest = shelves
                .iter()
                .min_by_key(|(_, shelf)| shelf.used_at.load(Ordering::Relaxed));
            let Some(block) = oldest.map(|(block, _)| *block) else {
                break;
            };
            bytes -= shelves.remove(&block).map_or(0, |shelf| shelf.bytes());
        }
    }

    /// Says whether a shelf alone is as large as the whole cache may be.
    pub fn is_full(&self, shelf: &Shelf) -> bool {
        shelf.bytes() > self.bytes_max
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.lock().values().map(|shelf| shelf.bytes()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Block, Arc<Shelf>>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.totals_bytes.load(Ordering::Relaxed) + self.content_bytes.load(Ordering::Relaxed)
    }

    /// The sums of a window.
    pub fn totals(&self, key: &WindowKey) -> Option<Arc<WindowTotals>> {
        self.totals
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Keeps the sums of a window.
    pub fn insert_totals(&self, totals: &Arc<WindowTotals>) {
        let mut kept = self.totals.write().unwrap_or_else(PoisonError::into_inner);
        if kept.insert(totals.head.key, Arc::clone(totals)).is_none() {
            self.totals_bytes
                .fetch_add(totals.heap_bytes(), Ordering::Relaxed);
        }
    }

    /// The samples, to be read.
    pub fn read(&self) -> RwLockReadGuard<'_, ShelfContent> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the samples of windows.
    pub fn merge_windows(&self, read: ShelfContent) {
        let mut content = self.write();
        content.merge(read);
        self.content_bytes.store(content.bytes(), Ordering::Relaxed);
    }

    /// Names what the source knows and the windows do not, unless that was done since either of them changed.
    pub fn join_names(&self, names: &dyn NameSource) {
        let is_current =
            |content: &ShelfContent| content.joined.is_current(&content.dictionary, names);
        if is_current(&self.read()) {
            return;
        }
        let mut content = self.write();
        let ShelfContent {
            dictionary, joined, ..
        } = &mut *content;
        // Another query may have done it meanwhile; then nothing is left to ask.
        joined.join(dictionary, names);
        self.content_bytes.store(content.bytes(), Ordering::Relaxed);
    }

    /// Forgets the samples, after a query that is too large for the cache went on.
    pub fn clear_windows(&self) {
        *self.write() = ShelfContent::default();
        self.content_bytes.store(0, Ordering::Relaxed);
    }

    fn write(&self) -> RwLockWriteGuard<'_, ShelfContent> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShelfContent {
    /// What the rows refer to.
    pub fn tables(&self) -> &Tables {
        self.dictionary.tables()
    }

    /// The samples of a window.
    pub fn window(&self, key: &WindowKey) -> Option<&Arc<WindowRows>> {
        self.windows.get(key)
    }

    /// Adds a window, numbered anew.
    pub fn insert(&mut self, window: DecodedWindow) {
        let WindowTotals { head, series, .. } = &*window.totals;
        let rows = WindowRows {
            key: head.key,
            window_ms: head.window_ms,
            series: series.clone(),
            rows: window.rows,
        };
        let mut import = Import::new(&window.tables);
        import.copy_all(&mut self.dictionary);
        self.insert_rows(rows, &mut import);
    }

    /// Adds the windows that others have read. What two of them have in common is looked up once, and not once a
    /// window.
    fn merge(&mut self, other: Self) {
        if self.windows.is_empty() {
            *self = other;
            return;
        }
        let mut import = Import::new(other.dictionary.tables());
        import.copy_all(&mut self.dictionary);
        let mut windows: Vec<_> = other.windows.into_values().collect();
        // By time, so that numbers do not depend on how a table of keys is ordered.
        windows.sort_unstable_by_key(|window| window.key);
        for window in windows {
            self.insert_rows(Arc::unwrap_or_clone(window), &mut import);
        }
    }

    fn insert_rows(&mut self, mut window: WindowRows, import: &mut Import<'_>) {
        if self.windows.contains_key(&window.key) {
            return;
        }
        for row in &mut window.rows {
            row.tags = import.tag_set(&mut self.dictionary, row.tags);
            row.stack = import.stack(&mut self.dictionary, row.stack);
        }
        self.rows_bytes += size_of::<WindowRows>()
            + size_of::<SeriesId>() * window.series.len()
            + size_of::<Row>() * window.rows.len();
        self.windows.insert(window.key, Arc::new(window));
    }

    fn bytes(&self) -> usize {
        self.rows_bytes + self.dictionary.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::text::window_at;

    fn decoded(lines: &str, sequence: u64) -> DecodedWindow {
        let window = window_at(lines, 10_000 * sequence as i64, sequence);
        let count = window.series.len();
        DecodedWindow {
            totals: Arc::new(WindowTotals {
                head: window.head,
                series: (0..count as u64).map(SeriesId).collect(),
                samples: vec![0; count],
                ns: vec![0; count],
            }),
            tables: window.tables,
            rows: window.rows,
        }
    }

    /// Check that it does not show how many threads have read the windows.
    #[test]
    fn merged_windows_have_the_numbers_that_they_have_when_added_one_by_one() {
        let texts = [
            "comm=a | main work | 1 | thread=x\ncomm=a | main idle | 2",
            "comm=b | main idle deep | 1 | thread=y",
            "comm=a | start other>inlined | 5 | thread=x outcome=truncated",
            "comm=a | main idle deep | 4 | thread=x\ncomm=b | start | 3",
        ];
        let read = |numbers: std::ops::Range<usize>| {
            let mut content = ShelfContent::default();
            numbers.for_each(|n| content.insert(decoded(texts[n], n as u64)));
            content
        };
        let alone = read(0..4);
        let mut merged = ShelfContent::default();
        for part in [0..2, 2..3, 3..4] {
            merged.merge(read(part));
        }
        assert_eq!(merged.tables(), alone.tables());
        assert_eq!(merged.rows_bytes, alone.rows_bytes);
        for (key, window) in &alone.windows {
            assert_eq!(merged.windows[key].rows, window.rows);
        }
        assert_eq!(merged.windows.len(), 4);
    }
}
