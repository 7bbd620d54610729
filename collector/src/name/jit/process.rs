//! Finds the files that describe a process's JIT code: the parent's side. It reads only `/proc/PID` and the owners of files.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use symbolize::jit::JitFormat;

use crate::blocking_pool::{BlockingPool, Resource};
use crate::clock::monotonic_of_ticks;
use crate::file::UnnamedReason;
use crate::file::{ElfFile, FileKey, Inode, MappedBy};
use crate::file::{Owner, look_in_time, open_elf, open_owned, root_of};
use crate::procfs::{Stat, parse_maps_line};

/// Larger files are not read, in bytes: Node's map of a server that runs for weeks reaches some 100 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of `maps` looked at: the kernel's default limit of 65,530 mappings, about 100 bytes each.
const MAPS_BYTES_MAX: u64 = 8 << 20;
/// Tolerance between the clocks of files and of processes, in seconds: the kernel's own ticks are 10 ms.
const CLOCK_SLACK_S: i64 = 2;
/// Tolerance of the comparison between a process's start and the time when it was first seen: a tick. No PID is reused so soon.
const START_SLACK_NS: u64 = 10_000_000;

/// Identity of a process, to which its perf map and jitdump must belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct JitProcess {
    pid: u32,
    /// Its number as it sees itself.
    own_pid: u32,
    user: u32,
    /// Ticks since the machine started, and the program: another of either is another process, or one after an exec.
    started: u64,
    program: (u64, u64),
}

impl JitProcess {
    /// Reads `/proc/PID`; `None` if the process has ended.
    pub(in super::super) fn read(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let (own_pid, user) = parse_status(&status)?;
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let program = read_program(pid)?;
        Some(Self {
            pid,
            own_pid,
            user,
            started: Stat::parse(&stat)?.start_ticks,
            program,
        })
    }

    /// Its number.
    pub(in super::super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The account of accesses to its map.
    pub(in super::super) fn resource(&self) -> Resource {
        Resource::of_directory(&root_of(self.pid), Path::new("tmp"))
    }

    /// Whether there is a process of this number.
    pub(in super::super) fn is_there(pid: u32) -> bool {
        fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    }

    /// Whether it had started by a time, nanoseconds of CLOCK_MONOTONIC.
    pub(in super::super) fn had_started(&self, time_ns: u64) -> bool {
        monotonic_of_ticks(self.started) <= time_ns.saturating_add(START_SLACK_NS)
    }

    /// When it started, in seconds since the epoch.
    fn started_unix_s(&self) -> i64 {
        use rustix::time::{ClockId, clock_gettime};
        let boot_s =
            clock_gettime(ClockId::Realtime).tv_sec - clock_gettime(ClockId::Boottime).tv_sec;
        boot_s + (self.started / rustix::param::clock_ticks_per_second()) as i64
    }
}

/// The perf map and the jitdump of a process, opened while it lived.
#[derive(Debug)]
pub struct HeldJit {
    pub(in super::super) process: JitProcess,
    map: Option<OwnedFd>,
    dump: Option<OwnedFd>,
}

impl HeldJit {
    /// Opens what the process has written so far; `None` when it is gone, or says nothing yet. A jitdump is looked for if one
    /// is among the paths that it maps.
    pub fn open<'a>(
        pid: u32,
        mut mapped: impl Iterator<Item = &'a str>,
        pool: &BlockingPool,
    ) -> Option<Self> {
        let has_dump = mapped.any(|path| is_dump_path(path.as_bytes()));
        let process = JitProcess::read(pid)?;
        let map = open_in_time(&process, JitFormat::PerfMap, pool).ok();
        let dump = || open_in_time(&process, JitFormat::Dump, pool).ok();
        let dump = has_dump.then(dump).flatten();
        (map.is_some() || dump.is_some()).then_some(Self { process, map, dump })
    }

    /// The descriptor of one of its files.
    pub(in super::super) fn file(&self, format: JitFormat) -> Option<OwnedFd> {
        let file = match format {
            JitFormat::PerfMap => &self.map,
            JitFormat::Dump => &self.dump,
        };
        file.as_ref()?.try_clone().ok()
    }
}

/// Opens what a process writes in this form, if its file system answers.
pub(in super::super) fn open_in_time(
    process: &JitProcess,
    format: JitFormat,
    pool: &BlockingPool,
) -> Result<OwnedFd, UnnamedReason> {
    let of = process.clone();
    match format {
        JitFormat::PerfMap => look_in_time(pool, process.resource(), move || open_map(&of)),
        // A dump is found by what the process maps, which the process can keep from being read.
        JitFormat::Dump => {
            let resource = Resource::of_process(process.pid);
            let dump = look_in_time(pool, resource, move || find_dump(&of))?;
            open_elf(&Arc::new(dump), FILE_BYTES_MAX, pool)
        }
    }
}

