//! When the timers fire.

/// The golden ratio.
const PHI: f64 = 1.618_033_988_749_895;

/// Periods of a CPU's timers.
///
/// One timer of 10 ms would see work that repeats each 10 ms always or never. Two
/// timers with periods 10·φ ms and 10·φ² ms add up to exactly 100 Hz, since
/// 1/φ + 1/φ² = 1. Modulo any period that people use (1, 4, 10, 20, 100 ms), the
/// ticks of each are spread evenly from the first few on, because the golden
/// ratio is the number worst approximated by fractions (Hurwitz's theorem); and
/// the two never fall into step with each other, their ratio being φ again.
///
/// Every sample stands for the same time, 1/(sum of the rates): each timer by
/// itself would estimate all of the CPU time with samples of its own period, and
/// the estimate from both is their mean, weighted by their rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    frequency_hz: u32,
}

impl Schedule {
    /// Timers that together fire `frequency_hz` times a second.
    pub const fn new(frequency_hz: u32) -> Self {
        Self { frequency_hz }
    }

    /// Periods of the timers in nanoseconds.
    pub fn periods_ns(self) -> [u64; 2] {
        let mean_ns = 1e9 / f64::from(self.frequency_hz);
        [mean_ns * PHI, mean_ns * PHI * PHI].map(|period| period.round() as u64)
    }

    /// CPU time that one sample stands for, in nanoseconds.
    pub const fn sample_ns(self) -> u64 {
        1_000_000_000 / self.frequency_hz as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the rates add up to the frequency within a millionth.
    #[test]
    fn rates_add_up() {
        for frequency in [1, 19, 97, 100, 1000] {
            let rate: f64 = Schedule::new(frequency)
                .periods_ns()
                .iter()
                .map(|period| 1e9 / *period as f64)
                .sum();
            let error = rate / f64::from(frequency) - 1.0;
            assert!(error.abs() < 1e-6, "{frequency} Hz: {error}");
        }
    }

    /// Check that work in step with the clock gets its share, whatever its period,
    /// phase and share, over one minute. Random sampling of 6,000 samples would be
    /// off by 0.6 points at a share of one half; these timers must do better.
    #[test]
    fn work_in_step_with_the_clock() {
        let [a, b] = Schedule::new(100).periods_ns();
        for period in [1_000_000, 4_000_000, 10_000_000, 20_000_000, 100_000_000] {
            for share in [0.05, 0.2, 0.5] {
                for phase in [0.0, 0.3, 0.77] {
                    let in_work = |time: u64| {
                        let at = time as f64 / period as f64 + phase;
                        at.fract() < share
                    };
                    let ticks = |step: u64| (1..=60_000_000_000 / step).map(move |i| i * step);
                    let all = ticks(a).chain(ticks(b));
                    let (hits, count) = all.fold((0, 0), |(hits, count), time| {
                        (hits + u32::from(in_work(time)), count + 1)
                    });
                    let error = f64::from(hits) / f64::from(count) - share;
                    assert!(
                        error.abs() < 0.006,
                        "{period} ns, {share}, {phase}: {error}"
                    );
                }
            }
        }
    }
}
