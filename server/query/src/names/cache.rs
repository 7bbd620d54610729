//! The names of tables that queries read, bounded in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use metrics::Figures;
use model::{NamedTables, Tables, TablesId, WeakTablesId};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::join::TableNames;
use super::source::NameSource;

/// Joined lines are kept as long as the store has their tables, within a bound; the least recently used ones are evicted first.
pub struct Names {
    source: Arc<dyn NameSource>,
    bytes_max: usize,
    entries: Mutex<HashMap<WeakTablesId, Arc<CachedNames>>>,
    clock: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Default)]
struct CachedNames {
    names: RwLock<TableNames>,
    bytes: AtomicUsize,
    used_at: AtomicU64,
}

impl Names {
    /// Names from a source, of which at most `bytes_max` bytes are kept between queries.
    pub fn new(source: Arc<dyn NameSource>, bytes_max: usize) -> Self {
        Self {
            source,
            bytes_max,
            entries: Mutex::default(),
            clock: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// Shows tables with the names that the source has now. Those of tables without an identity are not kept.
    pub(crate) fn show(
        &self,
        id: Option<&TablesId>,
        tables: &Tables,
        visit: &mut dyn FnMut(NamedTables<'_>),
    ) {
        let Some(id) = id else {
            let mut names = TableNames::default();
            names.join(tables, &*self.source);
            visit(NamedTables::new(tables, names.lines()));
            return;
        };
        let cached = Arc::clone(self.entries.lock().entry(id.downgrade()).or_default());
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        cached.used_at.store(now, Ordering::Relaxed);
        let names = cached.read(tables, &*self.source);
        visit(NamedTables::new(tables, names.lines()));
        drop(names);
        self.shrink();
    }

    /// Forgets the names of tables that are gone, then evicts the least recently used until the rest is within the bound.
    fn shrink(&self) {
        let mut entries = self.entries.lock();
        entries.retain(|id, _| id.is_alive());
        let bytes_of = |cached: &CachedNames| cached.bytes.load(Ordering::Relaxed);
        let mut bytes: usize = entries.values().map(|cached| bytes_of(cached)).sum();
        while bytes > self.bytes_max {
            let oldest = entries
                .iter()
                .min_by_key(|(_, cached)| cached.used_at.load(Ordering::Relaxed));
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                break;
            };
            // Another query may have added names since they were counted.
            let evicted = entries.remove(&id).map_or(0, |cached| bytes_of(&cached));
            bytes = bytes.saturating_sub(evicted);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shows the size and the evictions.
    pub fn show_figures(&self, figures: &mut Figures<'_>) {
        let entries = self.entries.lock();
        let bytes = entries
            .values()
            .map(|cached| cached.bytes.load(Ordering::Relaxed));
        figures.gauge(
            "joined_names_bytes",
            "Names from symbols in memory",
            bytes.sum::<usize>(),
        );
        figures.counter(
            "joined_names_evicted",
            "Blocks whose names from symbols were evicted from memory",
            self.evicted.load(Ordering::Relaxed),
        );
    }
}

impl CachedNames {
    /// The names, after those that are missing or not current were looked up.
    fn read(&self, tables: &Tables, source: &dyn NameSource) -> RwLockReadGuard<'_, TableNames> {
        let names = self.names.read();
        if names.is_current(tables, source) {
            return names;
        }
        drop(names);
        let mut names = self.names.write();
        // Another query may have joined the names meanwhile: `join` then finds nothing to do.
        names.join(tables, source);
        self.bytes
            .store(names.lines().heap_bytes(), Ordering::Relaxed);
        RwLockWriteGuard::downgrade(names)
    }
}

#[cfg(test)]
mod tests {
    use model::tables::LocationId;
    use model::text::window;

    use super::*;
    use crate::names::table::NameTable;

    /// Names of the first location of a window, read through the cache.
    fn name(names: &Names, id: Option<&TablesId>, tables: &Tables) -> String {
        let mut found = String::new();
        names.show(id, tables, &mut |tables| {
            let lines = tables.lines_of(LocationId(0));
            let line = lines.lines.first();
            found = line.map_or_else(String::new, |line| {
                lines.tables.string(lines.function(line).name).to_owned()
            });
        });
        found
    }

    /// Check that names are looked up once, again after an eviction, and are forgotten with their tables.
    #[test]
    fn names_are_kept_within_a_bound_and_no_longer_than_their_tables() {
        let source = Arc::new(NameTable::default());
        source.insert("00ff", 0x1f, &[("outer", "b.c", 9)]);
        let tables = window("comm=a | 0x1f@/lib/b.so | 1").tables;
        let (first, second) = (TablesId::default(), TablesId::default());
        let names = Names::new(Arc::clone(&source) as _, usize::MAX);
        for expected in [1, 1] {
            assert_eq!(name(&names, Some(&first), &tables), "outer");
            assert_eq!(source.calls(), expected);
        }
        assert_eq!(name(&names, Some(&second), &tables), "outer");
        assert_eq!((source.calls(), names.entries.lock().len()), (2, 2));
        drop(first);
        assert_eq!(name(&names, Some(&second), &tables), "outer");
        assert_eq!((source.calls(), names.entries.lock().len()), (2, 1));

        let small = Names::new(Arc::clone(&source) as _, 0);
        for expected in [3, 4] {
            assert_eq!(name(&small, Some(&second), &tables), "outer");
            assert_eq!(source.calls(), expected);
        }
        assert_eq!(small.evicted.load(Ordering::Relaxed), 2);
        assert_eq!(small.entries.lock().len(), 0);

        // Tables of one question alone.
        for expected in [5, 6] {
            assert_eq!(name(&names, None, &tables), "outer");
            assert_eq!(source.calls(), expected);
        }
        assert_eq!(names.entries.lock().len(), 1);
    }
}
