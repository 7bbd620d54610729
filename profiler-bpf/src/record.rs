//! The layout of a record in the ring buffer.
//!
//! A record is a [`SampleHeader`] followed by `user_len` user frames and
//! `kernel_len` kernel frames, each a `u64` address, innermost first, in the
//! byte order of the machine. Only the frames that are there are sent. The
//! first byte of every record is its [`kind`](SampleHeader::kind), so that other
//! kinds of records can be added beside samples.

use crate::{
    arch::x86_64::Registers,
    policy::{REMEMBERED_MAX, Remembered},
    settings::{
        KERNEL_FRAMES_MAX, STACK_WINDOW_BYTES, USER_FRAMES_HEAD, USER_FRAMES_MAX, USER_FRAMES_TAIL,
        WALKED_FRAMES_MAX,
    },
    sources::Sources,
};

/// [`SampleHeader::kind`] of a sample with its frames.
pub const KIND_SAMPLE: u8 = 1;

/// [`StackHeader::kind`] of the copy of a stack, whose sample follows.
pub const KIND_STACK: u8 = 2;

/// [`SampleHeader::flags`]: the first user frame is the interrupted instruction
/// itself. Without it, it is the address after a system call instruction, as a
/// return address is the address after a call.
pub const FLAG_USER_LEAF_EXACT: u8 = 1;

/// [`SampleHeader::flags`]: the stack was copied, into the [`StackHeader`] record of the same
/// processor and time that came before.
pub const FLAG_STACK_COPIED: u8 = 2;

/// [`SampleHeader::flags`], with [`FLAG_STACK_COPIED`]: the walk needed no copy; it is there to
/// prove the walk.
pub const FLAG_PROOF: u8 = 4;

/// The header of a sample, before its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SampleHeader {
    /// [`KIND_SAMPLE`].
    pub kind: u8,
    /// Number of the [`Outcome`](crate::outcome::Outcome).
    pub outcome: u8,
    /// Bits `FLAG_…`.
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// Processor that was interrupted.
    pub cpu: u32,
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Period of the timer that fired, which identifies the timer, in units of
    /// the event (nanoseconds for cpu-clock, cycles for cycles).
    pub period: u64,
    /// Id of the task's cgroup (its inode number), or 0.
    pub cgroup_id: u64,
    /// Process (thread group) id in the initial PID namespace.
    pub pid: u32,
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// The thread's name, padded with zeros.
    pub comm: [u8; 16],
    /// User frames in this record.
    pub user_len: u16,
    /// Kernel frames in this record.
    pub kernel_len: u16,
    /// User frames walked: larger than `user_len` when the middle of a deep stack was left out,
    /// whose last frames then lie as in a ring: see [`USER_FRAMES_TAIL`].
    pub user_walked: u16,
    /// Zero.
    pub reserved_2: u16,
    /// Identity of the process's address space: another process with the same id has another. 0 when
    /// there is no user stack.
    pub identity: u64,
    /// [`Process::version`](crate::tables::Process::version) of the mappings that were walked with; 0
    /// when the kernel had none.
    pub version: u32,
    /// Zero.
    pub reserved_3: u32,
}

/// Bytes below the stack pointer that are the running function's: in an epilogue, the call frame
/// information that compilers write still finds registers there that were popped.
/// Source: System V ABI for AMD64, section 3.2.2.
pub const RED_ZONE_BYTES: usize = 128;

/// The header of a copied stack, before its bytes.
///
/// The bytes are those from `below_sp` below the stack pointer (`registers[7]`) on, `stack_bytes` of them.
/// The record may be longer: its size is one of
/// [`STACK_COPY_BYTES`](crate::settings::STACK_COPY_BYTES) with this header. Behind the largest of
/// these there may be `end_bytes` more, from `end_address` on: the end of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct StackHeader {
    /// [`KIND_STACK`], at the same place as [`SampleHeader::kind`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Processor.
    pub cpu: u32,
    /// The sample's [`time_ns`](SampleHeader::time_ns).
    pub time_ns: u64,
    /// Bytes of the stack that were read.
    pub stack_bytes: u32,
    /// Number of them below the stack pointer: [`RED_ZONE_BYTES`] or none.
    pub below_sp: u32,
    /// Address of the first byte of the stack's end.
    pub end_address: u64,
    /// Bytes of it, or 0.
    pub end_bytes: u32,
    /// Zero.
    pub reserved_2: u32,
    /// The registers that the walk began with, by their DWARF numbers; the instruction pointer is
    /// the last.
    pub registers: [u64; 17],
}

