//! One sample: header, user frames, kernel frames, into the ring.
//!
//! [`begin`] fills the header and the registers that the walk starts from, the walk adds the user
//! frames, [`finish`] adds the kernel's frames and sends. Between them everything lies in the
//! scratch record, so that a walk can go on in another program.

use core::{mem::offset_of, ptr, slice};

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, bpf_perf_event_data},
    helpers::generated::{bpf_get_smp_processor_id, bpf_get_stack},
};
use profiler_bpf::{
    arch::x86_64::{Registers, USER_CS_32, USER_CS_64, is_exec, rule},
    outcome::Outcome,
    record::{
        FLAG_PROOF, FLAG_STACK_COPIED, FLAG_USER_LEAF_EXACT, HEADER_BYTES, KIND_SAMPLE, Scratch,
    },
    settings::{KERNEL_FRAMES_MAX, USER_FRAMES_MAX},
};

use crate::{
    RING, allowance,
    arithmetic::clear,
    lookup::find_process,
    stack_copy::{IS_COPIED, copy_stack},
    stack_window::{NO_WINDOW, read_alone},
    task,
};

/// The user side of a sample, before its frames.
enum UserStart {
    /// A walk can begin at the registers that were read; whether the first frame is exact.
    Walk(bool),
    /// Only the instruction pointer means anything.
    LeafOnly(Outcome),
    /// No user stack at all, which is right for this outcome.
    None(Outcome),
}

/// Fills the header, after [`cgroup::find`](crate::cgroup::find). Gives whether there is a user stack to walk.
#[inline(always)]
pub(crate) fn begin(scratch: &mut Scratch, data: *const bpf_perf_event_data, time_ns: u64) -> bool {
    allowance::fill(time_ns);
    let cs = read_cs(data);
    // SAFETY: the context is valid while the program runs. The verifier wants its
    // fields to be loaded in their full width.
    let period = unsafe { ptr::read_volatile(&raw const (*data).sample_period) };
    let start = find_user_start(data, cs, &mut scratch.user_registers);
    let (outcome, is_exact, walks) = match start {
        UserStart::Walk(is_exact) => (Outcome::CutAtDepth, is_exact, true),
        UserStart::LeafOnly(outcome) => (outcome, true, false),
        UserStart::None(outcome) => (outcome, false, false),
    };
    let user = &scratch.user_registers;
    scratch.registers = Registers {
        ip: user[usize::from(rule::RETURN_ADDRESS)],
        sp: user[usize::from(rule::RSP)],
        bp: user[usize::from(rule::RBP)],
        bx: user[usize::from(rule::RBX)],
    };
    // SAFETY: both are plain numbers. Then only what is not zero is set.
    unsafe {
        clear(&raw mut scratch.walk);
        clear(&raw mut scratch.header);
    }
    scratch.walk.window_base = NO_WINDOW;
    scratch.walk.is_return = u32::from(!is_exact);
    if let UserStart::LeafOnly(_) = start {
        scratch.frames[0] = scratch.registers.ip;
        scratch.walk.walked = 1;
    }
    let pid_tgid = scratch.cgroup.pid_tgid;
    let header = &mut scratch.header;
    header.kind = KIND_SAMPLE;
    header.outcome = outcome as u8;
    header.flags = if is_exact { FLAG_USER_LEAF_EXACT } else { 0 };
    // SAFETY: the helper has no preconditions.
    header.cpu = unsafe { bpf_get_smp_processor_id() };
    header.time_ns = time_ns;
    header.period = period;
    header.cgroup_id = scratch.cgroup.id;
    header.pid = (pid_tgid >> 32) as u32;
    header.tid = pid_tgid as u32;
    header.comm = task::comm();
    if !walks {
        return false;
    }
    header.identity = task::address_space_identity();
    if !find_process(
        &mut scratch.walk,
        scratch.header.pid,
        scratch.header.identity,
    ) {
        // The innermost frame is known without any rows.
        scratch.frames[0] = scratch.registers.ip;
        scratch.walk.walked = 1;
        scratch.header.outcome = Outcome::NoRows as u8;
        return false;
    }
    scratch.header.version = scratch.walk.version;
    true
}

