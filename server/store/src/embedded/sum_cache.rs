//! Sums of segments that were asked for before.
//!
//! The page asks for a graph, a table and stacks of the same series and range, and again every few seconds. The range has moved by then,
//! but the segments in its middle are the same, and they never change. So the sums of a segment are kept with their stacks, by all that
//! they depend on: the segment, its series with their groups, and its windows that count, which the range and the overlaps of collectors decide.
//!
//! Sums of damaged segments are not kept. The cache uses memory that questions leave of theirs, at most [`BYTES_MAX`].

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use model::{Evict, FunctionNames, QuestionMemory, Row, SpareCharge, StackSum, Tables};
use parking_lot::Mutex;
use segment::{SummedRows, WindowSet};

use super::metrics::StoreMetrics;
use super::span::SegmentName;

/// Bytes of all entries. All stacks of a cluster with 600 pods take 10 MB for each segment: 86,000 stacks with 730,000 nodes. A page that shows
/// an hour needs four of them.
const BYTES_MAX: usize = 64 << 20;

/// Larger entries would evict most others.
const ENTRY_BYTES_MAX: usize = BYTES_MAX / 4;

/// Key of sums.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SumKey {
    /// The segment.
    pub segment: SegmentName,
    /// The selected series by number, each with its group.
    pub series: Vec<(u32, u32)>,
    /// The windows that count.
    pub windows: WindowSet,
    /// The names that the tables have.
    pub names: FunctionNames,
}

/// Sums with what they refer to.
#[derive(Debug, Default)]
pub struct CachedSums {
    /// The stacks and tag sets.
    pub tables: Tables,
    /// The sums.
    pub sums: Vec<StackSum>,
}

impl CachedSums {
    /// The rows of a segment; the series of each is its group.
    pub fn new(SummedRows { tables, rows }: SummedRows) -> Self {
        let sum = |row: Row| StackSum {
            group: row.series,
            stack: row.stack,
            tags: row.tags,
            samples: row.samples,
            ns: row.ns,
        };
        let sums = rows.into_iter().map(sum).collect();
        Self { tables, sums }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.tables.heap_bytes() + size_of::<StackSum>() * self.sums.capacity()
    }
}

struct Entry {
    sums: Arc<CachedSums>,
    charge: SpareCharge,
    /// When it was used last, as a number of [`Entries::uses`].
    used: u64,
}

/// The entries, also by their last use.
#[derive(Default)]
struct Entries {
    by_key: HashMap<Arc<SumKey>, Entry>,
    by_use: BTreeMap<u64, Arc<SumKey>>,
    uses: u64,
    bytes: usize,
}

/// The cache.
pub struct SumCache {
    itself: Weak<Self>,
    entries: Mutex<Entries>,
    metrics: StoreMetrics,
}

impl SumCache {
    /// An empty one.
    pub fn new(metrics: StoreMetrics) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            itself: Weak::clone(itself),
            entries: Mutex::default(),
            metrics,
        })
    }

    /// The sums for a key, if they are there.
    pub fn find(&self, key: &SumKey) -> Option<Arc<CachedSums>> {
        let found = self.entries.lock().find(key);
        self.metrics.count_sums(found.is_some());
        found
    }

    /// Keeps sums, if there is memory for them.
    pub fn insert(&self, key: SumKey, sums: Arc<CachedSums>, memory: &Arc<QuestionMemory>) {
        let bytes = sums.heap_bytes() + key.heap_bytes();
        if bytes > ENTRY_BYTES_MAX {
            return;
        }
        let take = || SpareCharge::take(memory, bytes, self.itself.clone() as Weak<dyn Evict>);
        let charge = take().or_else(|| {
            self.evict(bytes);
            take()
        });
        if let Some(charge) = charge {
            let evicted = self.entries.lock().insert(key, sums, charge);
            drop(evicted);
        }
    }
}

impl Evict for SumCache {
    fn evict(&self, bytes: usize) {
        let mut entries = self.entries.lock();
        let left = entries.bytes.saturating_sub(bytes);
        let evicted = entries.shrink(left);
        // Dropped without the lock: it takes a millisecond for large tables.
        drop(entries);
        drop(evicted);
    }
}

impl SumKey {
    fn heap_bytes(&self) -> usize {
        size_of::<(u32, u32)>() * self.series.capacity() + self.windows.heap_bytes()
    }
}

