//! User stack, read in pieces.
//!
//! A read costs nearly the same whatever its length. One read for each frame cost 155 ns, and 30
//! frames took 4.6 of a sample's 7.9 us; one read of 512 bytes serves several frames.

use core::ptr;

use aya_ebpf::helpers::{bpf_probe_read_user, generated::bpf_probe_read_user as probe_read_user};
use profiler_bpf::{
    record::Scratch,
    settings::{STACK_WINDOW_BYTES, STACK_WINDOW_FIRST_BYTES},
};

use crate::scratch;

/// Words in the window.
const WORDS: usize = STACK_WINDOW_BYTES / 8;

/// A base from which no address is near.
pub(crate) const NO_WINDOW: u64 = u64::MAX / 2 + 1;

/// Reads the word at `at` of the user stack, most often from the window: a copy of a part of it, first
/// of [`STACK_WINDOW_FIRST_BYTES`], then of [`STACK_WINDOW_BYTES`].
///
/// # Safety
/// `scratch` is this CPU's record. Nothing refers to its window.
#[inline(always)]
pub(crate) unsafe fn read_word(scratch: *mut Scratch, at: u64) -> Option<u64> {
    // SAFETY: guaranteed by the caller. Volatile, since `read_behind_window` changes them.
    unsafe {
        let base = ptr::read_volatile(&raw const (*scratch).walk.window_base);
        let bytes = ptr::read_volatile(&raw const (*scratch).walk.window_bytes);
        let into = at.wrapping_sub(base);
        if into.wrapping_add(8) <= u64::from(bytes) && into & 7 == 0 {
            // The mask changes nothing; it lets the verifier see the bound.
            let place = (into / 8) as usize & (WORDS - 1);
            return Some(ptr::read_volatile(
                (&raw const (*scratch).stack_window)
                    .cast::<u64>()
                    .add(place),
            ));
        }
        let word = read_behind_window(at);
        match ptr::read_volatile(&raw const (*scratch).walk.has_failed) {
            0 => Some(word),
            _ => None,
        }
    }
}

/// Reads a word that is not in the window, and moves the window there.
///
/// A walk goes up the stack, so that a window that begins at a frame's lowest word serves the
/// next frames too. If a whole window cannot be read (the end of the stack's mapping, memory
/// that is not there yet) the word is read by itself.
///
/// A function with a name: see [`step`](crate::walk::step). It notes in the scratch record whether it
/// failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_behind_window(at: u64) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the record is this CPU's own, and `step` refers to neither meanwhile.
    let (walk, window) = unsafe { (&mut (*scratch).walk, &mut (*scratch).stack_window) };
    if at & 7 == 0 {
        let to = window.as_mut_ptr();
        // SAFETY: the helper takes any address and fails on a bad one; the words
        // have room for what it writes.
        let (failed, bytes) = unsafe {
            match walk.window_bytes {
                0 => (
                    probe_read_user(to.cast(), STACK_WINDOW_FIRST_BYTES as u32, at as *const _),
                    STACK_WINDOW_FIRST_BYTES,
                ),
                _ => (
                    probe_read_user(to.cast(), STACK_WINDOW_BYTES as u32, at as *const _),
                    STACK_WINDOW_BYTES,
                ),
            }
        };
        walk.window_bytes = bytes as u32;
        if failed == 0 {
            walk.window_base = at;
            walk.has_failed = 0;
            return window[0];
        }
        walk.window_base = NO_WINDOW;
    }
    let word = read_alone(at);
    walk.has_failed = u32::from(word.is_none());
    word.unwrap_or(0)
}

/// Reads a word past the window.
#[inline(always)]
pub(crate) fn read_alone(at: u64) -> Option<u64> {
    // SAFETY: the helper takes any address and fails on a bad one.
    unsafe { bpf_probe_read_user(at as *const u64) }.ok()
}
