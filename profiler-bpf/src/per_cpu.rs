//! The program's state for each processor between its samples, in one value of one map.
//!
//! When the program runs, all that it touches is cold, and the first touch of a page costs as much as
//! a hundred instructions: what each sample needs lies together, before what few samples have.
//!
//! A sample takes about 1 us when its data is in the processor's caches. But the program runs after
//! 10 ms of other work, and on a virtual machine the first touch of a page then costs 0.4
//! to 0.9 us. So the counters are one value (as elements of a map each would have a cache line of
//! its own), the cgroup is remembered, and a found rule takes 16 bytes. If 2,000 functions call
//! each other at random, 4,096 rules of 16 bytes cost a tenth less than 512 of 32 bytes; 2,048 save
//! less than half as much. One map value in place of three changed nothing: a ratio of 1.00 over 14
//! rounds of `testdata/bench/cost-ab` (`COST_AB_LOAD=varied`), which compares two builds in one
//! run.

use crate::{record::Scratch, settings::COPY_BYTES_PER_SECOND};

/// Addresses whose rule a CPU remembers, in each of [`FOUND_PARTS`].
pub const FOUND_MAX: usize = 2048;

/// Words of one of them: the address with the number of its rule below it (an address of user space has
/// at most 47 bits, or 56 with five-level page tables), and the version of the
/// process's mappings, which is different for each process.
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
    /// The allowances that are left on this CPU.
    pub allowances: Allowances,
    /// The record that is being made.
    pub scratch: Scratch,
}

/// Allowances that are left on a CPU for work that not every sample needs: time for deep stacks, bytes for copies of stacks, and
/// proofs. Each fills at a steady rate up to what one second brings, so that a short burst is served in full and a
/// long one at the rate.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Allowances {
    /// When they were last filled, nanoseconds of CLOCK_MONOTONIC.
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

impl Allowances {
    /// Adds what copies may take in `elapsed_ns`, at most a second.
    #[inline(always)]
    pub fn fill_copies(&mut self, elapsed_ns: u64) {
        let more = elapsed_ns * COPY_BYTES_PER_SECOND / 1_000_000_000;
        self.copy_bytes = sum_to(self.copy_bytes, more, COPY_BYTES_PER_SECOND);
    }

    /// Whether a copy may take so many bytes.
    #[inline(always)]
    pub fn has_copy_bytes(&self, bytes: u64) -> bool {
        self.copy_bytes >= bytes
    }

    /// Takes the bytes of a copy that has its place in the ring.
    #[inline(always)]
    pub fn spend_copy_bytes(&mut self, bytes: u64) {
        self.copy_bytes = self.copy_bytes.saturating_sub(bytes);
    }
}

/// `a` and `b`, at most `most`.
#[inline(always)]
pub const fn sum_to(a: u64, b: u64, most: u64) -> u64 {
    let sum = a + b;
    if sum > most { most } else { sum }
}

// The kernel's limit for a value of such a map.
const _: () = assert!(size_of::<PerCpu>() <= 32 << 10 && size_of::<Found>() <= 32 << 10);
