//! Cgroup ids -> cgroups. Pure: times are arguments, nanoseconds of CLOCK_MONOTONIC.

use std::{collections::VecDeque, sync::Arc};

use metrics::Figures;
use rustc_hash::FxHashMap;

use super::{Cgroup, CgroupChange, CgroupIdentity};

/// Cgroups that are followed: 110 pods of 5 containers have some 1,000. Each takes some 400 bytes with its path and its strings,
/// and 1 KB of kernel memory for its watch: 32,768 are 45 MB.
pub(super) const CGROUPS_MAX: usize = 32_768;

/// Entries of the table: as many again for cgroups that ended, and for ids without a cgroup. That is 1,000 that end in a second
/// while each is kept for [`ENDED_KEPT_NS`], at 400 bytes; beyond it the oldest are evicted.
const ENTRIES_MAX: usize = 2 * CGROUPS_MAX;

/// Lifetime of a cgroup that ended. The identity is needed until the last sample is counted into its window: up to 0.1 s until it
/// is drained, 2 s for its process (`pipeline::unattributed`) and 5.5 s for its stack (`pipeline::waiting_stacks`), and for the
/// account of the window, which is up to 30 s long: 38 s. The rest is for a collector that was stopped for some time.
pub(super) const ENDED_KEPT_NS: u64 = 60_000_000_000;

/// Ids that wait for their look-up, each for one directory: a drain has some hundred ids, nearly all of them known.
const WANTED_MAX: usize = 1024;

/// Wait for a look-up, as long as a sample waits: a watcher that hangs does not delay more samples.
const WANTED_NS: u64 = 2_000_000_000;

/// The result of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupLookup {
    /// Its identity; empty for a cgroup of which nothing can be known.
    Known(CgroupIdentity),
    /// It is being looked up.
    Pending,
}

/// Counters of the table and of the watcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// All cgroups of the node are below the mount point.
    pub shows_node: bool,
    /// Cgroups that exist.
    pub living: usize,
    /// Cgroups that ended, and ids without a cgroup.
    pub ended: usize,
    /// Cgroups that no inotify watch follows.
    pub unwatched: usize,
    /// Reads of all directories.
    pub scans: u64,
    /// Cgroups that were removed before they could be read.
    pub vanished: u64,
    /// Times that the kernel's queue of events was full.
    pub overflows: u64,
    /// Cgroups and ids that were left out because there were too many.
    pub limited: u64,
    /// Look-ups of an id that found the cgroup.
    pub found: u64,
    /// Look-ups that did not.
    pub not_found: u64,
}

impl CgroupStats {
    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.gauge(
            "host_cgroups_mounted",
            "1 if /sys/fs/cgroup has all cgroups of the node, which container_id and unit need",
            u64::from(self.shows_node),
        );
        figures.gauge("cgroups", "Cgroups that exist", self.living);
        figures.gauge(
            "cgroups_ended",
            "Cgroups that ended and are kept for their last samples, and ids without a cgroup",
            self.ended,
        );
        figures.gauge(
            "cgroups_unwatched",
            "Cgroups whose descendants are not announced, for lack of inotify watches (fs.inotify.max_user_watches)",
            self.unwatched,
        );
        figures.counter(
            "cgroup_scans",
            "Reads of the directories of all cgroups: at the start, after lost events, and each minute while some are not \
             watched",
            self.scans,
        );
        figures.counter(
            "cgroup_overflows",
            "Times that events of cgroups were lost because the queue was full (fs.inotify.max_queued_events)",
            self.overflows,
        );
        figures.counter(
            "cgroups_vanished",
            "Cgroups that were removed before the collector could read them",
            self.vanished,
        );
        figures.counter(
            "cgroup_limits",
            "Cgroups that were left out because there were too many",
            self.limited,
        );
        figures.counters(
            "cgroup_lookups",
            "Look-ups of the cgroup of a sample that no event had announced, by result",
            ["result"],
            [(["found"], self.found), (["not_found"], self.not_found)],
        );
    }
}

enum Entry {
    Living(Arc<Cgroup>),
    Ended {
        /// `None` when no cgroup was found.
        cgroup: Option<Arc<Cgroup>>,
        until_ns: u64,
    },
}

impl Entry {
    fn cgroup(&self) -> Option<&Arc<Cgroup>> {
        match self {
            Self::Living(cgroup) => Some(cgroup),
            Self::Ended { cgroup, .. } => cgroup.as_ref(),
        }
    }
}

/// An id that is to be looked up.
struct Wanted {
    /// A thread that was sampled in the cgroup.
    tid: u32,
    since_ns: u64,
    is_taken: bool,
}

