//! Label sets with numbers.

use std::sync::Arc;

use crate::LabelSet;

/// Number of a series; the store assigns it to a new label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u64);

/// Series that were found, sorted by number.
#[derive(Clone, Debug, Default)]
pub struct SeriesTable {
    entries: Vec<(SeriesId, Arc<LabelSet>)>,
}

impl SeriesTable {
    /// Makes a table of entries in any order, with duplicates.
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

    /// The series that pass a test.
    pub fn filter(mut self, mut is_kept: impl FnMut(SeriesId) -> bool) -> Self {
        self.entries.retain(|(id, _)| is_kept(*id));
        self
    }

    /// Position of a series in the table, if it has one.
    #[inline]
    pub fn position(&self, id: SeriesId) -> Option<usize> {
        // A table of all series of a snapshot has number 7 at position 7.
        let position = id.0 as usize;
        if self.entries.get(position).is_some_and(|(at, _)| *at == id) {
            return Some(position);
        }
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

    /// Number of series.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
