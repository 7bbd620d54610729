//! x86-64: registers, rules, and steps by them.

mod frame_pointer;
mod registers;
pub mod rule;
mod step;

pub use frame_pointer::step_by_frame_pointer;
pub use registers::{Registers, SAVED, UNKNOWN, UNKNOWN_BP};
pub use step::{context_offset, is_kept_by_agreement, step_by_rule};

/// `cs` of 64-bit user code (`__USER_CS`, GDT entry 6, privilege 3).
/// Source: arch/x86/include/asm/segment.h.
pub const USER_CS_64: u64 = 0x33;

/// `cs` of 32-bit user code (`__USER32_CS`, GDT entry 4, privilege 3).
pub const USER_CS_32: u64 = 0x23;

/// The first address that no user mapping can have with four-level page tables
/// is 2^47, with five levels 2^56; everything from here on is the kernel's.
pub const USER_ADDRESS_END: u64 = 1 << 56;

/// Whether a system call is `execve` or `execveat`.
/// Source: arch/x86/entry/syscalls/syscall_64.tbl.
pub const fn is_exec(system_call: u64) -> bool {
    matches!(system_call, 59 | 322)
}
