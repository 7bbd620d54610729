//! Metrics of receiving.

use metrics::{Counter, Family, Label, Registry, Unit};
use model::unnamed::UnnamedCounts;

use super::refusal::RefusalReason;

/// Pairs of binary and reason with their own counter, some 300 bytes each; samples of later pairs are counted with an
/// empty binary. A cluster has some hundreds of stripped programs and libraries.
const BINARIES_MAX: usize = 1000;

/// Counters of received windows.
#[derive(Clone)]
pub struct ReceiveMetrics {
    windows: Family<Counter>,
    refused: Family<Counter>,
    unbalanced: Counter,
    reports: Family<Counter>,
    rows: Counter,
    samples: Counter,
    unnamed_samples: Family<Counter>,
    unnamed_locations: Family<Counter>,
    unnamed_in_binaries: Family<Counter, 2>,
    received_bytes: Counter,
}

impl Default for ReceiveMetrics {
    fn default() -> Self {
        Self {
            windows: Family::new(["result"]),
            refused: Family::new(["reason"]),
            unbalanced: Counter::default(),
            reports: Family::new(["result"]),
            rows: Counter::default(),
            samples: Counter::default(),
            unnamed_samples: Family::new(["reason"]),
            unnamed_locations: Family::new(["reason"]),
            unnamed_in_binaries: Family::new(["binary", "reason"]),
            received_bytes: Counter::default(),
        }
    }
}

impl ReceiveMetrics {
    /// Registers all counters.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "windows",
            "Windows that were acknowledged, by result",
            self.windows.clone(),
        );
        registry.register(
            "windows_refused",
            "Windows that were not taken, by reason",
            self.refused.clone(),
        );
        // All reasons exist from the start: Prometheus' increase() does not see the first value of a
        // counter.
        for reason in RefusalReason::ALL {
            self.refused.of([reason.name()]);
        }
        registry.register(
            "windows_unbalanced",
            "Stored windows whose account of samples does not balance",
            self.unbalanced.clone(),
        );
        registry.register(
            "node_reports",
            "Reports of nodes, by result: kept, or the reason why it was refused",
            self.reports.clone(),
        );
        registry.register("rows", "Stack rows of stored windows", self.rows.clone());
        registry.register("samples", "Samples of stored windows", self.samples.clone());
        registry.register(
            "samples_unnamed",
            "Of these, those whose innermost frame came without a name, by reason; names that are found later change \
             nothing here (see /api/v1/unknown)",
            self.unnamed_samples.clone(),
        );
        registry.register(
            "locations_unnamed",
            "Locations that came without a name, each counted once a window, by reason",
            self.unnamed_locations.clone(),
        );
        registry.register(
            "binary_samples_unnamed",
            "The same samples by binary and reason; those of binaries beyond the first thousand have none",
            self.unnamed_in_binaries.clone(),
        );
        registry.register_with_unit(
            "received",
            "Bytes of received profiles, packed",
            Unit::Bytes,
            self.received_bytes.clone(),
        );
    }

    /// Counts a report of a node.
    pub fn count_report(&self, result: &'static str) {
        self.reports.of([result]).inc();
    }

    /// Counts an acknowledged window.
    pub fn count_window(&self, result: &'static str, rows: usize) {
        self.windows.of([result]).inc();
        self.rows.inc_by(rows as u64);
    }

    /// Counts the samples of a stored window, and those without a name.
    pub fn count_samples(&self, counts: &UnnamedCounts) {
        let UnnamedCounts {
            samples,
            unnamed,
            by_binary,
        } = counts;
        self.samples.inc_by(*samples);
        for (reason, (samples, locations)) in unnamed {
            let reason = reason.code();
            self.unnamed_samples.of([reason]).inc_by(*samples);
            self.unnamed_locations.of([reason]).inc_by(*locations);
        }
        for ((reason, binary), samples) in by_binary {
            let reason = reason.code();
            self.unnamed_in_binaries
                .of_limited(
                    BINARIES_MAX,
                    [binary.clone().into(), Label::from(reason)],
                    ["", reason],
                )
                .inc_by(*samples);
        }
    }

    /// Counts a stored window whose account does not balance.
    pub fn count_unbalanced(&self) {
        self.unbalanced.inc();
    }

    /// Counts a refused window.
    pub fn count_refused(&self, reason: &'static str) {
        self.refused.of([reason]).inc();
    }

    /// Counts bytes of a received profile.
    pub fn add_received_bytes(&self, bytes: u64) {
        self.received_bytes.inc_by(bytes);
    }
}
