//! The table of processes, and how events and reads of `/proc` change it; pure.
//!
//! In: events, in the order of their times, and reads of `/proc`. Out: the process with a number at the time of a sample, and
//! which processes are to be read.
//!
//! Events are complete as long as none is lost. After a loss every entry may be wrong: another process may have the id, or the
//! process may have mapped other files. So each process is read from `/proc` again before its next sample is counted, and
//! processes that are gone leave the table with the next list of all processes.
//!
//! | module | its job |
//! | --- | --- |
//! | `entry` | one process |
//! | `scan` | when all processes are read |
//! | `changes` | changes of the processes that are followed |
//! | `living` | living processes that map a file |

mod changes;
mod entry;
mod living;
mod scan;
mod stats;

use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use changes::Change;
pub use entry::Process;
#[cfg(test)]
pub(crate) use entry::testing;
pub use living::LivingMapping;
pub use stats::TableStats;

use self::{changes::FollowedProcesses, entry::Entry, living::find_mappings, scan::ScanSchedule};
use super::{
    FileIdentity, FileKind, Files, MappedFile, Mapping, Mappings, ProcessList, ProcessRead,
    ProcessSnapshot, SideBandEvent, SnapshotError, SnapshotMapping,
    path::{file_kind, lossy_name, shown_path},
    reads::{Reads, Requested},
};

/// Processes known at a time. The kernel's default `pid_max` on small machines is
/// 32,768; a process takes about 250 bytes beside its mappings (shared after fork).
const PROCESSES_MAX: usize = 32_768;

/// Processes evicted at once when the table is full, so that finding the least recently sampled ones, 1 ms, is not done for each
/// new process.
const EVICTED_AT_ONCE: usize = PROCESSES_MAX / 16;

/// Ancestors of a process that are given: shell, script, runtime, and what started that.
const ANCESTORS_MAX: usize = 8;

/// The result of a lookup.
#[derive(Debug)]
pub enum Found<'a> {
    /// The process.
    Known(&'a Process),
    /// It is being read from `/proc`.
    Pending,
    /// It is gone, or too many are being read.
    Unknown,
}

/// All processes of the machine.
pub struct ProcessTable {
    processes: FxHashMap<u32, Entry>,
    files: Files,
    stats: TableStats,
    /// Times that events were lost, and when they were lost last.
    losses: u64,
    lost_ns: u64,
    reads: Reads,
    scan: ScanSchedule,
    /// The last [`Process::files_version`].
    files_version: u64,
    followed: FollowedProcesses,
}

impl ProcessTable {
    /// A table without processes, which wants all to be read.
    ///
    /// The side band must be open before they are read, so that nothing is missed: an event
    /// from before the read is applied again, with the same result.
    pub fn new() -> Self {
        Self {
            processes: FxHashMap::default(),
            files: Files::new(),
            stats: TableStats::default(),
            losses: 1,
            lost_ns: 0,
            reads: Reads::default(),
            scan: ScanSchedule::new(),
            files_version: 0,
            followed: FollowedProcesses::default(),
        }
    }

    /// The processes that are to be read. Each read is to be [applied](Self::apply_read).
    pub fn take_requests(&mut self) -> Vec<u32> {
        self.reads.take_requests()
    }

    /// Whether all processes are to be read now. Their reads are to be applied, and their list after them.
    pub fn begin_scan(&mut self, now_ns: u64) -> bool {
        let begins = self.scan.begin(now_ns);
        if begins {
            self.reads.begin_scan();
        }
        begins
    }

    /// Applies the read of a process.
    pub fn apply_read(&mut self, read: ProcessRead, now_ns: u64) {
        let ProcessRead {
            pid,
            begun_ns,
            snapshot,
        } = read;
        let later_events = self.reads.end(pid, begun_ns);
        match snapshot {
            Ok(snapshot) => {
                if self.is_known_since(pid, begun_ns) {
                    return;
                }
                self.insert_snapshot(pid, snapshot, now_ns);
                for event in later_events {
                    self.apply_event(event.event, event.time_ns);
                }
                if begun_ns < self.lost_ns
                    && let Some(entry) = self.processes.get_mut(&pid)
                {
                    entry.distrust();
                }
            }
            Err(SnapshotError::Gone) => {
                self.reads.note_absent(pid, now_ns);
                if !self.is_known_since(pid, begun_ns) {
                    self.end_unseen(pid, begun_ns);
                }
            }
            Err(SnapshotError::TimedOut) => {
                self.stats.reads_timed_out += 1;
                self.reads.note_timed_out(pid, now_ns);
            }
        }
    }

    /// Whether the entry is newer than this time, and complete.
    fn is_known_since(&self, pid: u32, time_ns: u64) -> bool {
        let entry = self.processes.get(&pid);
        entry.is_some_and(|entry| {
            entry.is_complete(self.losses) && entry.process().since_ns > time_ns
        })
    }

