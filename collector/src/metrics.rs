//! Statistics of stages, and metrics of the collector as a process.
//!
//! Each stage owns its [`Stats`] and registers them; this module knows none of the stages.

use std::{fmt, sync::Arc};

use metrics::{Figures, Registry, register_figures, register_program};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Before the name of each metric of the collector.
pub const PREFIX: &str = "pilotlight_collector";

/// The registry of the program. It is served from the start on, and stages register later. Clones
/// share it.
#[derive(Clone, Debug, Default)]
pub struct SharedRegistry(Arc<RwLock<Registry>>);

impl SharedRegistry {
    /// The registry, to read.
    pub fn read(&self) -> RwLockReadGuard<'_, Registry> {
        self.0.read()
    }

    /// The registry, to register with.
    pub fn write(&self) -> RwLockWriteGuard<'_, Registry> {
        self.0.write()
    }
}

/// Registers the version and the time of the start.
pub fn register_process(registry: &mut Registry) {
    register_program(registry, PREFIX, env!("CARGO_PKG_VERSION"));
}

/// Statistics that a stage writes and a scrape reads. Clones share them.
#[derive(Debug, Default)]
pub struct Stats<T>(Arc<Mutex<T>>);

impl<T> Clone for Stats<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Stats<T> {
    /// The statistics, to read or to write.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}

impl<T: Clone + fmt::Debug + Send + 'static> Stats<T> {
    /// Registers the statistics, which `show` writes at each scrape.
    pub fn register(&self, registry: &mut Registry, show: fn(&T, &mut Figures<'_>)) {
        let stats = self.clone();
        register_figures(registry, move |figures| {
            // A copy, so that no stage waits for the text.
            let stats = stats.lock().clone();
            show(&stats, figures);
        });
    }
}

/// Nanoseconds as seconds, the unit of all times in metrics.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
