//! The program's own account: entries, outcomes, time.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use profiler_bpf::{outcome::Outcome, settings::counter};

use crate::COUNTERS;

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts an entry.
#[inline(always)]
pub(crate) fn count_entry() {
    add(counter::ENTRIES, 1);
}

/// Counts the outcome of an entry that began at `begin_ns`, and its time.
#[inline(always)]
pub(crate) fn count_outcome(outcome: Outcome, begin_ns: u64) {
    add(counter::OUTCOMES + outcome as u32, 1);
    add(counter::TIME_NS, now_ns() - begin_ns);
}

#[inline(always)]
fn add(index: u32, amount: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the map is per CPU and the program does not interrupt itself, so
        // nobody else writes this value.
        unsafe { *value += amount };
    }
}