/// Bytes of a [`SampleHeader`].
pub const HEADER_BYTES: usize = size_of::<SampleHeader>();

/// Bytes of a [`StackHeader`].
pub const STACK_HEADER_BYTES: usize = size_of::<StackHeader>();

/// Bytes of the longest sample: 80 + (1,024 + 127) × 8 = 9,288.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + (USER_FRAMES_MAX + KERNEL_FRAMES_MAX) * 8;

/// The program's scratch memory for one record.
///
/// The record begins with the header; only the part that is used is sent.
#[repr(C)]
pub struct Scratch {
    /// The walk's state beside its registers.
    pub walk: Walk,
    /// Registers of the frame that the walk has reached.
    pub registers: Registers,
    /// Registers of the first frame, those of a [`StackHeader`].
    pub user_registers: [u64; 17],
    /// The task whose cgroup was looked up last.
    pub cgroup: CgroupSeen,
    /// Verdicts on cgroups, each at the place of its id's hash.
    pub verdicts: [Remembered; REMEMBERED_MAX],
    /// A copy of a part of the user stack.
    pub stack_window: [u64; STACK_WINDOW_BYTES / 8],
    /// The header.
    pub header: SampleHeader,
    /// User frames, then kernel frames.
    pub frames: [u64; USER_FRAMES_MAX + KERNEL_FRAMES_MAX],
}

/// A task's cgroup, which was found through five pointers, each to a place of its own, and the verdict on it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CgroupSeen {
    /// The task's `css_set`.
    pub css_set: u64,
    /// Its process and thread ids.
    pub pid_tgid: u64,
    /// When it was looked up, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The generation of the verdicts at that time.
    pub generation: u64,
    /// The cgroup that was found.
    pub id: u64,
    /// The cgroup whose verdict excludes it: itself or one above; 0 if none does.
    pub excluder: u64,
}

/// A walk's state beside its registers.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Walk {
    /// Address of the first word of [`Scratch::stack_window`].
    pub window_base: u64,
    /// Address of the `ucontext` with all registers of the innermost frame that a signal interrupted; 0
    /// when there is none yet.
    pub context: u64,
    /// Frames walked.
    pub walked: u32,
    /// 1 when the instruction pointer is a return address.
    pub is_return: u32,
    /// [`Process::first`](crate::tables::Process::first) of the task's process.
    pub first: u32,
    /// [`Process::count`](crate::tables::Process::count) of it.
    pub count: u32,
    /// [`Process::version`](crate::tables::Process::version) of it.
    pub version: u32,
    /// [`Process::flags`](crate::tables::Process::flags) of it.
    pub flags: u32,
    /// 1 when the frame was reached by the frame-pointer rule in code where the rule may not hold.
    pub is_guess: u32,
    /// Bytes in [`Scratch::stack_window`], from its first word on.
    pub window_bytes: u32,
    /// 1 when the word that was read last could not be read.
    pub has_failed: u32,
    /// Place of the mapping that was found last, in `MAPPINGS`.
    pub last: u32,
    /// Sources of the rules.
    pub sources: Sources,
}

// The ABI: 80 and 176 bytes without any padding. A new field changes these numbers, and
// so cannot be added without a thought for the other side.
const _: () = assert!(HEADER_BYTES == 80);
const _: () = assert!(STACK_HEADER_BYTES == 176);
const _: () = assert!(align_of::<SampleHeader>() == 8);
const _: () = assert!(
    size_of::<Scratch>()
        == RECORD_BYTES_MAX + STACK_WINDOW_BYTES + 64 + 32 + 136 + 48 + 24 * REMEMBERED_MAX
);
const _: () = assert!(USER_FRAMES_MAX.is_power_of_two() && USER_FRAMES_HEAD == USER_FRAMES_TAIL);
const _: () = assert!(WALKED_FRAMES_MAX <= u16::MAX as usize);
const _: () = assert!(STACK_WINDOW_BYTES.is_power_of_two());
