//! Reads the current task: its user registers, its ids and name.
//!
//! Rust has no CO-RE relocations, so that the collector reads the kernel's BTF
//! and sets the few offsets below before it loads the object.
//!
//! There are two ways, and the collector chooses by what the kernel has ([`task_source`]):
//! - From `bpf_get_current_task_btf` on (5.11), the verifier knows the type of each pointer
//!   and lets plain loads follow it; a load that faults gives zero. That spares a helper
//!   call for each field. `bpf_task_pt_regs` (5.15) gives the saved user registers.
//! - Before, each field is copied by `bpf_probe_read_kernel`, and the saved registers lie
//!   at the top of the task's kernel stack.
//!
//! The settings are in a map that is frozen before the program is loaded, so that the verifier
//! knows their values and never looks at the way that is not taken: the kernel need not
//! have the helpers that are called there.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::{bpf_perf_event_data, pt_regs},
    helpers::generated::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs,
    },
};
use profiler_bpf::settings::{THREAD_BYTES, task_source};

/// A constant that the collector sets before it loads the object.
macro_rules! setting {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub(crate) static $name: u32 = 0;
    };
}
pub(crate) use setting;

setting!(
    /// One of [`task_source`].
    TASK_SOURCE
);
setting!(
    /// Offset of `task_struct.stack`, the lower end of the task's kernel stack.
    TASK_STACK
);
setting!(
    /// Offset of `task_struct.mm`.
    TASK_MM
);
setting!(
    /// Offset of `task_struct.comm`.
    TASK_COMM
);
setting!(
    /// Offset of `task_struct.group_leader`.
    TASK_GROUP_LEADER
);
setting!(
    /// Offset of `task_struct.start_boottime`.
    TASK_START_BOOTTIME
);
setting!(
    /// Offset of `task_struct.self_exec_id`, 64 bits from 5.7 on.
    TASK_SELF_EXEC_ID
);
setting!(
    /// Offset of `task_struct.thread.fsbase`.
    TASK_FSBASE
);
setting!(
    /// Offset of `mm_struct.start_stack`.
    MM_START_STACK
);
/// The general registers by their DWARF numbers, then the instruction pointer: `rax`, `rdx`,
/// `rcx`, `rbx`, `rsi`, `rdi`, `rbp`, `rsp`, `r8` to `r15`, `rip`.
/// Source: System V ABI for AMD64, figure 3.36.
pub(crate) type AllRegisters = [u64; 17];

/// Facts beside the general registers of a task that is in the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// Code segment of the user code: which mode it was in.
    pub(crate) cs: u64,
    /// A system call leaves its number here, which is never negative; exceptions and
    /// interrupts leave -1 or the complement of their vector.
    pub(crate) orig_rax: u64,
}

/// Reads a setting. Volatile, so that the compiler does not take the zero above
/// for its value.
#[inline(always)]
pub(crate) fn get(setting: &'static u32) -> usize {
    // SAFETY: a reference is readable.
    (unsafe { ptr::read_volatile(setting) }) as usize
}

/// Whether the kernel has the helpers that give typed pointers.
#[inline(always)]
fn is_typed() -> bool {
    get(&TASK_SOURCE) as u32 == task_source::TYPED
}

/// Whether the current task has user memory of its own. A kernel thread has none
/// (also while it borrows some), nor has a process that is nearly gone.
#[inline(always)]
pub(crate) fn has_user_memory() -> bool {
    // SAFETY: the offset is from the kernel's own types.
    let mm = unsafe { load_field(current_task(), get(&TASK_MM)) };
    mm != 0
}

/// The registers of the interrupted code, from the context of the program.
///
/// # Safety
/// `data` is the context that the kernel gave to the program.
#[inline(always)]
pub(crate) unsafe fn read_interrupted_registers(
    data: *const bpf_perf_event_data,
    registers: &mut AllRegisters,
) {
    // SAFETY: guaranteed by the caller; the context is valid while the program runs.
    unsafe { load_registers(&raw const (*data).regs, registers) };
}

