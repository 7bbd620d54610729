//! User stack, read in pieces.

use aya_ebpf::helpers::{bpf_probe_read_user, generated::bpf_probe_read_user as probe_read_user};
use profiler_bpf::settings::STACK_WINDOW_BYTES;

/// Words in the window.
const WORDS: usize = STACK_WINDOW_BYTES / 8;

/// A copy of [`STACK_WINDOW_BYTES`] of the user stack, from `base` on.
pub(crate) struct StackWindow<'a> {
    words: &'a mut [u64; WORDS],
    /// Address of the first word, or [`NO_WINDOW`].
    base: &'a mut u64,
}

/// A base from which no address is near.
pub(crate) const NO_WINDOW: u64 = u64::MAX / 2 + 1;

impl<'a> StackWindow<'a> {
    #[inline(always)]
    pub(crate) fn new(words: &'a mut [u64; WORDS], base: &'a mut u64) -> Self {
        Self { words, base }
    }

    /// Reads the word at `at`.
    ///
    /// A walk goes up the stack, so that a window that begins at a frame's lowest word serves the
    /// next frames too. Where a whole window cannot be read (the end of the stack's mapping, memory
    /// that is not there yet) the word is read by itself.
    #[inline(always)]
    pub(crate) fn read_word(&mut self, at: u64) -> Option<u64> {
        let mut into = at.wrapping_sub(*self.base);
        if into > (STACK_WINDOW_BYTES - 8) as u64 {
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
        // SAFETY: the helper takes any address and fails on a bad one; the words
        // have room for what it writes.
        let failed = unsafe {
            let to = self.words.as_mut_ptr().cast();
            probe_read_user(to, STACK_WINDOW_BYTES as u32, base as *const _)
        };
        *self.base = if failed == 0 { base } else { NO_WINDOW };
        failed == 0
    }
}
