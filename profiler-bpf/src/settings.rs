//! Limits that both sides must agree on, with their arithmetic.

/// Kernel frames kept of one sample. The kernel itself stops at
/// `kernel.perf_event_max_stack`, 127 unless an administrator changed it.
pub const KERNEL_FRAMES_MAX: usize = 127;

/// User frames kept of one sample: 1,024 frames are 8 KiB of a record. Of a deeper stack these are
/// the first [`USER_FRAMES_HEAD`] and the last [`USER_FRAMES_TAIL`].
pub const USER_FRAMES_MAX: usize = USER_FRAMES_HEAD + USER_FRAMES_TAIL;

/// Innermost frames that are kept of every stack.
pub const USER_FRAMES_HEAD: usize = 512;

/// Outermost frames that are kept of a stack deeper than [`USER_FRAMES_MAX`]. They lie behind the
/// head as in a ring: frame `n` at `USER_FRAMES_HEAD + n % USER_FRAMES_TAIL`.
pub const USER_FRAMES_TAIL: usize = 512;

/// Frames that one program walks before it hands over to the next by a tail call. The kernel
/// allows 33 programs in a row.
pub const CHUNK_FRAMES: usize = 128;

/// Frames that are walked: 32 programs of [`CHUNK_FRAMES`]. Deeper stacks are marked
/// [`Outcome::CutAtDepth`](crate::outcome::Outcome::CutAtDepth).
pub const WALKED_FRAMES_MAX: usize = 32 * CHUNK_FRAMES;

/// Frames that are walked regardless of the time budget: many times the depth of a typical stack.
pub const BUDGET_FREE_FRAMES: usize = CHUNK_FRAMES;

/// The largest part of a stack that is copied to user space from the stack pointer on. Most programs'
/// stacks take 4 KiB.
pub const STACK_COPY_BYTES_MAX: usize = 128 << 10;

/// Of a larger stack, whose end is known, as much of its end is copied too: a function with a large array
/// has its callers behind it. rustc has one of 540 KB, and its callers from 50 KB before the end on (of
/// which 27 KB are the thread's own data).
pub const STACK_END_BYTES: usize = 64 << 10;

/// The sizes of which a copy takes the smallest that its stack fits into. (The kernel wants sizes
/// that are constants.)
pub const STACK_COPY_BYTES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, STACK_COPY_BYTES_MAX];

/// Bytes of user stack that are read first.
///
/// A read of user memory costs 150 ns here, nearly whatever its length: most of it is
/// the call and the switching of access rights. One read of 512 bytes serves 4 to 8
/// frames of a typical 64 to 128 bytes.
pub const STACK_WINDOW_FIRST_BYTES: usize = 512;

/// Bytes of user stack that are read at once further up: a stack that is so deep is likely to go on.
/// Must be a power of two.
pub const STACK_WINDOW_BYTES: usize = 2048;

/// Bytes that a processor may copy in a second: 100 copies, as many as there are samples, of 80 KiB. That
/// is about 0.3 % of its time (copying takes some 25 us for 64 KiB).
pub const COPY_BYTES_PER_SECOND: u64 = 8 << 20;

/// Time between two wake-ups of user space for processes without rows: sooner than the next drain,
/// so that a process that lives for 30 ms is walked in the kernel for half of its life.
pub const WAKEUP_NS: u64 = 20_000_000;

/// Copies that a processor makes in a second to prove walks, at most.
pub const PROOFS_PER_SECOND_MAX: u64 = 5;

/// Bytes of a task's kernel stack, at whose end the registers are saved that user code had when
/// the task entered the kernel.
///
/// THREAD_SIZE is four pages on x86-64 (arch/x86/include/asm/page_64_types.h; KASAN doubles it, and
/// is for debugging), and TOP_OF_KERNEL_STACK_PADDING is zero on the kernels for which this is
/// needed, those before 5.15.
pub const THREAD_BYTES: usize = 16 << 10;

/// Ways of reading a task: values of the setting `TASK_SOURCE`.
pub mod task_source {
    /// Each field is copied by a helper.
    pub const COPIED: u32 = 0;
    /// By typed pointers: `bpf_get_current_task_btf` and `bpf_task_pt_regs` are there.
    pub const TYPED: u32 = 1;
}

/// Sources of the id of a task's cgroup: values of the program's setting `CGROUP_SOURCE`.
pub mod cgroup_source {
    /// Nowhere: records carry the id 0.
    pub const NONE: u32 = 0;
    /// The v2 hierarchy: `css_set.dfl_cgrp`.
    pub const V2: u32 = 1;
    /// A v1 hierarchy: that of an element of `css_set.subsys[]`.
    pub const V1: u32 = 2;
}

/// Place of the program that goes on with a walk in the map `PROGRAMS`.
pub const PROGRAM_WALK: u32 = 0;

/// Places in the one value of the per-CPU map `COUNTERS`, a [`counter::Counters`].
pub mod counter {
    use crate::{outcome::Outcome, uncopied::Uncopied};

    /// The first outcome's counter; the others follow in the order of [`Outcome`].
    pub const OUTCOMES: usize = 0;
    /// Nanoseconds spent in the program, as it measures itself.
    pub const TIME_NS: usize = OUTCOMES + Outcome::ALL.len();
    /// Entries of the program. Behind the outcomes: the kernel copies a value from
    /// its first word to its last, and an entry is counted before its outcome, so that a
    /// reader never sees fewer entries than outcomes.
    pub const ENTRIES: usize = TIME_NS + 1;
    /// Stacks that were to be copied and were not, in the order of [`Uncopied::ALL`]. Behind what every sample
    /// counts.
    pub const UNCOPIED: usize = ENTRIES + 1;
    /// Number of places: a power of two, so that a mask shows the verifier that an
    /// index lies within.
    pub const PLACES: usize = (UNCOPIED + Uncopied::ALL.len()).next_power_of_two();

    /// All counters of a processor. In one value those of every sample share two cache lines; as
    /// elements of a map each would have one of its own, cold at every sample.
    pub type Counters = [u64; PLACES];
}
