//! A child that is restarted after a failure, at a bounded rate.

use std::io;
use std::process::Child;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::channel::FrameLimits;
use crate::process::ChildProcess;
use crate::program::ChildProgram;

/// Limits on restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimits {
    /// Children that may fail in a row ...
    pub failures_at_once: u32,
    /// ... and the time after which one more may.
    pub failure_period: Duration,
    /// Children that did not end when killed, since they wait for a dead disk or file system. With so many of them, no child is
    /// started.
    pub stuck_max: usize,
}

/// Why there is no child.
#[derive(Debug, Error)]
pub enum StartError {
    /// Too many children failed just before, or are stuck.
    #[error("too many children failed just before")]
    BackedOff,
    /// The program could not be started.
    #[error("failed to start the child: {0}")]
    Failed(#[from] io::Error),
}

/// A child, or the right to start the next one. Ends the child when it is dropped.
#[derive(Debug)]
pub struct RestartingChild {
    program: ChildProgram,
    frames: FrameLimits,
    stuck_max: usize,
    failures: FailureBudget,
    running: Option<ChildProcess>,
    stuck: Vec<Child>,
}

impl RestartingChild {
    /// No child so far.
    pub fn new(program: ChildProgram, frames: FrameLimits, limits: RestartLimits) -> Self {
        let RestartLimits {
            failures_at_once,
            failure_period,
            stuck_max,
        } = limits;
        Self {
            program,
            frames,
            stuck_max,
            failures: FailureBudget::new(failures_at_once, failure_period),
            running: None,
            stuck: Vec::new(),
        }
    }

    /// The child that runs.
    pub fn running(&self) -> Option<&ChildProcess> {
        self.running.as_ref()
    }

    /// The child that runs, to ask it.
    pub fn running_mut(&mut self) -> Option<&mut ChildProcess> {
        self.running.as_mut()
    }

    /// Starts a child in the place of any that runs.
    ///
    /// # Errors
    /// It is too early for another child, or none could be started, which counts as a failure.
    pub fn start(&mut self) -> Result<&mut ChildProcess, StartError> {
        self.end();
        self.stuck
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if self.stuck.len() >= self.stuck_max || !self.failures.allow(Instant::now()) {
            return Err(StartError::BackedOff);
        }
        match ChildProcess::start(&self.program, self.frames) {
            Ok(child) => Ok(self.running.insert(child)),
            Err(err) => {
                self.failures.spend();
                Err(err.into())
            }
        }
    }

    /// Ends the child.
    pub fn end(&mut self) {
        self.stuck
            .extend(self.running.take().and_then(ChildProcess::end));
    }

    /// Ends the child after it failed, and counts that.
    pub fn end_failed(&mut self) {
        self.failures.spend();
        self.end();
    }
}

impl Drop for RestartingChild {
    fn drop(&mut self) {
        self.end();
    }
}

/// Allows some failures at once and then a slow rate.
#[derive(Debug)]
struct FailureBudget {
    left: u32,
    max: u32,
    period: Duration,
    /// When the last failure was refilled, or the first was spent.
    since: Instant,
}

impl FailureBudget {
    fn new(max: u32, period: Duration) -> Self {
        Self {
            left: max,
            max,
            period,
            since: Instant::now(),
        }
    }

    /// Whether another child may be started at `now`.
    fn allow(&mut self, now: Instant) -> bool {
        while self.left < self.max && now.saturating_duration_since(self.since) >= self.period {
            self.left += 1;
            self.since += self.period;
        }
        self.left > 0
    }

    fn spend(&mut self) {
        if self.left == self.max {
            self.since = Instant::now();
        }
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that failures are refused after a burst, and allowed again later.
    #[test]
    fn failure_budget_refills_slowly() {
        let period = Duration::from_secs(10);
        let mut budget = FailureBudget::new(8, period);
        for _ in 0..8 {
            assert!(budget.allow(Instant::now()));
            budget.spend();
        }
        let now = Instant::now();
        assert!(!budget.allow(now));
        assert!(budget.allow(now + period));
        budget.spend();
        assert!(!budget.allow(now + period));
        assert!(budget.allow(now + period * 100));
        assert_eq!(budget.left, 8);
    }
}
