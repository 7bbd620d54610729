//! Wakes the store's threads in the background.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Wakes a thread in the background, and stops it.
#[derive(Default)]
pub struct Wakeup {
    state: Mutex<WakeupState>,
    changed: Condvar,
    is_stopped: AtomicBool,
}

#[derive(Default)]
struct WakeupState {
    /// Something may be due.
    is_woken: bool,
    /// Nothing was due when the thread looked last.
    is_idle: bool,
}

impl Wakeup {
    /// Something may be due.
    pub fn wake(&self) {
        let mut state = self.state.lock();
        (state.is_woken, state.is_idle) = (true, false);
        self.changed.notify_all();
    }

    /// Ends the thread after its step.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Waits until the thread finds nothing to do.
    pub fn wait_idle(&self) {
        self.wake();
        let mut state = self.state.lock();
        while !state.is_idle && !self.is_stopped() {
            self.changed.wait(&mut state);
        }
    }

    /// Whether the store is being closed.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Sleeps until it is woken, or some time has passed. `is_idle` says whether nothing is to be done.
    pub fn wait(&self, time: Duration, is_idle: bool) {
        let mut state = self.state.lock();
        if !state.is_woken && !self.is_stopped() {
            state.is_idle = is_idle;
            self.changed.notify_all();
            self.changed.wait_for(&mut state, time);
        }
        (state.is_woken, state.is_idle) = (false, false);
    }
}
