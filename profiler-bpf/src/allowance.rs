//! What a CPU may spend on what is not needed for every sample: time for deep stacks, and bytes
//! for copies of stacks.
//!
//! Each is a purse that fills at a steady rate up to what one second brings, so that a short
//! burst is served in full and a long one at the rate.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use profiler_bpf::{
    per_cpu::Allowances,
    settings::{COPY_BYTES_PER_SECOND, PROOFS_PER_SECOND_MAX, WAKEUP_NS},
};

use crate::{per_cpu, task::setting};

setting!(
    /// Of a million nanoseconds these may be spent in the program; beyond, only
    /// [`BUDGET_FREE_FRAMES`](profiler_bpf::settings::BUDGET_FREE_FRAMES) are walked.
    BUDGET_PPM
);
setting!(
    /// Of this many samples with a complete walk the stack of one is copied to prove the walk; 0
    /// for none.
    PROOF_ONE_IN
);

const SECOND_NS: u64 = 1_000_000_000;

/// Fills the purses for the time that went by.
#[inline(always)]
pub(crate) fn fill(now_ns: u64) {
    let Some(purses) = purses() else { return };
    let mut elapsed_ns = now_ns.wrapping_sub(purses.filled_ns);
    if elapsed_ns > SECOND_NS {
        elapsed_ns = SECOND_NS;
    }
    purses.filled_ns = now_ns;
    let ppm = crate::task::get(&BUDGET_PPM) as u64;
    purses.walk_ns = sum_to(purses.walk_ns, elapsed_ns * ppm / 1_000_000, ppm * 1_000);
    purses.copy_bytes = sum_to(
        purses.copy_bytes,
        elapsed_ns * COPY_BYTES_PER_SECOND / SECOND_NS,
        COPY_BYTES_PER_SECOND,
    );
    purses.proofs = sum_to(
        purses.proofs,
        elapsed_ns * PROOFS_PER_SECOND_MAX / 1_000_000,
        PROOFS_PER_SECOND_MAX * 1_000,
    );
}

/// Whether a walk that began at `begin_ns` may go on.
#[inline(always)]
pub(crate) fn has_walk_time(begin_ns: u64) -> bool {
    // SAFETY: the helper has no preconditions.
    let spent_ns = unsafe { bpf_ktime_get_ns() } - begin_ns;
    purses().is_some_and(|it| spent_ns < it.walk_ns)
}

/// Takes the program's time from the purse.
#[inline(always)]
pub(crate) fn spend_walk_time(spent_ns: u64) {
    if let Some(purses) = purses() {
        purses.walk_ns = purses.walk_ns.saturating_sub(spent_ns);
    }
}

/// Takes bytes for a copy, if there are as many.
#[inline(always)]
pub(crate) fn take_copy_bytes(bytes: u64) -> bool {
    let Some(purses) = purses() else { return false };
    if purses.copy_bytes < bytes {
        return false;
    }
    purses.copy_bytes -= bytes;
    true
}

/// Whether user space is to be woken now for a process without rows.
#[inline(always)]
pub(crate) fn take_wakeup(now_ns: u64) -> bool {
    let Some(purses) = purses() else { return false };
    if now_ns.wrapping_sub(purses.woken_ns) < WAKEUP_NS {
        return false;
    }
    purses.woken_ns = now_ns;
    true
}

/// Whether this sample's walk is to be proved.
#[inline(always)]
pub(crate) fn take_proof() -> bool {
    let one_in = crate::task::get(&PROOF_ONE_IN) as u64;
    let Some(purses) = purses() else { return false };
    if one_in == 0 {
        return false;
    }
    if purses.proof_in > 1 {
        purses.proof_in -= 1;
        return false;
    }
    if purses.proofs < 1_000 {
        return false;
    }
    purses.proof_in = one_in;
    purses.proofs -= 1_000;
    true
}

#[inline(always)]
fn sum_to(a: u64, b: u64, most: u64) -> u64 {
    let sum = a + b;
    if sum > most { most } else { sum }
}

#[inline(always)]
fn purses() -> Option<&'static mut Allowances> {
    // SAFETY: the value is this CPU's own, and the program does not interrupt itself.
    per_cpu().map(|it| unsafe { &mut (*it).allowances })
}
