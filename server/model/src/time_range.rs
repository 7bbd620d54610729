//! Stretches of time.

/// A stretch of time, `from` included, `to` excluded. Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First millisecond.
    pub from_ms: i64,
    /// First millisecond after it.
    pub to_ms: i64,
}

impl TimeRange {
    /// Whether it has no time.
    pub fn is_empty(self) -> bool {
        self.from_ms >= self.to_ms
    }

    /// Whether a time lies in it.
    pub fn contains(self, time_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&time_ms)
    }
}
