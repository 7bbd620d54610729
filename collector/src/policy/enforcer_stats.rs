//! Counts of the policy's enforcement.

use metrics::Figures;

/// Counts since the start, and the state of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnforcerStats {
    /// Entries in the kernel's map.
    pub entries: usize,
    /// Entries without room there.
    pub left_out: usize,
    /// Times that an entry found no room, or the kernel refused it.
    pub limited: u64,
    /// Pods with a cgroup that are excluded.
    pub excluded_pods: usize,
    /// Pods with a cgroup that are not decided.
    pub undecided_pods: usize,
}

impl EnforcerStats {
    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.gauges(
            "policy_pods",
            "Pods of this node by the policy's verdict, those that are profiled left out",
            ["verdict"],
            [
                (["excluded"], self.excluded_pods),
                (["undecided"], self.undecided_pods),
            ],
        );
        figures.gauge(
            "policy_entries",
            "Verdicts in the kernel's map, by which it excludes samples",
            self.entries,
        );
        figures.gauge(
            "policy_entries_left_out",
            "Verdicts without room there; the collector drops these samples itself (stage policy)",
            self.left_out,
        );
        figures.counter(
            "policy_entry_limits",
            "Times that a verdict found no room in the kernel's map, or was refused",
            self.limited,
        );
    }
}
