//! When windows begin and end: in wall-clock time for people, in monotonic time
//! for samples.

/// Length of the first window, at most.
const FIRST_NS: u64 = 2_000_000_000;

/// The bounds of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowBounds {
    /// Start, nanoseconds since the Unix epoch.
    pub(super) start_unix_ns: u64,
    /// Start, nanoseconds of CLOCK_MONOTONIC.
    pub(super) start_ns: u64,
    /// End, nanoseconds of CLOCK_MONOTONIC; belongs to the next window.
    pub(super) end_ns: u64,
}

impl WindowBounds {
    /// The first window: begins now and ends when the wall clock is next at a
    /// multiple of `length_ns`, or after [`FIRST_NS`], so that who just started the
    /// collector soon sees something.
    pub(super) fn begin(unix_ns: u64, monotonic_ns: u64, length_ns: u64) -> Self {
        Self {
            start_unix_ns: unix_ns,
            start_ns: monotonic_ns,
            end_ns: monotonic_ns + (length_ns - unix_ns % length_ns).min(FIRST_NS),
        }
    }

    /// The window after this one. The wall clock is looked at again, since it may
    /// have been set; where it only drifted, windows stay on their multiples.
    pub(super) fn next(self, unix_ns: u64, monotonic_ns: u64, length_ns: u64) -> Self {
        let offset = unix_ns.saturating_sub(monotonic_ns);
        let start_unix_ns = self.end_ns + offset;
        // Within a tenth of a window of a multiple: that multiple was meant.
        let nearest = (start_unix_ns + length_ns / 2) / length_ns * length_ns;
        let aligned = match nearest.abs_diff(start_unix_ns) <= length_ns / 10 {
            true => nearest,
            false => start_unix_ns,
        };
        let end_unix_ns = aligned + (length_ns - aligned % length_ns);
        Self {
            start_unix_ns: aligned,
            start_ns: self.end_ns,
            end_ns: (end_unix_ns - offset).max(self.end_ns + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A whole window, from 1,000 s of the wall clock and 0 of the other on.
    const WHOLE: WindowBounds = WindowBounds {
        start_unix_ns: 1000 * SECOND,
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
