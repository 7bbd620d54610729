//! Outermost frames of code without call frame information.
//!
//! | outermost frame | found by | reason |
//! | --- | --- | --- |
//! | the entry of a program (`_start` of musl's `crt1.o`) | the file's header, up to the first call | the kernel begins there, with arguments in the place of a return address |
//! | that of its dynamic linker (`_dlstart` of musl, `_start` and `_dl_start_user` of glibc) | the file's header, up to the jump to the program | the same |
//! | the first function of a thread, in musl's `__clone` | its instructions behind the system call | its stack is new: it begins with the argument of the function that is called |
//!
//! Between these and the program musl has `_start_c`, `__libc_start_main`, `libc_start_main_stage2` and a thread's `start`. They are
//! walked as any other code: two of them call functions that never return, so that their rows are weak, but they lead to
//! one of the ends above, which proves them.
//!
//! glibc says the same by call frame information: the return address of `_start`, `clone` and `clone3` is undefined.
//! And all stacks end at a return address of 0, which begins each coroutine and each stack that a program makes for itself.

use std::ops::Range;

use codeflow::{Code, find_first_call, find_run_end};
use elf::ReadAt;

use super::file_code::FileCode;

/// Bytes of an entry: 22 in musl, 60 in glibc's dynamic linker.
const ENTRY_BYTES_MAX: u64 = 96;

/// musl's `__clone` from the system call on: `syscall; test eax,eax; jnz parent; xor ebp,ebp; pop rdi; call r9; mov edi,eax; xor
/// eax,eax; mov al,SYS_exit; syscall; hlt`.
pub(super) const CLONE: [u8; 21] = [
    0x0f, 0x05, 0x85, 0xc0, 0x75, 0x0f, 0x31, 0xed, 0x5f, 0x41, 0xff, 0xd1, 0x89, 0xc7, 0x31, 0xc0,
    0xb0, 0x3c, 0x0f, 0x05, 0xf4,
];

/// Bytes of it that both threads run.
const CLONE_SHARED_BYTES: u64 = 6;

/// The code around an address, if it is that of an outermost frame.
pub(super) fn find<R: ReadAt + ?Sized>(code: &FileCode<'_, R>, address: u64) -> Option<Range<u64>> {
    let entry = code.entry();
    let near = entry..entry.saturating_add(ENTRY_BYTES_MAX);
    if near.contains(&address) {
        let range = entry_of(code, entry);
        if range.contains(&address) {
            return Some(range);
        }
    }
    let own_bytes = CLONE.len() as u64 - CLONE_SHARED_BYTES;
    let mut starts = (0..own_bytes).map(|into| address.wrapping_sub(into + CLONE_SHARED_BYTES));
    let start = starts.find(|start| code.bytes(*start).starts_with(&CLONE))?;
    Some(thread_of(start))
}

/// The code of a file's entry. That of a program calls once, and what is behind it is another function.
fn entry_of<R: ReadAt + ?Sized>(code: &FileCode<'_, R>, entry: u64) -> Range<u64> {
    let first = find_first_call(code, entry).map_or(entry, |call| call.end);
    if !code.is_dynamic_linker() {
        return entry..first;
    }
    entry..find_run_end(code, entry).max(first)
}

/// The parts of a range that only a new thread runs.
pub(super) fn list_threads(
    code: &impl Code,
    range: &Range<u64>,
) -> impl Iterator<Item = Range<u64>> {
    let bytes = code.bytes(range.start);
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    // The pattern may end behind the range.
    let bytes = &bytes[..bytes.len().min(length.saturating_add(CLONE.len()))];
    let found = bytes
        .windows(CLONE.len())
        .position(|window| window == CLONE);
    found
        .map(|place| thread_of(range.start + place as u64))
        .into_iter()
}

fn thread_of(clone: u64) -> Range<u64> {
    clone + CLONE_SHARED_BYTES..clone + CLONE.len() as u64
}
