//! The table of processes, and how events change it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    BuildId, FileIdentity, FileKind, Files, MappedFile, Mapping, Mappings, SideBandEvent, scan,
};
use crate::patience::Patience;

/// One process, from its fork or exec to its end and a little longer.
#[derive(Clone, Debug)]
pub struct Process {
    /// Name of its main thread.
    pub comm: Arc<str>,
    /// Path of its program; `None` for kernel threads, and while not known.
    pub exe: Option<Arc<str>>,
    /// Number of the process that made it, which most often lives longer and sees the same files; 0 if not known.
    pub parent: u32,
    /// What it maps. Shared with its parent until one of the two maps something.
    pub mappings: Arc<Mappings>,
    /// Another number whenever it has mapped one more file, or the first memory for code that it makes; 0 as long as it
    /// has not.
    pub files_version: u64,
    /// Set between an exec and the first mapping after it, which is the program itself.
    exec_pending: bool,
    /// When its main thread ended, or when it was last seen after that.
    ended_ns: Option<u64>,
}

/// Counters of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Processes in the table, ended ones included.
    pub processes: usize,
    /// Files that are mapped.
    pub files: usize,
    /// Side-band events that the kernel lost.
    pub events_lost: u64,
    /// Processes read from `/proc` because a sample came before they were known.
    pub read_late: u64,
    /// Processes that a sample named and `/proc` no longer had.
    pub unknown: u64,
    /// Mappings and processes refused because a limit was reached.
    pub limited: u64,
}

/// All processes of the machine.
pub struct ProcessTable {
    processes: FxHashMap<u32, Process>,
    files: Files,
    kernel: Arc<MappedFile>,
    stats: TableStats,
    rescan_wanted: bool,
    /// The last [`Process::files_version`].
    files_version: u64,
    /// Processes whose changes are wanted, and which of them changed since they were asked for.
    followed: FxHashMap<u32, Followed>,
    patience: Patience,
}

/// What happened to a process that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followed {
    Same,
    Mapped,
    Ended,
}

/// What became of a process that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It maps something else.
    Mapped(Arc<Mappings>),
    /// It ended, or became another by an exec: it is not followed any more.
    Ended,
}

/// Processes known at a time. The kernel's default `pid_max` on small machines is
/// 32,768; a process takes about 200 bytes beside its mappings (shared after fork).
const PROCESSES_MAX: usize = 32_768;

/// Ancestors of a process that are told: shell, script, runtime, and what started that.
const ANCESTORS_MAX: usize = 8;

/// How long an ended process is kept: a sample may come up to a drain after its
/// end, and threads may live on after the main thread has ended.
const ENDED_KEPT_NS: u64 = 15_000_000_000;

impl ProcessTable {
    /// A table with all processes that run now.
    ///
    /// The side band must already be open, so that nothing is missed: what it
    /// tells of the time before this scan is applied again, to the same end. What lies where `patience` ends has no build id.
    pub fn scan(patience: Patience) -> Self {
        let mut files = Files::new();
        let kernel = files.intern(FileKind::Kernel, b"[kernel]", FileIdentity::Path);
        let mut table = Self {
            processes: FxHashMap::default(),
            files,
            kernel,
            stats: TableStats::default(),
            rescan_wanted: false,
            files_version: 0,
            followed: FxHashMap::default(),
            patience,
        };
        table.rescan();
        table
    }

    /// Reads all processes from `/proc` again.
    fn rescan(&mut self) {
        let mut build_ids = scan::BuildIds::new(self.patience.clone());
        for pid in scan::read_pids() {
            if let Some(process) = scan::read_process(pid, &mut self.files, &mut build_ids) {
                if let Some(followed @ Followed::Same) = self.followed.get_mut(&pid) {
                    *followed = Followed::Mapped;
                }
                self.insert(pid, process);
            }
        }
        self.rescan_wanted = false;
    }

