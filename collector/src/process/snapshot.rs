//! Processes as `/proc` shows them, for those without events in the side band.
//!
//! In: process ids. Out: what `/proc` has of each. Reading `/proc/PID/maps` takes the lock of the process's memory map, which
//! the process itself can hold for as long as it likes (a page fault in a FUSE file, say); so that each read has a deadline.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use elf::{BuildId, find_build_id};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::fs::{FileType, Mode, OFlags, StatxFlags, openat, readlinkat};

use super::{FileIdentity, FileKind, Mappings, path::file_kind};
use crate::{
    blocking_pool::{BlockingPool, Resource},
    clock::{monotonic_ns, monotonic_of_ticks},
    procfs::{Stat, open_unleased, parse_maps_line, read_attributes},
};

/// Deadline for reading a process, or the build id of a file. Either takes some 50 us. The samples of a process that
/// takes longer are counted without it, and a build id is read again when the file is to be named.
const READ_DEADLINE: Duration = Duration::from_millis(250);

/// Files whose build ids are kept for the processes that are read next; beyond, all are forgotten. 100 bytes each.
const BUILD_IDS_MAX: usize = 16_384;

/// Bytes of `stat` and `comm`: the kernel writes some 400.
const SHORT_BYTES_MAX: u64 = 4096;

/// A process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSnapshot {
    /// Name of its main thread.
    pub comm: Vec<u8>,
    /// Path of its program; `None` for kernel threads.
    pub exe: Option<Vec<u8>>,
    /// The process that made it; 0 if that has ended.
    pub parent: u32,
    /// When it started.
    pub started: StartTime,
    /// Its executable mappings.
    pub mappings: Vec<SnapshotMapping>,
}

/// When a process started. Together with the process id it is unique since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartTime {
    /// Clock ticks since the machine started, time in suspension included.
    pub ticks: u64,
    /// The same, or a little earlier, in nanoseconds of CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
}

/// One executable mapping of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset in the file.
    pub file_offset: u64,
    /// Path as the process sees it, or a name such as `[vdso]`.
    pub path: Vec<u8>,
    /// The file's identity.
    pub identity: FileIdentity,
}

/// Why there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// There is no such process, or it may not be read.
    Gone,
    /// The read missed its deadline.
    TimedOut,
}

/// One read of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRead {
    /// The process.
    pub pid: u32,
    /// When the read began, nanoseconds of CLOCK_MONOTONIC: later events are not in it.
    pub begun_ns: u64,
    /// The snapshot.
    pub snapshot: Result<ProcessSnapshot, SnapshotError>,
}

/// One read of the list of all processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessList {
    /// When the read began, nanoseconds of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// The processes, and when they started, as far as that could be read.
    pub living: FxHashMap<u32, Option<StartTime>>,
}

impl ProcessList {
    /// All processes that run now; their start times come with their reads.
    pub fn read() -> Self {
        let begun_ns = monotonic_ns();
        let entries = fs::read_dir("/proc").into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Self {
            begun_ns,
            living: pids.map(|pid| (pid, None)).collect(),
        }
    }

    /// Adds the result of a process's read.
    pub fn note(&mut self, read: &ProcessRead) {
        match &read.snapshot {
            Ok(snapshot) => {
                self.living.insert(read.pid, Some(snapshot.started));
            }
            Err(SnapshotError::Gone) => {
                self.living.remove(&read.pid);
            }
            Err(SnapshotError::TimedOut) => {}
        }
    }
}

type BuildIds = FxHashMap<(u64, u64), Option<BuildId>>;

/// Reads processes.
pub struct SnapshotReader {
    /// Reads `/proc`: with threads of its own, so that processes that block them do not keep files from being opened.
    processes: BlockingPool,
    files: BlockingPool,
    /// By device and inode.
    build_ids: Arc<Mutex<BuildIds>>,
}

impl SnapshotReader {
    /// Reads build ids of files with this pool.
    pub fn new(files: BlockingPool) -> Self {
        Self {
            processes: BlockingPool::default(),
            files,
            build_ids: Arc::default(),
        }
    }

