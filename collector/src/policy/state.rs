//! The policy as it is now.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s::Policy;
use parking_lot::{Condvar, Mutex};
use sha2::{Digest as _, Sha256};

/// A policy that was read.
#[derive(Debug)]
pub struct KnownPolicy {
    /// The rules.
    pub policy: Policy,
    /// The first 12 hexadecimal digits of the SHA-256 of its text.
    pub revision: String,
}

/// The policy in force.
#[derive(Clone, Debug, Default)]
pub enum PolicyNow {
    /// No policy is configured: everything is profiled.
    #[default]
    None,
    /// One is configured, and it was never read: no pod is decided. Processes outside of pods are profiled.
    Unread,
    /// This one.
    Known(Arc<KnownPolicy>),
}

/// How the policy in force relates to its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceState {
    /// The policy is the source's, as far as is known.
    #[default]
    Current,
    /// The source cannot be read or its policy not be used, so that the last one stays in force, if there is one. The text has the
    /// cause and the remedy.
    Failing(String),
}

#[derive(Debug, Default)]
struct Current {
    policy: PolicyNow,
    source: SourceState,
}

#[derive(Debug, Default)]
struct Shared {
    current: Mutex<Current>,
    changed: Condvar,
    generation: AtomicU64,
}

/// The policy as it is now. Clones share it. By default no policy is configured.
#[derive(Clone, Debug, Default)]
pub struct PolicyState(Arc<Shared>);

impl PolicyState {
    /// A policy is configured and has not been read.
    pub fn unread() -> Self {
        let state = Self::default();
        state.0.current.lock().policy = PolicyNow::Unread;
        state
    }

    /// A number that grows with each policy: one load of an atomic.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// The policy in force.
    pub fn now(&self) -> PolicyNow {
        self.0.current.lock().policy.clone()
    }

    /// How it relates to its source.
    pub fn source(&self) -> SourceState {
        self.0.current.lock().source.clone()
    }

    /// Waits until the generation is another than this one, up to this long. Returns whether it is.
    pub fn wait_for_change(&self, generation: u64, time: Duration) -> bool {
        let mut current = self.0.current.lock();
        let is_same = |_: &mut Current| self.generation() == generation;
        let waited = self.0.changed.wait_while_for(&mut current, is_same, time);
        !waited.timed_out()
    }

    /// Puts a policy in force, and says how it relates to its source.
    pub fn set(&self, policy: Arc<KnownPolicy>, source: SourceState) {
        let mut current = self.0.current.lock();
        *current = Current {
            policy: PolicyNow::Known(policy),
            source,
        };
        // Under the lock, so that nobody who waits misses it.
        self.0.generation.fetch_add(1, Ordering::Release);
        drop(current);
        self.0.changed.notify_all();
    }

    /// Says how the policy in force relates to its source.
    pub fn set_source(&self, source: SourceState) {
        self.0.current.lock().source = source;
    }
}

/// Digits of a revision: 48 bits tell the policies of a cluster apart.
const REVISION_DIGITS: usize = 12;

/// The revision of a text: as `sha256sum` writes it, cut.
pub(super) fn revision_of(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let digits = digest.iter().map(|byte| format!("{byte:02x}"));
    digits.take(REVISION_DIGITS / 2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Arc<KnownPolicy> {
        Arc::new(KnownPolicy {
            policy: Policy::parse(text).unwrap(),
            revision: "1".into(),
        })
    }

    /// Check that a reader who waits sees a new policy, and that news of the source alone are no new policy.
    #[test]
    fn readers_are_woken() {
        let state = PolicyState::unread();
        assert!(matches!(state.now(), PolicyNow::Unread));
        let before = state.generation();
        state.set_source(SourceState::Failing("gone".into()));
        assert!(!state.wait_for_change(before, Duration::ZERO));
        let writer = state.clone();
        let thread = std::thread::spawn(move || {
            writer.set(known("host: deny"), SourceState::Current);
        });
        assert!(state.wait_for_change(before, Duration::from_secs(60)));
        thread.join().unwrap();
        assert!(matches!(state.now(), PolicyNow::Known(_)));
        assert_eq!(state.source(), SourceState::Current);
    }
}
