//! What the program keeps for each processor between its samples, in one value of one map.
//!
//! When the program runs, all that it touches is cold, and the first touch of a page costs as much as
//! a hundred instructions: what each sample needs lies together, before what few samples have.

use crate::record::Scratch;

/// Addresses whose rule a CPU remembers, in each of [`FOUND_PARTS`].
pub const FOUND_MAX: usize = 2048;

/// Words of one of them: the address with the number of its rule below it (an address of user space has
/// at most 47 bits, or 56 on kernels that nobody has asked for more), and the version of the
/// process's mappings, which tells processes apart, too.
pub const FOUND_WORDS: usize = 2;

/// Values of the per-CPU map `FOUND`.
pub const FOUND_PARTS: u32 = 2;

/// A value of the per-CPU map `FOUND`.
pub type Found = [u64; FOUND_MAX * FOUND_WORDS];

/// The value of the per-CPU map `PER_CPU`.
///
/// One per CPU is enough: the program does not interrupt itself, since the kernel does not enter a
/// second BPF program on a CPU from a perf event (`bpf_prog_active` in `bpf_overflow_handler`).
#[repr(C)]
pub struct PerCpu {
    /// What this CPU may still spend.
    pub allowances: Allowances,
    /// The record that is being made.
    pub scratch: Scratch,
}

/// What is left on a CPU of what is not needed for every sample.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Allowances {
    /// When the purses were last filled, nanoseconds of CLOCK_MONOTONIC.
    pub filled_ns: u64,
    /// Nanoseconds for walks.
    pub walk_ns: u64,
    /// Bytes for copies of stacks.
    pub copy_bytes: u64,
    /// Thousandths of proofs.
    pub proofs: u64,
    /// Complete walks until the next proof is due.
    pub proof_in: u64,
    /// When user space was last woken for a process without rows.
    pub woken_ns: u64,
}

// The kernel's limit for a value of such a map.
const _: () = assert!(size_of::<PerCpu>() <= 32 << 10 && size_of::<Found>() <= 32 << 10);
