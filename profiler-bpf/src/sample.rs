//! One sample: header, user frames, kernel frames, into the ring.
//!
//! [`begin`] fills the header and the registers that the walk starts from, [`walk`]
//! walks a chunk of frames, [`finish`] adds the kernel's frames and sends. Between
//! them everything lies in the scratch record, so that a walk can go on in another
//! program.

use core::{mem::offset_of, ptr, slice};

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, bpf_perf_event_data},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_smp_processor_id, bpf_get_stack},
    },
};
use profiler_bpf::{
    arch::x86_64::{Registers, USER_CS_32, USER_CS_64, step_by_frame_pointer},
    outcome::Outcome,
    record::{FLAG_USER_LEAF_EXACT, HEADER_BYTES, KIND_SAMPLE, SampleHeader, Scratch},
    settings::{CHUNK_FRAMES, KERNEL_FRAMES_MAX, USER_FRAMES_MAX},
    unwind::Step,
};

use crate::{
    RING,
    stack_window::StackWindow,
    task::{self, Entry},
};

/// The user side of a sample, before its frames.
enum UserStart {
    /// A walk can begin here; whether the first frame is exact.
    Walk(Registers, bool),
    /// Only the instruction pointer means anything.
    LeafOnly(u64, Outcome),
    /// No user stack at all, which is right for this outcome.
    None(Outcome),
}

/// Fills the header. Gives whether there is a user stack to walk.
#[inline(always)]
pub(crate) fn begin(scratch: &mut Scratch, data: *const bpf_perf_event_data, time_ns: u64) -> bool {
    let cs = read_cs(data);
    // SAFETY: the context is valid while the program runs. The verifier wants its
    // fields to be loaded in their full width.
    let period = unsafe { ptr::read_volatile(&raw const (*data).sample_period) };
    let (outcome, user_len, exact, walks) = match find_user_start(data, cs) {
        UserStart::Walk(registers, exact) => {
            scratch.registers = registers;
            (Outcome::CutAtDepth, 0, exact, true)
        }
        UserStart::LeafOnly(ip, outcome) => {
            scratch.frames[0] = ip;
            (outcome, 1, true, false)
        }
        UserStart::None(outcome) => (outcome, 0, false, false),
    };
    let pid_tgid = bpf_get_current_pid_tgid();
    scratch.header = SampleHeader {
        kind: KIND_SAMPLE,
        outcome: outcome as u8,
        flags: if exact { FLAG_USER_LEAF_EXACT } else { 0 },
        reserved: 0,
        // SAFETY: the helper has no preconditions.
        cpu: unsafe { bpf_get_smp_processor_id() },
        time_ns,
        period,
        cgroup_id: task::cgroup_id(),
        pid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        comm: bpf_get_current_comm().unwrap_or_default(),
        user_len,
        kernel_len: 0,
        user_walked: 0,
        user_head: 0,
    };
    walks
}

/// Walks up to [`CHUNK_FRAMES`] more frames. Gives whether there may be more to walk.
///
/// The number of frames and the outcome are left in the header.
#[inline(always)]
pub(crate) fn walk(scratch: &mut Scratch) -> bool {
    let first = usize::from(load_unknown(&scratch.header.user_len));
    if first > USER_FRAMES_MAX - CHUNK_FRAMES {
        return false;
    }
    let mut registers = scratch.registers;
    let mut stack = StackWindow::new(&mut scratch.stack_window);
    for place in first..first + CHUNK_FRAMES {
        scratch.frames[place] = registers.ip;
        scratch.header.user_len = place as u16 + 1;
        match step_by_frame_pointer(&mut registers, |at| stack.read_pair(at)) {
            Step::Caller | Step::Interrupted => {}
            Step::End => {
                scratch.header.outcome = Outcome::Complete as u8;
                return false;
            }
            Step::Failed(outcome) => {
                scratch.header.outcome = outcome as u8;
                return false;
            }
        }
    }
    scratch.registers = registers;
    true
}

/// Adds the kernel's frames and sends the record. Gives the number of the sample's one
/// [`Outcome`].
#[inline(always)]
pub(crate) fn finish(scratch: &mut Scratch, data: *const bpf_perf_event_data) -> u8 {
    let user_len = usize::from(load_unknown(&scratch.header.user_len));
    let kernel_len = match is_user_mode(read_cs(data)) {
        true => 0,
        false => read_kernel_stack(data, scratch, user_len),
    };
    scratch.header.kernel_len = kernel_len as u16;
    scratch.header.user_walked = user_len as u16;
    scratch.header.user_head = user_len as u16;
    if !send(scratch, user_len + kernel_len) {
        return Outcome::RingFull as u8;
    }
    load_unknown(&scratch.header.outcome)
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

/// Finds out where the walk of the user stack begins, if it does.
#[inline(always)]
fn find_user_start(data: *const bpf_perf_event_data, cs: u64) -> UserStart {
    if is_user_mode(cs) {
        // SAFETY: as in `begin`.
        let registers = unsafe {
            Registers {
                ip: ptr::read_volatile(&raw const (*data).regs.rip),
                sp: ptr::read_volatile(&raw const (*data).regs.rsp),
                bp: ptr::read_volatile(&raw const (*data).regs.rbp),
            }
        };
        return choose_user_start(registers, cs, true);
    }
    if !task::has_user_memory() {
        return UserStart::None(Outcome::KernelOnly);
    }
    let mut saved = [0; 17];
    let Entry { cs, orig_rax } = task::read_saved_registers(&mut saved);
    let registers = Registers {
        ip: saved[16],
        sp: saved[7],
        bp: saved[6],
    };
    let in_system_call = (orig_rax as i64) >= 0;
    choose_user_start(registers, cs, !in_system_call)
}

#[inline(always)]
fn choose_user_start(registers: Registers, cs: u64, exact: bool) -> UserStart {
    match cs {
        USER_CS_64 => UserStart::Walk(registers, exact),
        USER_CS_32 => UserStart::LeafOnly(registers.ip, Outcome::Compat32),
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
    const { assert!(offset_of!(Scratch, frames) == HEADER_BYTES) };
    if frames > USER_FRAMES_MAX + KERNEL_FRAMES_MAX {
        return false;
    }
    // SAFETY: that many frames lie behind the header, in the same object.
    let bytes = unsafe {
        slice::from_raw_parts(
            ptr::from_ref(scratch).cast::<u8>(),
            HEADER_BYTES + frames * 8,
        )
    };
    RING.output::<[u8]>(bytes, u64::from(BPF_RB_NO_WAKEUP))
        .is_ok()
}
