//! This CPU's [`Allowances`], and the settings that they fill by.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use profiler_bpf::{
    per_cpu::{Allowances, sum_to},
    settings::{PROOFS_PER_SECOND_MAX, WAKEUP_NS},
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

/// Fills the allowances for the time that went by.
#[inline(always)]
pub(crate) fn fill(now_ns: u64) {
    let Some(allowances) = allowances() else {
        return;
    };
    let mut elapsed_ns = now_ns.wrapping_sub(allowances.filled_ns);
    if elapsed_ns > SECOND_NS {
        elapsed_ns = SECOND_NS;
    }
    allowances.filled_ns = now_ns;
    let ppm = crate::task::get(&BUDGET_PPM) as u64;
    allowances.walk_ns = sum_to(
        allowances.walk_ns,
        elapsed_ns * ppm / 1_000_000,
        ppm * 1_000,
    );
    allowances.fill_copies(elapsed_ns);
    allowances.proofs = sum_to(
        allowances.proofs,
        elapsed_ns * PROOFS_PER_SECOND_MAX / 1_000_000,
        PROOFS_PER_SECOND_MAX * 1_000,
    );
}

/// Whether a walk that began at `begin_ns` may go on.
#[inline(always)]
pub(crate) fn has_walk_time(begin_ns: u64) -> bool {
    // SAFETY: the helper has no preconditions.
    let spent_ns = unsafe { bpf_ktime_get_ns() } - begin_ns;
    allowances().is_some_and(|allowances| spent_ns < allowances.walk_ns)
}

/// Takes the program's time from the allowance.
#[inline(always)]
pub(crate) fn spend_walk_time(spent_ns: u64) {
    if let Some(allowances) = allowances() {
        allowances.walk_ns = allowances.walk_ns.saturating_sub(spent_ns);
    }
}

/// Whether a copy may take so many bytes.
#[inline(always)]
pub(crate) fn has_copy_bytes(bytes: u64) -> bool {
    allowances().is_some_and(|allowances| allowances.has_copy_bytes(bytes))
}

/// Takes the bytes of a copy that has its place in the ring.
#[inline(always)]
pub(crate) fn spend_copy_bytes(bytes: u64) {
    if let Some(allowances) = allowances() {
        allowances.spend_copy_bytes(bytes);
    }
}

/// Whether user space is to be woken now for a process without rows.
#[inline(always)]
pub(crate) fn take_wakeup(now_ns: u64) -> bool {
    let Some(allowances) = allowances() else {
        return false;
    };
    if now_ns.wrapping_sub(allowances.woken_ns) < WAKEUP_NS {
        return false;
    }
    allowances.woken_ns = now_ns;
    true
}

/// Whether this sample's walk is to be proved.
#[inline(always)]
pub(crate) fn take_proof() -> bool {
    let one_in = crate::task::get(&PROOF_ONE_IN) as u64;
    let Some(allowances) = allowances() else {
        return false;
    };
    if one_in == 0 {
        return false;
    }
    if allowances.proof_in > 1 {
        allowances.proof_in -= 1;
        return false;
    }
    if allowances.proofs < 1_000 {
        return false;
    }
    allowances.proof_in = one_in;
    allowances.proofs -= 1_000;
    true
}

#[inline(always)]
fn allowances() -> Option<&'static mut Allowances> {
    // SAFETY: the value is this CPU's own, and the program does not interrupt itself.
    per_cpu().map(|per_cpu| unsafe { &mut (*per_cpu).allowances })
}
