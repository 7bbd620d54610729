//! Opens the file that a process has mapped. Reads only the build id of its contents.
//!
//! In: the processes and the path at which a file was seen. Out: a descriptor of that regular file (`O_PATH`, so that no device and no
//! FIFO is ever opened), or the reason why there is none. Never follows a path out of the root of the process it came from.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use elf::find_build_id;
use profile::UnnamedReason;
use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, open, openat2, readlink,
};
use rustix::io::Errno;

use super::elf_file::{ElfFile, FileKey, MappedBy};
use super::proc_path::{OWN_ROOT, descriptor_path, reopen, root_of};
use super::stamp::FileStamp;
use crate::blocking_pool::{BlockingPool, FILE_DEADLINE, Resource};
use crate::procfs::read_attributes;

/// Processes tried for one file. If the first few have ended, the others probably have too, and the
/// path is more likely to work.
const CANDIDATES_MAX: usize = 8;

impl ElfFile {
    /// The same with the stamp for a key, of the file that is held or can be opened now. Without one the key stays.
    pub fn with_stamp(mut self, pool: &BlockingPool) -> Self {
        let stamp = match &self.held {
            Some(held) => FileStamp::of(&held.file),
            None => {
                let opened = open_elf(&Arc::new(self.clone()), u64::MAX, pool);
                opened.ok().and_then(FileStamp::of)
            }
        };
        self.key = stamp.map_or(self.key, FileKey::Stamp);
        self
    }
}

/// Opens `file`: the held descriptor if there is one, otherwise as [`find_elf`] does.
pub(crate) fn open_elf(
    file: &Arc<ElfFile>,
    bytes_max: u64,
    pool: &BlockingPool,
) -> Result<OwnedFd, UnnamedReason> {
    let Some(held) = &file.held else {
        return find_elf(file, bytes_max, pool).map(|found| found.file);
    };
    let duplicate = held.file.try_clone().map_err(|_| UnnamedReason::Limit)?;
    look_in_time(pool, file.resource(), move || {
        check_size(&look_at(&duplicate)?, bytes_max)?;
        Ok(duplicate)
    })
}

/// A file, and where it was found.
pub(crate) struct Found {
    pub(crate) file: OwnedFd,
    /// The root directory of the process that it was found through.
    pub(crate) root: String,
}

/// Opens `file` through a process that maps it, by its path in the root of such a process or of its parent, or by its path in the
/// node's own root. Inode and build id are compared in each case, since another file may claim the same build id.
///
/// The deadline of opening a mapping counts for its process, every other deadline for the file's file system: a process that locks its
/// memory map delays no other files, and a file system that hangs delays only its own.
pub(crate) fn find_elf(
    file: &Arc<ElfFile>,
    bytes_max: u64,
    pool: &BlockingPool,
) -> Result<Found, UnnamedReason> {
    let mut reason = UnnamedReason::FileGone;
    let mut renamed = Vec::new();
    for candidate in file.candidates.iter().take(CANDIDATES_MAX) {
        let mapped = open_mapped(candidate, pool).map(|mapped| Found {
            file: mapped,
            root: root_of(candidate.pid),
        });
        let found = match mapped {
            // Another file may be mapped at the address of a library that was unloaded. So the path is tried first.
            Ok(mapped) if is_renamed(&mapped.file, file) => {
                renamed.push(mapped);
                continue;
            }
            mapped => mapped.and_then(|mapped| check_in_time(mapped, file, bytes_max, pool)),
        };
        match found {
            Ok(found) => return Ok(found),
            Err(UnnamedReason::FileGone) => {}
            Err(other) => reason = other,
        }
    }
    let wanted = file.clone();
    let by_path = look_in_time(pool, file.resource(), move || {
        find_by_path(&wanted, bytes_max)
    });
    match by_path {
        Ok(found) => return Ok(found),
        Err(UnnamedReason::FileGone) => {}
        Err(other) => reason = other,
    }
    let mut renamed = renamed.into_iter();
    renamed
        .find_map(|mapped| check_in_time(mapped, file, bytes_max, pool).ok())
        .ok_or(reason)
}

