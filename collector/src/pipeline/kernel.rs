//! The kernel's side of sampling: buffers, timers, and when to drain.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    process::SideBand,
    sample::{Program, Timers, read_online_cpus},
};

/// Time between two drains. Rings are sized for it (see `sample::program` and
/// `process::side_band`).
pub(super) const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

/// Samples and events younger than this stay queued until the next drain: a ring of another processor may still be writing
/// an older one, which takes microseconds.
pub(super) const REORDER_NS: u64 = 2_000_000;

/// Delay after a wake-up until the sample that caused it is older than [`REORDER_NS`].
const REORDER: Duration = Duration::from_nanos(REORDER_NS + 500_000);

/// Time between two drains when the program asks for one: 50 a second, of some 50 us each, are 0.25 % of a
/// processor.
const DRAIN_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// The buffers that the kernel writes, and the timers behind them.
pub(super) struct Kernel {
    pub(super) program: Program,
    pub(super) timers: Timers,
    pub(super) side_band: SideBand,
    pub(super) cpus: usize,
}

impl Kernel {
    /// Waits until the next drain is due, or earlier if the program asks for one.
    pub(super) fn wait(&self, drained: Instant) {
        let next = drained + DRAIN_INTERVAL;
        if self
            .program
            .wait(next.saturating_duration_since(Instant::now()))
        {
            // A process lacks rows, or the ring fills; its record must be old enough to be drained.
            let soonest = (Instant::now() + REORDER).max(drained + DRAIN_INTERVAL_MIN);
            thread::sleep(soonest.min(next).saturating_duration_since(Instant::now()));
        }
    }

    /// Opens buffers and timers on processors that came online. Returns how many came, and how many went.
    pub(super) fn follow_cpus(&mut self) -> Result<(usize, usize)> {
        let online = read_online_cpus()?;
        self.side_band.follow(&online)?;
        let changes = self.timers.follow(&online)?;
        self.cpus = online.len();
        Ok(changes)
    }
}
