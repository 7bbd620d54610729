//! Conditions that keep the collector from being ready.
//!
//! A part that keeps the collector from being ready holds a condition of [`Readiness`] with the
//! reason, and releases it later. The condition's name says which of these it is: `starting`,
//! `cannot_sample` (and why), or a part that profiles still lack, such as `host_cgroups`.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// The conditions that keep the collector from being ready. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// The collector is not ready because of `condition`, until it is released. The reason is a
    /// sentence for people, with the remedy; several are separated by line breaks.
    pub fn hold(&self, condition: &'static str, reason: impl Into<String>) {
        self.0.lock().insert(condition, reason.into());
    }

    /// The condition no longer keeps the collector from being ready.
    pub fn release(&self, condition: &'static str) {
        self.0.lock().remove(condition);
    }

    /// The conditions that are held, with their reasons.
    pub fn conditions(&self) -> BTreeMap<&'static str, String> {
        self.0.lock().clone()
    }
}