/// The user registers that were saved when the current task entered the kernel.
#[inline(always)]
pub(crate) fn read_saved_registers(registers: &mut AllRegisters) -> Entry {
    if is_typed() {
        // SAFETY: both helpers take and give the current task's own pointers, and the verifier
        // knows their types.
        return unsafe {
            let saved = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs;
            load_registers(saved, registers);
            Entry {
                cs: ptr::read_volatile(&raw const (*saved).cs),
                orig_rax: ptr::read_volatile(&raw const (*saved).orig_rax),
            }
        };
    }
    let mut saved = MaybeUninit::<pt_regs>::uninit();
    let at = saved.as_mut_ptr();
    // SAFETY: the offset is from the kernel's own types, `saved` has the length that is read, and
    // the helper fills all of it, with zeros when it fails.
    unsafe {
        let stack = load_field(current_task(), get(&TASK_STACK));
        let from = stack + (THREAD_BYTES - size_of::<pt_regs>()) as u64;
        bpf_probe_read_kernel(at.cast(), size_of::<pt_regs>() as u32, from as *const _);
        load_registers(at, registers);
        Entry {
            cs: ptr::read_volatile(&raw const (*at).cs),
            orig_rax: ptr::read_volatile(&raw const (*at).orig_rax),
        }
    }
}

/// Loads the registers at `from`, each by itself, which is all that the verifier allows for
/// a context and for a typed pointer.
///
/// # Safety
/// `from` can be read.
#[inline(always)]
unsafe fn load_registers(from: *const pt_regs, to: &mut AllRegisters) {
    macro_rules! load {
        ($($place:literal $register:ident,)*) => {
            // SAFETY: guaranteed by the caller. Volatile stores keep the compiler from loading all
            // first, which are more than there are registers.
            unsafe {
                $(ptr::write_volatile(
                    &raw mut to[$place],
                    ptr::read_volatile(&raw const (*from).$register),
                );)*
            }
        };
    }
    load!(
        0 rax, 1 rdx, 2 rcx, 3 rbx, 4 rsi, 5 rdi, 6 rbp, 7 rsp, 8 r8, 9 r9, 10 r10, 11 r11, 12 r12,
        13 r13, 14 r14, 15 r15, 16 rip,
    );
}

/// A number that is another one for every process and after every exec: two moments at which
/// a thread group gave the same number saw the same address space, whatever became of its PID.
///
/// It is made of the time at which the group's leader began, in nanoseconds, and the number of
/// execs on the way from the first process to it; an exec by another thread makes that thread
/// the leader, with the old one's time. The constant is 2^64 divided by the golden ratio: times
/// that are near each other and small numbers of execs do not meet.
#[inline(always)]
pub(crate) fn address_space_identity() -> u64 {
    // SAFETY: the offsets are from the kernel's own types.
    unsafe {
        let leader = load_field(current_task(), get(&TASK_GROUP_LEADER));
        let start = load_field(leader, get(&TASK_START_BOOTTIME));
        let execs = load_field(leader, get(&TASK_SELF_EXEC_ID));
        start ^ execs.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Two addresses that bound the current task's stack from above: `mm.start_stack` for the main
/// thread, the thread pointer for one whose stack the C library made (it puts its description of
/// the thread at the top of the stack). Zero where the task has none.
///
/// The kernel keeps its copy of the thread pointer when it is set by a system call, as C libraries
/// do at a thread's start, and at each switch of tasks.
#[inline(always)]
pub(crate) fn stack_top_hints() -> (u64, u64) {
    // SAFETY: the offsets are from the kernel's own types.
    unsafe {
        let task = current_task();
        let mm = load_field(task, get(&TASK_MM));
        let fs_base = load_field(task, get(&TASK_FSBASE));
        if mm == 0 {
            return (0, fs_base);
        }
        (load_field(mm, get(&MM_START_STACK)), fs_base)
    }
}

/// The thread's name, padded with zeros.
#[inline(always)]
pub(crate) fn comm() -> [u8; 16] {
    // SAFETY: the offset is from the kernel's own types, and the field has 16 bytes.
    let words = unsafe {
        let task = current_task();
        let at = get(&TASK_COMM);
        [load_field(task, at), load_field(task, at + 8)]
    };
    // SAFETY: both are 16 bytes that may have any value.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(words) }
}

/// The current task's `struct task_struct`.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    if is_typed() {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_task_btf() as u64 }
    } else {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_task() }
    }
}

/// Loads the field of eight bytes at `offset` of the kernel object at `base`; zero where
/// it cannot be read.
///
/// # Safety
/// `base` came from [`current_task`] or, by a field that is a pointer, from this function; the
/// object there has such a field.
#[inline(always)]
pub(crate) unsafe fn load_field(base: u64, offset: usize) -> u64 {
    let from = base.wrapping_add(offset as u64) as *const u64;
    if is_typed() {
        // SAFETY: guaranteed by the caller. Volatile, since the kernel changes it at any time.
        return unsafe { ptr::read_volatile(from) };
    }
    let mut value = 0_u64;
    // SAFETY: the helper takes any address, and gives zero where it cannot be read.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 8, from.cast()) };
    value
}
