//! What naming did and cost, for the collector's metrics.

use super::naming::{Naming, UnnamedReason};
use crate::accounts::ProcessAccount;

/// Counts since the start, and the state of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Further ones that were not looked for, since a question needed too many.
    pub split_files_left: u64,
    /// Children started.
    pub starts: u64,
    /// Children ended, by reason.
    pub ends: ChildEnds,
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
    /// Requests not made, because too many children had failed just before or the
    /// window's time was used up.
    pub held_back: u64,
}

impl NamerStats {
    pub(super) fn count(&mut self, naming: &Naming) {
        self.addresses += 1;
        match naming {
            Naming::Named(_) => self.named += 1,
            Naming::Unnamed(reason) => {
                self.unnamed[usize::from(reason.code()) - 1] += 1;
            }
        }
    }
}
