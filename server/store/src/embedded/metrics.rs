//! Metrics of the store.

use std::time::Duration;

use metrics::{Counter, Family, Gauge, Histogram, Registry, Unit};

use super::report::RecoveryReport;

/// From a disk with a write cache to an overloaded one.
const SYNC_SECONDS: [f64; 10] = [
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0,
];

/// Counters of the store.
#[derive(Clone)]
pub struct StoreMetrics {
    stored_bytes: Counter,
    unread: Counter,
    failures: Counter,
    evicted_bytes: Counter,
    verified_bytes: Counter,
    damage: Counter,
    sums: Family<Counter>,
    sync: Histogram,
    recovery: Family<Gauge>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        let sums = Family::new(["cache"]);
        // A counter that is there from the start has its first increase in a rate.
        let _at_zero = ["hit", "miss"].map(|cache| sums.of([cache]));
        Self {
            stored_bytes: Counter::default(),
            unread: Counter::default(),
            failures: Counter::default(),
            evicted_bytes: Counter::default(),
            verified_bytes: Counter::default(),
            damage: Counter::default(),
            sums,
            sync: Histogram::new(SYNC_SECONDS),
            recovery: Family::new(["kind"]),
        }
    }
}

impl StoreMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "stored",
            "Bytes that were appended to logs",
            Unit::Bytes,
            self.stored_bytes.clone(),
        );
        registry.register(
            "unread",
            "Causes for which an answer lacked something, each counted once a query",
            self.unread.clone(),
        );
        registry.register(
            "background_failures",
            "Attempts to write, merge or evict segments that failed",
            self.failures.clone(),
        );
        registry.register_with_unit(
            "evicted",
            "Bytes of files that were evicted",
            Unit::Bytes,
            self.evicted_bytes.clone(),
        );
        registry.register(
            "segment_sums",
            "Segments whose samples a query summed up, by whether the sums were in the cache",
            self.sums.clone(),
        );
        registry.register_with_unit(
            "verified",
            "Bytes of segments that were verified in the background",
            Unit::Bytes,
            self.verified_bytes.clone(),
        );
        registry.register(
            "damage_found",
            "Segments that were found damaged since the start, by a question, a merge or the verification in the background",
            self.damage.clone(),
        );
        registry.register_with_unit(
            "sync_duration",
            "Time that fdatasync of a log took",
            Unit::Seconds,
            self.sync.clone(),
        );
        registry.register(
            "recovery",
            "Recovery at the start, by kind of work",
            self.recovery.clone(),
        );
    }

    /// Counts bytes that are durable.
    pub fn add_stored_bytes(&self, bytes: u64) {
        self.stored_bytes.inc_by(bytes);
    }

    /// Counts a segment whose sums were in the cache, or not.
    pub fn count_sums(&self, is_cached: bool) {
        let cache = if is_cached { "hit" } else { "miss" };
        self.sums.of([cache]).inc();
    }

    /// Notes how long a sync took.
    pub fn observe_sync(&self, duration: Duration) {
        self.sync.observe(duration.as_secs_f64());
    }

    /// Counts something that a question could not read.
    pub fn count_unread(&self) {
        self.unread.inc();
    }

    /// Counts a step in the background that failed.
    pub fn count_failure(&self) {
        self.failures.inc();
    }

    /// Counts bytes of a file that was evicted.
    pub fn count_evicted(&self, bytes: u64) {
        self.evicted_bytes.inc_by(bytes);
    }

    /// Counts bytes of a segment that was verified.
    pub fn count_verified(&self, bytes: u64) {
        self.verified_bytes.inc_by(bytes);
    }

    /// Bytes of segments that were verified.
    pub fn verified_bytes(&self) -> u64 {
        self.verified_bytes.get()
    }

    /// Counts a segment that was found damaged.
    pub fn count_damage(&self) {
        self.damage.inc();
    }

    /// Notes the recovery at the start.
    pub fn note_recovery(&self, report: &RecoveryReport) {
        let RecoveryReport {
            catalog_rebuilt,
            replacements_finished,
            lists_damaged,
            unfinished_removed,
            segments,
            segments_read,
            segments_damaged,
            logs_read,
            windows_read,
            windows_repeated,
            tail_bytes_cut,
            records_damaged,
            old_files,
            limits_damaged,
        } = *report;
        for (kind, number) in [
            ("catalog_rebuilt", u64::from(catalog_rebuilt)),
            ("replacements_finished", replacements_finished),
            ("lists_damaged", lists_damaged),
            ("unfinished_removed", unfinished_removed),
            ("segments", segments),
            ("segments_read", segments_read),
            ("segments_damaged", segments_damaged),
            ("logs_read", logs_read),
            ("windows_read", windows_read),
            ("windows_repeated", windows_repeated),
            ("tail_bytes_cut", tail_bytes_cut),
            ("records_damaged", records_damaged),
            ("old_files", old_files),
            ("limits_damaged", u64::from(limits_damaged)),
        ] {
            self.recovery.of([kind]).set(number as i64);
        }
    }
}
