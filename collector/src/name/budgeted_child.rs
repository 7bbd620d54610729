//! The naming child within its budget of time.
//!
//! In: requests. Out: answers, as long as there is CPU time and the window has time. The names of a window may take 20 s of
//! wall-clock time, and 10 s more for the request that runs then.

use std::fmt::Display;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::budget::CpuAllowance;
use super::failure::Failure;
use super::naming_child::NamingChild;
use super::options::NamerOptions;
use super::protocol::{Request, Response};
use super::stats::{HeldBack, NamerStats};

/// Time for all windows that are left when the collector ends. Six may be: with [`NamerOptions::window_time`] for each they would
/// take two minutes. The server names what has no name then.
const ENDING_TIME: Duration = Duration::from_secs(2);

/// The child, and the time that is left for it.
#[derive(Debug)]
pub(super) struct BudgetedChild {
    child: NamingChild,
    allowance: CpuAllowance,
    clock: fn() -> Instant,
    /// Nothing was left of it in this window: nothing more is asked for, since what comes later has fewer samples.
    is_spent: bool,
    window_time: Duration,
    window_time_used: Duration,
    is_ending: Arc<AtomicBool>,
    held_back: HeldBack,
}

impl BudgetedChild {
    /// No child so far.
    pub(super) fn new(options: &NamerOptions) -> Self {
        Self {
            child: NamingChild::new(options),
            allowance: CpuAllowance::new(options.cpu, (options.clock)()),
            clock: options.clock,
            is_spent: false,
            window_time: options.window_time,
            window_time_used: Duration::ZERO,
            is_ending: options.is_ending.clone(),
            held_back: HeldBack::default(),
        }
    }

    /// The next window has time of its own.
    pub(super) fn end_window(&mut self) {
        if !self.is_ending() {
            self.window_time_used = Duration::ZERO;
        }
        self.is_spent = false;
    }

    /// Sends a request with what could be opened. What could not is asked for all the same: the child may have it open
    /// from before.
    ///
    /// # Errors
    /// There is no child, or it failed.
    pub(super) fn ask(
        &mut self,
        request: Request,
        files: &[BorrowedFd<'_>],
        object: &dyn Display,
    ) -> Result<Response, Failure> {
        let exchange = self.child.ask(request, files, object)?;
        self.window_time_used += exchange.elapsed;
        self.spend(exchange.cpu);
        exchange.result
    }

    /// Takes CPU time from the allowance.
    pub(super) fn spend(&mut self, cpu: Duration) {
        self.allowance.spend(cpu);
    }

    /// Whether there is time for one more request.
    ///
    /// # Errors
    /// It is postponed.
    pub(super) fn may_ask(&mut self) -> Result<(), Failure> {
        let window_time = if self.is_ending() {
            self.window_time.min(ENDING_TIME)
        } else {
            self.window_time
        };
        let held_back = &mut self.held_back;
        self.is_spent = self.is_spent || self.allowance.is_spent((self.clock)());
        if self.window_time_used >= window_time {
            held_back.window_time += 1;
        } else if self.is_spent {
            held_back.cpu_time += 1;
        } else {
            return Ok(());
        }
        Err(Failure::Postponed)
    }

    /// Number of the child's process, if one runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Whether the child may not change its root directory.
    pub(super) fn is_unconfined(&self) -> bool {
        self.child.is_unconfined()
    }

    /// These figures with what the children did so far, and what the one that runs takes now.
    pub(super) fn add_to(&self, stats: NamerStats) -> NamerStats {
        let child = self.child.stats();
        NamerStats {
            requests: child.requests,
            starts: child.starts,
            ends: child.ends,
            held_back: HeldBack {
                children: child.backed_off,
                ..self.held_back
            },
            unconfined: child.unconfined,
            cpu_left_s: self.allowance.left_s(),
            child_cpu_ns: child.cpu_ns,
            child_resident_peak_bytes: child.resident_peak_bytes,
            child: child.running,
            ..stats
        }
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that all windows together have some seconds when the collector ends, and each its own time before.
    #[test]
    fn the_end_does_not_wait_for_names() {
        let mut child = BudgetedChild::new(&NamerOptions::default());
        child.window_time_used = ENDING_TIME;
        assert!(child.may_ask().is_ok());
        child.end_window();
        assert_eq!(child.window_time_used, Duration::ZERO);
        child.is_ending.store(true, Ordering::Relaxed);
        assert!(child.may_ask().is_ok());
        child.window_time_used = ENDING_TIME;
        for _ in 0..3 {
            assert!(child.may_ask().is_err());
            child.end_window();
        }
        assert_eq!(child.held_back.window_time, 3);
    }
}
