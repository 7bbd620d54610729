//! Processes, and the entries of their mappings in the kernel.
//!
//! In: the mappings of a process, and the kernel's entries for each. Out: writes. Each state of a
//! process's mappings has its own range in the map and its own version, which is part of the key of
//! the program's cache of rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use profiler_bpf::tables::{
    MAPPING_SEARCH_STEPS, MAPPINGS_MAX, PROCESS_MAPPINGS_COMPLETE, PROCESSES_MAX,
    Process as ProcessEntry,
};
use rustc_hash::FxHashMap;

use super::{epochs::Epoch, intervals::Intervals, write::Write};
use crate::process::Mappings;

/// Mappings of a process that a search can handle: an eighth of all.
pub(super) const PROCESS_MAPPINGS_MAX: usize = (1 << MAPPING_SEARCH_STEPS) - 1;

/// The part of a process's entry that must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    Flags,
    Mappings,
    Removed,
}

/// A process that was sampled.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) identity: u64,
    pub(super) mappings: Arc<Mappings>,
    /// Its range in the map, and the version there.
    place: Range<u32>,
    version: u32,
    /// Time at which its entry must be written again, since the rows of replaced code are no longer
    /// stale then; 0: never.
    recheck_ns: u64,
    pub(super) has_all_mappings: bool,
    is_written: bool,
    pub(super) sampled_ns: u64,
}

impl Process {
    fn write(&self, pid: u32) -> Write {
        let entry = ProcessEntry {
            identity: self.identity,
            first: self.place.start,
            count: self.place.end - self.place.start,
            version: self.version,
            flags: if self.has_all_mappings {
                PROCESS_MAPPINGS_COMPLETE
            } else {
                0
            },
        };
        Write::Process {
            pid,
            words: entry.to_words(),
        }
    }
}

/// All processes.
#[derive(Debug)]
pub(super) struct Processes {
    known: FxHashMap<u32, Process>,
    /// Processes whose entry must be written.
    changed: BTreeMap<u32, Change>,
    /// Processes with [`Process::recheck_ns`].
    rechecked: BTreeSet<u32>,
    places: Intervals,
    /// The last version. Never decreases while the program runs.
    version: u32,
}

impl Processes {
    pub(super) fn new() -> Self {
        Self {
            known: FxHashMap::default(),
            changed: BTreeMap::new(),
            rechecked: BTreeSet::new(),
            places: Intervals::new(MAPPINGS_MAX),
            version: 0,
        }
    }

    pub(super) fn get(&self, pid: u32) -> Option<&Process> {
        self.known.get(&pid)
    }

    pub(super) fn get_mut(&mut self, pid: u32) -> Option<&mut Process> {
        self.known.get_mut(&pid)
    }

    pub(super) fn is_full(&self) -> bool {
        self.known.len() >= PROCESSES_MAX as usize
    }

    /// Sets the mappings of a process, and returns the previous ones.
    pub(super) fn set(
        &mut self,
        pid: u32,
        identity: u64,
        mappings: &Arc<Mappings>,
        now_ns: u64,
    ) -> Option<Arc<Mappings>> {
        // The kernel may still have it, to be removed.
        let is_written = self.changed.get(&pid) == Some(&Change::Removed);
        self.changed.insert(pid, Change::Mappings);
        if let Some(process) = self.known.get_mut(&pid) {
            process.identity = identity;
            process.has_all_mappings = false;
            return Some(std::mem::replace(&mut process.mappings, mappings.clone()));
        }
        let process = Process {
            identity,
            mappings: mappings.clone(),
            place: 0..0,
            version: 0,
            recheck_ns: 0,
            has_all_mappings: false,
            is_written,
            sampled_ns: now_ns,
        };
        self.known.insert(pid, process);
        None
    }

    /// Schedules writing a process's entry.
    pub(super) fn change(&mut self, pid: u32, change: Change) {
        let noted = self.changed.entry(pid).or_insert(change);
        *noted = change.max(*noted);
    }

