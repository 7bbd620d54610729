//! What the server counts about itself, as Prometheus text.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use rustix::time::{ClockId, clock_gettime};

use crate::profile::unnamed::UnnamedCounts;
use crate::store::StoreNumbers;
use crate::store::recovery::RecoveryReport;

/// Content type of what [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a page that is in the cache to a query that a person gives up on.
const QUERY_SECONDS: [f64; 12] = [
    0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0,
];

/// From a disk with a cache of its own to one that is overloaded.
const SYNC_SECONDS: [f64; 10] = [
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BinaryLabels {
    binary: String,
    reason: &'static str,
}

/// Binaries that have a number of their own in the metrics, some 300 bytes each; those that come later share one without a
/// name. A cluster has some hundreds of stripped programs and libraries.
const BINARIES_MAX: usize = 1000;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueryLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// The server's metrics.
pub struct Metrics {
    registry: Registry,
    windows: Family<ResultLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    rows: Counter,
    samples: Counter,
    unnamed_samples: Family<ReasonLabel, Counter>,
    unnamed_locations: Family<ReasonLabel, Counter>,
    unnamed_in_binaries: Family<BinaryLabels, Counter>,
    /// Those that have a number of their own.
    unnamed_binaries: Mutex<HashSet<(String, &'static str)>>,
    received_bytes: Counter,
    stored_bytes: Counter,
    unreadable: Counter,
    sync: Histogram,
    queries: Family<QueryLabels, Counter>,
    query_seconds: Family<RouteLabel, Histogram>,
    closed_connections: Family<ReasonLabel, Counter>,
    recovery: Family<KindLabel, Gauge>,
    symbols: SymbolMetrics,
    series: Gauge,
    sealed_segments: Gauge,
    cache_bytes: Gauge,
    resident_bytes: Gauge<i64, AtomicI64>,
    cpu_seconds: Counter<f64, AtomicU64>,
}

/// What is counted of the symbol store.
#[derive(Default)]
struct SymbolMetrics {
    indexes: Gauge,
    index_bytes: Gauge,
    layouts: Gauge,
    limits: Family<KindLabel, Gauge>,
    uploads: Family<ResultLabel, Counter>,
    upload_bytes: Counter,
    fetches: Family<ResultLabel, Counter>,
    fetch_bytes: Counter,
    waiting: Gauge,
    evictions: Counter,
    damaged: Counter,
    asked: Counter,
    asked_now: Gauge,
    offers_skipped: Counter,
    sent: Family<ResultLabel, Counter>,
    received_bytes: Counter,
    resumed_bytes: Counter,
    partials: Gauge,
    partial_bytes: Gauge,
}

impl SymbolMetrics {
    fn register(&self, own: &mut Registry) {
        own.register(
            "symbol_indexes",
            "Build ids of which there is an index",
            self.indexes.clone(),
        );
        own.register_with_unit(
            "symbol_indexes",
            "Size of all indexes on the disk",
            Unit::Bytes,
            self.index_bytes.clone(),
        );
        own.register(
            "symbol_layouts",
            "Files of which it is known where they are loaded",
            self.layouts.clone(),
        );
        own.register(
            "symbol_limits",
            "Limits of the symbol store, by kind: index_bytes (all indexes), file_bytes (one file that comes in)",
            self.limits.clone(),
        );
        own.register(
            "symbol_uploads",
            "Files that were uploaded, by result: stored, unchanged (what was there is as good), or why not",
            self.uploads.clone(),
        );
        own.register_with_unit(
            "symbol_uploaded",
            "Bytes of uploaded files, unpacked",
            Unit::Bytes,
            self.upload_bytes.clone(),
        );
        own.register(
            "symbol_fetches",
            "Build ids that were looked for at debuginfod servers, by result: stored, unchanged, not_found, or why not",
            self.fetches.clone(),
        );
        own.register_with_unit(
            "symbol_fetched",
            "Bytes of files that debuginfod servers sent",
            Unit::Bytes,
            self.fetch_bytes.clone(),
        );
        own.register(
            "symbol_fetches_waiting",
            "Build ids that wait to be looked for",
            self.waiting.clone(),
        );
        own.register(
            "symbol_evictions",
            "Indexes that were removed for want of space",
            self.evictions.clone(),
        );
        own.register(
            "symbol_indexes_damaged",
            "Index files that could not be used and were dropped",
            self.damaged.clone(),
        );
        self.register_intake(own);
    }

    /// What collectors are asked for and send.
    fn register_intake(&self, own: &mut Registry) {
        own.register(
            "symbol_asked",
            "Files that collectors were asked for",
            self.asked.clone(),
        );
        own.register(
            "symbol_asked_waiting",
            "Files that collectors are asked for and have not sent yet",
            self.asked_now.clone(),
        );
        own.register(
            "symbol_offers_skipped",
            "Files that collectors offered and for which there was no room, or not any more",
            self.offers_skipped.clone(),
        );
        own.register(
            "symbol_sent",
            "Files that collectors were asked for, by result: stored, unchanged, unneeded (there was as good by then), \
             given_up (the collector had nothing), or why not",
            self.sent.clone(),
        );
        own.register_with_unit(
            "symbol_sent",
            "Bytes of files that collectors sent",
            Unit::Bytes,
            self.received_bytes.clone(),
        );
        own.register_with_unit(
            "symbol_resumed",
            "Bytes that did not have to be sent again after a break",
            Unit::Bytes,
            self.resumed_bytes.clone(),
        );
        own.register(
            "symbol_partials",
            "Files of which a part has come from a collector",
            self.partials.clone(),
        );
        own.register_with_unit(
            "symbol_partials",
            "Bytes of these parts on the disk",
            Unit::Bytes,
            self.partial_bytes.clone(),
        );
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            windows: Family::default(),
            refused: Family::default(),
            rows: Counter::default(),
            samples: Counter::default(),
            unnamed_samples: Family::default(),
            unnamed_locations: Family::default(),
            unnamed_in_binaries: Family::default(),
            unnamed_binaries: Mutex::default(),
            received_bytes: Counter::default(),
            stored_bytes: Counter::default(),
            unreadable: Counter::default(),
            sync: Histogram::new(SYNC_SECONDS),
            queries: Family::default(),
            query_seconds: Family::new_with_constructor(|| Histogram::new(QUERY_SECONDS)),
            closed_connections: Family::default(),
            recovery: Family::default(),
            symbols: SymbolMetrics::default(),
            series: Gauge::default(),
            sealed_segments: Gauge::default(),
            cache_bytes: Gauge::default(),
            resident_bytes: Gauge::default(),
            cpu_seconds: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let own = self.registry.sub_registry_with_prefix("pilotlight_server");
        own.register(
            "windows",
            "Windows that were acknowledged, by result",
            self.windows.clone(),
        );
        own.register(
            "windows_refused",
            "Windows that were not taken, by reason",
            self.refused.clone(),
        );
        own.register("rows", "Stack rows of stored windows", self.rows.clone());
        own.register("samples", "Samples of stored windows", self.samples.clone());
        own.register(
            "samples_unnamed",
            "Of these, those whose innermost frame came without a name, by reason; names that are found later change \
             nothing here (see /api/v1/unknown)",
            self.unnamed_samples.clone(),
        );
        own.register(
            "locations_unnamed",
            "Locations that came without a name, each counted once a window, by reason",
            self.unnamed_locations.clone(),
        );
        own.register(
            "binary_samples_unnamed",
            "The same samples by binary and reason; those of binaries beyond the first thousand have none",
            self.unnamed_in_binaries.clone(),
        );
        own.register_with_unit(
            "received",
            "Bytes of received profiles, packed",
            Unit::Bytes,
            self.received_bytes.clone(),
        );
        own.register_with_unit(
            "stored",
            "Bytes that were appended to segments",
            Unit::Bytes,
            self.stored_bytes.clone(),
        );
        own.register(
            "windows_unreadable",
            "Windows that a query could not read",
            self.unreadable.clone(),
        );
        own.register_with_unit(
            "sync_duration",
            "Time that fdatasync of a segment took",
            Unit::Seconds,
            self.sync.clone(),
        );
        own.register(
            "queries",
            "HTTP requests, by route and status",
            self.queries.clone(),
        );
        own.register_with_unit(
            "query_duration",
            "Time that a request took",
            Unit::Seconds,
            self.query_seconds.clone(),
        );
        own.register(
            "connections_closed",
            "HTTP connections that the server closed, by reason: limit (too many), silent (no whole request in time), \
             unread (nothing of the answer was taken)",
            self.closed_connections.clone(),
        );
        own.register(
            "recovery",
            "What was done when the store was opened",
            self.recovery.clone(),
        );
        self.symbols.register(own);
        own.register("series", "Series in the catalog", self.series.clone());
        own.register(
            "segments_sealed",
            "Segments that are sealed",
            self.sealed_segments.clone(),
        );
        own.register_with_unit(
            "cache",
            "Decoded windows in memory",
            Unit::Bytes,
            self.cache_bytes.clone(),
        );
        let process = self.registry.sub_registry_with_prefix("process");
        process.register_with_unit(
            "resident_memory",
            "Resident memory",
            Unit::Bytes,
            self.resident_bytes.clone(),
        );
        process.register_with_unit(
            "cpu",
            "CPU time, user and system",
            Unit::Seconds,
            self.cpu_seconds.clone(),
        );
    }

    /// Counts a window that was acknowledged.
    pub fn count_window(&self, result: &'static str, rows: usize) {
        self.windows.get_or_create(&ResultLabel { result }).inc();
        self.rows.inc_by(rows as u64);
    }

    /// Counts the samples of a window that was stored, and what came without a name.
    pub fn count_samples(&self, counts: &UnnamedCounts) {
        let UnnamedCounts {
            samples,
            unnamed,
            by_binary,
        } = counts;
        self.samples.inc_by(*samples);
        for (reason, (samples, locations)) in unnamed {
            let label = ReasonLabel {
                reason: reason.code(),
            };
            self.unnamed_samples.get_or_create(&label).inc_by(*samples);
            self.unnamed_locations
                .get_or_create(&label)
                .inc_by(*locations);
        }
        for ((reason, binary), samples) in by_binary {
            let reason = reason.code();
            let binary = self.limit_binary(binary, reason);
            let labels = BinaryLabels { binary, reason };
            self.unnamed_in_binaries
                .get_or_create(&labels)
                .inc_by(*samples);
        }
    }

    /// The binary's name in the metrics: none if too many have one.
    fn limit_binary(&self, binary: &str, reason: &'static str) -> String {
        let known = self.unnamed_binaries.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        let key = (binary.to_owned(), reason);
        match known.contains(&key) || known.len() < BINARIES_MAX && known.insert(key) {
            true => binary.to_owned(),
            false => String::new(),
        }
    }

    /// Counts a window that was not taken.
    pub fn count_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts an HTTP connection that a limit has closed.
    pub fn count_closed_connection(&self, reason: &'static str) {
        self.closed_connections
            .get_or_create(&ReasonLabel { reason })
            .inc();
    }

    /// Counts bytes of a received profile.
    pub fn add_received_bytes(&self, bytes: u64) {
        self.received_bytes.inc_by(bytes);
    }

    /// Counts bytes that are durable.
    pub fn add_stored_bytes(&self, bytes: u64) {
        self.stored_bytes.inc_by(bytes);
    }

    /// Counts a window that a query could not read.
    pub fn count_unreadable_window(&self) {
        self.unreadable.inc();
    }

    /// Notes how long a sync took.
    pub fn observe_sync(&self, duration: Duration) {
        self.sync.observe(duration.as_secs_f64());
    }

    /// Notes a request.
    pub fn observe_query(&self, route: &str, status: u16, duration: Duration) {
        self.queries
            .get_or_create(&QueryLabels {
                route: route.to_owned(),
                status,
            })
            .inc();
        self.query_seconds
            .get_or_create(&RouteLabel {
                route: route.to_owned(),
            })
            .observe(duration.as_secs_f64());
    }

    /// Notes what was done when the store was opened.
    pub fn note_recovery(&self, report: &RecoveryReport) {
        let RecoveryReport {
            catalog_rebuilt,
            catalog_repaired,
            segments_scanned,
            segments_damaged,
            tails_cut,
            tail_bytes_cut,
            records_damaged,
            windows_restored,
        } = *report;
        for (kind, number) in [
            ("catalog_rebuilt", u64::from(catalog_rebuilt)),
            ("catalog_repaired", u64::from(catalog_repaired)),
            ("segments_scanned", segments_scanned),
            ("segments_damaged", segments_damaged),
            ("tails_cut", tails_cut),
            ("tail_bytes_cut", tail_bytes_cut),
            ("records_damaged", records_damaged),
            ("windows_restored", windows_restored),
        ] {
            self.recovery
                .get_or_create(&KindLabel { kind })
                .set(number as i64);
        }
    }

    /// Shows how many indexes there are, and their bytes.
    pub fn show_symbol_indexes(&self, indexes: usize, bytes: u64) {
        self.symbols.indexes.set(indexes as i64);
        self.symbols.index_bytes.set(bytes as i64);
    }

    /// Shows of how many files it is known where they are loaded.
    pub fn show_symbol_layouts(&self, layouts: usize) {
        self.symbols.layouts.set(layouts as i64);
    }

    /// Shows a limit of the symbol store.
    pub fn show_symbol_limit(&self, kind: &'static str, limit: u64) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.symbols
            .limits
            .get_or_create(&KindLabel { kind })
            .set(limit);
    }

    /// Shows how many build ids wait to be fetched.
    pub fn show_symbol_fetches_waiting(&self, waiting: usize) {
        self.symbols.waiting.set(waiting as i64);
    }

    /// Counts an upload.
    pub fn count_symbol_upload(&self, result: &'static str, bytes: u64) {
        self.symbols
            .uploads
            .get_or_create(&ResultLabel { result })
            .inc();
        self.symbols.upload_bytes.inc_by(bytes);
    }

    /// Counts a build id that was looked for elsewhere.
    pub fn count_symbol_fetch(&self, result: &'static str, bytes: u64) {
        self.symbols
            .fetches
            .get_or_create(&ResultLabel { result })
            .inc();
        self.symbols.fetch_bytes.inc_by(bytes);
    }

    /// Counts an index that was removed for want of space.
    pub fn count_symbol_eviction(&self) {
        self.symbols.evictions.inc();
    }

    /// Counts an index that could not be used.
    pub fn count_symbol_index_damaged(&self) {
        self.symbols.damaged.inc();
    }

    /// Counts files that a collector was asked for.
    pub fn count_symbol_asked(&self, files: usize) {
        self.symbols.asked.inc_by(files as u64);
    }

    /// Counts files that collectors offered and that are not remembered.
    pub fn count_symbol_offers_skipped(&self, files: usize) {
        self.symbols.offers_skipped.inc_by(files as u64);
    }

    /// Shows how many files collectors are asked for.
    pub fn show_symbol_asked(&self, files: usize) {
        self.symbols.asked_now.set(files as i64);
    }

    /// Counts a file that a collector was asked for and has sent, or has not.
    pub fn count_symbol_sent(&self, result: &'static str) {
        self.symbols
            .sent
            .get_or_create(&ResultLabel { result })
            .inc();
    }

    /// Counts bytes that a collector has sent.
    pub fn add_symbol_received_bytes(&self, bytes: u64) {
        self.symbols.received_bytes.inc_by(bytes);
    }

    /// Counts bytes that a collector need not send again.
    pub fn add_symbol_resumed_bytes(&self, bytes: u64) {
        self.symbols.resumed_bytes.inc_by(bytes);
    }

    /// Shows of how many files a part has come, and the bytes of these.
    pub fn show_symbol_partials(&self, files: usize, bytes: u64) {
        self.symbols.partials.set(files as i64);
        self.symbols.partial_bytes.set(bytes as i64);
    }

    /// Writes all metrics as text.
    pub fn encode(&self, numbers: StoreNumbers) -> String {
        self.series.set(numbers.series as i64);
        self.sealed_segments.set(numbers.sealed_segments as i64);
        self.cache_bytes.set(numbers.cache_bytes as i64);
        self.resident_bytes.set(read_resident_bytes().unwrap_or(0));
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        self.cpu_seconds
            .inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
        let mut out = String::new();
        if text::encode(&mut out, &self.registry).is_err() {
            // Writing to a string does not fail; if it does, whoever reads this should see it.
            let _ = write!(out, "# the metrics could not be written");
        }
        out
    }
}

fn read_resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
