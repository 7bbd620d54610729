//! When windows begin and end: in wall-clock time for people, in monotonic time
//! for samples.

/// Length of the first window, unless it is extended to the next multiple.
const FIRST_NS: u64 = 2_000_000_000;

/// The bounds of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowBounds {
    /// Start, nanoseconds since the Unix epoch.
    pub(super) start_unix_ns: u64,
    /// End, nanoseconds since the Unix epoch: the start of the next window, unless the wall clock is
    /// set before.
    pub(super) end_unix_ns: u64,
    /// Start, nanoseconds of CLOCK_MONOTONIC.
    pub(super) start_ns: u64,
    /// End, nanoseconds of CLOCK_MONOTONIC; belongs to the next window.
    pub(super) end_ns: u64,
}

impl WindowBounds {
    /// No window: one that does not end.
    pub(super) const NONE: Self = Self {
        start_unix_ns: 0,
        end_unix_ns: u64::MAX,
        start_ns: 0,
        end_ns: u64::MAX,
    };

    /// The first window: begins now and ends after [`FIRST_NS`], so that a page has something to show
    /// soon after the start, or when the wall clock is next at a multiple of `length_ns`. That is also
    /// its end if it would end within a tenth of a window before, so that the second window is not
    /// shorter than that.
    pub(super) fn begin(unix_ns: u64, monotonic_ns: u64, length_ns: u64) -> Self {
        let to_multiple_ns = length_ns - unix_ns % length_ns;
        let first_ns = if to_multiple_ns <= FIRST_NS + length_ns / 10 {
            to_multiple_ns
        } else {
            FIRST_NS
        };
        Self {
            start_unix_ns: unix_ns,
            end_unix_ns: unix_ns + first_ns,
            start_ns: monotonic_ns,
            end_ns: monotonic_ns + first_ns,
        }
    }

    /// The window after this one. The wall clock is read again, since it may have been set. If it only
    /// drifted, the next window starts where this one ends.
    pub(super) fn next(self, unix_ns: u64, monotonic_ns: u64, length_ns: u64) -> Self {
        let offset = unix_ns.saturating_sub(monotonic_ns);
        let found_unix_ns = self.end_ns + offset;
        let is_meant = |unix_ns: u64| unix_ns.abs_diff(found_unix_ns) <= length_ns / 10;
        let nearest = (found_unix_ns + length_ns / 2) / length_ns * length_ns;
        let start_unix_ns = if is_meant(self.end_unix_ns) {
            self.end_unix_ns
        } else if is_meant(nearest) {
            nearest
        } else {
            found_unix_ns
        };
        let end_unix_ns = start_unix_ns + (length_ns - start_unix_ns % length_ns);
        Self {
            start_unix_ns,
            end_unix_ns,
            start_ns: self.end_ns,
            end_ns: (end_unix_ns - offset).max(self.end_ns + 1),
        }
    }

    /// The same window with this end, in nanoseconds of CLOCK_MONOTONIC: the last window ends early.
    pub(super) fn ending(self, end_ns: u64) -> Self {
        let length_ns = end_ns.saturating_sub(self.start_ns);
        let end_unix_ns = if end_ns < self.end_ns {
            self.end_unix_ns.min(self.start_unix_ns + length_ns)
        } else {
            self.end_unix_ns
        };
        Self {
            end_unix_ns,
            end_ns,
            ..self
        }
    }

    /// Start in milliseconds since the Unix epoch.
    pub(super) fn start_ms(self) -> u64 {
        self.start_unix_ns / 1_000_000
    }

