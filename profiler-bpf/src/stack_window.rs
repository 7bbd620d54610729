//! User stack, read in pieces.

use aya_ebpf::helpers::{bpf_probe_read_user, generated::bpf_probe_read_user as probe_read_user};
use profiler_bpf::settings::{STACK_WINDOW_BYTES, STACK_WINDOW_FIRST_BYTES};

/// Words in the window.
const WORDS: usize = STACK_WINDOW_BYTES / 8;

/// A copy of a part of the user stack: first of [`STACK_WINDOW_FIRST_BYTES`], then of
/// [`STACK_WINDOW_BYTES`].
pub(crate) struct StackWindow<'a> {
    words: &'a mut [u64; WORDS],
    /// Address of the first word, or [`NO_WINDOW`].
    base: &'a mut u64,
    /// How many bytes there are; 0 before the first was read.
    bytes: &'a mut u32,
}

/// A base from which no address is near.
pub(crate) const NO_WINDOW: u64 = u64::MAX / 2 + 1;

impl<'a> StackWindow<'a> {
    #[inline(always)]
    pub(crate) fn new(words: &'a mut [u64; WORDS], base: &'a mut u64, bytes: &'a mut u32) -> Self {
        Self { words, base, bytes }
    }

    /// Reads the word at `at`.
    ///
    /// A walk goes up the stack, so that a window that begins at a frame's lowest word serves the
    /// next frames too. Where a whole window cannot be read (the end of the stack's mapping, memory
    /// that is not there yet) the word is read by itself.
    #[inline(always)]
    pub(crate) fn read_word(&mut self, at: u64) -> Option<u64> {
        let mut into = at.wrapping_sub(*self.base);
        if into.wrapping_add(8) > u64::from(*self.bytes) {
            if at & 7 != 0 || !self.fill(at) {
                return Self::read_alone(at);
            }
            into = 0;
        }
        if into & 7 != 0 {
            return Self::read_alone(at);
        }
        // The mask changes nothing; it lets the verifier see the bound.
        Some(self.words[(into / 8) as usize & (WORDS - 1)])
    }

    /// Reads a word past the window.
    #[inline(always)]
    pub(crate) fn read_alone(at: u64) -> Option<u64> {
        // SAFETY: the helper takes any address and fails on a bad one.
        unsafe { bpf_probe_read_user(at as *const u64) }.ok()
    }

    #[inline(always)]
    fn fill(&mut self, base: u64) -> bool {
        let to = self.words.as_mut_ptr().cast();
        // SAFETY: the helper takes any address and fails on a bad one; the words
        // have room for what it writes.
        let (failed, bytes) = unsafe {
            match *self.bytes {
                0 => (
                    probe_read_user(to, STACK_WINDOW_FIRST_BYTES as u32, base as *const _),
                    STACK_WINDOW_FIRST_BYTES,
                ),
                _ => (
                    probe_read_user(to, STACK_WINDOW_BYTES as u32, base as *const _),
                    STACK_WINDOW_BYTES,
                ),
            }
        };
        *self.base = if failed == 0 { base } else { NO_WINDOW };
        *self.bytes = bytes as u32;
        failed == 0
    }
}
