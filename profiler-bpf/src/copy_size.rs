//! The size of a stack's copy, and its cost.

use crate::{
    record::STACK_HEADER_BYTES,
    settings::{STACK_COPY_BYTES, STACK_COPY_BYTES_MAX, STACK_END_BYTES},
};

/// The size of a copy. The kernel wants sizes that are constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopySize {
    /// The first of [`STACK_COPY_BYTES`].
    Small,
    /// The second.
    Medium,
    /// The third.
    Large,
    /// The largest: all that is copied from the stack pointer on.
    Whole,
    /// That, and the end of the stack.
    WholeAndEnd,
}

impl CopySize {
    /// The smallest that `wanted` bytes fit into. `end` is the address where a larger stack ends, 0 if there is
    /// none.
    #[inline(always)]
    pub const fn of(wanted: u64, end: u64) -> Self {
        let wanted = wanted as usize;
        if wanted <= STACK_COPY_BYTES[0] {
            Self::Small
        } else if wanted <= STACK_COPY_BYTES[1] {
            Self::Medium
        } else if wanted <= STACK_COPY_BYTES[2] {
            Self::Large
        } else if end == 0 {
            Self::Whole
        } else {
            Self::WholeAndEnd
        }
    }

    /// Bytes that it takes of the ring and of a processor's allowance, whatever was wanted of them.
    pub const fn record_bytes(self) -> u64 {
        match self {
            Self::Small => record_bytes(STACK_COPY_BYTES[0], 0),
            Self::Medium => record_bytes(STACK_COPY_BYTES[1], 0),
            Self::Large => record_bytes(STACK_COPY_BYTES[2], 0),
            Self::Whole => record_bytes(STACK_COPY_BYTES_MAX, 0),
            Self::WholeAndEnd => record_bytes(STACK_COPY_BYTES_MAX, STACK_END_BYTES),
        }
    }
}

/// Bytes of a record with so many bytes from the stack pointer on, and of the stack's end.
pub const fn record_bytes(bytes: usize, end_bytes: usize) -> u64 {
    (STACK_HEADER_BYTES + bytes + end_bytes) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{per_cpu::Allowances, settings::COPY_BYTES_PER_SECOND};

    /// Check that a stack's copy is large enough for it, and is charged with all that it takes.
    #[test]
    fn sizes() {
        for (wanted, end, size, bytes) in [
            (0, 0, CopySize::Small, 4 << 10),
            (4 << 10, 0, CopySize::Small, 4 << 10),
            ((4 << 10) + 1, 0, CopySize::Medium, 16 << 10),
            (65 << 10, 0, CopySize::Whole, 128 << 10),
            (128 << 10, 1, CopySize::WholeAndEnd, 192 << 10),
        ] {
            assert_eq!(CopySize::of(wanted, end), size, "{wanted}");
            assert_eq!(size.record_bytes(), bytes + STACK_HEADER_BYTES as u64);
        }
    }

    /// Check that a processor whose stacks are a little larger than a size never copies more in ten seconds than it
    /// may, and that a copy which the ring had no room for costs nothing.
    #[test]
    fn copies_stay_within_the_allowance() {
        const MS: u64 = 1_000_000;
        let mut allowances = Allowances::default();
        let mut copied = 0;
        for tick in 1..=1_000 {
            allowances.fill_copies(10 * MS);
            let size = CopySize::of((16 << 10) + 1, 0);
            if allowances.has_copy_bytes(size.record_bytes()) && tick % 3 != 0 {
                allowances.spend_copy_bytes(size.record_bytes());
                copied += size.record_bytes();
            }
        }
        assert!(copied > 4 * COPY_BYTES_PER_SECOND, "{copied}");
        assert!(copied <= 10 * COPY_BYTES_PER_SECOND, "{copied}");
        // At 300 copies a second the rate holds, too.
        let mut allowances = Allowances::default();
        let mut copied = 0;
        for _ in 0..3_000 {
            allowances.fill_copies(10 * MS / 3);
            let size = CopySize::of((64 << 10) + 1, 0);
            if allowances.has_copy_bytes(size.record_bytes()) {
                allowances.spend_copy_bytes(size.record_bytes());
                copied += size.record_bytes();
            }
        }
        assert!(copied <= 10 * COPY_BYTES_PER_SECOND, "{copied}");
    }
}
