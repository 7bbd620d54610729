//! The copy of a stack, for user space to unwind.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated::{bpf_probe_read_user, bpf_ringbuf_query},
    maps::ring_buf::RingBufBytes,
};
use profiler_bpf::{
    outcome::Outcome,
    record::{KIND_STACK, RED_ZONE_BYTES, STACK_HEADER_BYTES, Scratch, StackHeader},
    settings::{STACK_COPY_BYTES, STACK_COPY_BYTES_MAX, STACK_END_BYTES},
};

use crate::{RING, allowance, task};

/// Bytes that are read at once.
const PIECE_BYTES: u64 = 4096;

/// No stack is larger: what seems to be its end further up is another's. `ulimit -s` is 8 MiB most
/// often, and threads are given the same.
const STACK_BYTES_MAX: u64 = 64 << 20;

/// Puts the registers and the top of the stack into the ring. Gives whether it did.
///
/// Not when the ring is half full: samples go first.
#[inline(always)]
pub(crate) fn copy_stack(scratch: &Scratch) -> bool {
    let (wanted, end) = wanted_bytes(scratch.user_registers[7]);
    if !allowance::take_copy_bytes(wanted) {
        return false;
    }
    let ring = ptr::from_ref(&RING).cast_mut().cast();
    // SAFETY: the helper reads two numbers of the ring.
    let (used, size) = unsafe {
        (
            bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()),
            bpf_ringbuf_query(ring, BPF_RB_RING_SIZE.into()),
        )
    };
    if used > size / 2 {
        return false;
    }
    // The collector looks at the ring ten times a second. Copies may fill it sooner, and a process
    // whose rows are missing wants them sooner.
    let is_wanted = scratch.header.outcome == Outcome::NoRows as u8
        && allowance::take_wakeup(scratch.header.time_ns);
    let flags = u64::from(match is_wanted || used > size / 4 {
        true => BPF_RB_FORCE_WAKEUP,
        false => BPF_RB_NO_WAKEUP,
    });
    const A: usize = STACK_COPY_BYTES[0];
    const B: usize = STACK_COPY_BYTES[1];
    const C: usize = STACK_COPY_BYTES[2];
    const D: usize = STACK_COPY_BYTES[3];
    match wanted as usize {
        ..=A => copy::<A, 0>(scratch, 0, flags),
        ..=B => copy::<B, 0>(scratch, 0, flags),
        ..=C => copy::<C, 0>(scratch, 0, flags),
        _ if end == 0 => copy::<D, 0>(scratch, 0, flags),
        _ => copy::<D, STACK_END_BYTES>(scratch, end, flags),
    }
}

/// How much of a stack there is to copy: up to where the main thread's stack began, or to the
/// thread's own data, which libraries put at the top of its stack; at most
/// [`STACK_COPY_BYTES_MAX`]. When there is more, also the address where it ends.
#[inline(always)]
fn wanted_bytes(sp: u64) -> (u64, u64) {
    const MAX: u64 = STACK_COPY_BYTES_MAX as u64;
    let mut wanted = STACK_BYTES_MAX;
    let mut end = 0;
    for top in <[u64; 2]>::from(task::stack_top_hints()) {
        // A little more, for what is read at the outermost frame, and below the stack pointer.
        let bytes = top
            .wrapping_sub(sp)
            .wrapping_add(64 + RED_ZONE_BYTES as u64);
        if bytes < wanted {
            wanted = bytes;
            end = top;
        }
    }
    match wanted > MAX {
        true => (MAX, end),
        false => (wanted, 0),
    }
}

/// Copies `BYTES` from the stack pointer on, and `END_BYTES` up to the page in which the stack ends.
#[inline(always)]
fn copy<const BYTES: usize, const END_BYTES: usize>(
    scratch: &Scratch,
    end: u64,
    flags: u64,
) -> bool {
    let Some(mut record) = RING.reserve_bytes(STACK_HEADER_BYTES + BYTES + END_BYTES, 0) else {
        return false;
    };
    let sp = scratch.user_registers[7];
    // The page below may not be there.
    let below_sp = match sp & (PIECE_BYTES - 1) >= RED_ZONE_BYTES as u64 {
        true => RED_ZONE_BYTES as u64,
        false => 0,
    };
    let stack_bytes = read_stack::<0, BYTES>(&mut record, sp.wrapping_sub(below_sp));
    let end_address = (end | (PIECE_BYTES - 1))
        .wrapping_add(1)
        .wrapping_sub(END_BYTES as u64);
    let end_bytes = match END_BYTES {
        0 => 0,
        _ => read_stack::<BYTES, END_BYTES>(&mut record, end_address),
    };
    let header = record.as_mut_ptr().cast::<StackHeader>();
    // SAFETY: the record has room for the header, and begins at a multiple of 8.
    unsafe {
        header.write(StackHeader {
            kind: KIND_STACK,
            reserved: [0; 3],
            cpu: scratch.header.cpu,
            time_ns: scratch.header.time_ns,
            stack_bytes: stack_bytes as u32,
            below_sp: below_sp as u32,
            end_address,
            end_bytes: end_bytes as u32,
            reserved_2: 0,
            registers: scratch.user_registers,
        });
    }
    record.submit(flags);
    true
}

/// Reads `BYTES` of the stack from `base` on to `PLACE` behind the record's header; gives how many
/// could be read.
#[inline(always)]
fn read_stack<const PLACE: usize, const BYTES: usize>(
    record: &mut RingBufBytes<'_>,
    base: u64,
) -> u64 {
    let mut read = 0;
    for piece in 0..BYTES as u64 / PIECE_BYTES {
        let at = base.wrapping_add(piece * PIECE_BYTES);
        // SAFETY: the record has room for all pieces behind its header; the helper
        // fails on bad addresses.
        let failed = unsafe {
            let to = record
                .as_mut_ptr()
                .add(STACK_HEADER_BYTES + PLACE + (piece * PIECE_BYTES) as usize)
                .cast();
            if bpf_probe_read_user(to, PIECE_BYTES as u32, at as *const _) == 0 {
                0
            } else {
                // Up to the end of the page: the next one is not there.
                let rest = (at.wrapping_neg() & (PIECE_BYTES - 1)) as u32;
                if bpf_probe_read_user(to, rest, at as *const _) == 0 {
                    read += u64::from(rest);
                }
                1
            }
        };
        if failed != 0 {
            return read;
        }
        read += PIECE_BYTES;
    }
    read
}
