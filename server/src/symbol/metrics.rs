//! Counters of the symbol store and of uploads from collectors. Sizes are shown at each scrape by [`IndexStore::show`] and
//! [`CollectorUploads::show`].
//!
//! [`IndexStore::show`]: super::IndexStore::show
//! [`CollectorUploads::show`]: super::CollectorUploads::show

use metrics::{Counter, Family, Registry, Unit};

/// Counters of the symbol store.
#[derive(Clone)]
pub struct SymbolMetrics {
    pub(crate) uploads: Family<Counter>,
    pub(crate) upload_bytes: Counter,
    pub(super) fetches: Family<Counter>,
    pub(super) fetch_bytes: Counter,
    pub(super) evictions: Counter,
    pub(super) damaged: Counter,
    pub(super) asked: Counter,
    pub(super) offers_skipped: Counter,
    pub(super) sent: Family<Counter>,
    pub(super) sent_bytes: Counter,
    pub(super) resumed_bytes: Counter,
}

impl Default for SymbolMetrics {
    fn default() -> Self {
        let by_result = || Family::new(["result"]);
        Self {
            uploads: by_result(),
            upload_bytes: Counter::default(),
            fetches: by_result(),
            fetch_bytes: Counter::default(),
            evictions: Counter::default(),
            damaged: Counter::default(),
            asked: Counter::default(),
            offers_skipped: Counter::default(),
            sent: by_result(),
            sent_bytes: Counter::default(),
            resumed_bytes: Counter::default(),
        }
    }
}

impl SymbolMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            (
                "symbol_evictions",
                "Indexes that were removed for lack of space",
                &self.evictions,
            ),
            (
                "symbol_indexes_damaged",
                "Index files that could not be used and were dropped",
                &self.damaged,
            ),
            (
                "symbol_asked",
                "Files that collectors were asked for",
                &self.asked,
            ),
            (
                "symbol_offers_skipped",
                "Files that collectors offered and for which there was no room, or not any more",
                &self.offers_skipped,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, counters) in [
            (
                "symbol_uploads",
                "Files that were uploaded, by result: stored, unchanged (the present index is as good), or why not",
                &self.uploads,
            ),
            (
                "symbol_fetches",
                "Build ids that were looked for at debuginfod servers, by result: stored, unchanged, not_found, or why not",
                &self.fetches,
            ),
            (
                "symbol_sent",
                "Files that collectors were asked for, by result: stored, unchanged, unneeded (there was as good by then), \
                 given_up (the collector had nothing), or why not",
                &self.sent,
            ),
        ] {
            registry.register(name, help, counters.clone());
        }
        for (name, help, counter) in [
            (
                "symbol_uploaded",
                "Bytes of uploaded files, unpacked",
                &self.upload_bytes,
            ),
            (
                "symbol_fetched",
                "Bytes of files that debuginfod servers sent",
                &self.fetch_bytes,
            ),
            (
                "symbol_sent",
                "Bytes of files that collectors sent",
                &self.sent_bytes,
            ),
            (
                "symbol_resumed",
                "Bytes that did not have to be sent again after a break",
                &self.resumed_bytes,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
        }
    }
}
