//! The program that the kernel runs at every tick of a sampling timer.
//!
//! It reads registers, walks the user stack, asks the kernel for its own stack,
//! and copies the record into the ring buffer. Everything else is user space's.
//! Each entry counts one [`Outcome`], and the time it took.

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
mod counters;
mod lookup;
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
    record::Scratch,
    settings::{PROGRAM_WALK, counter::Counters},
    tables::{BLOCKS_MAX, MAPPINGS_MAX, PAGE_ROWS, PAGES_MAX, PROCESSES_MAX, RULES_MAX},
};

/// Records on their way to the collector. The loader sets the real size.
#[btf_map]
static RING: RingBuf<(), { 1 << 20 }> = RingBuf::new();

/// What this CPU counted, by the places in [`counter`](profiler_bpf::settings::counter): apart from the
/// rest, since user space reads it ten times a second.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// What each CPU has for itself. The record that is being made is too large for the 512 bytes of a
/// BPF stack.
#[btf_map]
static PER_CPU: PerCpuArray<PerCpu, 1> = PerCpuArray::new();

/// Rules that were found before, on each CPU.
#[btf_map]
static FOUND: PerCpuArray<Found, { FOUND_PARTS as usize }> = PerCpuArray::new();

/// Programs to go on with.
#[btf_map]
static PROGRAMS: ProgramArray<1> = ProgramArray::new();

/// See [`tables`](profiler_bpf::tables) for these five.
#[btf_map]
static PROCESSES: HashMap<u32, [u64; 4], { PROCESSES_MAX as usize }> = HashMap::new();

/// Mappings of all processes.
#[btf_map]
static MAPPINGS: Array<[u64; 4], { MAPPINGS_MAX as usize }> = Array::new();

/// Where the rows of each 64 KiB of code lie.
#[btf_map]
static BLOCKS: Array<u64, { BLOCKS_MAX as usize }> = Array::new();

/// Pages of rows.
#[btf_map]
static ROWS: ArrayOfMaps<Array<[u32; PAGE_ROWS], 1>, { PAGES_MAX as usize }> = ArrayOfMaps::new();

/// Rules by their numbers.
#[btf_map]
static RULES: Array<[u64; 2], { RULES_MAX as usize }> = Array::new();

/// Takes one sample of the interrupted task.
#[perf_event]
pub fn sample(context: PerfEventContext) -> u32 {
    let begin_ns = counters::now_ns();
    counters::count_entry();
    let Some(scratch) = scratch() else {
        counters::count_outcome(Outcome::Internal as u8, begin_ns);
        return 0;
    };
    // SAFETY: the record is this CPU's own.
    unsafe {
        let walks = sample::begin(&mut *scratch, context.ctx, begin_ns);
        if walks && walk::walk_chunk(scratch) {
            go_on(&context);
        }
        finish(scratch, &context)
    }
}

/// Goes on with the walk of a deep stack.
#[perf_event]
pub fn walk(context: PerfEventContext) -> u32 {
    let Some(scratch) = scratch() else {
        return 0;
    };
    // SAFETY: the record is this CPU's own.
    unsafe {
        if allowance::has_walk_time((*scratch).header.time_ns) {
            if walk::walk_chunk(scratch) {
                go_on(&context);
            }
        } else {
            (*scratch).header.outcome = Outcome::CutByBudget as u8;
        }
        finish(scratch, &context)
    }
}

/// Runs [`walk`] in place of the program that calls this, which does not come back
/// but where the kernel has no more tail calls to give: the stack is cut there.
#[inline(always)]
fn go_on(context: &PerfEventContext) {
    // SAFETY: the loader puts `walk` there, which is of the same type.
    unsafe { PROGRAMS.tail_call(context, PROGRAM_WALK) };
}

/// # Safety
/// `scratch` is this CPU's record, to which nothing refers.
#[inline(always)]
unsafe fn finish(scratch: *mut Scratch, context: &PerfEventContext) -> u32 {
    // SAFETY: as the caller says.
    let (outcome, begin_ns) = unsafe {
        let outcome = sample::finish(scratch, context.ctx);
        (outcome, (*scratch).header.time_ns)
    };
    let spent_ns = counters::count_outcome(outcome, begin_ns);
    allowance::spend_walk_time(spent_ns);
    0
}

/// What this CPU has for itself.
///
/// A pointer: functions with names each ask for it, so that a reference of one to a part would be
/// in the way of another's.
#[inline(always)]
fn per_cpu() -> Option<*mut PerCpu> {
    PER_CPU.get_ptr_mut(arithmetic::zero())
}

/// This CPU's scratch record.
#[inline(always)]
fn scratch() -> Option<*mut Scratch> {
    // SAFETY: the map's value is of this type.
    per_cpu().map(|it| unsafe { &raw mut (*it).scratch })
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
