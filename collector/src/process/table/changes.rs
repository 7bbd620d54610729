//! Processes whose changes are reported.
//!
//! In: the processes to follow, and each change of any process. Out: the changes of the followed ones, with their mappings at the
//! time of the call.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::process::Mappings;

/// A change of a process that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It maps something else.
    Mapped(Arc<Mappings>),
    /// It ended, or became another by an exec: it is not followed any more.
    Ended,
}

/// The last change of a process that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followed {
    Same,
    Mapped,
    Ended,
}

/// The followed processes, by number.
#[derive(Debug, Default)]
pub(super) struct FollowedProcesses(FxHashMap<u32, Followed>);

impl FollowedProcesses {
    /// Follows a process from now on.
    pub(super) fn follow(&mut self, pid: u32) {
        self.0.insert(pid, Followed::Same);
    }

    /// A process ended, or another has its number.
    pub(super) fn note_end(&mut self, pid: u32) {
        if let Some(followed) = self.0.get_mut(&pid) {
            *followed = Followed::Ended;
        }
    }

    /// A process maps something else.
    pub(super) fn note_mapped(&mut self, pid: u32) {
        if let Some(followed @ Followed::Same) = self.0.get_mut(&pid) {
            *followed = Followed::Mapped;
        }
    }

    /// The changes since the last call. `mappings_of` gives the mappings of a process, if it is known.
    pub(super) fn take(
        &mut self,
        mappings_of: impl Fn(u32) -> Option<Arc<Mappings>>,
    ) -> Vec<(u32, Change)> {
        let mut changes = Vec::new();
        self.0.retain(|pid, followed| {
            let change = match followed {
                Followed::Same => return true,
                Followed::Mapped => mappings_of(*pid).map_or(Change::Ended, Change::Mapped),
                Followed::Ended => Change::Ended,
            };
            *followed = Followed::Same;
            let is_followed = change != Change::Ended;
            changes.push((*pid, change));
            is_followed
        });
        changes
    }
}