/// Adds the kernel's frames and sends the record, after a copy of the stack where one is wanted.
/// Gives the number of the sample's one [`Outcome`].
///
/// # Safety
/// `scratch` is this CPU's record, to which nothing refers.
#[inline(always)]
pub(crate) unsafe fn finish(scratch: *mut Scratch, data: *const bpf_perf_event_data) -> u8 {
    // SAFETY: guaranteed by the caller. `copy_stack` reads the record.
    unsafe {
        let walked = load_unknown(&(*scratch).walk.walked) as usize;
        let user_len = if walked > USER_FRAMES_MAX {
            USER_FRAMES_MAX
        } else {
            walked
        };
        let kernel_len = if is_user_mode(read_cs(data)) {
            0
        } else {
            read_kernel_stack(data, &mut *scratch, user_len)
        };
        let header = &raw mut (*scratch).header;
        (*header).user_len = user_len as u16;
        (*header).kernel_len = kernel_len as u16;
        (*header).user_walked = walked as u16;
        let outcome = load_unknown(&(*header).outcome);
        if outcome == Outcome::NoRows as u8 {
            if copy_stack() == IS_COPIED {
                (*header).flags |= FLAG_STACK_COPIED;
            }
        } else if outcome == Outcome::Complete as u8 || outcome == Outcome::ByInstructions as u8 {
            if walked > USER_FRAMES_MAX {
                (*header).outcome = Outcome::MiddleLeftOut as u8;
            } else if outcome == Outcome::Complete as u8
                && allowance::take_proof()
                && copy_stack() == IS_COPIED
            {
                (*header).flags |= FLAG_STACK_COPIED | FLAG_PROOF;
            }
        }
        if !send(&*scratch, user_len + kernel_len) {
            return Outcome::RingFull as u8;
        }
        load_unknown(&(*header).outcome)
    }
}

/// Reads a value back that was just written to map memory.
///
/// The verifier does not follow the contents of map memory. A number of frames
/// that it knew (one for each way out of the walk) would make it check the rest of
/// the program again for each; one that it does not know is checked once.
#[inline(always)]
fn load_unknown<T: Copy>(value: &T) -> T {
    // SAFETY: a reference is readable.
    unsafe { ptr::read_volatile(value) }
}

#[inline(always)]
fn read_cs(data: *const bpf_perf_event_data) -> u64 {
    // SAFETY: as in `begin`.
    unsafe { ptr::read_volatile(&raw const (*data).regs.cs) }
}

/// Whether the interrupted code ran with user privileges.
#[inline(always)]
fn is_user_mode(cs: u64) -> bool {
    cs & 3 == 3
}

/// Finds out where the walk of the user stack begins, if it does, and reads the registers there.
#[inline(always)]
fn find_user_start(
    data: *const bpf_perf_event_data,
    cs: u64,
    registers: &mut [u64; 17],
) -> UserStart {
    if is_user_mode(cs) {
        // SAFETY: as in `begin`.
        unsafe { task::read_interrupted_registers(data, registers) };
        return choose_user_start(cs, true);
    }
    if !task::has_user_memory() {
        return UserStart::None(Outcome::KernelOnly);
    }
    let entry = task::read_saved_registers(registers);
    let in_system_call = (entry.orig_rax as i64) >= 0;
    if is_exec(entry.orig_rax) && read_alone(registers[7]).is_none() {
        // The old program's memory is gone, and the new one has not begun.
        return UserStart::None(Outcome::KernelOnly);
    }
    choose_user_start(entry.cs, !in_system_call)
}

#[inline(always)]
fn choose_user_start(cs: u64, is_exact: bool) -> UserStart {
    match cs {
        USER_CS_64 => UserStart::Walk(is_exact),
        USER_CS_32 => UserStart::LeafOnly(Outcome::Compat32),
        // Saved registers of a task that never was in user mode: a kernel thread
        // that is becoming a process, or one at its end.
        _ => UserStart::None(Outcome::KernelOnly),
    }
}

/// Reads the kernel's own stack behind the user frames; gives the number of frames.
#[inline(always)]
fn read_kernel_stack(
    data: *const bpf_perf_event_data,
    scratch: &mut Scratch,
    user_len: usize,
) -> usize {
    if user_len > USER_FRAMES_MAX {
        return 0;
    }
    const BYTES: usize = KERNEL_FRAMES_MAX * 8;
    // SAFETY: the frames array has room for KERNEL_FRAMES_MAX behind USER_FRAMES_MAX.
    let read = unsafe {
        let to = scratch.frames.as_mut_ptr().add(user_len);
        bpf_get_stack(data.cast_mut().cast(), to.cast(), BYTES as u32, 0)
    };
    if read <= 0 || read > BYTES as i64 {
        return 0;
    }
    read as usize / 8
}

/// Sends the header and the frames; `false` when the ring was full.
#[inline(always)]
fn send(scratch: &Scratch, frames: usize) -> bool {
    const { assert!(offset_of!(Scratch, frames) == offset_of!(Scratch, header) + HEADER_BYTES) };
    if frames > USER_FRAMES_MAX + KERNEL_FRAMES_MAX {
        return false;
    }
    // SAFETY: that many frames lie behind the header, in the same object.
    let bytes = unsafe {
        slice::from_raw_parts(
            ptr::from_ref(scratch)
                .cast::<u8>()
                .add(offset_of!(Scratch, header)),
            HEADER_BYTES + frames * 8,
        )
    };
    RING.output_untyped::<[u8]>(bytes, u64::from(BPF_RB_NO_WAKEUP))
        .is_ok()
}
