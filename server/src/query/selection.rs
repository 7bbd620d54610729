//! What all queries share: labels and a range.

use super::selector::Selector;
use crate::store::{SeriesFilter, SeriesTable, Store, StoreError, TimeRange};

/// Windows that start in a range, and of these the series with certain labels.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The labels.
    pub selector: Selector,
    /// The range.
    pub range: TimeRange,
}

impl Selection {
    /// Lists the series that have a window in the range.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_series(&self, store: &dyn Store) -> Result<SeriesTable, StoreError> {
        let filter = SeriesFilter {
            equal: self.selector.equal(),
            matches: &|labels| self.selector.matches(labels),
        };
        store.list_series(self.range, &filter)
    }

    /// Finds the series; some may have no window in the range itself.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_series(&self, store: &dyn Store) -> Result<SeriesTable, StoreError> {
        let filter = SeriesFilter {
            equal: self.selector.equal(),
            matches: &|labels| self.selector.matches(labels),
        };
        store.find_series(self.range, &filter)
    }
}
