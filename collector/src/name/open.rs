//! Opens the file that a process has mapped, without reading a byte of it.
//!
//! In: where a file was seen. Out: a descriptor that stands for that regular
//! file (`O_PATH`, so that no device and no FIFO is ever opened), or why there
//! is none. Never follows a path out of the root of the process it came from.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, open, openat2, readlink,
    statx,
};
use rustix::io::Errno;

use super::naming::UnnamedReason;
use super::object::{ElfFile, Inode, MappedBy};
use crate::patience::{LOOK_TIME, Patience, Place};
use crate::process::{BuildId, find_build_id, open_unleased};

/// The node's own root.
pub(super) const OWN_ROOT: &str = "/";

/// Processes tried for one file: if the first few are gone, the node is
/// churning and the path itself is the better chance.
const CANDIDATES_MAX: usize = 8;

/// Opens `file`: as it is held, through a process that maps it, or else by its path.
///
/// The file is the mapped one when it is held or came from the mapping itself; otherwise
/// it has the same inode, or the same build id, which the child compares again.
pub(super) fn open_elf(file: &ElfFile, bytes_max: u64) -> Result<OwnedFd, UnnamedReason> {
    if let Some(held) = &file.held {
        let duplicate = held.file.try_clone().map_err(|_| UnnamedReason::Limit)?;
        check_size(&look_at(&duplicate)?, bytes_max)?;
        return Ok(duplicate);
    }
    let is_it = |found: &OwnedFd| is_of_build(found, file.build_id);
    open_elf_that(file, bytes_max, is_it).map(|it| it.file)
}

/// A file, and where it was found.
pub(crate) struct Opened {
    pub(crate) file: OwnedFd,
    /// The root directory of the process that it was found through.
    pub(super) root: String,
}

/// Opens a file anew, and tries on when what is found is not what the caller wants.
pub(crate) fn open_elf_that(
    file: &ElfFile,
    bytes_max: u64,
    is_it: impl Fn(&OwnedFd) -> bool,
) -> Result<Opened, UnnamedReason> {
    let mut reason = UnnamedReason::FileGone;
    for candidate in file.candidates.iter().take(CANDIDATES_MAX) {
        let root = root_of(candidate.pid);
        let mut ways: [&dyn Fn() -> Result<OwnedFd, UnnamedReason>; 2] =
            [&|| open_mapping(candidate, file, bytes_max), &|| {
                open_in_root(&root, file, bytes_max)
            }];
        // A library that was unloaded may have left its place to another one.
        if is_renamed(candidate, file) {
            ways.reverse();
        }
        for way in ways {
            match way() {
                Ok(file) if is_it(&file) => {
                    return Ok(Opened {
                        file,
                        root: root.clone(),
                    });
                }
                Ok(_) | Err(UnnamedReason::FileGone) => {}
                Err(other) => reason = other,
            }
        }
    }
    for root in parent_roots(file) {
        match open_in_root(&root, file, bytes_max) {
            Ok(file) if is_it(&file) => return Ok(Opened { file, root }),
            _ => {}
        }
    }
    match open_in_root(OWN_ROOT, file, bytes_max) {
        Ok(file) if is_it(&file) => Ok(Opened {
            file,
            root: OWN_ROOT.to_owned(),
        }),
        Ok(_) | Err(UnnamedReason::FileGone) => Err(reason),
        Err(other) => Err(other),
    }
}

/// The roots of the processes that map a file, and of those that made them.
pub(super) fn roots(file: &ElfFile) -> impl Iterator<Item = String> + '_ {
    let candidates = file.candidates.iter().take(CANDIDATES_MAX);
    let own = candidates.map(|it| root_of(it.pid));
    own.chain(parent_roots(file))
}

fn parent_roots(file: &ElfFile) -> impl Iterator<Item = String> + '_ {
    let candidates = file.candidates.iter().take(CANDIDATES_MAX);
    let parents = candidates.map(|it| it.parent).filter(|it| *it != 0);
    parents.map(root_of)
}

/// The root directory of a process.
pub(super) fn root_of(pid: u32) -> String {
    format!("/proc/{pid}/root")
}

/// A descriptor to read from, for one that stands for a regular file. Not while a process holds a lease on it.
pub(crate) fn reopen(file: &OwnedFd) -> Result<File, UnnamedReason> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    open_unleased(Path::new(&path)).map_err(|_| UnnamedReason::Permission)
}

/// Whether a file has the build id that it must have, if it must: in its place, or by its path, there may be another
/// file by now.
pub(crate) fn is_of_build(file: &OwnedFd, expected: Option<BuildId>) -> bool {
    expected.is_none_or(|expected| {
        let read = |file: File| find_build_id(|at, buffer| file.read_exact_at(buffer, at).is_ok());
        reopen(file).ok().and_then(read) == Some(expected)
    })
}

/// Whose a file must be.
pub(super) struct Owner {
    /// Its user, or root.
    pub(super) user: u32,
    /// When it was written to, at the earliest, in seconds since the epoch.
    pub(super) modified_min_s: i64,
}

/// Opens a regular file by its path below `root`, if it has this owner.
pub(super) fn open_owned(
    root: &str,
    path: &Path,
    owner: &Owner,
    bytes_max: u64,
) -> Result<OwnedFd, UnnamedReason> {
    let opened = open_below(root, path)?;
    let found = look_at(&opened)?;
    let is_owned = found.stx_uid == owner.user || found.stx_uid == 0;
    if !is_owned || found.stx_mtime.tv_sec < owner.modified_min_s {
        return Err(UnnamedReason::FileGone);
    }
    if found.stx_size > bytes_max {
        return Err(UnnamedReason::Limit);
    }
    Ok(opened)
}

