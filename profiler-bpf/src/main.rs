//! The program that the kernel runs at every tick of a sampling timer.
//!
//! It reads registers, walks the user stack, asks the kernel for its own stack,
//! and copies the record into the ring buffer. Everything else is user space's.
//! Each entry counts one [`Outcome`], and the time it took.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "`perf_event` makes a public function of `sample`, and drops its documentation"
)]

mod counters;
mod sample;
mod stack_window;
mod task;

use aya_ebpf::{
    macros::{map, perf_event},
    maps::{PerCpuArray, ProgramArray, RingBuf},
    programs::PerfEventContext,
};
use profiler_bpf::{
    outcome::Outcome,
    record::Scratch,
    settings::{PROGRAM_WALK, counter::Counters},
};

/// Records on their way to the collector. The loader sets the real size.
#[map]
static RING: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// The record that is being made: too large for the 512 bytes of a BPF stack.
///
/// One per CPU is enough: the program does not interrupt itself, since the kernel
/// does not enter a second BPF program on a CPU from a perf event
/// (`bpf_prog_active` in `bpf_overflow_handler`).
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// What this CPU counted, by the places in [`counter`](profiler_bpf::settings::counter).
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Programs to go on with.
#[map]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Takes one sample of the interrupted task.
#[perf_event]
pub fn sample(context: PerfEventContext) -> u32 {
    let begin_ns = counters::now_ns();
    counters::count_entry();
    let Some(scratch) = scratch() else {
        counters::count_outcome(Outcome::Internal as u8, begin_ns);
        return 0;
    };
    let walks = sample::begin(scratch, context.ctx, begin_ns);
    if walks && sample::walk(scratch) {
        go_on(&context);
    }
    finish(scratch, &context)
}

/// Goes on with the walk of a deep stack.
#[perf_event]
pub fn walk(context: PerfEventContext) -> u32 {
    let Some(scratch) = scratch() else {
        return 0;
    };
    if sample::walk(scratch) {
        go_on(&context);
    }
    finish(scratch, &context)
}

/// Runs [`walk`] in place of the program that calls this, which does not come back
/// but where the kernel has no more tail calls to give: the stack is cut there.
#[inline(always)]
fn go_on(context: &PerfEventContext) {
    // SAFETY: the loader puts `walk` there, which is of the same type.
    let _ = unsafe { PROGRAMS.tail_call(context, PROGRAM_WALK) };
}

#[inline(always)]
fn finish(scratch: &mut Scratch, context: &PerfEventContext) -> u32 {
    let outcome = sample::finish(scratch, context.ctx);
    counters::count_outcome(outcome, scratch.header.time_ns);
    0
}

/// This CPU's scratch record.
#[inline(always)]
fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the map's value is this CPU's own and of this type, and the program
    // does not interrupt itself.
    SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
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
