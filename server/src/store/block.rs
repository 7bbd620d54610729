//! The store's partition of time.

use std::fmt;

use super::TimeRange;

/// An hour: a busy node's 360 windows are some 10 MB, which is a good unit to merge, to cache and to drop.
pub const BLOCK_MS: i64 = 3_600_000;

/// One block, as the number of hours since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block(pub i64);

impl Block {
    /// The block that a window belongs to.
    pub fn of(start_ms: i64) -> Self {
        Self(start_ms.div_euclid(BLOCK_MS))
    }

    /// First millisecond.
    pub fn start_ms(self) -> i64 {
        self.0.saturating_mul(BLOCK_MS)
    }

    /// First millisecond after it.
    pub fn end_ms(self) -> i64 {
        self.start_ms().saturating_add(BLOCK_MS)
    }

    /// Says whether the range touches it.
    pub fn touches(self, range: TimeRange) -> bool {
        self.start_ms() < range.to_ms && range.from_ms < self.end_ms()
    }
}

/// Name of the block's folder: `2026-11-23T02`, in UTC.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.start_ms()) {
            Ok(start) => write!(f, "{}", start.strftime("%Y-%m-%dT%H")),
            // Checked windows start between 2020 and now; a damaged catalog may say anything.
            Err(_) => write!(f, "hour{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_an_hour() {
        let block = Block::of(1_795_312_800_000);
        assert_eq!(block.to_string(), "2026-11-22T02");
        assert_eq!(Block::of(block.end_ms() - 1), block);
        assert_eq!(Block::of(block.end_ms()), Block(block.0 + 1));
        assert_eq!(Block::of(-1), Block(-1));
        assert!(!block.touches(TimeRange {
            from_ms: block.end_ms(),
            to_ms: i64::MAX
        }));
        assert!(block.touches(TimeRange {
            from_ms: block.end_ms() - 1,
            to_ms: i64::MAX
        }));
        assert!(!block.touches(TimeRange {
            from_ms: 0,
            to_ms: block.start_ms()
        }));
    }
}
