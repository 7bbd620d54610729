//! Exponential back-off for files and processes on which the child failed.
//!
//! The first retry is after [`NamerOptions::retry_windows`](super::NamerOptions::retry_windows), the next ones after 2, 4, … up to
//! 64 times as long: about an hour, with the defaults.

use super::failure::Failure;

const DOUBLINGS_MAX: u32 = 6;

/// The failures of one file or process.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// The last failure, and the window of the next retry.
    last: Option<(Failure, u64)>,
    /// Failures since the last answer.
    failures: u32,
}

impl Backoff {
    /// The last failure, if the file or process is backed off in a window.
    pub(super) fn failure(&self, window: u64) -> Option<Failure> {
        let (failure, until) = self.last?;
        (window < until).then_some(failure)
    }

    /// Notes an answer, or a failure in a window. A postponed request changes nothing.
    pub(super) fn note(&mut self, result: Result<(), Failure>, window: u64, retry_windows: u64) {
        match result {
            Ok(()) => *self = Self::default(),
            Err(Failure::Postponed) => {}
            Err(failure) => {
                let windows = retry_windows << self.failures.min(DOUBLINGS_MAX);
                self.failures = self.failures.saturating_add(1);
                self.last = Some((failure, window.saturating_add(windows)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the time doubles with each failure up to a limit, that postponed requests change nothing, and that an answer ends the
    /// back-off.
    #[test]
    fn waits_double() {
        let mut backoff = Backoff::default();
        let mut window = 0;
        for doubling in [0, 1, 2, 3, 4, 5, 6, 6] {
            backoff.note(Err(Failure::TimedOut), window, 6);
            backoff.note(Err(Failure::Postponed), window, 6);
            window += 6 << doubling;
            assert_eq!(backoff.failure(window - 1), Some(Failure::TimedOut));
            assert_eq!(backoff.failure(window), None);
        }
        backoff.note(Ok(()), window, 6);
        backoff.note(Err(Failure::FileSystem), window, 6);
        assert_eq!(backoff.failure(window + 5), Some(Failure::FileSystem));
        assert_eq!(backoff.failure(window + 6), None);
    }
}
