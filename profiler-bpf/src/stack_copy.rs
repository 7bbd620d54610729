//! The copy of a stack, for user space to unwind.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated::{bpf_probe_read_user, bpf_ringbuf_query},
    maps::ring_buf::RingBufBytes,
};
use profiler_bpf::{
    copy_size::{CopySize, record_bytes},
    outcome::Outcome,
    record::{KIND_STACK, RED_ZONE_BYTES, STACK_HEADER_BYTES, Scratch, StackHeader},
    settings::{STACK_COPY_BYTES, STACK_COPY_BYTES_MAX, STACK_END_BYTES},
    uncopied::Uncopied,
};

use crate::{RING, allowance, arithmetic::clear, counters, scratch, task};

/// Bytes that are read at once.
const PIECE_BYTES: u64 = 4096;

/// No stack is larger: an end that seems to lie further up is another stack's. `ulimit -s` is 8 MiB most
/// often, and threads are given the same.
const STACK_BYTES_MAX: u64 = 64 << 20;

/// The result of [`copy_stack`] when there is a copy in the ring.
pub(crate) const IS_COPIED: u32 = 1;

/// Puts the registers and the top of the stack into the ring. Gives [`IS_COPIED`] when it did; why not is counted.
///
/// A function with a name: see [`step`](crate::walk::step).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn copy_stack() -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the record is this CPU's own, and the caller does not refer to it meanwhile.
    match copy_wanted(unsafe { &*scratch }) {
        Ok(()) => IS_COPIED,
        Err(reason) => {
            counters::count_uncopied(reason);
            0
        }
    }
}

#[inline(always)]
fn copy_wanted(scratch: &Scratch) -> Result<(), Uncopied> {
    let (used, size) = ring_use();
    if used > size / 2 {
        return Err(Uncopied::RingBusy);
    }
    const A: usize = STACK_COPY_BYTES[0];
    const B: usize = STACK_COPY_BYTES[1];
    const C: usize = STACK_COPY_BYTES[2];
    const D: usize = STACK_COPY_BYTES[3];
    let (wanted, end) = wanted_bytes(scratch.user_registers[7]);
    match CopySize::of(wanted, end) {
        CopySize::Small => copy::<A, 0>(scratch, 0),
        CopySize::Medium => copy::<B, 0>(scratch, 0),
        CopySize::Large => copy::<C, 0>(scratch, 0),
        CopySize::Whole => copy::<D, 0>(scratch, 0),
        CopySize::WholeAndEnd => copy::<D, STACK_END_BYTES>(scratch, end),
    }
}

/// Bytes of the ring in use, and its capacity.
#[inline(always)]
fn ring_use() -> (u64, u64) {
    let ring = ptr::from_ref(&RING).cast_mut().cast();
    // SAFETY: the helper reads two numbers of the ring.
    unsafe {
        (
            bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()),
            bpf_ringbuf_query(ring, BPF_RB_RING_SIZE.into()),
        )
    }
}

/// Whether the collector is to look at the ring at once, and not when it does so anyway, ten times a
/// second: copies may fill it sooner, and a process whose rows are missing wants them sooner.
#[inline(always)]
fn wakeup_flags(scratch: &Scratch) -> u64 {
    let is_wanted = scratch.header.outcome == Outcome::NoRows as u8
        && allowance::take_wakeup(scratch.header.time_ns);
    let (used, size) = ring_use();
    u64::from(if is_wanted || used > size / 4 {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    })
}

/// Bytes of a stack that are copied: up to where the main thread's stack began, or to the
/// thread's own data, which libraries put at the top of its stack; at most
/// [`STACK_COPY_BYTES_MAX`]. When there is more, also the address where it ends.
#[inline(always)]
fn wanted_bytes(sp: u64) -> (u64, u64) {
    const MAX: u64 = STACK_COPY_BYTES_MAX as u64;
    let mut wanted = STACK_BYTES_MAX;
    let mut end = 0;
    for top in <[u64; 2]>::from(task::stack_top_hints()) {
        // A little more, for reads at the outermost frame, and below the stack pointer.
        let bytes = top
            .wrapping_sub(sp)
            .wrapping_add(64 + RED_ZONE_BYTES as u64);
        if bytes < wanted {
            wanted = bytes;
            end = top;
        }
    }
    if wanted > MAX {
        (MAX, end)
    } else {
        (wanted, 0)
    }
}

