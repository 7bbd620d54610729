//! Epochs: batches of writes to the kernel's tables, and their grace periods.
//!
//! When a batch retires an entry, runs of the program that began before that batch may still use
//! it. The entry is reused only after these have ended.

use std::collections::VecDeque;

/// Number of a batch of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(u64);

#[cfg(test)]
impl Epoch {
    pub(super) fn of(number: u64) -> Self {
        Self(number)
    }
}

/// Maximum duration of a run of the program. Its number of instructions is limited: it takes 10 us,
/// and 100 us in a bad case. The host may suspend a virtual processor in the middle of a run, for
/// some milliseconds.
const GRACE_NS: u64 = 100_000_000;

/// The ended epochs, and those whose grace period is over: all runs of the program that began
/// before their end have ended.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    current: Epoch,
    /// Ended epochs with the latest possible time of their end.
    ended: VecDeque<(Epoch, u64)>,
}

impl Epochs {
    /// The current batch.
    pub(super) fn current(&self) -> Epoch {
        self.current
    }

    /// Ends the current batch, whose writes are in the kernel since `now_ns`. Returns the last
    /// epoch whose grace period is over: its retired entries can be reused.
    pub(super) fn end(&mut self, now_ns: u64) -> Option<Epoch> {
        self.ended.push_back((self.current, now_ns));
        self.current.0 += 1;
        let mut over = None;
        while let Some((epoch, _)) = self
            .ended
            .pop_front_if(|(_, ended_ns)| *ended_ns + GRACE_NS <= now_ns)
        {
            over = Some(epoch);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that an epoch's grace period ends only after the time has passed since its end.
    #[test]
    fn epochs_end() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.current(), Epoch(0));
        assert_eq!(epochs.end(5), None);
        assert_eq!(epochs.end(6), None);
        assert_eq!(epochs.end(GRACE_NS + 5), Some(Epoch(0)));
        assert_eq!(epochs.end(GRACE_NS + 5), None);
        assert_eq!(epochs.end(GRACE_NS + 6), Some(Epoch(1)));
        assert_eq!(epochs.end(2 * GRACE_NS + 5), Some(Epoch(3)));
    }
}