    fn insert(&mut self, pid: u32, process: Process) {
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&pid) {
            self.stats.limited += 1;
            return;
        }
        self.processes.insert(pid, process);
    }

    /// From now on [`take_changes`](Self::take_changes) tells of this process as it is now.
    pub fn follow(&mut self, pid: u32) {
        self.followed.insert(pid, Followed::Same);
    }

    /// What became of the processes that are followed since this was called last.
    pub fn take_changes(&mut self) -> Vec<(u32, Change)> {
        let mut changes = Vec::new();
        let processes = &self.processes;
        self.followed.retain(|pid, followed| match followed {
            Followed::Same => true,
            Followed::Mapped => match processes.get(pid) {
                Some(process) => {
                    *followed = Followed::Same;
                    changes.push((*pid, Change::Mapped(process.mappings.clone())));
                    true
                }
                None => {
                    changes.push((*pid, Change::Ended));
                    false
                }
            },
            Followed::Ended => {
                changes.push((*pid, Change::Ended));
                false
            }
        });
        changes
    }

    fn note_end(&mut self, pid: u32) {
        if let Some(followed) = self.followed.get_mut(&pid) {
            *followed = Followed::Ended;
        }
    }

    /// Applies an event. Events come in the order of their times.
    pub fn apply(&mut self, event: SideBandEvent, time_ns: u64) {
        match event {
            SideBandEvent::Fork { pid, parent } => self.fork(pid, parent),
            SideBandEvent::Exec { pid, comm } => {
                self.note_end(pid);
                let process = Process {
                    exec_pending: true,
                    parent: self.processes.get(&pid).map_or(0, |it| it.parent),
                    ..Process::new(&comm)
                };
                self.insert(pid, process);
            }
            SideBandEvent::Rename { pid, comm } => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.comm = lossy(&comm);
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
                let kind = file_kind(&path);
                let identity = match kind {
                    FileKind::File => identity,
                    _ => FileIdentity::Path,
                };
                let file = self.files.intern(kind, shown_path(kind, &path), identity);
                let mapping = Mapping {
                    start,
                    end,
                    // The kernel gives anonymous memory its address as offset, the vDSO 0.
                    file_offset: if kind == FileKind::Anonymous {
                        start
                    } else {
                        file_offset
                    },
                    file,
                    replaced_ns: 0,
                };
                self.map(pid, mapping, time_ns);
            }
            SideBandEvent::Exit { pid } => {
                self.note_end(pid);
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.ended_ns = Some(time_ns);
                }
            }
            SideBandEvent::Lost { count } => {
                self.stats.events_lost += count;
                self.rescan_wanted = true;
            }
        }
    }

    fn fork(&mut self, pid: u32, parent: u32) {
        // The process that had the number before ended without a word.
        self.note_end(pid);
        // Without its parent the child is read from /proc when a sample names it.
        let Some(copied) = self.processes.get(&parent) else {
            self.processes.remove(&pid);
            return;
        };
        let child = Process {
            parent,
            ended_ns: None,
            ..copied.clone()
        };
        self.insert(pid, child);
    }

    fn map(&mut self, pid: u32, mapping: Mapping, time_ns: u64) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        let kind = mapping.file.kind;
        if kind == FileKind::File || (kind == FileKind::Anonymous && !process.mappings.have_made())
        {
            self.files_version += 1;
            process.files_version = self.files_version;
        }
        if kind == FileKind::File && process.exec_pending {
            process.exe = Some(mapping.file.path.clone());
            process.exec_pending = false;
        }
        if !Arc::make_mut(&mut process.mappings).insert(mapping, time_ns) {
            self.stats.limited += 1;
        }
        if let Some(followed @ Followed::Same) = self.followed.get_mut(&pid) {
            *followed = Followed::Mapped;
        }
    }

    /// The process with this id at the time of a sample. One that no event told
    /// of is read from `/proc`, once.
    pub fn find(&mut self, pid: u32, time_ns: u64) -> Option<&Process> {
        if !self.processes.contains_key(&pid) {
            let mut build_ids = scan::BuildIds::new(self.patience.clone());
            let Some(process) = scan::read_process(pid, &mut self.files, &mut build_ids) else {
                self.stats.unknown += 1;
                return None;
            };
            self.stats.read_late += 1;
            self.insert(pid, process);
        }
        let process = self.processes.get_mut(&pid)?;
        if let Some(ended_ns) = &mut process.ended_ns {
            *ended_ns = time_ns.max(*ended_ns);
        }
        Some(process)
    }

    /// The processes that made this one, the nearest first, as far as they are known.
    pub fn ancestors(&self, process: &Process) -> Vec<u32> {
        let parent = |pid: &u32| self.processes.get(pid).map(|it| it.parent);
        std::iter::successors(Some(process.parent), parent)
            .take_while(|pid| *pid != 0)
            .take(ANCESTORS_MAX)
            .collect()
    }

    /// For each of `files` up to `each_max` processes that live and map it, or another with its build id.
    ///
    /// Looks at every mapping of every process: 5,000 of 20 are 100,000, some milliseconds.
    pub fn find_living(&self, files: &[Arc<MappedFile>], each_max: usize) -> Vec<LivingMapping> {
        if files.is_empty() {
            return Vec::new();
        }
        let mut wanted: FxHashMap<SameCode, Vec<&Arc<MappedFile>>> = FxHashMap::default();
        for file in files {
            wanted.entry(SameCode::of(file)).or_default().push(file);
        }
        let mut counts: FxHashMap<SameCode, usize> = FxHashMap::default();
        let mut found = Vec::new();
        let living = self.processes.iter().filter(|it| it.1.ended_ns.is_none());
        for (&pid, process) in living {
            for mapping in process.mappings.iter() {
                let same = SameCode::of(&mapping.file);
                let Some(files) = wanted.get(&same) else {
                    continue;
                };
                let count = counts.entry(same).or_default();
                if *count < each_max {
                    *count += 1;
                    found.extend(files.iter().map(|file| LivingMapping {
                        file: Arc::clone(file),
                        pid,
                        parent: process.parent,
                        start: mapping.start,
                        end: mapping.end,
                    }));
                }
            }
        }
        found
    }

    /// Whether this process is known and has not ended.
    pub fn is_living(&self, pid: u32) -> bool {
        let process = self.processes.get(&pid);
        process.is_some_and(|it| it.ended_ns.is_none())
    }

    /// What stands for the kernel's image.
    pub fn kernel(&self) -> &Arc<MappedFile> {
        &self.kernel
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

    /// Forgets what ended a while ago, and reads `/proc` again if events were lost.
    pub fn maintain(&mut self, now_ns: u64) {
        self.processes.retain(|_, process| {
            process
                .ended_ns
                .is_none_or(|ended_ns| ended_ns + ENDED_KEPT_NS > now_ns)
        });
        if self.rescan_wanted {
            tracing::warn!("process events were lost: reading /proc again");
            self.rescan();
        }
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

/// A file in a process that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivingMapping {
    /// The file, or one that has the same build id.
    pub file: Arc<MappedFile>,
    /// The process that maps it.
    pub pid: u32,
    /// The one that made this one; 0 if not known.
    pub parent: u32,
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

/// What two files have in common that have the same code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum SameCode {
    BuildId(BuildId),
    /// Only itself.
    File(*const MappedFile),
}

impl SameCode {
    fn of(file: &Arc<MappedFile>) -> Self {
        match file.identity {
            FileIdentity::BuildId(id) => Self::BuildId(id),
            FileIdentity::Inode { .. } | FileIdentity::Path => Self::File(Arc::as_ptr(file)),
        }
    }
}

impl Process {
    /// A process of this name that maps nothing yet.
    pub(super) fn new(comm: &[u8]) -> Self {
        Self {
            comm: lossy(comm),
            exe: None,
            parent: 0,
            mappings: Arc::default(),
            files_version: 0,
            exec_pending: false,
            ended_ns: None,
        }
    }
}

/// What a mapping's path stands for.
pub(super) fn file_kind(path: &[u8]) -> FileKind {
    match path {
        b"[vdso]" | b"[vdso32]" => FileKind::Vdso,
        // `//anon` in perf's records and nothing in /proc are memory without a
        // file; so are code in the heap or on a stack, and `[anon:NAME]`.
        b"//anon" | b"" => FileKind::Anonymous,
        [b'[', ..] => FileKind::Anonymous,
        // Huge-page text (`/anon_hugepage (deleted)`) and shared anonymous memory.
        _ if path.starts_with(b"/anon_hugepage") || path.starts_with(b"/dev/zero") => {
            FileKind::Anonymous
        }
        _ if is_code_memory(path) => FileKind::Anonymous,
        _ => FileKind::File,
    }
}

/// Whether it is a memory file that a compiler maps twice, to write code in one place and to run it in the other. Their perf
/// maps have the addresses that run. Other memory files may be programs.
fn is_code_memory(path: &[u8]) -> bool {
    // .NET from 7 on (`ExecutableAllocator`), and BEAM (asmjit's `VirtMem`).
    const NAMES: [&[u8]; 2] = [b"/memfd:doublemapper", b"/memfd:vmem"];
    NAMES.contains(&path.strip_suffix(b" (deleted)").unwrap_or(path))
}

/// The path under which a mapping is shown.
pub(super) fn shown_path(kind: FileKind, path: &[u8]) -> &[u8] {
    match kind {
        FileKind::Vdso => b"[vdso]",
        FileKind::Anonymous => b"[anonymous]",
        _ => path.strip_suffix(b" (deleted)").unwrap_or(path),
    }
}

fn lossy(name: &[u8]) -> Arc<str> {
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty_table() -> ProcessTable {
        let mut files = Files::new();
        let kernel = files.intern(FileKind::Kernel, b"[kernel]", FileIdentity::Path);
        ProcessTable {
            processes: FxHashMap::default(),
            files,
            kernel,
            stats: TableStats::default(),
            followed: FxHashMap::default(),
            rescan_wanted: false,
            files_version: 0,
            patience: Patience::default(),
        }
    }

    fn exec(pid: u32, comm: &str) -> SideBandEvent {
        SideBandEvent::Exec {
            pid,
            comm: comm.into(),
        }
    }

    fn map(pid: u32, start: u64, path: &str) -> SideBandEvent {
        SideBandEvent::Map {
            pid,
            start,
            end: start + 0x1000,
            file_offset: 0,
            path: path.into(),
            identity: FileIdentity::Path,
        }
    }

    /// A process id that no machine has, so that /proc is never asked with success.
    const PID: u32 = 0x7fff_0000;

    /// Applies events at times 1, 2, … and shows a process: "comm exe path@start …".
    fn show(events: Vec<SideBandEvent>, pid: u32) -> String {
        let mut table = empty_table();
        for (time, event) in (1..).zip(events) {
            table.apply(event, time);
        }
        let Some(process) = table.find(pid, 100) else {
            return "none".into();
        };
        let mappings: String = process
            .mappings
            .iter()
            .map(|it| format!(" {}@{:x}", it.file.path, it.start))
            .collect();
        format!(
            "{} {}{mappings}",
            process.comm,
            process.exe.as_deref().unwrap_or("-")
        )
    }

    /// Check that an exec's first mapping is its program, and that later ones are not.
    #[test]
    fn exec_and_maps() {
        let events = vec![
            exec(PID, "sh"),
            map(PID, 0x1000, "/bin/sh"),
            map(PID, 0x5000, "/lib/ld.so"),
            map(PID, 0x9000, "//anon"),
        ];
        assert_eq!(
            show(events, PID),
            "sh /bin/sh /bin/sh@1000 /lib/ld.so@5000 [anonymous]@9000"
        );
    }

    /// Check that a child starts with its parent's mappings and keeps them when the
    /// parent goes on to run something else.
    #[test]
    fn fork_copies() {
        let child = PID + 1;
        let events = || {
            vec![
                exec(PID, "sh"),
                map(PID, 0x1000, "/bin/sh"),
                SideBandEvent::Fork {
                    pid: child,
                    parent: PID,
                },
                map(child, 0x3000, "/lib/x.so"),
                exec(PID, "ls"),
                map(PID, 0x2000, "/bin/ls"),
            ]
        };
        assert_eq!(
            show(events(), child),
            "sh /bin/sh /bin/sh@1000 /lib/x.so@3000"
        );
        assert_eq!(show(events(), PID), "ls /bin/ls /bin/ls@2000");
    }

    /// Check that an ended process is still there for its last samples, that its id
    /// can be used again, and that it is forgotten after a while.
    #[test]
    fn exit_and_reuse() {
        let exit = SideBandEvent::Exit { pid: PID };
        let events = vec![exec(PID, "a"), map(PID, 0x1000, "/a"), exit.clone()];
        assert_eq!(show(events, PID), "a /a /a@1000");

        let events = vec![
            exec(PID, "a"),
            map(PID, 0x1000, "/a"),
            exit.clone(),
            exec(PID, "b"),
        ];
        assert_eq!(show(events, PID), "b -");

        let mut table = empty_table();
        table.apply(exec(PID, "a"), 1);
        table.apply(exit, 2);
        table.maintain(ENDED_KEPT_NS);
        assert!(table.find(PID, 3).is_some());
        table.maintain(2 * ENDED_KEPT_NS);
        assert!(table.find(PID, 4).is_none());
    }

    /// Check that a process whose events were missed is counted when nothing knows it.
    #[test]
    fn unknown_process() {
        let mut table = empty_table();
        table.apply(map(PID, 0x1000, "/a"), 1);
        assert!(table.find(PID, 2).is_none());
        assert_eq!(table.stats().unknown, 1);
    }

    /// Check what is told of a process that is followed: what it maps once a change, its end once.
    #[test]
    fn followed_processes() {
        let mut table = empty_table();
        let exec = || SideBandEvent::Exec {
            pid: PID,
            comm: b"a".as_slice().into(),
        };
        table.apply(exec(), 1);
        table.follow(PID);
        assert_eq!(table.take_changes(), []);
        table.apply(map(PID, 0x1000, "/a"), 2);
        table.apply(map(PID, 0x3000, "/b"), 3);
        let mappings = table.find(PID, 3).unwrap().mappings.clone();
        assert_eq!(mappings.len(), 2);
        assert_eq!(table.take_changes(), [(PID, Change::Mapped(mappings))]);
        assert_eq!(table.take_changes(), []);
        table.apply(exec(), 4);
        table.apply(map(PID, 0x1000, "/c"), 5);
        assert_eq!(table.take_changes(), [(PID, Change::Ended)]);
        table.apply(map(PID, 0x3000, "/d"), 6);
        assert_eq!(table.take_changes(), []);
    }

    /// Check that a process's ancestors are told, also when they have run something else since, and not more than are wanted.
    #[test]
    fn ancestors() {
        let mut table = empty_table();
        table.apply(exec(PID, "init"), 1);
        for pid in PID + 1..PID + 20 {
            let parent = pid - 1;
            table.apply(SideBandEvent::Fork { pid, parent }, 2);
            table.apply(exec(pid, "sh"), 3);
        }
        let ancestors = |table: &mut ProcessTable, pid| {
            let process = table.find(pid, 4).unwrap().clone();
            table.ancestors(&process)
        };
        assert_eq!(ancestors(&mut table, PID + 2), [PID + 1, PID]);
        let all = ancestors(&mut table, PID + 19);
        assert_eq!(all.len(), ANCESTORS_MAX);
        assert_eq!(all[..2], [PID + 18, PID + 17]);
        assert!(ancestors(&mut table, PID).is_empty());
    }

    /// Check that a process has another number for what it maps when it has mapped a file, and after each exec, and when it
    /// has mapped memory for the first time.
    #[test]
    fn versions_of_mapped_files() {
        let mut table = empty_table();
        let version = |table: &mut ProcessTable, event| {
            table.apply(event, 1);
            table.find(PID, 1).unwrap().files_version
        };
        let versions = [
            exec(PID, "a"),
            map(PID, 0x1000, "/a"),
            map(PID, 0x3000, "/b"),
            map(PID, 0x5000, "//anon"),
            map(PID, 0x7000, "//anon"),
            exec(PID, "a"),
            map(PID, 0x1000, "/a"),
            map(PID, 0x3000, "/b"),
        ]
        .map(|event| version(&mut table, event));
        assert_eq!(versions, [0, 1, 2, 3, 3, 0, 4, 5]);
    }

    /// Check that a file is found in other processes, by what it is or by its build id, in those that live, and not in more
    /// than are wanted.
    #[test]
    fn living_processes_of_a_file() {
        let mut table = empty_table();
        let build_id = |byte| FileIdentity::BuildId(BuildId::new(&[byte; 20]).unwrap());
        let map_build = |pid, path: &str, byte| SideBandEvent::Map {
            pid,
            start: 0x5000,
            end: 0x6000,
            file_offset: 0,
            path: path.into(),
            identity: build_id(byte),
        };
        for pid in PID..PID + 6 {
            table.apply(exec(pid, "a"), 1);
            table.apply(map(pid, 0x1000, "/plain"), 1);
        }
        table.apply(map_build(PID, "/a", 1), 2);
        table.apply(map_build(PID + 1, "/copy of a", 1), 2);
        table.apply(map_build(PID + 2, "/a", 2), 2);
        table.apply(SideBandEvent::Exit { pid: PID }, 3);
        assert!(table.is_living(PID + 1) && !table.is_living(PID));

        let mut intern = |path: &[u8], identity| table.files.intern(FileKind::File, path, identity);
        let built = intern(b"/a", build_id(1));
        let plain = intern(b"/plain", FileIdentity::Path);
        let unknown = intern(b"/unknown", FileIdentity::Path);
        let found = table.find_living(&[built.clone(), plain.clone(), unknown], 2);
        let of = |file: &Arc<MappedFile>| found.iter().filter(|it| it.file == *file).count();
        assert_eq!((of(&built), of(&plain), found.len()), (1, 2, 3));
        let by = found.iter().find(|it| it.file == built).unwrap();
        assert_eq!((by.pid, by.start, by.end), (PID + 1, 0x5000, 0x6000));
        assert!(found.iter().all(|it| it.pid != PID));
        assert_eq!(table.find_living(&[], 2), []);
    }

    /// Check what a mapping's name is taken for.
    #[test]
    fn kinds() {
        for (path, kind) in [
            ("/bin/sh", FileKind::File),
            ("/memfd:jit (deleted)", FileKind::File),
            ("/memfd:doublemapper (deleted)", FileKind::Anonymous),
            ("/memfd:vmem (deleted)", FileKind::Anonymous),
            ("/memfd:vmem2 (deleted)", FileKind::File),
            ("[vdso]", FileKind::Vdso),
            ("[heap]", FileKind::Anonymous),
            ("", FileKind::Anonymous),
            ("//anon", FileKind::Anonymous),
            ("/anon_hugepage (deleted)", FileKind::Anonymous),
        ] {
            assert_eq!(file_kind(path.as_bytes()), kind, "{path}");
        }
    }
}
