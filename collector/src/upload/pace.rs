//! Rate limit of sending files. Pure: the time is an argument.

use std::time::Duration;

/// Lets through so many bytes a second on average, counted from when the last ones were let through: a pause saves nothing up.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When the next bytes may go, on the caller's clock.
    free_at: Duration,
}

impl Pace {
    /// So many bytes a second, at least 1.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: Duration::ZERO,
        }
    }

    /// Delay at `now` before these bytes may be sent.
    pub fn wait(&mut self, now: Duration, bytes: u64) -> Duration {
        let wait = self.free_at.saturating_sub(now);
        let ns = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        self.free_at = self.free_at.max(now).saturating_add(takes);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Check that in any stretch of time no more goes than its seconds allow and one piece, whatever the pauses.
    #[test]
    fn no_more_goes_than_is_allowed() {
        let (rate, piece) = (4 << 20, 256 << 10);
        let mut pace = Pace::new(rate);
        let mut now = Duration::from_secs(1000);
        let mut sent = Vec::new();
        for number in 0..400_u32 {
            now += pace.wait(now, piece);
            sent.push(now);
            // Some answers are slow, and once nothing is sent for a minute.
            now += Duration::from_millis(u64::from(number % 90));
            if number == 200 {
                now += 60 * SECOND;
            }
        }
        for (first, from) in sent.iter().enumerate() {
            for (last, to) in sent.iter().enumerate().skip(first) {
                let bytes = (last - first + 1) as f64 * piece as f64;
                let allowed = (*to - *from).as_secs_f64() * rate as f64 + piece as f64;
                assert!(bytes <= allowed + 1.0, "{first}..={last}");
            }
        }
        // While nothing holds it up, it is as fast as it may be.
        let mut pace = Pace::new(rate);
        let mut now = Duration::ZERO;
        for _ in 0..160 {
            now += pace.wait(now, piece);
        }
        assert_eq!(now, 159 * Duration::from_micros(62_500));
    }

    #[test]
    fn no_number_is_too_large() {
        let mut pace = Pace::new(0);
        pace.wait(Duration::MAX, u64::MAX);
        assert_eq!(pace.wait(Duration::MAX, u64::MAX), Duration::ZERO);
        let mut pace = Pace::new(u64::MAX);
        pace.wait(SECOND, u64::MAX);
        assert_eq!(pace.wait(SECOND, 1), SECOND);
    }
}
