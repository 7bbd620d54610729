//! Counts and cost of naming, for the collector's metrics.

use std::time::Duration;

use metrics::Figures;

use super::naming::Naming;
use crate::accounts::ProcessAccount;
use crate::file::UnnamedReason;
use crate::metrics::seconds;

/// Counts since the start, and the state of now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamerStats {
    /// Requests sent to the child, repeated ones included.
    pub requests: u64,
    /// Addresses that were to be named.
    pub addresses: u64,
    /// Of those, answered from the cache.
    pub cache_hits: u64,
    /// Of the addresses, given a name.
    pub named: u64,
    /// Of the addresses, left without one, by [`UnnamedReason::code`] less 1.
    pub unnamed: [u64; UnnamedReason::ALL.len()],
    /// Files whose debug information could not be used, so that the symbol table served.
    pub files_without_debug_info: u64,
    /// Files with split debug information (`.dwo`) that were looked for.
    pub split_files: u64,
    /// Of those, not found, so that their inlined calls are missing.
    pub split_files_missing: u64,
    /// Further ones that were not looked for, since a question needed too many or its time was spent, or could not be used,
    /// since the child failed.
    pub split_files_left: u64,
    /// Children started.
    pub starts: u64,
    /// Children ended, by reason.
    pub ends: ChildEnds,
    /// Requests put off, by reason.
    pub held_back: HeldBack,
    /// Whether the child may not change its root directory; it then uses no
    /// debug information at all.
    pub unconfined: bool,
    /// Bytes that the cache holds.
    pub cache_bytes: u64,
    /// Files that the cache knows.
    pub cache_files: u64,
    /// Files dropped from the cache for lack of room.
    pub cache_evictions: u64,
    /// The child that runs now.
    pub child: Option<ProcessAccount>,
    /// CPU time of the thread that asks.
    pub asking_cpu: Duration,
    /// CPU time that may be used now, in seconds; below 0 when more was used.
    pub cpu_left_s: f64,
    /// CPU time of all children so far, in nanoseconds.
    pub child_cpu_ns: u64,
    /// The most memory that any child ever had resident, in bytes.
    pub child_resident_peak_bytes: u64,
}

/// Why children ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildEnds {
    /// They ended by themselves, above the limit of their resident memory.
    pub memory: u64,
    /// They reached the limit of their private memory.
    pub out_of_memory: u64,
    /// They died: a file changed while it was read, or a parser crashed, or the kernel was out of memory.
    pub died: u64,
    /// They did not answer in time.
    pub timed_out: u64,
    /// They sent what is not an answer.
    pub nonsense: u64,
    /// They could not be started.
    pub not_started: u64,
}

/// Requests that were put off, each of up to 512 addresses: these have the reason [`UnnamedReason::Limit`] as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// The CPU time was spent.
    pub cpu_time: u64,
    /// The window's time was.
    pub window_time: u64,
    /// Too many children had failed just before.
    pub children: u64,
}

impl NamerStats {
    pub(super) fn count(&mut self, naming: &Naming) {
        self.addresses += 1;
        match naming.unnamed() {
            None => self.named += 1,
            Some(reason) => {
                self.unnamed[usize::from(reason.code()) - 1] += 1;
            }
        }
    }

    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        self.show_names(figures);
        self.show_work(figures);
        self.show_files(figures);
    }

    fn show_names(&self, figures: &mut Figures<'_>) {
        figures.counter("names", "Addresses that were to be named", self.addresses);
        figures.counter(
            "names_cached",
            "Addresses whose names were known already",
            self.cache_hits,
        );
        figures.counters(
            "names_unnamed",
            "Addresses that were left without a name, by reason",
            ["reason"],
            UnnamedReason::ALL
                .into_iter()
                .zip(self.unnamed)
                .map(|(reason, count)| ([reason.as_str()], count)),
        );
        figures.gauge("name_cache_bytes", "Bytes of names kept", self.cache_bytes);
        figures.counter(
            "name_cache_evictions",
            "Files whose names were dropped for lack of room",
            self.cache_evictions,
        );
    }

    fn show_work(&self, figures: &mut Figures<'_>) {
        figures.counter(
            "name_cpu_seconds",
            "CPU time of naming, in the child and in the thread that asks it (--name-cpu)",
            self.asking_cpu.as_secs_f64() + seconds(self.child_cpu_ns),
        );
        figures.gauge(
            "name_cpu_left_seconds",
            "CPU time that naming may use now; below 0 when it has used more and waits",
            self.cpu_left_s,
        );
        figures.counters(
            "name_requests_held_back",
            "Requests for up to 512 names that were put off, by reason: the CPU time was spent (--name-cpu), or the window's \
             time, or too many naming children had failed just before",
            ["reason"],
            [
                (["cpu_time"], self.held_back.cpu_time),
                (["window_time"], self.held_back.window_time),
                (["children"], self.held_back.children),
            ],
        );
    }

    fn show_files(&self, figures: &mut Figures<'_>) {
        figures.counter(
            "name_files_without_debug_info",
            "Files whose debug information could not be used, so that the symbol table served",
            self.files_without_debug_info,
        );
        figures.counters(
            "name_split_files",
            "Files with split debug information (.dwo) that names needed, by what became of it",
            ["result"],
            [
                (["found"], self.split_files - self.split_files_missing),
                (["missing"], self.split_files_missing),
                (["left"], self.split_files_left),
            ],
        );
        let ends = self.ends;
        figures.counters(
            "namer_ends",
            "Naming children that ended, by reason",
            ["reason"],
            [
                (["memory"], ends.memory),
                (["out_of_memory"], ends.out_of_memory),
                (["died"], ends.died),
                (["timed_out"], ends.timed_out),
                (["nonsense"], ends.nonsense),
                (["not_started"], ends.not_started),
            ],
        );
    }
}