/// Copies `BYTES` from the stack pointer on, and `END_BYTES` up to the page in which the stack ends.
#[inline(always)]
fn copy<const BYTES: usize, const END_BYTES: usize>(
    scratch: &Scratch,
    end: u64,
) -> Result<(), Uncopied> {
    let bytes = const { record_bytes(BYTES, END_BYTES) };
    if !allowance::has_copy_bytes(bytes) {
        return Err(Uncopied::Allowance);
    }
    let Some(mut record) = RING.reserve_bytes(bytes as usize, 0) else {
        return Err(Uncopied::RingFull);
    };
    allowance::spend_copy_bytes(bytes);
    let sp = scratch.user_registers[7];
    // The page below may not be there.
    let below_sp = if sp & (PIECE_BYTES - 1) >= RED_ZONE_BYTES as u64 {
        RED_ZONE_BYTES as u64
    } else {
        0
    };
    let end_address = (end | (PIECE_BYTES - 1))
        .wrapping_add(1)
        .wrapping_sub(END_BYTES as u64);
    let header = record.as_mut_ptr().cast::<StackHeader>();
    // SAFETY: the record has room for the header, and begins at a multiple of 8. Field by field: a
    // whole header would be put together on the stack first.
    unsafe {
        clear(header);
        (&raw mut (*header).kind).write(KIND_STACK);
        (&raw mut (*header).cpu).write(scratch.header.cpu);
        (&raw mut (*header).time_ns).write(scratch.header.time_ns);
        (&raw mut (*header).below_sp).write(below_sp as u32);
        (&raw mut (*header).end_address).write(end_address);
        let registers = (&raw mut (*header).registers).cast::<u64>();
        for (place, register) in scratch.user_registers.iter().enumerate() {
            registers.add(place).write_volatile(*register);
        }
        let stack_bytes = &raw mut (*header).stack_bytes;
        let end_bytes = &raw mut (*header).end_bytes;
        read_stack::<0, BYTES>(&mut record, sp.wrapping_sub(below_sp), stack_bytes);
        read_stack::<BYTES, END_BYTES>(&mut record, end_address, end_bytes);
    }
    record.submit(wakeup_flags(scratch));
    Ok(())
}

/// Reads `BYTES` of the stack from `base` on to `PLACE` behind the record's header, as far as they can
/// be read, and stores their number at `read`.
///
/// The number is kept there, in the ring, where the verifier does not follow it: it would check the
/// rest of the program again for each.
///
/// # Safety
/// `read` is a part of the record's header. The record has room.
#[inline(always)]
unsafe fn read_stack<const PLACE: usize, const BYTES: usize>(
    record: &mut RingBufBytes<'_>,
    base: u64,
    read: *mut u32,
) {
    for piece in 0..BYTES as u64 / PIECE_BYTES {
        let at = base.wrapping_add(piece * PIECE_BYTES);
        let so_far = (piece * PIECE_BYTES) as u32;
        // SAFETY: guaranteed by the caller; the helper fails on bad addresses.
        unsafe {
            let to = record
                .as_mut_ptr()
                .add(STACK_HEADER_BYTES + PLACE + so_far as usize)
                .cast();
            if bpf_probe_read_user(to, PIECE_BYTES as u32, at as *const _) != 0 {
                // Up to the end of the page: the next one is not there.
                let rest = (at.wrapping_neg() & (PIECE_BYTES - 1)) as u32;
                if bpf_probe_read_user(to, rest, at as *const _) == 0 {
                    read.write_volatile(so_far + rest);
                }
                return;
            }
            read.write_volatile(so_far + PIECE_BYTES as u32);
        }
    }
}
