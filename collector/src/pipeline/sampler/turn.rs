//! The beginning and the end of sampling: the timers, the first and the last window, and the turn of this collector among those of the
//! node.

use std::{
    mem,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{Sampler, now};
use crate::{
    accounts::MachineTime,
    clock::monotonic_ns,
    pipeline::{account::Totals, kernel::DRAIN_INTERVAL, waiting_stacks::WAIT_NS},
};

/// Interval of checks whether the other collector has stopped: 100 a second of some 2 us each are 0.02 % of a processor.
const TURN_INTERVAL: Duration = Duration::from_millis(10);

impl Sampler {
    /// Starts the timers, and the first window.
    pub(super) fn begin(&mut self) -> Result<()> {
        let totals = Totals {
            machine: MachineTime::read()?,
            ..Totals::default()
        };
        self.accounts.begin_window();
        self.windows.begin(now(), totals);
        self.kernel.timers.start()?;
        self.hand_over.end();
        Ok(())
    }

    /// Stops the timers, lets the next collector sample, and closes the last window.
    pub(super) fn end(&mut self) {
        self.kernel.timers.stop();
        let ended_ns = monotonic_ns();
        mem::take(&mut self.turn).release();
        self.drain(u64::MAX);
        // Now, since the rest may take seconds in which nothing is sampled.
        let end = self.read_window_end();
        self.wait_for_processes();
        let finished = self.stacks.finish(Duration::from_nanos(WAIT_NS));
        self.add_finished(finished);
        self.finish_closing();
        if let Some(bounds) = self.windows.end(ended_ns, now()) {
            self.windows.close(bounds, end, 0);
        }
        self.finish_closing();
    }

    /// Whether this collector may sample now.
    pub(super) fn try_turn(&mut self) -> bool {
        match self.turn.try_take() {
            Ok(()) => true,
            Err(holder) => {
                self.hand_over.wait_for(holder);
                false
            }
        }
    }

    /// Follows processes while another collector samples. Returns whether this one samples now: not if it was stopped before.
    pub(super) fn wait_for_turn(&mut self, stop: &AtomicBool) -> bool {
        while self.hand_over.is_waiting() {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            if self.try_turn() {
                if let Err(err) = self.begin() {
                    // The end of this thread ends the collector.
                    tracing::error!(err = format!("{err:#}"), "failed to start the timers");
                    return false;
                }
            } else if self.drained.elapsed() >= DRAIN_INTERVAL {
                self.follow();
            } else {
                thread::sleep(TURN_INTERVAL);
            }
        }
        true
    }
}