fn find_by_path(file: &ElfFile, bytes_max: u64) -> Result<Found, UnnamedReason> {
    let mut reason = UnnamedReason::FileGone;
    for root in roots(file).chain([OWN_ROOT.to_owned()]) {
        match open_in_root(&root, file, bytes_max) {
            Ok(file) => return Ok(Found { file, root }),
            Err(UnnamedReason::FileGone) => {}
            Err(other) => reason = other,
        }
    }
    Err(reason)
}

/// The roots of the processes that map a file, and of their parents.
pub(crate) fn roots(file: &ElfFile) -> impl Iterator<Item = String> + '_ {
    let candidates = file.candidates.iter().take(CANDIDATES_MAX);
    let own = candidates.map(|candidate| root_of(candidate.pid));
    own.chain(parent_roots(file))
}

fn parent_roots(file: &ElfFile) -> impl Iterator<Item = String> + '_ {
    let candidates = file.candidates.iter().take(CANDIDATES_MAX);
    let parents = candidates.map(|candidate| candidate.parent);
    parents.filter(|parent| *parent != 0).map(root_of)
}

/// The owner that a file must have.
pub(crate) struct Owner {
    /// Its user, or root.
    pub(crate) user: u32,
    /// Earliest time of its last modification, in seconds since the epoch.
    pub(crate) modified_min_s: i64,
}

/// Opens a regular file by its path below `root`, if it has this owner.
pub(crate) fn open_owned(
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

/// Opens the file that a process maps (`O_PATH`), also one that was deleted or replaced. This does not access the file system, but locks
/// the process's memory map for a moment.
pub(crate) fn open_mapped(
    mapped_by: &MappedBy,
    pool: &BlockingPool,
) -> Result<OwnedFd, UnnamedReason> {
    let MappedBy {
        pid, start, end, ..
    } = *mapped_by;
    look_in_time(pool, Resource::of_process(pid), move || {
        let path = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
        open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(reason_of)
    })
}

/// Whether the mapped file has another name than the file had. The directory may differ between mount namespaces.
fn is_renamed(mapped: &OwnedFd, file: &ElfFile) -> bool {
    let Ok(target) = readlink(descriptor_path(mapped), Vec::new()) else {
        return false;
    };
    let target = target.as_bytes();
    let target = target.strip_suffix(b" (deleted)").unwrap_or(target);
    let name = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
    name(target) != name(file.path.as_bytes())
}

/// Checks that the mapped file is the wanted one: the PID may have been reused by a process that maps another file at the same
/// addresses.
fn check_in_time(
    mapped: Found,
    file: &Arc<ElfFile>,
    bytes_max: u64,
    pool: &BlockingPool,
) -> Result<Found, UnnamedReason> {
    let wanted = file.clone();
    look_in_time(pool, file.resource(), move || {
        let file = check(mapped.file, &wanted, bytes_max)?;
        Ok(Found { file, ..mapped })
    })
}

/// Opens the file by its path in `root`, if its inode is known.
pub(crate) fn open_in_root(
    root: &str,
    file: &ElfFile,
    bytes_max: u64,
) -> Result<OwnedFd, UnnamedReason> {
    let relative = relative_path(&file.path).filter(|_| file.inode.is_some());
    let opened = open_below(root, relative.ok_or(UnnamedReason::FileGone)?)?;
    check(opened, file, bytes_max)
}

/// Runs `look`, which accesses `resource`, with a deadline.
pub(crate) fn look_in_time<T: Send + 'static>(
    pool: &BlockingPool,
    resource: Resource,
    look: impl FnOnce() -> Result<T, UnnamedReason> + Send + 'static,
) -> Result<T, UnnamedReason> {
    let found = pool.run(resource, FILE_DEADLINE, look);
    found.unwrap_or(Err(UnnamedReason::NotAnswering))
}

/// Opens a path below `root`. No link leads out of `root`.
pub(super) fn open_below(root: &str, relative: &Path) -> Result<OwnedFd, UnnamedReason> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let directory = open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(reason_of)?;
    // Kernels before 5.6, and sandboxes that refuse `openat2`, have no safe way to open a path. Only
    // mappings can be opened there.
    openat2(
        directory,
        relative,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(reason_of)
}

