//! Decoded windows, bounded in bytes.
//!
//! The windows of a block share one dictionary: a node's windows have mostly the same stacks, so that each is
//! kept once, and a query adds up numbers instead of comparing names. The block that was not used for the longest
//! time goes first.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashMap;

use super::WindowRows;
use super::block::Block;
use super::record::WindowTotals;
use crate::profile::{Dictionary, Import, Row, Tables, WindowKey};

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

/// The samples of a block.
#[derive(Default)]
pub struct ShelfContent {
    dictionary: Dictionary,
    windows: HashMap<WindowKey, Arc<WindowRows>>,
    rows_bytes: usize,
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
    pub fn insert_windows(&self, decoded: impl IntoIterator<Item = DecodedWindow>) {
        let mut content = self.write();
        for window in decoded {
            content.insert(window);
        }
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

    fn insert(&mut self, window: DecodedWindow) {
        let key = window.totals.head.key;
        if self.windows.contains_key(&key) {
            return;
        }
        let mut import = Import::new(&window.tables);
        let mut rows = window.rows;
        for row in &mut rows {
            row.tags = import.tag_set(&mut self.dictionary, row.tags);
            row.stack = import.stack(&mut self.dictionary, row.stack);
        }
        let window_ms = window.totals.head.window_ms;
        let rows = WindowRows {
            key,
            window_ms,
            series: window.totals.series.clone(),
            rows,
        };
        self.rows_bytes +=
            size_of::<WindowRows>() + 8 * rows.series.len() + size_of::<Row>() * rows.rows.len();
        self.windows.insert(key, Arc::new(rows));
    }

    fn bytes(&self) -> usize {
        self.rows_bytes + self.dictionary.heap_bytes()
    }
}
