//! The selection of a query: labels and a range.

use model::{SeriesTable, TimeRange};
use store::{SeriesFilter, Snapshot, StoreError};

use super::selector::Selector;

/// Windows that start in a range, and their series with certain labels.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The labels.
    pub selector: Selector,
    /// The range.
    pub range: TimeRange,
}

impl Selector {
    /// Lists the series that have a window in the snapshot.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_series(&self, snapshot: &dyn Snapshot) -> Result<SeriesTable, StoreError> {
        self.ask(|filter| snapshot.list_series(filter))
    }

    /// Finds the series; some may have no window in the snapshot.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_series(&self, snapshot: &dyn Snapshot) -> Result<SeriesTable, StoreError> {
        self.ask(|filter| snapshot.find_series(filter))
    }

    fn ask<T>(&self, ask: impl FnOnce(&SeriesFilter<'_>) -> T) -> T {
        ask(&SeriesFilter {
            equal: self.equal(),
            matches: &|labels| self.matches(labels),
        })
    }
}