    /// Removes a process.
    pub(super) fn remove(&mut self, pid: u32, epoch: Epoch) -> Option<Process> {
        let process = self.known.remove(&pid)?;
        self.places.retire(process.place.clone(), epoch);
        if process.is_written {
            self.changed.insert(pid, Change::Removed);
        } else if self.changed.get(&pid) != Some(&Change::Removed) {
            self.changed.remove(&pid);
        }
        Some(process)
    }

    /// The least recently sampled sixteenth of all processes. Several at once, since finding them
    /// is expensive.
    pub(super) fn least_sampled(&self) -> Vec<u32> {
        let known = self.known.iter();
        let mut by_time: Vec<(u64, u32)> = known
            .map(|(pid, process)| (process.sampled_ns, *pid))
            .collect();
        by_time.sort_unstable();
        let count = by_time.len().div_ceil(16);
        let oldest = by_time.into_iter().take(count);
        oldest.map(|(_, pid)| pid).collect()
    }

    /// Takes the changes to write, by process.
    pub(super) fn take_changed(&mut self) -> BTreeMap<u32, Change> {
        std::mem::take(&mut self.changed)
    }

    /// The entry of a process whose mappings are in the kernel, for a change of its flags.
    pub(super) fn write_flags(&self, pid: u32) -> Option<Write> {
        let process = self.known.get(&pid).filter(|process| process.is_written)?;
        Some(process.write(pid))
    }

    /// Writes a process's entry to a new range; `None` if there is no room. `recheck_ns` is the
    /// time at which it must be written again, 0: never.
    pub(super) fn write_mappings(
        &mut self,
        pid: u32,
        words: Vec<[u64; 4]>,
        recheck_ns: u64,
        epoch: Epoch,
    ) -> Option<(Option<Write>, Write)> {
        let len = words.len() as u32;
        let place = match len {
            0 => 0,
            _ => self.places.allocate(len)?,
        };
        self.version = self.version.wrapping_add(1).max(1);
        let process = self.known.get_mut(&pid)?;
        let before = std::mem::replace(&mut process.place, place..place + len);
        self.places.retire(before, epoch);
        process.version = self.version;
        process.recheck_ns = recheck_ns;
        process.is_written = true;
        match recheck_ns {
            0 => self.rechecked.remove(&pid),
            _ => self.rechecked.insert(pid),
        };
        let mappings = (len > 0).then_some(Write::Mappings { place, words });
        Some((mappings, process.write(pid)))
    }

    /// Whether the current grace periods will free room for `len` mappings.
    pub(super) fn has_room_soon(&self, len: u32) -> bool {
        self.places.retired() >= len
    }

    /// Schedules writing the entries of processes whose replaced code is old enough now.
    pub(super) fn recheck(&mut self, now_ns: u64) {
        let Self {
            known,
            changed,
            rechecked,
            ..
        } = self;
        rechecked.retain(|pid| {
            let Some(process) = known.get(pid) else {
                return false;
            };
            if process.recheck_ns <= now_ns {
                changed.insert(*pid, Change::Mappings);
            }
            process.recheck_ns > now_ns
        });
    }

    /// Ends the grace periods of ranges that were retired up to `epoch`. Returns whether any became
    /// free.
    pub(super) fn end_grace(&mut self, epoch: Epoch) -> bool {
        let before = self.places.used();
        self.places.release(epoch);
        self.places.used() != before
    }

    /// Forgets all processes, after the kernel's map was emptied.
    pub(super) fn forget_all(&mut self, epoch: Epoch) {
        for process in std::mem::take(&mut self.known).into_values() {
            self.places.retire(process.place, epoch);
        }
        self.changed.clear();
        self.rechecked.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.known.iter().map(|(pid, process)| (*pid, process))
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn mappings_used(&self) -> u32 {
        self.places.used()
    }
}
