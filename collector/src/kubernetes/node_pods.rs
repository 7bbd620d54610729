//! The table of pods, which the watch writes and labels (and policies) read.

use std::{sync::Arc, time::Duration};

use k8s::PodTable;
use metrics::{Registry, register_figures};
use parking_lot::{Condvar, Mutex};

use super::stats::WatchStats;
use crate::clock::monotonic_ns;

/// Interval at which a waiting reader checks whether the collector is stopping.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The pods of this node. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct NodePods(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) table: PodTable,
    pub(crate) stats: WatchStats,
}

impl NodePods {
    /// Whether all pods were listed once. Before that, the labels of pods are missing.
    pub fn has_listed(&self) -> bool {
        self.read(PodTable::has_listed)
    }

    /// Whether the last request of the watch succeeded.
    pub fn is_connected(&self) -> bool {
        self.0.state.lock().stats.is_connected
    }

    /// Reads the table. The watch waits meanwhile.
    pub fn read<T>(&self, read: impl FnOnce(&PodTable) -> T) -> T {
        read(&self.0.state.lock().table)
    }

    /// Changes the table or the counts, and wakes the readers that wait.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.0.state.lock());
        self.0.changed.notify_all();
        result
    }

    /// Waits until `look`, which is called at each change of the table, returns true, or until a time in nanoseconds of CLOCK_MONOTONIC.
    /// Returns `false` at once if the watch does not work or the collector stops.
    pub fn wait_until(
        &self,
        deadline_ns: u64,
        is_stopping: impl Fn() -> bool,
        mut look: impl FnMut(&PodTable) -> bool,
    ) -> bool {
        let mut state = self.0.state.lock();
        loop {
            let left = Duration::from_nanos(deadline_ns.saturating_sub(monotonic_ns()));
            if look(&state.table) || left.is_zero() {
                return true;
            }
            if !state.stats.is_connected || is_stopping() {
                return false;
            }
            let wait = left.min(STOP_CHECK_INTERVAL);
            self.0.changed.wait_for(&mut state, wait);
        }
    }

    /// Registers the counts of the watch and of the table.
    pub fn register(&self, registry: &mut Registry) {
        let pods = self.clone();
        register_figures(registry, move |figures| {
            let state = pods.0.state.lock();
            let (stats, table, has_listed) = (
                state.stats.clone(),
                state.table.stats(),
                state.table.has_listed(),
            );
            drop(state);
            stats.show(table, has_listed, figures);
        });
    }
}