    fn insert_snapshot(&mut self, pid: u32, snapshot: ProcessSnapshot, now_ns: u64) {
        self.stats.read_late += 1;
        let ProcessSnapshot {
            comm,
            exe,
            parent,
            started,
            mappings,
        } = snapshot;
        let mappings = self.make_mappings(mappings);
        let known = self.processes.get(&pid);
        let known = known.filter(|entry| entry.is_same(started));
        if known.is_none() {
            self.followed.note_end(pid);
        }
        let unchanged = known.map(Entry::process);
        let unchanged = unchanged.filter(|process| process.mappings.are_same(&mappings));
        let (mappings, files_version) = match unchanged {
            Some(process) => (process.mappings.clone(), process.files_version),
            None => {
                self.followed.note_mapped(pid);
                self.files_version += 1;
                (Arc::new(mappings), self.files_version)
            }
        };
        let exe = exe.map(|path| {
            let path = shown_path(FileKind::File, &path);
            String::from_utf8_lossy(path).into()
        });
        let process = Process {
            comm: lossy_name(&comm),
            exe,
            parent,
            since_ns: started.monotonic_ns,
            mappings,
            files_version,
        };
        let entry = Entry::read(known, process, started.ticks, self.losses, now_ns);
        self.insert(pid, entry);
    }

    fn make_mappings(&mut self, snapshot: Vec<SnapshotMapping>) -> Mappings {
        let mut mappings = Mappings::default();
        for mapping in snapshot {
            let SnapshotMapping {
                start,
                end,
                file_offset,
                path,
                identity,
            } = mapping;
            let mapping = self.make_mapping((start, end), file_offset, &path, identity);
            if !mappings.insert(mapping, 0) {
                self.stats.limited += 1;
            }
        }
        mappings
    }

    fn make_mapping(
        &mut self,
        (start, end): (u64, u64),
        file_offset: u64,
        path: &[u8],
        identity: FileIdentity,
    ) -> Mapping {
        let kind = file_kind(path);
        let identity = match kind {
            FileKind::File => identity,
            _ => FileIdentity::Path,
        };
        // In events the kernel gives anonymous memory its address as offset, and the vDSO 0.
        let file_offset = if kind == FileKind::Anonymous {
            start
        } else {
            file_offset
        };
        let file = self.files.intern(kind, shown_path(kind, path), identity);
        Mapping::new(start..end, file_offset, file)
    }

    /// Applies the list of all processes, after their reads: those that are not in it have ended, and where another has the id,
    /// the one before has.
    pub fn apply_list(&mut self, list: &ProcessList) {
        self.scan.end();
        self.reads.end_scan();
        let is_gone = |pid: &u32, entry: &Entry| match list.living.get(pid) {
            // A process that was sampled since is alive, whether it is in the list or not: /proc may show another namespace.
            None => entry.process().since_ns.max(entry.used_ns()) < list.begun_ns,
            Some(Some(started)) => {
                entry.process().since_ns < list.begun_ns && !entry.is_same(*started)
            }
            Some(None) => false,
        };
        let living = self.processes.iter().filter(|(_, entry)| entry.is_living());
        let gone: Vec<u32> = living
            .filter(|(pid, entry)| is_gone(pid, entry))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in gone {
            self.end_unseen(pid, list.begun_ns);
        }
    }

    /// Notes the end of a process that had no event. Its last sample is older.
    fn end_unseen(&mut self, pid: u32, time_ns: u64) {
        let entry = self.processes.get_mut(&pid);
        if let Some(entry) = entry.filter(|entry| entry.is_living()) {
            entry.end(time_ns);
            entry.distrust();
            self.stats.ended_unseen += 1;
            self.followed.note_end(pid);
        }
    }

    /// Events were lost at this time, or before. Every process is to be read again.
    pub fn distrust(&mut self, time_ns: u64) {
        self.losses += 1;
        self.lost_ns = self.lost_ns.max(time_ns);
        self.scan.request();
    }

