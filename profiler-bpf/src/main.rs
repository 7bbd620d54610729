//! The program that the kernel runs at every tick of a sampling timer.
//!
//! It reads registers, walks the user stack, gets the kernel stack from the kernel,
//! and copies the record into the ring buffer. User space does everything else.
//! Each run counts one [`Outcome`], and the time it took.
//!
//! # The verifier's limits
//!
//! - Offsets in the kernel's structures come from its BTF: the collector reads them at start and
//!   sets them as constants before it loads the object (see `task`).
//! - The verifier checks a named function without pointer arguments once, wherever it is called.
//!   One such function walks one frame, with all its state in the scratch record. So a program of
//!   128 frames, of which 32 run in a row (4,096 frames), is 11,000 instructions for the verifier.
//! - The number of frames is kept in map memory. If it were in a register, the verifier would check
//!   the rest of the program for each of 3 x 1,024 ways out of the walk, and give up at a million
//!   instructions.
//! - Searches have no branches (see `arithmetic`).
//! - Kernel 5.10 compares all numbers exactly: where two paths meet with different constants in a
//!   register, it checks the rest again for each. Counting the pieces of a copied stack in a
//!   register exceeded the million instructions; with the count in the ring's record, verification
//!   takes 0.6 s in an emulated machine.
//! - On 5.10, a chain of calls has 512 bytes of stack together. Headers and registers are therefore
//!   written field by field, and not put together on the stack first.
//! - Nothing is cleared or copied by the compiler's `memset`, which works byte by byte.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "`perf_event` makes a public function of `sample`, and drops its documentation"
)]

mod allowance;
mod arithmetic;
mod cgroup;
mod counters;
mod lookup;
mod pid_namespace;
mod sample;
mod stack_copy;
mod stack_window;
mod task;
mod walk;

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::{btf_map, perf_event},
    programs::PerfEventContext,
};
use profiler_bpf::{
    outcome::Outcome,
    per_cpu::{FOUND_PARTS, Found, PerCpu},
    policy::{VERDICTS_MAX, Verdict},
    record::Scratch,
    settings::{PROGRAM_WALK, counter::Counters},
    tables::{BLOCKS_MAX, MAPPINGS_MAX, PAGE_ROWS, PAGES_MAX, PROCESSES_MAX, RULES_MAX},
};

/// Records on their way to the collector. The loader sets the real size.
#[btf_map]
static RING: RingBuf<(), { 1 << 20 }> = RingBuf::new();

/// This CPU's counters, by the places in [`counter`](profiler_bpf::settings::counter): apart from the
/// rest, since user space reads it ten times a second.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// Each CPU's own state. The record that is being made is too large for the 512 bytes of a
/// BPF stack.
#[btf_map]
static PER_CPU: PerCpuArray<PerCpu, 1> = PerCpuArray::new();

/// Each CPU's cache of found rules.
#[btf_map]
static FOUND: PerCpuArray<Found, { FOUND_PARTS as usize }> = PerCpuArray::new();

/// The program that continues a deep walk.
#[btf_map]
static PROGRAMS: ProgramArray<1> = ProgramArray::new();

/// Processes with mappings. [`tables`](profiler_bpf::tables) describes this map and the next four.
#[btf_map]
static PROCESSES: HashMap<u32, [u64; 4], { PROCESSES_MAX as usize }> = HashMap::new();

/// Mappings of all processes.
#[btf_map]
static MAPPINGS: Array<[u64; 4], { MAPPINGS_MAX as usize }> = Array::new();

/// The place of the rows of each 64 KiB of code.
#[btf_map]
static BLOCKS: Array<u64, { BLOCKS_MAX as usize }> = Array::new();

/// Pages of rows.
#[btf_map]
static ROWS: ArrayOfMaps<Array<[u32; PAGE_ROWS], 1>, { PAGES_MAX as usize }> = ArrayOfMaps::new();

/// Rules by their numbers.
#[btf_map]
static RULES: Array<[u64; 2], { RULES_MAX as usize }> = Array::new();

/// Verdicts of the policy, by cgroup ids. Without a policy the loader makes it small.
#[btf_map]
static VERDICTS: HashMap<u64, Verdict, { VERDICTS_MAX as usize }> = HashMap::new();

/// The generation of the verdicts.
#[btf_map]
static POLICY: Array<u64, 1> = Array::new();

/// Takes one sample of the interrupted task.
#[perf_event]
pub fn sample(context: PerfEventContext) -> u32 {
    let begin_ns = counters::now_ns();
    counters::count_entry();
    let Some(pid_tgid) = pid_namespace::pid_tgid() else {
        counters::count_outcome(Outcome::OtherNamespace as u8, begin_ns);
        return 0;
    };
    let Some(scratch) = scratch() else {
        counters::count_outcome(Outcome::Internal as u8, begin_ns);
        return 0;
    };
    // SAFETY: the record is this CPU's own.
    unsafe {
        if cgroup::find(&raw mut (*scratch).cgroup, pid_tgid, begin_ns) {
            counters::count_outcome(Outcome::Excluded as u8, begin_ns);
            return 0;
        }
        let walks = sample::begin(&mut *scratch, context.ctx, begin_ns);
        if walks && walk::walk_chunk(scratch) {
            continue_walk(&context);
        }
        finish(scratch, &context)
    }
}

/// Continues the walk of a deep stack.
#[perf_event]
pub fn walk(context: PerfEventContext) -> u32 {
    let Some(scratch) = scratch() else {
        return 0;
    };
    // SAFETY: the record is this CPU's own.
    unsafe {
        if allowance::has_walk_time((*scratch).header.time_ns) {
            if walk::walk_chunk(scratch) {
                continue_walk(&context);
            }
        } else {
            (*scratch).header.outcome = Outcome::CutByBudget as u8;
        }
        finish(scratch, &context)
    }
}

/// Replaces the running program by [`walk`]. Returns only if the kernel allows no further tail call:
/// the stack is cut there.
#[inline(always)]
fn continue_walk(context: &PerfEventContext) {
    // SAFETY: the loader puts `walk` there, which is of the same type.
    unsafe { PROGRAMS.tail_call(context, PROGRAM_WALK) };
}

/// # Safety
/// `scratch` is this CPU's record, to which nothing refers.
#[inline(always)]
unsafe fn finish(scratch: *mut Scratch, context: &PerfEventContext) -> u32 {
    // SAFETY: guaranteed by the caller.
    let (outcome, begin_ns) = unsafe {
        let outcome = sample::finish(scratch, context.ctx);
        (outcome, (*scratch).header.time_ns)
    };
    let spent_ns = counters::count_outcome(outcome, begin_ns);
    allowance::spend_walk_time(spent_ns);
    0
}

/// This CPU's own state.
///
/// A pointer and not a reference: several functions use parts of the state at the same time.
#[inline(always)]
fn per_cpu() -> Option<*mut PerCpu> {
    PER_CPU.get_ptr_mut(arithmetic::zero())
}

/// This CPU's scratch record.
#[inline(always)]
fn scratch() -> Option<*mut Scratch> {
    // SAFETY: the map's value is of this type.
    per_cpu().map(|value| unsafe { &raw mut (*value).scratch })
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that read kernel memory are for GPL programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
