//! The time of an event that was seen some time after it.

/// The time of an event, nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Not before this.
    pub earliest_ns: u64,
    /// Not after this.
    pub latest_ns: u64,
}

impl When {
    /// Exactly at this time.
    pub fn at(time_ns: u64) -> Self {
        Self {
            earliest_ns: time_ns,
            latest_ns: time_ns,
        }
    }
}
