//! Processes as `/proc` shows them, for those that ran before the side band was open.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::FileExt as _},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustc_hash::FxHashMap;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags, statx};

use super::{
    BuildId, FileIdentity, FileKind, Files, Mapping, MapsEntry, Process, find_build_id,
    open_unleased, parse_maps_line,
    table::{file_kind, shown_path},
};
use crate::patience::{Patience, Place};

/// What a file may take: whoever samples waits for it. The build id of one that takes longer is read when it is to be named.
const READ_TIME: Duration = Duration::from_millis(250);

/// Build ids read so far in one scan, by device and inode.
pub(super) struct BuildIds {
    known: FxHashMap<(u64, u64), Option<BuildId>>,
    patience: Patience,
}

/// Ids of all processes that run now.
pub(super) fn read_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Reads one process; `None` when it is gone.
pub(super) fn read_process(
    pid: u32,
    files: &mut Files,
    build_ids: &mut BuildIds,
) -> Option<Process> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let mut process = Process::new(comm.trim_ascii_end());
    // Kernel threads have no program: the link cannot be read.
    process.exe = fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| {
        let path = shown_path(FileKind::File, path.as_os_str().as_bytes());
        String::from_utf8_lossy(path).into()
    });
    let maps = File::open(format!("/proc/{pid}/maps")).ok()?;
    let mappings = Arc::make_mut(&mut process.mappings);
    for line in BufReader::with_capacity(64 << 10, maps).split(b'\n') {
        let Ok(line) = line else { break };
        let Some(entry) = parse_maps_line(&line).filter(|it| it.executable) else {
            continue;
        };
        let kind = file_kind(entry.path);
        let identity = match kind {
            FileKind::File => build_ids.identify(pid, &entry),
            _ => FileIdentity::Path,
        };
        let mapping = Mapping {
            start: entry.start,
            end: entry.end,
            file_offset: if kind == FileKind::Anonymous {
                entry.start
            } else {
                entry.offset
            },
            file: files.intern(kind, shown_path(kind, entry.path), identity),
            replaced_ns: 0,
        };
        mappings.insert(mapping, 0);
    }
    Some(process)
}

impl BuildIds {
    /// Reads with this patience.
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            known: FxHashMap::default(),
            patience,
        }
    }

    fn identify(&mut self, pid: u32, entry: &MapsEntry<'_>) -> FileIdentity {
        let key = (entry.device, entry.inode);
        let id = *self.known.entry(key).or_insert_with(|| {
            let range = map_file(pid, entry.start, entry.end);
            let place = Place::of_device(entry.device);
            let read = move || read_build_id(&range);
            self.patience.run(place, READ_TIME, read).flatten()
        });
        match id {
            Some(id) => FileIdentity::BuildId(id),
            None => FileIdentity::Inode {
                device: entry.device,
                inode: entry.inode,
                generation: 0,
            },
        }
    }
}

/// What a process maps there.
pub(super) fn map_file(pid: u32, start: u64, end: u64) -> String {
    format!("/proc/{pid}/map_files/{start:x}-{end:x}")
}

fn read_build_id(path: &str) -> Option<BuildId> {
    let file = open_regular(Path::new(path))?;
    find_build_id(|at, buffer| file.read_exact_at(buffer, at).is_ok())
}

/// What comes after a process's name in its `stat` (`/proc/PID/stat`): that is in parentheses, and may hold anything.
pub(crate) fn after_name(stat: &[u8]) -> Option<&[u8]> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 1..)
}

/// Opens what is mapped, if it is a regular file: a device may do something when
/// it is opened, so that what is there is looked at first. `None` also while a process holds a lease on it.
pub(super) fn open_regular(path: &Path) -> Option<File> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // What is known of it is enough: no server of a file system need be asked.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found_mode = statx(&found, c"", flags, StatxFlags::TYPE).ok()?.stx_mode;
    let kind = FileType::from_raw_mode(found_mode.into());
    if kind != FileType::RegularFile {
        return None;
    }
    open_unleased(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd()))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that this very process is read with its name, program and code.
    #[test]
    fn this_process() {
        let mut files = Files::new();
        let pid = std::process::id();
        let process =
            read_process(pid, &mut files, &mut BuildIds::new(Patience::default())).unwrap();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(process.exe.as_deref(), exe.to_str());
        let address = this_process as fn() as usize as u64;
        let mapping = process.mappings.find(address).unwrap();
        assert_eq!(Some(&*mapping.file.path), exe.to_str());
        assert!(read_pids().contains(&pid));
    }

    /// Check that a process that does not exist is none.
    #[test]
    fn no_process() {
        let process = read_process(
            0x7fff_ffff,
            &mut Files::new(),
            &mut BuildIds::new(Patience::default()),
        );
        assert!(process.is_none());
    }
}