/// The cgroups, by their ids.
#[derive(Default)]
pub(super) struct CgroupTable {
    entries: FxHashMap<u64, Entry>,
    /// Times and ids of the entries that ended, oldest first. An entry that lives again, or ended again, is here too.
    ended: VecDeque<(u64, u64)>,
    living: usize,
    wanted: FxHashMap<u64, Wanted>,
    stats: CgroupStats,
}

impl CgroupTable {
    /// The identity of the cgroup with this id, in which this thread was sampled. A cgroup that ended keeps its identity.
    pub(super) fn find(&mut self, id: u64, tid: u32, now_ns: u64) -> CgroupLookup {
        match self.entries.get(&id) {
            Some(Entry::Ended { until_ns, .. }) if *until_ns <= now_ns => {}
            Some(entry) => {
                let identity = entry.cgroup().map(|cgroup| cgroup.identity.clone());
                return CgroupLookup::Known(identity.unwrap_or_default());
            }
            None => {}
        }
        let unknown = CgroupLookup::Known(CgroupIdentity::default());
        if id == 0 {
            return unknown;
        }
        let is_full = self.wanted.len() >= WANTED_MAX;
        match self.wanted.get(&id) {
            Some(wanted) if wanted.since_ns.saturating_add(WANTED_NS) <= now_ns => unknown,
            Some(_) => CgroupLookup::Pending,
            None if is_full => {
                self.stats.limited += 1;
                unknown
            }
            None => {
                let wanted = Wanted {
                    tid,
                    since_ns: now_ns,
                    is_taken: false,
                };
                self.wanted.insert(id, wanted);
                CgroupLookup::Pending
            }
        }
    }

    /// The cgroup with this id, if it is known.
    pub(super) fn get(&self, id: u64) -> Option<&Arc<Cgroup>> {
        self.entries.get(&id)?.cgroup()
    }

    /// Whether an id waits for its look-up.
    pub(super) fn has_wanted(&self) -> bool {
        self.wanted.values().any(|wanted| !wanted.is_taken)
    }

    /// The ids that wait for their look-up, and a thread of each. The result is to be [applied](Self::apply), or
    /// [missed](Self::miss).
    pub(super) fn take_wanted(&mut self) -> Vec<(u64, u32)> {
        let waiting = self.wanted.iter_mut();
        let waiting = waiting.filter(|(_, wanted)| !wanted.is_taken);
        waiting
            .map(|(id, wanted)| {
                wanted.is_taken = true;
                (*id, wanted.tid)
            })
            .collect()
    }

    /// Applies a change of the tree.
    pub(super) fn apply(&mut self, change: &CgroupChange, now_ns: u64) {
        match change {
            CgroupChange::Appeared(cgroup) => self.insert(cgroup.id, Entry::Living(cgroup.clone())),
            CgroupChange::Gone(cgroup) => self.end(cgroup.id, Some(cgroup.clone()), now_ns),
        }
    }

    /// Notes that no cgroup with this id was found: it ended, or is outside of the mount.
    pub(super) fn miss(&mut self, id: u64, now_ns: u64) {
        self.stats.not_found += 1;
        if !matches!(self.entries.get(&id), Some(Entry::Living(_))) {
            self.end(id, None, now_ns);
        }
    }

    fn end(&mut self, id: u64, cgroup: Option<Arc<Cgroup>>, now_ns: u64) {
        let until_ns = now_ns.saturating_add(ENDED_KEPT_NS);
        self.insert(id, Entry::Ended { cgroup, until_ns });
        self.ended.push_back((until_ns, id));
    }

    fn insert(&mut self, id: u64, entry: Entry) {
        self.wanted.remove(&id);
        self.living += usize::from(matches!(entry, Entry::Living(_)));
        let before = self.entries.insert(id, entry);
        self.living -= usize::from(matches!(before, Some(Entry::Living(_))));
        while self.entries.len() > ENTRIES_MAX && self.evict_oldest() {
            self.stats.limited += 1;
        }
    }

    /// Forgets the cgroups whose last samples have been counted.
    pub(super) fn expire(&mut self, now_ns: u64) {
        let is_due = |(until_ns, _): &(u64, u64)| *until_ns <= now_ns;
        while self.ended.front().is_some_and(is_due) && self.evict_oldest() {}
    }

    /// Forgets the entry that ended first. Returns whether there was one.
    fn evict_oldest(&mut self) -> bool {
        let Some((ended_ns, id)) = self.ended.pop_front() else {
            return false;
        };
        if matches!(self.entries.get(&id), Some(Entry::Ended { until_ns, .. }) if *until_ns == ended_ns)
        {
            self.entries.remove(&id);
        }
        true
    }

    /// The counters, for the watcher to write.
    pub(super) fn stats_mut(&mut self) -> &mut CgroupStats {
        &mut self.stats
    }

