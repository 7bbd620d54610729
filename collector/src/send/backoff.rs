//! Delay before the next try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that double up to a limit, each shortened by a random part of up to a
/// half, so that the collectors of a cluster do not all come back at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first` to `max`.
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            next: first,
        }
    }

    /// The next wait.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        // The standard library's randomly keyed hasher is all the chance that is needed.
        let random = (RandomState::new().hash_one(()) >> 32) as u32;
        wait - wait.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
    }

    /// Starts again from the first wait.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that waits grow to the limit, stay within their half, and start again.
    #[test]
    fn waits_double_up_to_the_limit() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut backoff = Backoff::new(first, max);
        for doubling in 0..20 {
            let full = (first * (1 << doubling.min(7))).min(max);
            let wait = backoff.wait();
            assert!(wait <= full && wait >= full / 2, "{doubling}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= first);
    }
}
