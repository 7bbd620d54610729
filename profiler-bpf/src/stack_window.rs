//! User stack, read in pieces.

use aya_ebpf::helpers::{bpf_probe_read_user, generated::bpf_probe_read_user as probe_read_user};
use profiler_bpf::settings::STACK_WINDOW_BYTES;

/// Words in the window.
const WORDS: usize = STACK_WINDOW_BYTES / 8;

/// A copy of [`STACK_WINDOW_BYTES`] of the user stack, from `base` on.
pub(crate) struct StackWindow<'a> {
    words: &'a mut [u64; WORDS],
    /// Address of the first word, or a value from which no address is near.
    base: u64,
}

impl<'a> StackWindow<'a> {
    #[inline(always)]
    pub(crate) fn new(words: &'a mut [u64; WORDS]) -> Self {
        Self {
            words,
            base: u64::MAX,
        }
    }

    /// Reads the two words at `at`, which is a multiple of eight.
    ///
    /// A walk goes up the stack, so that a window that begins at a frame serves the
    /// next ones too. Where a whole window cannot be read (the end of the stack's
    /// mapping, memory that is not there yet) the two words are read by themselves.
    #[inline(always)]
    pub(crate) fn read_pair(&mut self, at: u64) -> Option<[u64; 2]> {
        if at.wrapping_sub(self.base) > (STACK_WINDOW_BYTES - 16) as u64 && !self.fill(at) {
            // SAFETY: the helper takes any address and fails on a bad one.
            return unsafe { bpf_probe_read_user(at as *const [u64; 2]) }.ok();
        }
        // The mask changes nothing; it lets the verifier see the bound.
        let place = (at.wrapping_sub(self.base) / 8) as usize;
        Some([
            self.words[place & (WORDS - 1)],
            self.words[(place + 1) & (WORDS - 1)],
        ])
    }

    #[inline(always)]
    fn fill(&mut self, at: u64) -> bool {
        // SAFETY: the helper takes any address and fails on a bad one; the words
        // have room for what it writes.
        let failed = unsafe {
            let to = self.words.as_mut_ptr().cast();
            probe_read_user(to, STACK_WINDOW_BYTES as u32, at as *const _)
        };
        self.base = if failed == 0 { at } else { u64::MAX };
        failed == 0
    }
}