/// Where a mapping lies in a process.
fn mapping_path(candidate: &MappedBy) -> String {
    let MappedBy {
        pid, start, end, ..
    } = candidate;
    format!("/proc/{pid}/map_files/{start:x}-{end:x}")
}

/// Whether what is mapped there now has another name than the file had. (Its directory may be another
/// in another mount namespace.)
fn is_renamed(candidate: &MappedBy, file: &ElfFile) -> bool {
    let Ok(target) = readlink(mapping_path(candidate), Vec::new()) else {
        return false;
    };
    let target = target.as_bytes();
    let target = target.strip_suffix(b" (deleted)").unwrap_or(target);
    let name = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
    name(target) != name(file.path.as_bytes())
}

/// By the mapping itself: exact, also for a file that was deleted or replaced.
fn open_mapping(
    candidate: &MappedBy,
    file: &ElfFile,
    bytes_max: u64,
) -> Result<OwnedFd, UnnamedReason> {
    let path = mapping_path(candidate);
    let opened = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(reason_of)?;
    // The number of the process may have been given to another one, which is
    // unlikely to map another file at the same addresses, but may. The device is
    // left out: btrfs tells `stat` another one than the mapping's record.
    check(opened, file, bytes_max, |inode| {
        file.inode
            .is_none_or(|expected| expected.number == inode.number)
    })
}

/// By the path in `root`: exact if the inode or the build id agree.
pub(super) fn open_in_root(
    root: &str,
    file: &ElfFile,
    bytes_max: u64,
) -> Result<OwnedFd, UnnamedReason> {
    let relative = relative_path(&file.path).ok_or(UnnamedReason::FileGone)?;
    let opened = open_below(root, relative)?;
    check(opened, file, bytes_max, |inode| file.inode == Some(inode))
}

/// Any regular file of at most `bytes_max` bytes at a path in `root`.
pub(super) fn open_beside(root: &str, relative: &Path, bytes_max: u64) -> Option<OwnedFd> {
    let opened = open_below(root, relative).ok()?;
    check_size(&look_at(&opened).ok()?, bytes_max).ok()?;
    Some(opened)
}

/// What comes of a look at `place`, if its file system answers.
pub(crate) fn look_in_time<T: Send + 'static>(
    patience: &Patience,
    place: Place,
    look: impl FnOnce() -> Result<T, UnnamedReason> + Send + 'static,
) -> Result<T, UnnamedReason> {
    let found = patience.run(place, LOOK_TIME, look);
    found.unwrap_or(Err(UnnamedReason::NotAnswering))
}

/// The first of these files below `root` that can be opened in time, with what opens one of them; they are in `directory` or
/// elsewhere.
pub(super) fn open_first(
    root: &str,
    (directory, paths): (&Path, Vec<PathBuf>),
    patience: &Patience,
    open: impl Fn(&str, &Path) -> Option<OwnedFd> + Send + 'static,
) -> Option<OwnedFd> {
    if paths.is_empty() {
        return None;
    }
    let place = Place::of_directory(root, directory);
    let root = root.to_owned();
    let open_all = move || paths.iter().find_map(|path| open(&root, path));
    patience.run(place, LOOK_TIME, open_all).flatten()
}

/// By a path that does not leave `root`, whatever links there are.
fn open_below(root: &str, relative: &Path) -> Result<OwnedFd, UnnamedReason> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let directory = open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(reason_of)?;
    // On kernels before 5.6, and in sandboxes that refuse `openat2`, there is no
    // safe way by path; only the mappings serve there.
    openat2(
        directory,
        relative,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(reason_of)
}

/// `path` without the root in front; `None` if there is nothing else, or if it
/// is not a path (`[heap]`, `//anon`).
fn relative_path(path: &OsStr) -> Option<&Path> {
    let relative = path.as_bytes().strip_prefix(b"/")?;
    (!relative.is_empty() && relative[0] != b'/').then(|| Path::new(OsStr::from_bytes(relative)))
}

fn check(
    opened: OwnedFd,
    file: &ElfFile,
    bytes_max: u64,
    is_mapped: impl Fn(Inode) -> bool,
) -> Result<OwnedFd, UnnamedReason> {
    let found = look_at(&opened)?;
    let inode = check_size(&found, bytes_max)?;
    if file.build_id.is_some() || is_mapped(inode) {
        Ok(opened)
    } else {
        Err(UnnamedReason::FileGone)
    }
}

/// Checks that a file is not too large, and tells which it is.
fn check_size(found: &Statx, bytes_max: u64) -> Result<Inode, UnnamedReason> {
    if found.stx_size > bytes_max {
        return Err(UnnamedReason::Limit);
    }
    Ok(Inode {
        major: found.stx_dev_major,
        minor: found.stx_dev_minor,
        number: found.stx_ino,
    })
}

/// What a regular file is like.
fn look_at(opened: &OwnedFd) -> Result<Statx, UnnamedReason> {
    // Without a request to the server of a network file system, which may hang.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(opened.as_fd(), c"", flags, StatxFlags::BASIC_STATS).map_err(reason_of)?;
    if FileType::from_raw_mode(found.stx_mode.into()) != FileType::RegularFile {
        return Err(UnnamedReason::FileGone);
    }
    Ok(found)
}

fn reason_of(err: Errno) -> UnnamedReason {
    match err {
        Errno::PERM | Errno::ACCESS | Errno::NOSYS => UnnamedReason::Permission,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => UnnamedReason::Limit,
        _ => UnnamedReason::FileGone,
    }
}
