//! The CPU time that naming may take.
//!
//! In: used CPU time, and the wall-clock time. Out: whether time is left. Pure: the caller reads the clocks.
//!
//! The budget is for the child and the thread that asks it: 5 % of one core on average (`--name-cpu`), and
//! a burst of the unused time of 200 s, which is 10 s. At the start, when all addresses are new, the
//! whole burst is there. Files, and the addresses of a file, are named in the order of their samples.
//! When the budget is spent, the remaining addresses of the window get the reason `limit`. They are
//! sent as build id and offset, with the file's layout, and are tried again in later windows, where
//! addresses that have names cost nothing.

use std::time::{Duration, Instant};

/// A share of one core on average, and a burst of unused time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuBudget {
    /// CPU time per second of wall-clock time.
    pub share: f64,
    /// CPU time at the start, and the maximum of saved time.
    pub burst: Duration,
}

impl CpuBudget {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        share: 1e6,
        burst: Duration::MAX,
    };

    /// The same budget with another share. The burst changes in proportion, so with 0 there is
    /// none: the server names everything that needs the child.
    pub fn with_share(self, share: f64) -> Self {
        Self {
            share,
            burst: self.burst.mul_f64(share / self.share),
        }
    }
}

/// The remaining time of a budget.
#[derive(Debug)]
pub(super) struct CpuAllowance {
    budget: CpuBudget,
    /// Seconds. Negative after a request that took more than was left.
    left_s: f64,
    filled: Instant,
}

impl CpuAllowance {
    /// Starts with the whole burst.
    pub(super) fn new(budget: CpuBudget, now: Instant) -> Self {
        Self {
            budget,
            left_s: budget.burst.as_secs_f64(),
            filled: now,
        }
    }

    /// Whether no time is left at `now`.
    pub(super) fn is_spent(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now.max(self.filled);
        let filled_s = self.left_s + passed * self.budget.share;
        self.left_s = filled_s.min(self.budget.burst.as_secs_f64());
        self.left_s <= 0.0
    }

    /// Subtracts used CPU time, also beyond the remaining time.
    pub(super) fn spend(&mut self, cpu: Duration) {
        self.left_s -= cpu.as_secs_f64();
    }

    /// Remaining seconds, negative if more was used.
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

    /// Check that the burst is available at once, and then the share; that no more than the burst
    /// is saved; and that overuse is made up for.
    #[test]
    fn burst_and_share() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut allowance = CpuAllowance::new(BUDGET, start);
        assert!(!allowance.is_spent(start));
        allowance.spend(Duration::from_secs(12));
        // Overuse of 2 s takes 40 s to make up for.
        assert!(allowance.is_spent(at(39)));
        assert!(!allowance.is_spent(at(41)));
        assert!((allowance.left_s() - 0.05).abs() < 1e-6);
        allowance.spend(Duration::from_millis(51));
        assert!(allowance.is_spent(at(41)));
        // After a day without use, no more than the burst is available.
        assert!(!allowance.is_spent(at(86_400)));
        assert!((allowance.left_s() - 10.0).abs() < 1e-6);
        // A clock that stands still or goes back adds no time.
        allowance.spend(Duration::from_secs(10));
        assert!(allowance.is_spent(at(1)) && allowance.is_spent(at(86_400)));
        assert!(!allowance.is_spent(at(86_401)));
    }

    /// Check a node that always needs more: in an hour of windows it gets the share and the burst,
    /// and exceeds them by at most one request.
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

    /// Check that the burst changes with the share, and that a share of 0 gives no time from the
    /// start.
    #[test]
    fn other_shares() {
        let now = Instant::now();
        let half = BUDGET.with_share(0.025);
        assert_eq!((half.share, half.burst), (0.025, Duration::from_secs(5)));
        let mut allowance = CpuAllowance::new(BUDGET.with_share(0.0), now);
        assert!(allowance.is_spent(now) && allowance.is_spent(now + Duration::from_secs(9)));
    }

    /// Check that an unlimited budget is never used up.
    #[test]
    fn unlimited() {
        let now = Instant::now();
        let mut allowance = CpuAllowance::new(CpuBudget::UNLIMITED, now);
        allowance.spend(Duration::from_secs(1 << 40));
        assert!(!allowance.is_spent(now));
    }
}