    /// Reads one process.
    pub fn read(&self, pid: u32) -> ProcessRead {
        let begun_ns = monotonic_ns();
        let build_ids = self.build_ids.clone();
        let read = move || RawProcess::read(pid, &build_ids);
        let resource = Resource::of_process(pid);
        let snapshot = match self.processes.run(resource, READ_DEADLINE, read) {
            Some(Ok(raw)) => Ok(self.identify(raw)),
            Some(Err(_)) => Err(SnapshotError::Gone),
            None => Err(SnapshotError::TimedOut),
        };
        ProcessRead {
            pid,
            begun_ns,
            snapshot,
        }
    }

    /// Forgets build ids: another file may have their inode later.
    pub fn forget_build_ids(&self) {
        self.build_ids.lock().clear();
    }

    fn identify(&self, raw: RawProcess) -> ProcessSnapshot {
        let mappings = raw.mappings.into_iter().map(|mapping| SnapshotMapping {
            start: mapping.start,
            end: mapping.end,
            file_offset: mapping.file_offset,
            identity: self.identify_mapping(&mapping),
            path: mapping.path,
        });
        ProcessSnapshot {
            mappings: mappings.collect(),
            comm: raw.comm,
            exe: raw.exe,
            parent: raw.parent,
            started: raw.started,
        }
    }

    fn identify_mapping(&self, mapping: &RawMapping) -> FileIdentity {
        let (device, inode) = mapping.key;
        if inode == 0 {
            return FileIdentity::Path;
        }
        let known = self.build_ids.lock().get(&mapping.key).copied();
        FileIdentity::Inode {
            device,
            inode,
            generation: 0,
            claimed_build_id: known.unwrap_or_else(|| self.read_build_id(mapping)),
        }
    }

    fn read_build_id(&self, mapping: &RawMapping) -> Option<BuildId> {
        let opened = mapping.opened.clone();
        let resource = Resource::of_device(mapping.key.0);
        let read = move || {
            let Opened::Regular(file) = open_regular(&*opened?)? else {
                return None;
            };
            find_build_id(&file)
        };
        let id = self.files.run(resource, READ_DEADLINE, read).flatten();
        let mut build_ids = self.build_ids.lock();
        if build_ids.len() >= BUILD_IDS_MAX {
            build_ids.clear();
        }
        build_ids.insert(mapping.key, id);
        id
    }
}

/// A snapshot before the build ids of its files are read.
struct RawProcess {
    comm: Vec<u8>,
    exe: Option<Vec<u8>>,
    parent: u32,
    started: StartTime,
    mappings: Vec<RawMapping>,
}

struct RawMapping {
    start: u64,
    end: u64,
    file_offset: u64,
    path: Vec<u8>,
    /// Device and inode; 0 where there is no file.
    key: (u64, u64),
    /// The file, if its build id is to be read. Opened by its place in the process, it is what is mapped there.
    opened: Option<Arc<OwnedFd>>,
}

impl RawProcess {
    /// Reads everything through one descriptor of the process's directory, so that all of it is of one process also when its id
    /// is used again meanwhile.
    fn read(pid: u32, build_ids: &Mutex<BuildIds>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())?;
        let stat =
            Stat::parse(&read_short(&directory, "stat")?).ok_or(io::ErrorKind::InvalidData)?;
        let comm = read_short(&directory, "comm")?;
        // The link of a kernel thread cannot be read: it has no program.
        let exe = readlinkat(&directory, "exe", Vec::new()).ok();
        Ok(Self {
            comm: comm.trim_ascii_end().to_vec(),
            exe: exe.map(|path| path.into_bytes()),
            parent: stat.parent,
            started: StartTime {
                ticks: stat.start_ticks,
                monotonic_ns: monotonic_of_ticks(stat.start_ticks),
            },
            mappings: read_mappings(&directory, build_ids)?,
        })
    }
}

