//! One process in the table, and its changes by events and reads of `/proc`.

use std::sync::Arc;

use crate::process::{FileKind, Mapping, Mappings, StartTime, path::lossy_name};

/// Lifetime of an ended process in the table: a sample may come up to a drain after its
/// end, and threads may live on after the main thread has ended.
pub(super) const ENDED_KEPT_NS: u64 = 15_000_000_000;

/// Tolerance between the start of a process and its fork: `/proc` counts in ticks of 10 ms.
const START_SLACK_NS: u64 = 1_000_000_000;

/// One process, from its fork or exec to its end and a little longer.
#[derive(Clone, Debug)]
pub struct Process {
    /// Name of its main thread.
    pub comm: Arc<str>,
    /// Path of its program; `None` for kernel threads, and while not known.
    pub exe: Option<Arc<str>>,
    /// Number of the process that made it, which most often lives longer and sees the same files; 0 if not known.
    pub parent: u32,
    /// Since when it runs this program, nanoseconds of CLOCK_MONOTONIC: its last exec, its fork, or as far as is known its start.
    /// Together with the number it identifies the process: others had the number before.
    pub since_ns: u64,
    /// Its executable mappings. Shared with its parent until one of the two maps something.
    pub mappings: Arc<Mappings>,
    /// Another number whenever it has mapped one more file, or the first memory for code that it makes; 0 as long as it
    /// has not.
    pub files_version: u64,
}

impl Process {
    /// A process of this name that maps nothing yet.
    fn new(comm: &[u8], since_ns: u64) -> Self {
        Self {
            comm: lossy_name(comm),
            exe: None,
            parent: 0,
            since_ns,
            mappings: Arc::default(),
            files_version: 0,
        }
    }
}

/// A process in the table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    process: Process,
    /// Set between an exec and the first mapping after it, which is the program itself.
    is_exec_pending: bool,
    /// Start time in ticks, once it was read: together with the process id it is unique.
    start_ticks: Option<u64>,
    /// The count of losses of events when it was complete; 0 if it is to be read again in any case.
    losses: u64,
    /// When it was sampled last, or came into the table.
    used_ns: u64,
    /// When its main thread ended, or when it was last sampled after that.
    ended_ns: Option<u64>,
}

impl Entry {
    /// The child that a process forked.
    pub(super) fn fork(&self, pid: u32, time_ns: u64) -> Self {
        Self {
            process: Process {
                parent: pid,
                since_ns: time_ns,
                ..self.process.clone()
            },
            is_exec_pending: self.is_exec_pending,
            start_ticks: None,
            losses: self.losses,
            used_ns: time_ns,
            ended_ns: None,
        }
    }

    /// The child that an unknown process forked. It is to be read, unless it runs another program before.
    pub(super) fn fork_of_unknown(parent: u32, time_ns: u64) -> Self {
        Self {
            process: Process {
                parent,
                ..Process::new(b"", time_ns)
            },
            is_exec_pending: false,
            start_ticks: None,
            losses: 0,
            used_ns: time_ns,
            ended_ns: None,
        }
    }

    /// The process that began to run another program. `before` is the entry of its number, if there is one.
    pub(super) fn exec(before: Option<&Self>, comm: &[u8], losses: u64, time_ns: u64) -> Self {
        Self {
            process: Process {
                parent: before.map_or(0, |entry| entry.process.parent),
                ..Process::new(comm, time_ns)
            },
            is_exec_pending: true,
            // After a loss it may be another process that has the number.
            start_ticks: before
                .filter(|entry| entry.is_complete(losses))
                .and_then(|entry| entry.start_ticks),
            losses,
            used_ns: time_ns,
            ended_ns: None,
        }
    }

    /// The process that was read, which started with so many ticks. `known` is the entry of the same process, if there is one.
    pub(super) fn read(
        known: Option<&Self>,
        process: Process,
        start_ticks: u64,
        losses: u64,
        now_ns: u64,
    ) -> Self {
        Self {
            process,
            is_exec_pending: false,
            start_ticks: Some(start_ticks),
            losses,
            used_ns: known.map_or(now_ns, |entry| entry.used_ns),
            ended_ns: known.and_then(|entry| entry.ended_ns),
        }
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Whether it is of the process that started at this time.
    pub(super) fn is_same(&self, started: StartTime) -> bool {
        match self.start_ticks {
            Some(ticks) => ticks == started.ticks,
            None => started.monotonic_ns <= self.process.since_ns + START_SLACK_NS,
        }
    }

    /// Whether it is complete, when events were lost so often.
    pub(super) fn is_complete(&self, losses: u64) -> bool {
        self.losses == losses
    }

    /// Marks it as incomplete: it is to be read again.
    pub(super) fn distrust(&mut self) {
        self.losses = 0;
    }

    /// When it was sampled last, or came into the table.
    pub(super) fn used_ns(&self) -> u64 {
        self.used_ns
    }

    /// It was sampled.
    pub(super) fn touch(&mut self, time_ns: u64) {
        self.used_ns = self.used_ns.max(time_ns);
        if let Some(ended_ns) = &mut self.ended_ns {
            *ended_ns = time_ns.max(*ended_ns);
        }
    }

    pub(super) fn is_living(&self) -> bool {
        self.ended_ns.is_none()
    }

    /// Its main thread ended.
    pub(super) fn end(&mut self, time_ns: u64) {
        self.ended_ns = Some(time_ns);
    }

    /// Whether it ended so long ago that no more samples of it are expected.
    pub(super) fn is_expired(&self, now_ns: u64) -> bool {
        let ended_ns = self.ended_ns;
        ended_ns.is_some_and(|ended_ns| ended_ns + ENDED_KEPT_NS <= now_ns)
    }

    pub(super) fn rename(&mut self, comm: &[u8]) {
        self.process.comm = lossy_name(comm);
    }

    /// It mapped something. `next_version` gives the next [`Process::files_version`]. Returns `false` when it has too many
    /// mappings.
    pub(super) fn map(
        &mut self,
        mapping: Mapping,
        time_ns: u64,
        next_version: impl FnOnce() -> u64,
    ) -> bool {
        let process = &mut self.process;
        let kind = mapping.file.kind;
        let has_kind = |kind| {
            process
                .mappings
                .iter()
                .any(|mapped| mapped.file.kind == kind)
        };
        if kind == FileKind::File || (kind == FileKind::Anonymous && !has_kind(kind)) {
            process.files_version = next_version();
        }
        if kind == FileKind::File && self.is_exec_pending {
            process.exe = Some(mapping.file.path.clone());
            self.is_exec_pending = false;
        }
        Arc::make_mut(&mut process.mappings).insert(mapping, time_ns)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A process that maps nothing.
    pub(crate) fn process() -> Process {
        Process::new(b"test", 0)
    }
}
