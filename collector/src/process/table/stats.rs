//! Counters of the table.

use metrics::Figures;

/// Counters of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Processes in the table, ended ones included.
    pub processes: usize,
    /// Files that are mapped.
    pub files: usize,
    /// Side-band events that the kernel lost.
    pub events_lost: u64,
    /// Processes read from `/proc` because they had no event, or events were lost.
    pub read_late: u64,
    /// Reads that missed their deadline.
    pub reads_timed_out: u64,
    /// Samples whose process was not read, because too many reads were running.
    pub reads_limited: u64,
    /// Samples whose process `/proc` no longer had.
    pub unknown: u64,
    /// Mappings refused because a limit was reached.
    pub limited: u64,
    /// Processes evicted from the full table, the least recently sampled first.
    pub evicted: u64,
    /// Processes that ended without an event.
    pub ended_unseen: u64,
}

impl TableStats {
    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.gauge("processes", "Processes in the table", self.processes);
        figures.gauge("mapped_files", "Files that processes map", self.files);
        figures.counters(
            "processes_not_read",
            "Processes that were not read from /proc, by reason: the read missed its deadline, or too many reads were running",
            ["reason"],
            [
                (["timed_out"], self.reads_timed_out),
                (["limited"], self.reads_limited),
            ],
        );
        for (name, help, count) in [
            (
                "side_band_lost",
                "Process events that the kernel lost; all processes are then read again",
                self.events_lost,
            ),
            (
                "processes_read_late",
                "Processes read from /proc because they had no event, or events were lost",
                self.read_late,
            ),
            (
                "processes_unknown",
                "Samples of processes that ended before the collector knew anything of them",
                self.unknown,
            ),
            (
                "processes_evicted",
                "Processes that were evicted from the full table, the least recently sampled first",
                self.evicted,
            ),
            (
                "processes_ended_unseen",
                "Processes that ended without an event, since events were lost",
                self.ended_unseen,
            ),
            (
                "process_limits",
                "Mappings refused because a limit was reached",
                self.limited,
            ),
        ] {
            figures.counter(name, help, count);
        }
    }
}