/// `path` without its leading slash; `None` for `/`, and for names that are no paths (`[heap]`, `//anon`).
fn relative_path(path: &OsStr) -> Option<&Path> {
    let relative = path.as_bytes().strip_prefix(b"/")?;
    (!relative.is_empty() && relative[0] != b'/').then(|| Path::new(OsStr::from_bytes(relative)))
}

/// Checks that an opened file is the one that was mapped, and not too large.
fn check(opened: OwnedFd, file: &ElfFile, bytes_max: u64) -> Result<OwnedFd, UnnamedReason> {
    check_size(&look_at(&opened)?, bytes_max)?;
    let has_inode = file.inode.is_none_or(|inode| inode.is_of(&opened));
    // The file may have been overwritten with another one since.
    let has_build_id = || {
        file.build_id.is_none_or(|build_id| {
            reopen(&opened).is_ok_and(|file| find_build_id(&file) == Some(build_id))
        })
    };
    if has_inode && has_build_id() {
        Ok(opened)
    } else {
        Err(UnnamedReason::FileGone)
    }
}

pub(super) fn check_size(found: &Statx, bytes_max: u64) -> Result<(), UnnamedReason> {
    if found.stx_size > bytes_max {
        return Err(UnnamedReason::Limit);
    }
    Ok(())
}

/// The attributes of a regular file.
pub(super) fn look_at(opened: &OwnedFd) -> Result<Statx, UnnamedReason> {
    let found = read_attributes(opened, StatxFlags::BASIC_STATS).map_err(reason_of)?;
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::file::{FileKey, Inode};
    use crate::procfs::parse_maps_line;

    /// This program under some path, as this process maps it.
    fn own_program(path: &Path) -> Arc<ElfFile> {
        let exe = std::env::current_exe().unwrap();
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let mut entries = maps
            .split(|byte| *byte == b'\n')
            .filter_map(parse_maps_line);
        let entry = entries
            .find(|entry| entry.executable && entry.path == exe.as_os_str().as_bytes())
            .unwrap();
        Arc::new(ElfFile {
            key: FileKey::Place(0),
            path: path.into(),
            build_id: None,
            inode: Some(Inode {
                device: entry.device,
                number: entry.inode,
            }),
            candidates: vec![MappedBy {
                pid: std::process::id(),
                parent: 0,
                start: entry.start,
                end: entry.end,
            }],
            held: None,
        })
    }

    /// Blocks a thread of the pool until the sender is dropped.
    fn hang(pool: &BlockingPool, resource: Resource) -> Sender<()> {
        let (end, ended) = channel::<()>();
        let hangs = pool.run(resource, Duration::from_millis(20), move || {
            ended.recv().is_ok()
        });
        assert_eq!(hangs, None);
        end
    }

    fn find(file: &Arc<ElfFile>, pool: &BlockingPool) -> Result<(), UnnamedReason> {
        find_elf(file, u64::MAX, pool).map(|_| ())
    }

    /// Check that a process which locks its memory map stops its mappings from being opened, and no file by its path; and that a
    /// file system that hangs does not count as a hanging process.
    #[test]
    fn processes_and_file_systems_hang_by_themselves() {
        let exe = std::env::current_exe().unwrap();
        let (program, deleted) = (own_program(&exe), own_program(Path::new("/deleted")));
        let pool = BlockingPool::default();
        assert_eq!(find(&deleted, &pool), Ok(()));
        let process = Resource::of_process(std::process::id());
        let locked = hang(&pool, process);
        assert_eq!(find(&deleted, &pool), Err(UnnamedReason::NotAnswering));
        assert_eq!(find(&program, &pool), Ok(()));
        drop(locked);

        let pool = BlockingPool::default();
        let _hanging = hang(&pool, program.resource());
        assert_eq!(find(&program, &pool), Err(UnnamedReason::NotAnswering));
        assert!(open_mapped(&program.candidates[0], &pool).is_ok());
        assert_eq!(pool.stats().stuck, 1);
    }
}
