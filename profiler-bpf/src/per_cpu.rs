//! What the program keeps for each processor between its samples, in one value of one map.
//!
//! When the program runs, all that it touches is cold, and the first touch of a page costs as much as
//! a hundred instructions: what each sample needs lies together, before what few samples have.

use crate::record::Scratch;

/// Rules that a CPU remembers, of 32 bytes each. They lie in 4 pages: a stack of 30 frames touches all
/// of them, and each is cold.
pub const FOUND_MAX: usize = 512;

/// Words of one of them: address, version of the process's mappings (which tells processes apart,
/// too), and the two words of the rule.
pub const FOUND_WORDS: usize = 4;

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
    /// Rules that were found before, on this CPU.
    pub found: [u64; FOUND_MAX * FOUND_WORDS],
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
const _: () = assert!(size_of::<PerCpu>() <= 32 << 10);
