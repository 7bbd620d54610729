//! Random numbers for tests that are the same in each run.

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016.
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for each seed but 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }
}