fn read_mappings(directory: &OwnedFd, build_ids: &Mutex<BuildIds>) -> io::Result<Vec<RawMapping>> {
    let maps = open_at(directory, "maps")?;
    let mut mappings: Vec<RawMapping> = Vec::new();
    for line in BufReader::with_capacity(64 << 10, maps).split(b'\n') {
        let Ok(line) = line else { break };
        let Some(entry) = parse_maps_line(&line).filter(|entry| entry.executable) else {
            continue;
        };
        if mappings.len() >= Mappings::MAPPINGS_MAX {
            break;
        }
        let key = match file_kind(entry.path) {
            FileKind::File => (entry.device, entry.inode),
            _ => (0, 0),
        };
        let is_known = key.1 == 0
            || build_ids.lock().contains_key(&key)
            || mappings.iter().any(|mapping| mapping.key == key);
        let open = || {
            let path = format!("map_files/{:x}-{:x}", entry.start, entry.end);
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let opened = openat(directory, path, flags, Mode::empty()).ok()?;
            Some(Arc::new(opened))
        };
        mappings.push(RawMapping {
            start: entry.start,
            end: entry.end,
            file_offset: entry.offset,
            path: entry.path.to_vec(),
            key,
            opened: if is_known { None } else { open() },
        });
    }
    Ok(mappings)
}

fn open_at(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

fn read_short(directory: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_at(directory, name)?
        .take(SHORT_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A mapped file, opened.
pub(super) enum Opened {
    Regular(File),
    /// A device, or what has no file system.
    Special,
}

/// Opens a mapped file to read from, if it is a regular file: a device may do something when it is opened, so that its type is
/// looked at first. `None` also while a process holds a lease on it.
pub(super) fn open_regular(mapped: &OwnedFd) -> Option<Opened> {
    let found = read_attributes(mapped, StatxFlags::TYPE).ok()?;
    let kind = FileType::from_raw_mode(found.stx_mode.into());
    if kind != FileType::RegularFile {
        return Some(Opened::Special);
    }
    let path = format!("/proc/self/fd/{}", mapped.as_raw_fd());
    let file = open_unleased(Path::new(&path)).ok()?;
    Some(Opened::Regular(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pid: u32) -> Result<ProcessSnapshot, SnapshotError> {
        SnapshotReader::new(BlockingPool::default())
            .read(pid)
            .snapshot
    }

    /// Check that this very process is read with its name, program, code and start time.
    #[test]
    fn this_process() {
        let pid = std::process::id();
        let snapshot = read(pid).unwrap();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(
            snapshot.exe.as_deref(),
            Some(exe.as_os_str().as_encoded_bytes())
        );
        assert!(snapshot.parent != 0);
        let address = this_process as fn() as usize as u64;
        let mut mappings = snapshot.mappings.iter();
        let mapping = mappings
            .find(|mapping| (mapping.start..mapping.end).contains(&address))
            .unwrap();
        assert_eq!(mapping.path, exe.as_os_str().as_encoded_bytes());
        assert!(mapping.identity.claimed_build_id().is_some());
        let age_ns = monotonic_ns() - snapshot.started.monotonic_ns;
        assert!(age_ns < 600_000_000_000, "{age_ns}");
        assert!(ProcessList::read().living.contains_key(&pid));
    }

    /// Check that a process that does not exist is gone, and no longer in a list that had it.
    #[test]
    fn no_process() {
        let pid = 0x7fff_ffff;
        assert_eq!(read(pid), Err(SnapshotError::Gone));
        let read_as = |snapshot| ProcessRead {
            pid,
            begun_ns: 1,
            snapshot,
        };
        let mut list = ProcessList::default();
        list.living.insert(pid, None);
        list.note(&read_as(Err(SnapshotError::TimedOut)));
        assert!(list.living.contains_key(&pid));
        list.note(&read_as(Err(SnapshotError::Gone)));
        assert!(list.living.is_empty());
    }

    /// Check that a process whose memory map is locked costs one deadline, and keeps no other from being read.
    #[test]
    fn a_process_that_blocks_its_reader() {
        let reader = SnapshotReader::new(BlockingPool::default());
        let own = std::process::id();
        let (unlock, locked) = std::sync::mpsc::channel::<()>();
        let block = move || locked.recv().is_ok();
        let resource = Resource::of_process(own);
        let deadline = Duration::from_millis(20);
        assert_eq!(reader.processes.run(resource, deadline, block), None);
        let read = |pid| reader.read(pid).snapshot;
        assert_eq!(read(own), Err(SnapshotError::TimedOut));
        let mut others = (1..8).map(|distance| {
            // None of these processes exists.
            read(0x7fff_0000 + own % 8 + distance)
        });
        assert!(others.all(|other| other == Err(SnapshotError::Gone)));
        drop(unlock);
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while read(own).is_err() {
            assert!(std::time::Instant::now() < until);
        }
    }
}
