//! Counts of the watch.

use std::{collections::BTreeMap, mem, time::Duration};

use k8s::PodStats;
use metrics::Figures;

/// Kinds of events.
const EVENTS: [&str; 4] = ["listed", "list_done", "applied", "deleted"];

/// Reasons of errors.
const REASONS: [&str; 8] = [
    "unreachable",
    "unauthorized",
    "forbidden",
    "gone",
    "server",
    "stalled",
    "invalid",
    "other",
];

/// Results of requests for owners, beside the reasons of errors.
const OWNER_RESULTS: [&str; 4] = ["owned", "alone", "gone", "timeout"];

/// Time without an error after which a watch that had one works again. kube's watcher does not tell that a request succeeded, and a
/// node may have no event of a pod for hours. A request that cannot connect fails within 30 s, and the next one follows within 30 s.
const QUIET_TIME: Duration = Duration::from_secs(120);

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchStats {
    /// The last that was heard of the API server was no error, or it was one some minutes ago.
    pub(crate) is_connected: bool,
    /// Time of the last error, in nanoseconds of CLOCK_MONOTONIC.
    error_ns: u64,
    /// Events by kind.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// Errors by reason.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    /// Requests for owners by result.
    pub(crate) owners: BTreeMap<&'static str, u64>,
}

impl WatchStats {
    /// Counts an error. Returns whether the watch worked until now, and the errors for this reason.
    pub(crate) fn note_error(&mut self, reason: &'static str, now_ns: u64) -> (bool, u64) {
        self.error_ns = now_ns;
        let count = self.errors.entry(reason).or_default();
        *count += 1;
        (mem::replace(&mut self.is_connected, false), *count)
    }

    /// The watch, which has listed all pods, works again if its last error is long ago.
    pub(crate) fn note_quiet(&mut self, now_ns: u64) {
        let quiet = Duration::from_nanos(now_ns.saturating_sub(self.error_ns));
        self.is_connected |= quiet >= QUIET_TIME;
    }

    /// Writes the figures.
    pub(crate) fn show(&self, pods: PodStats, has_listed: bool, figures: &mut Figures<'_>) {
        figures.gauge(
            "kubernetes_connected",
            "1 if the watch of the node's pods works",
            u64::from(self.is_connected),
        );
        figures.gauge(
            "kubernetes_listed",
            "1 if all pods of the node were listed once",
            u64::from(has_listed),
        );
        figures.gauge(
            "kubernetes_pods",
            "Pods in the table, with those that ended some minutes ago",
            pods.pods,
        );
        figures.gauge("kubernetes_pods_bytes", "Memory of these pods", pods.bytes);
        figures.counter(
            "kubernetes_pods_evicted",
            "Pods evicted or not taken because the table was full",
            pods.evicted,
        );
        figures.gauge(
            "kubernetes_fields_left_out",
            "Labels, annotations and containers of these pods that exceed the limits",
            pods.left_out,
        );
        figures.gauge(
            "kubernetes_owners",
            "ReplicaSets and Jobs whose owners are known or wanted",
            pods.owners,
        );
        figures.counters(
            "kubernetes_events",
            "Events of the watch of the node's pods, by kind",
            ["kind"],
            with_all(&EVENTS, &self.events),
        );
        figures.counters(
            "kubernetes_errors",
            "Errors of the watch of the node's pods, by reason",
            ["reason"],
            with_all(&REASONS, &self.errors),
        );
        figures.counters(
            "kubernetes_owner_requests",
            "Requests for owners of ReplicaSets and Jobs, by result",
            ["result"],
            with_all(&OWNER_RESULTS, &self.owners),
        );
    }
}

/// The counts, and zeros for names that were not counted yet.
fn with_all(
    names: &[&'static str],
    counts: &BTreeMap<&'static str, u64>,
) -> BTreeMap<[&'static str; 1], u64> {
    let zeros = names.iter().map(|name| ([*name], 0));
    let counted = counts.iter().map(|(name, count)| ([*name], *count));
    zeros.chain(counted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a watch works again after minutes without an error, although no pod changes.
    #[test]
    fn an_error_is_over_after_minutes() {
        let mut stats = WatchStats {
            is_connected: true,
            ..WatchStats::default()
        };
        let minutes = |count: u64| count * 60_000_000_000;
        assert_eq!(stats.note_error("unreachable", minutes(9)), (true, 1));
        assert_eq!(stats.note_error("unreachable", minutes(10)), (false, 2));
        stats.note_quiet(minutes(11));
        assert!(!stats.is_connected);
        stats.note_quiet(minutes(12));
        assert!(stats.is_connected);
    }
}
