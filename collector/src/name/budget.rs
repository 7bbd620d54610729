//! The CPU time that naming may take.
//!
//! In: what was spent, and when. Out: whether more may be. Pure: the caller brings the time.

use std::time::{Duration, Instant};

/// A share of one core on average, and how much may be taken at once of what was not used before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuBudget {
    /// CPU time for each second of time.
    pub share: f64,
    /// What is there at the start, and the most that is kept.
    pub burst: Duration,
}

impl CpuBudget {
    /// As much as there is.
    pub const UNLIMITED: Self = Self {
        share: 1e6,
        burst: Duration::MAX,
    };

    /// The same with another share: what may be taken at once is what comes in the same time. With 0 there is nothing at the
    /// start either: what needs the child is left to the server.
    pub fn with_share(self, share: f64) -> Self {
        Self {
            share,
            burst: self.burst.mul_f64(share / self.share),
        }
    }
}

/// What is left of a budget.
#[derive(Debug)]
pub(super) struct CpuAllowance {
    budget: CpuBudget,
    /// Seconds; below 0 as long as a request that took more than was left is not made up for.
    left_s: f64,
    filled: Instant,
}

impl CpuAllowance {
    /// All of the burst.
    pub(super) fn new(budget: CpuBudget, now: Instant) -> Self {
        Self {
            budget,
            left_s: budget.burst.as_secs_f64(),
            filled: now,
        }
    }

    /// Whether nothing is left at `now`.
    pub(super) fn is_spent(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now.max(self.filled);
        let filled_s = self.left_s + passed * self.budget.share;
        self.left_s = filled_s.min(self.budget.burst.as_secs_f64());
        self.left_s <= 0.0
    }

    /// Takes what was used, also when less was left.
    pub(super) fn spend(&mut self, cpu: Duration) {
        self.left_s -= cpu.as_secs_f64();
    }

    /// Seconds that are left, below 0 if more was used.
    pub(super) fn left_s(&self) -> f64 {
        self.left_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: CpuBudget = CpuBudget {
        share: 0.05,
        burst: Duration::from_secs(10),
    };

    /// Check that the burst is there at once, and then the share; that nothing is kept beyond the burst; and that what was
    /// taken beyond is made up for.
    #[test]
    fn burst_and_share() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut allowance = CpuAllowance::new(BUDGET, start);
        assert!(!allowance.is_spent(start));
        allowance.spend(Duration::from_secs(12));
        // 2 s too much are 40 s of waiting.
        assert!(allowance.is_spent(at(39)));
        assert!(!allowance.is_spent(at(41)));
        assert!((allowance.left_s() - 0.05).abs() < 1e-6);
        allowance.spend(Duration::from_millis(51));
        assert!(allowance.is_spent(at(41)));
        // A day of nothing to name is no more than the burst.
        assert!(!allowance.is_spent(at(86_400)));
        assert!((allowance.left_s() - 10.0).abs() < 1e-6);
        // A clock that stands, or an earlier time, gives nothing.
        allowance.spend(Duration::from_secs(10));
        assert!(allowance.is_spent(at(1)) && allowance.is_spent(at(86_400)));
        assert!(!allowance.is_spent(at(86_401)));
    }

    /// Check with a node that always wants more: over an hour of windows it gets the share, the burst, and never more than
    /// the last request beyond.
    #[test]
    fn a_busy_node_gets_its_share() {
        let start = Instant::now();
        let request = Duration::from_millis(70);
        let mut allowance = CpuAllowance::new(BUDGET, start);
        let mut used = Duration::ZERO;
        for window in 0..360 {
            let now = start + Duration::from_secs(10 * window);
            while !allowance.is_spent(now) {
                allowance.spend(request);
                used += request;
            }
        }
        let given = 10.0 + 3590.0 * 0.05;
        assert!(
            (given..=given + 0.07).contains(&used.as_secs_f64()),
            "{used:?}"
        );
    }

    /// Check that the burst goes with the share, and that a share of nothing is nothing from the start.
    #[test]
    fn other_shares() {
        let now = Instant::now();
        let half = BUDGET.with_share(0.025);
        assert_eq!((half.share, half.burst), (0.025, Duration::from_secs(5)));
        let mut allowance = CpuAllowance::new(BUDGET.with_share(0.0), now);
        assert!(allowance.is_spent(now) && allowance.is_spent(now + Duration::from_secs(9)));
    }

    /// Check that without a limit nothing is ever spent.
    #[test]
    fn unlimited() {
        let now = Instant::now();
        let mut allowance = CpuAllowance::new(CpuBudget::UNLIMITED, now);
        allowance.spend(Duration::from_secs(1 << 40));
        assert!(!allowance.is_spent(now));
    }
}