    fn insert(&mut self, pid: u32, entry: Entry) {
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&pid) {
            self.evict();
        }
        self.processes.insert(pid, entry);
    }

    /// Removes the processes that were sampled longest ago. One of them that is sampled again is read again.
    fn evict(&mut self) {
        let processes = self.processes.iter();
        let mut by_use: Vec<(u64, u32)> = processes
            .map(|(pid, entry)| (entry.used_ns(), *pid))
            .collect();
        let count = EVICTED_AT_ONCE.min(by_use.len());
        if count < by_use.len() {
            by_use.select_nth_unstable(count);
        }
        for (_, pid) in &by_use[..count] {
            self.processes.remove(pid);
            self.followed.note_end(*pid);
        }
        self.stats.evicted += count as u64;
    }

    /// Has [`take_changes`](Self::take_changes) report this process from now on.
    pub fn follow(&mut self, pid: u32) {
        self.followed.follow(pid);
    }

    /// Changes of the followed processes since the last call.
    pub fn take_changes(&mut self) -> Vec<(u32, Change)> {
        let processes = &self.processes;
        self.followed.take(|pid| {
            let entry = processes.get(&pid)?;
            Some(entry.process().mappings.clone())
        })
    }

    /// Applies an event. Events come in the order of their times.
    pub fn apply(&mut self, event: SideBandEvent, time_ns: u64) {
        if let Some(pid) = event.pid()
            && !self.reads.keep(pid, &event, time_ns)
        {
            self.stats.events_lost += 1;
            self.distrust(time_ns);
        }
        self.apply_event(event, time_ns);
    }

    fn apply_event(&mut self, event: SideBandEvent, time_ns: u64) {
        match event {
            SideBandEvent::Fork { pid, parent } => self.fork(pid, parent, time_ns),
            SideBandEvent::Exec { pid, comm } => self.exec(pid, &comm, time_ns),
            SideBandEvent::Rename { pid, comm } => {
                if let Some(entry) = self.processes.get_mut(&pid) {
                    entry.rename(&comm);
                }
            }
            SideBandEvent::Map {
                pid,
                start,
                end,
                file_offset,
                path,
                identity,
            } => {
                let mapping = self.make_mapping((start, end), file_offset, &path, identity);
                self.map(pid, mapping, time_ns);
            }
            SideBandEvent::Exit { pid } => {
                self.followed.note_end(pid);
                if let Some(entry) = self.processes.get_mut(&pid) {
                    entry.end(time_ns);
                }
            }
            // No process's matter: see `KernelCode`.
            SideBandEvent::KernelLoad { .. } | SideBandEvent::KernelUnload { .. } => {}
            SideBandEvent::Lost { count } => {
                self.stats.events_lost += count;
                self.distrust(time_ns);
            }
        }
    }

    fn fork(&mut self, pid: u32, parent: u32, time_ns: u64) {
        // The process that had the number before ended without an event.
        self.followed.note_end(pid);
        self.reads.forget_absent(pid);
        match self.processes.get(&parent) {
            Some(entry) => self.insert(pid, entry.fork(parent, time_ns)),
            None => self.insert(pid, Entry::fork_of_unknown(parent, time_ns)),
        }
    }

    fn exec(&mut self, pid: u32, comm: &[u8], time_ns: u64) {
        self.followed.note_end(pid);
        self.reads.forget_absent(pid);
        let before = self.processes.get(&pid);
        self.insert(pid, Entry::exec(before, comm, self.losses, time_ns));
    }

    fn map(&mut self, pid: u32, mapping: Mapping, time_ns: u64) {
        let Some(entry) = self.processes.get_mut(&pid) else {
            return;
        };
        let next_version = || {
            self.files_version += 1;
            self.files_version
        };
        if !entry.map(mapping, time_ns, next_version) {
            self.stats.limited += 1;
        }
        self.followed.note_mapped(pid);
    }

    /// The process with this id at the time of a sample. A process whose events are missing or incomplete is read from `/proc`.
    pub fn find(&mut self, pid: u32, time_ns: u64) -> Found<'_> {
        let entry = self.processes.get_mut(&pid);
        let Some(entry) = entry.filter(|entry| entry.is_complete(self.losses)) else {
            match self.reads.request(pid, time_ns) {
                Requested::Pending => return Found::Pending,
                Requested::Absent => self.stats.unknown += 1,
                Requested::Limited => self.stats.reads_limited += 1,
            }
            return Found::Unknown;
        };
        // An older sample is of the program before, or of a process that had the number before.
        if time_ns < entry.process().since_ns {
            self.stats.unknown += 1;
            return Found::Unknown;
        }
        entry.touch(time_ns);
        Found::Known(entry.process())
    }

    /// The processes that made this one, the nearest first, as far as they are known.
    pub fn ancestors(&self, process: &Process) -> Vec<u32> {
        let parent = |pid: &u32| Some(self.processes.get(pid)?.process().parent);
        std::iter::successors(Some(process.parent), parent)
            .take_while(|pid| *pid != 0)
            .take(ANCESTORS_MAX)
            .collect()
    }

    /// For each of `files` up to `each_max` processes that live and map it, or another with its build id.
    pub fn find_living(&self, files: &[Arc<MappedFile>], each_max: usize) -> Vec<LivingMapping> {
        let living = self.processes.iter().filter(|(_, entry)| entry.is_living());
        let living = living.map(|(pid, entry)| (*pid, entry.process()));
        find_mappings(living, files, each_max)
    }

    /// Whether this process is known and has not ended.
    pub fn is_living(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(Entry::is_living)
    }

    /// The stand-in for an address without a file: see [`FileKind`].
    pub fn stand_in(&mut self, kind: FileKind) -> Arc<MappedFile> {
        let name = match kind {
            FileKind::NoMapping => "[no mapping]",
            FileKind::NoProcess => "[process unknown]",
            FileKind::LeftOut => "[frames left out]",
            _ => "[limit]",
        };
        self.files.intern(kind, name.as_bytes(), FileIdentity::Path)
    }

    /// Forgets the processes that ended a while ago.
    pub fn maintain(&mut self, now_ns: u64) {
        self.processes.retain(|_, entry| !entry.is_expired(now_ns));
        self.files.forget_unused();
    }

    /// The table's counters.
    pub fn stats(&self) -> TableStats {
        TableStats {
            processes: self.processes.len(),
            files: self.files.len(),
            ..self.stats
        }
    }
}

impl Default for ProcessTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
