//! What naming did and cost, for the collector's metrics.

use std::time::Duration;

use super::naming::{Naming, UnnamedReason};
use crate::accounts::ProcessAccount;

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
    /// Files dropped from the cache for want of room.
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
    /// They ended by themselves, above the limit of their memory.
    pub memory: u64,
    /// They died: a file changed while it was read, or was more than the parsers bear.
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
}