    /// Length in milliseconds: the difference of the rounded ends, so that a window ends where the next one
    /// starts. A rounded length would end up to 1 ms before. At least 1, since servers refuse 0.
    pub(super) fn length_ms(self) -> u64 {
        (self.end_unix_ns / 1_000_000)
            .saturating_sub(self.start_ms())
            .max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A whole window, from 1,000 s of the wall clock and 0 of the other on.
    const WHOLE: WindowBounds = WindowBounds {
        start_unix_ns: 1000 * SECOND,
        end_unix_ns: 1010 * SECOND,
        start_ns: 0,
        end_ns: 10 * SECOND,
    };

    /// Check that the first window is short, the second ends on a multiple, and later
    /// ones are whole.
    #[test]
    fn aligned() {
        let first = WindowBounds::begin(1003 * SECOND, 3 * SECOND, 10 * SECOND);
        assert_eq!((first.start_ns, first.end_ns), (3 * SECOND, 5 * SECOND));
        let second = first.next(1006 * SECOND, 6 * SECOND, 10 * SECOND);
        assert_eq!(second.start_unix_ns, 1005 * SECOND);
        assert_eq!((second.start_ns, second.end_ns), (5 * SECOND, 10 * SECOND));
        let third = second.next(1011 * SECOND, 11 * SECOND, 10 * SECOND);
        assert_eq!(third.start_unix_ns, 1010 * SECOND);
        assert_eq!((third.start_ns, third.end_ns), (10 * SECOND, 20 * SECOND));
    }

    /// Check that a first window just before a multiple ends on it.
    #[test]
    fn first_before_a_multiple() {
        let first = WindowBounds::begin(1009 * SECOND, 9 * SECOND, 10 * SECOND);
        assert_eq!(first.end_ns, 10 * SECOND);
    }

    /// Check that the second window begins where the first one ends, whenever that began.
    #[test]
    fn second_begins_at_the_end_of_the_first() {
        for unix_ns in (1000 * SECOND..1010 * SECOND).step_by(100_000_000) {
            let first = WindowBounds::begin(unix_ns, 0, 10 * SECOND);
            let second = first.next(unix_ns + first.end_ns, first.end_ns, 10 * SECOND);
            assert_eq!(second.start_unix_ns, unix_ns + first.end_ns);
        }
    }

    /// Check that a clock that drifts keeps windows on multiples without gaps.
    #[test]
    fn drift() {
        let mut window = WHOLE;
        for step in 1..1000 {
            let now = window.end_ns;
            // One millisecond a window.
            let unix = 1000 * SECOND + now + step * SECOND / 1000;
            let next = window.next(unix, now, 10 * SECOND);
            assert_eq!(next.start_ns, window.end_ns);
            assert_eq!(next.start_unix_ns % (10 * SECOND), 0);
            assert!(next.start_unix_ns > window.start_unix_ns);
            window = next;
        }
    }

    /// Check that each window ends in the millisecond in which the next one starts, whatever the parts of milliseconds
    /// and the drift, and that its length is within a millisecond of the truth for the last one too.
    #[test]
    fn windows_meet() {
        for drift_ns in [-700_001, 0, 1, 499_999, 700_001] {
            let mut monotonic_ns = 77_777_777;
            let mut unix_ns = 1_000_123_456_789_i64;
            let mut window = WindowBounds::begin(unix_ns as u64, monotonic_ns, 10 * SECOND);
            for _ in 0..20 {
                let length_ns = window.end_ns - monotonic_ns;
                monotonic_ns = window.end_ns;
                unix_ns += length_ns as i64 + drift_ns;
                let next = window.next(unix_ns as u64, monotonic_ns, 10 * SECOND);
                let end_ms = window.start_ms() + window.length_ms();
                assert_eq!(end_ms, next.start_ms(), "{drift_ns}: {window:?}");
                window = next;
            }
            let last = window.ending(window.start_ns + 1_234_567_890);
            assert!(last.length_ms().abs_diff(1_234) <= 1, "{last:?}");
            assert_eq!(window.ending(window.start_ns + 1).length_ms(), 1);
            assert_eq!(window.ending(window.end_ns), window);
        }
    }

    /// Check that a clock that was set makes one short window and is then followed.
    #[test]
    fn clock_set() {
        let set = WHOLE.next(5003 * SECOND, 10 * SECOND, 10 * SECOND);
        assert_eq!(set.start_unix_ns, 5003 * SECOND);
        assert_eq!(set.end_ns, 17 * SECOND);
        let after = set.next(5011 * SECOND, 18 * SECOND, 10 * SECOND);
        assert_eq!(after.start_unix_ns, 5010 * SECOND);
    }
}