    /// The counters.
    pub(super) fn stats(&self) -> CgroupStats {
        CgroupStats {
            living: self.living,
            ended: self.entries.len() - self.living,
            ..self.stats
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn appeared(id: u64, path: &str) -> CgroupChange {
        CgroupChange::Appeared(Arc::new(Cgroup::new(id, Path::new(path))))
    }

    fn gone(change: &CgroupChange) -> CgroupChange {
        match change {
            CgroupChange::Appeared(cgroup) | CgroupChange::Gone(cgroup) => {
                CgroupChange::Gone(cgroup.clone())
            }
        }
    }

    fn unit(table: &mut CgroupTable, id: u64, now_ns: u64) -> Option<String> {
        match table.find(id, 1, now_ns) {
            CgroupLookup::Known(identity) => Some(identity.unit.as_deref().unwrap_or("-").into()),
            CgroupLookup::Pending => None,
        }
    }

    /// Check that a cgroup that ended keeps its identity for its last samples and no longer, and that an id that comes again has
    /// the identity of the new cgroup.
    #[test]
    fn ended_cgroups_are_kept_for_a_while() {
        let mut table = CgroupTable::default();
        let [first, second] = ["a.service", "b.service"].map(|name| appeared(7, name));
        table.apply(&first, 0);
        table.apply(&gone(&first), SECOND);
        assert_eq!((table.stats().living, table.stats().ended), (0, 1));
        let last_ns = SECOND + ENDED_KEPT_NS - 1;
        table.expire(last_ns);
        assert_eq!(unit(&mut table, 7, last_ns).as_deref(), Some("a.service"));
        table.apply(&second, last_ns);
        table.expire(last_ns + 1);
        assert_eq!(
            unit(&mut table, 7, last_ns + 1).as_deref(),
            Some("b.service")
        );
        table.apply(&gone(&second), last_ns);
        table.expire(last_ns + ENDED_KEPT_NS);
        assert_eq!(unit(&mut table, 7, last_ns + ENDED_KEPT_NS), None);
        assert_eq!(table.stats(), CgroupStats::default());
        assert!(table.ended.is_empty());
    }

    /// Check that an unknown id is looked up once, with one of its threads, and that a look-up without an answer delays samples for
    /// two seconds only.
    #[test]
    fn unknown_ids_are_looked_up_once() {
        let mut table = CgroupTable::default();
        assert_eq!(unit(&mut table, 0, 0).as_deref(), Some("-"));
        assert!(!table.has_wanted());
        for tid in [5, 6] {
            assert_eq!(table.find(7, tid, 0), CgroupLookup::Pending);
        }
        assert!(table.has_wanted());
        assert_eq!(table.take_wanted(), [(7, 5)]);
        assert!(!table.has_wanted() && table.take_wanted().is_empty());
        assert_eq!(unit(&mut table, 7, WANTED_NS - 1), None);
        assert_eq!(unit(&mut table, 7, WANTED_NS).as_deref(), Some("-"));
        table.miss(7, WANTED_NS);
        assert_eq!(unit(&mut table, 7, ENDED_KEPT_NS).as_deref(), Some("-"));
        assert_eq!(unit(&mut table, 7, ENDED_KEPT_NS + WANTED_NS), None);
        assert_eq!(table.take_wanted().len(), 1);
        table.apply(&appeared(7, "late.service"), ENDED_KEPT_NS + WANTED_NS);
        assert_eq!(
            unit(&mut table, 7, u64::MAX).as_deref(),
            Some("late.service")
        );
        table.miss(7, u64::MAX);
        assert_eq!(
            unit(&mut table, 7, u64::MAX).as_deref(),
            Some("late.service")
        );
    }

    /// Check that a node that makes and removes cgroups all the time, or has samples of any number of unknown ones, keeps the
    /// living ones and a bounded number of others, the latest.
    #[test]
    fn entries_are_bounded() {
        let mut table = CgroupTable::default();
        table.apply(&appeared(1, "living.service"), 0);
        let last = 1 + 2 * ENTRIES_MAX as u64;
        for id in 2..=last {
            let change = appeared(id, "x.service");
            table.apply(&change, id);
            table.apply(&gone(&change), id);
        }
        assert_eq!(table.stats().living + table.stats().ended, ENTRIES_MAX);
        assert_eq!(
            table.stats().limited as usize,
            2 * ENTRIES_MAX + 1 - ENTRIES_MAX
        );
        assert_eq!(unit(&mut table, 1, last).as_deref(), Some("living.service"));
        assert_eq!(unit(&mut table, last, last).as_deref(), Some("x.service"));
        for id in 0..2 * WANTED_MAX as u64 {
            table.find(last + 1 + id, 1, 0);
        }
        assert_eq!(table.take_wanted().len(), WANTED_MAX);
        assert!(table.ended.len() <= ENTRIES_MAX);
    }
}
