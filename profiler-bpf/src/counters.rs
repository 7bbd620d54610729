//! The program's own account: entries, outcomes, time.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use profiler_bpf::{
    settings::counter::{self, Counters},
    uncopied::Uncopied,
};

use crate::{COUNTERS, arithmetic::zero};

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts an entry.
#[inline(always)]
pub(crate) fn count_entry() {
    if let Some(counters) = counters() {
        counters[counter::ENTRIES] += 1;
    }
}

/// Counts the outcome, given by its number, of an entry that began at `begin_ns`, and its time, which
/// it gives.
#[inline(always)]
pub(crate) fn count_outcome(outcome: u8, begin_ns: u64) -> u64 {
    let spent_ns = now_ns() - begin_ns;
    if let Some(counters) = counters() {
        // The mask changes nothing; it lets the verifier see the bound.
        counters[(counter::OUTCOMES + usize::from(outcome)) & (counter::PLACES - 1)] += 1;
        counters[counter::TIME_NS] += spent_ns;
    }
    spent_ns
}

/// Counts a stack that was to be copied and was not.
#[inline(always)]
pub(crate) fn count_uncopied(reason: Uncopied) {
    if let Some(counters) = counters() {
        // The mask changes nothing, as above.
        counters[(counter::UNCOPIED + reason as usize) & (counter::PLACES - 1)] += 1;
    }
}

/// This CPU's counters.
#[inline(always)]
fn counters() -> Option<&'static mut Counters> {
    // SAFETY: the map's value is this CPU's own and of this type, and the program
    // does not interrupt itself, so no other context writes it.
    COUNTERS
        .get_ptr_mut(zero())
        .map(|counters| unsafe { &mut *counters })
}
