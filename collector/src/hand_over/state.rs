//! The state of the hand-over, for the log, the probes, the report and the metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::Figures;
use parking_lot::Mutex;

/// Time within which a roll-out stops the other collector: the kubelet notices in up to 2 s that this one is ready, and the other is
/// killed 30 s after it was told to stop. Beyond it the log asks for a person.
const WAIT_EXPECTED: Duration = Duration::from_secs(60);

/// Whether this collector waits for another one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct HandOver(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
enum State {
    /// No other collector sampled when this one began.
    #[default]
    None,
    Waits {
        since: Instant,
        holder: String,
        is_overdue: bool,
    },
    Done {
        seconds: f64,
    },
}

impl HandOver {
    /// The collector waits for this one to stop.
    pub(crate) fn wait_for(&self, holder: &str) {
        let mut state = self.0.lock();
        let State::Waits {
            since,
            holder: known,
            is_overdue,
        } = &mut *state
        else {
            tracing::info!(
                holder,
                "another collector samples this node: waiting for it to stop"
            );
            *state = State::Waits {
                since: Instant::now(),
                holder: holder.to_owned(),
                is_overdue: false,
            };
            return;
        };
        if known != holder {
            holder.clone_into(known);
        }
        if !*is_overdue && since.elapsed() >= WAIT_EXPECTED {
            *is_overdue = true;
            tracing::warn!(
                holder,
                "another collector still samples this node: stop it, or start this one without --hand-over"
            );
        }
    }

    /// The wait, if there was one, is over.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        if let State::Waits { since, .. } = *state {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(seconds, "sampling: the other collector has stopped");
            *state = State::Done { seconds };
        }
    }

    /// Whether another collector samples.
    pub fn is_waiting(&self) -> bool {
        matches!(*self.0.lock(), State::Waits { .. })
    }

    /// The reason, while the collector waits.
    pub fn reason(&self) -> Option<String> {
        match &*self.0.lock() {
            State::Waits { holder, .. } => Some(format!(
                "another collector samples this node, and this one waits for it to stop: {holder}"
            )),
            State::None | State::Done { .. } => None,
        }
    }

    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        let state = self.0.lock().clone();
        let (waits, seconds): (u64, f64) = match state {
            State::None => (0, 0.0),
            State::Waits { since, .. } => (1, since.elapsed().as_secs_f64()),
            State::Done { seconds } => (0, seconds),
        };
        figures.gauge(
            "hand_over_waiting",
            "1 while another collector samples this node and this one waits for it to stop (--hand-over)",
            waits,
        );
        figures.gauge(
            "hand_over_wait_seconds",
            "Time for which this collector has waited for another one to stop; 0 if there was none",
            seconds,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the reason names the last holder, and is gone with the end of the wait.
    #[test]
    fn reasons() {
        let state = HandOver::default();
        state.end();
        assert_eq!(state.reason(), None);
        state.wait_for("process 1");
        state.wait_for("process 2");
        assert!(state.is_waiting());
        let reason = state.reason().unwrap();
        assert!(reason.ends_with("to stop: process 2"), "{reason}");
        state.end();
        assert!(!state.is_waiting() && state.reason().is_none());
        assert!(matches!(*state.0.lock(), State::Done { .. }));
    }
}