/// Opens `/tmp/perf-PID.map` in the process's root, if it is the process's own.
fn open_map(process: &JitProcess) -> Result<OwnedFd, UnnamedReason> {
    let path = format!("tmp/perf-{}.map", process.own_pid);
    let owner = Owner {
        user: process.user,
        // One that another process with this number left is older.
        modified_min_s: process.started_unix_s() - CLOCK_SLACK_S,
    };
    open_owned(
        &root_of(process.pid),
        Path::new(&path),
        &owner,
        FILE_BYTES_MAX,
    )
}

/// The jitdump, `jit-PID.dump`, that the process has mapped executable to say where it is.
fn find_dump(process: &JitProcess) -> Result<ElfFile, UnnamedReason> {
    let pid = process.pid;
    let maps = File::open(format!("/proc/{pid}/maps")).map_err(|_| UnnamedReason::FileGone)?;
    let lines = BufReader::with_capacity(64 << 10, maps.take(MAPS_BYTES_MAX)).split(b'\n');
    for line in lines.map_while(Result::ok) {
        let Some(entry) = parse_maps_line(&line).filter(|entry| entry.executable) else {
            continue;
        };
        if !is_dump_path(entry.path) {
            continue;
        }
        let path = entry.path.strip_suffix(b" (deleted)").unwrap_or(entry.path);
        return Ok(ElfFile {
            key: FileKey::Place(0),
            path: std::ffi::OsStr::from_bytes(path).into(),
            build_id: None,
            inode: Some(Inode {
                device: entry.device,
                number: entry.inode,
            }),
            candidates: vec![MappedBy {
                pid,
                parent: 0,
                start: entry.start,
                end: entry.end,
            }],
            held: None,
        });
    }
    Err(UnnamedReason::FileGone)
}

/// Device and inode of a process's program, as far as they are known without a word to its file system.
fn read_program(pid: u32) -> Option<(u64, u64)> {
    let path = format!("/proc/{pid}/exe");
    let flags = AtFlags::STATX_DONT_SYNC;
    let found = statx(CWD, path, flags, StatxFlags::INO).ok()?;
    let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    Some((device, found.stx_ino))
}

/// Whether a mapping's path is `…/jit-NUMBER.dump`.
fn is_dump_path(path: &[u8]) -> bool {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let number = name
        .strip_prefix(b"jit-")
        .and_then(|name| name.strip_suffix(b".dump"));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// The process's number as it sees itself, and its user, from `/proc/PID/status`.
fn parse_status(status: &str) -> Option<(u32, u32)> {
    let find = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let own_pid = find("NSpid:").or_else(|| find("Pid:"))?;
    let own_pid = own_pid.split_ascii_whitespace().last()?.parse().ok()?;
    let user = find("Uid:")?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    Some((own_pid, user))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// Check this process, and lines that are odd.
    #[test]
    fn processes_are_read() {
        let own = JitProcess::read(std::process::id()).unwrap();
        let program = fs::metadata(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(own.program, (program.dev(), program.ino()));
        let age = crate::clock::unix_ns() as i64 / 1_000_000_000 - own.started_unix_s();
        assert!((-2..3600).contains(&age), "{age}");
        assert_eq!(JitProcess::read(0x7fff_ffff), None);
        assert_eq!(
            parse_status("Pid:\t9\nNSpid:\t9\t5\t1\nUid:\t7\t8\t9\t9\n"),
            Some((1, 8))
        );
        assert_eq!(parse_status("Pid:\t9\nUid:\t7\n"), None);
        let start = |stat: &[u8]| Stat::parse(stat).map(|stat| stat.start_ticks);
        assert_eq!(
            start(b"1 (a) b) c) S 1 1 1 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 77 5"),
            Some(77)
        );
        assert_eq!(start(b"1 (a"), None);
    }

    /// Check which mappings are jitdumps.
    #[test]
    fn dumps_are_known_by_their_names() {
        for (path, expected) in [
            ("/tmp/jit-1.dump", true),
            ("/home/a b/.debug/jit/x/jit-77.dump (deleted)", true),
            ("/tmp/jit-.dump", false),
            ("/tmp/jit-1x.dump", false),
            ("/tmp/jit-1.dump/x", false),
            ("", false),
        ] {
            assert_eq!(is_dump_path(path.as_bytes()), expected, "{path}");
        }
    }
}