impl Entries {
    fn find(&mut self, key: &SumKey) -> Option<Arc<CachedSums>> {
        let (key, entry) = self.by_key.get_key_value_mut(key)?;
        self.by_use.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, Arc::clone(key));
        Some(Arc::clone(&entry.sums))
    }

    /// Adds an entry. Returns those that it replaces.
    fn insert(
        &mut self,
        key: SumKey,
        sums: Arc<CachedSums>,
        charge: SpareCharge,
    ) -> Vec<Option<Entry>> {
        // Two questions that miss at once bring the same.
        let same = self.remove(&key);
        let key = Arc::new(key);
        self.uses += 1;
        self.bytes += charge.bytes();
        self.by_use.insert(self.uses, Arc::clone(&key));
        let used = self.uses;
        self.by_key.insert(key, Entry { sums, charge, used });
        let mut evicted = self.shrink(BYTES_MAX);
        evicted.push(same);
        evicted
    }

    /// Removes the entries that were not used for the longest time, until there are so many bytes.
    fn shrink(&mut self, bytes_max: usize) -> Vec<Option<Entry>> {
        let mut evicted = Vec::new();
        while self.bytes > bytes_max {
            let Some((_, key)) = self.by_use.pop_first() else {
                break;
            };
            evicted.push(self.remove(&key));
        }
        evicted
    }

    fn remove(&mut self, key: &SumKey) -> Option<Entry> {
        let entry = self.by_key.remove(key)?;
        self.by_use.remove(&entry.used);
        self.bytes -= entry.charge.bytes();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use model::Question;
    use ulid::Ulid;

    use super::super::span::Level;
    use super::*;

    fn key(series: u32) -> SumKey {
        SumKey {
            segment: SegmentName {
                span: Level::Hour.span_of(0),
                id: Ulid(1),
                number: 0,
            },
            series: vec![(series, 0)],
            windows: WindowSet::all(3),
            names: FunctionNames::Shown,
        }
    }

    /// Sums of so many bytes.
    fn sums(bytes: usize) -> Arc<CachedSums> {
        let sums = Vec::with_capacity(bytes / size_of::<StackSum>());
        let tables = Tables::default();
        Arc::new(CachedSums { tables, sums })
    }

    fn found(cache: &SumCache) -> Vec<u32> {
        let entries = cache.entries.lock();
        let mut found: Vec<u32> = entries.by_key.keys().map(|key| key.series[0].0).collect();
        assert_eq!(entries.by_use.len(), found.len());
        found.sort_unstable();
        found
    }

    #[test]
    fn the_sums_that_were_not_used_for_longest_are_evicted() {
        let memory = QuestionMemory::new(usize::MAX);
        let cache = SumCache::new(StoreMetrics::default());
        for series in 0..4 {
            cache.insert(key(series), sums(BYTES_MAX / 4 - (1 << 10)), &memory);
        }
        assert_eq!(found(&cache), [0, 1, 2, 3]);
        assert!(cache.find(&key(0)).is_some());
        cache.insert(key(4), sums(4 << 10), &memory);
        assert_eq!(found(&cache), [0, 2, 3, 4]);
        cache.insert(key(5), sums(ENTRY_BYTES_MAX), &memory);
        assert_eq!(found(&cache), [0, 2, 3, 4]);
        // The same again takes no more memory.
        let before = memory.spare();
        cache.insert(key(4), sums(4 << 10), &memory);
        assert_eq!((memory.spare(), found(&cache).len()), (before, 4));
        drop(cache);
        assert_eq!(memory.spare(), 0);
    }

    /// Check that each part of a key makes it another one.
    #[test]
    fn other_questions_have_other_sums() {
        let memory = QuestionMemory::new(usize::MAX);
        let cache = SumCache::new(StoreMetrics::default());
        cache.insert(key(0), sums(0), &memory);
        let SumKey {
            segment,
            series,
            windows,
            names: _,
        } = key(0);
        let others = [
            SumKey {
                segment: SegmentName {
                    number: 1,
                    ..segment
                },
                ..key(0)
            },
            SumKey {
                series: vec![(series[0].0, 1)],
                ..key(0)
            },
            SumKey {
                windows: WindowSet::of(&[1, 1, 0], |is_included| *is_included == 1),
                ..key(0)
            },
            SumKey {
                names: FunctionNames::All,
                ..key(0)
            },
        ];
        assert_ne!(others[2].windows, windows);
        assert!(others.iter().all(|other| cache.find(other).is_none()));
        assert!(cache.find(&key(0)).is_some());
    }

    #[test]
    fn a_question_takes_the_memory_of_the_sums() {
        let memory = QuestionMemory::new(1 << 20);
        let cache = SumCache::new(StoreMetrics::default());
        cache.insert(key(0), sums(300 << 10), &memory);
        cache.insert(key(1), sums(600 << 10), &memory);
        let question = Question::new(Arc::clone(&memory));
        let charge = question.charge(300 << 10).unwrap();
        assert_eq!(found(&cache), [1]);
        cache.insert(key(2), sums(600 << 10), &memory);
        assert_eq!(found(&cache), [2]);
        drop(charge);
        let _all = question.charge(1 << 20).unwrap();
        assert!(found(&cache).is_empty());
    }
}
