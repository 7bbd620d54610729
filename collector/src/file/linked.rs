//! Finds files with the debug information of another one, or with parts of it.
//!
//! In: a file, and paths relative to a root. Out: a descriptor of a regular file on a real file system, not checked yet: the
//! child compares build ids, checksums and the numbers of units.
//!
//! The node's own root is its administrator's. A process's root is not: a process chooses its root directory, and a library
//! that all processes map may be in it. A file from there is taken only if it lies on the mount of the file that it belongs to,
//! and is its owner's or root's. In the node's own root a link is followed only if the file that has it is there too.

use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::fstatfs;

use super::elf_file::ElfFile;
use super::open::{check_size, look_at, look_in_time, open_below, open_in_root, roots};
use super::proc_path::OWN_ROOT;
use super::stamp::Origin;
use crate::blocking_pool::{BlockingPool, FILE_DEADLINE, Resource};

/// The directory of installed debug information, relative to a root.
pub(crate) const DEBUG_DIRECTORY: &str = "usr/lib/debug";

/// File systems whose files are made when they are read, and some of which are devices: proc, sysfs, debugfs, tracefs,
/// securityfs, cgroup, cgroup2, bpf, pstore, configfs, and the kernel's for EFI's variables. Numbers of `linux/magic.h`.
const NOT_ON_DISK: [u32; 11] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x0027_e0eb,
    0x6367_7270,
    0xcafe_4a11,
    0x6165_676c,
    0x6265_6570,
    0xde5e_81e4,
];

/// A search for files that belong to one.
pub(crate) struct LinkedFiles<'a> {
    pub(crate) file: &'a ElfFile,
    /// The origin of the file. Without one, only the node's own root is searched.
    pub(crate) origin: Option<Origin>,
    /// Larger files are not taken.
    pub(crate) bytes_max: u64,
    pub(crate) pool: &'a BlockingPool,
}

impl LinkedFiles<'_> {
    /// The roots in which links are followed: those of the file's processes and of their parents; and the node's own if the file
    /// has its path there, since all of those processes may have ended.
    pub(crate) fn roots(&self) -> impl Iterator<Item = String> + '_ {
        let own = iter::once_with(|| self.is_in_own_root().then(|| OWN_ROOT.to_owned()));
        roots(self.file).chain(own.flatten())
    }

    fn is_in_own_root(&self) -> bool {
        let (file, bytes_max) = (self.file.clone(), self.bytes_max);
        let open = move || open_in_root(OWN_ROOT, &file, bytes_max);
        look_in_time(self.pool, self.file.resource(), open).is_ok()
    }

    /// The first of these paths below [`DEBUG_DIRECTORY`] in the node's own root.
    pub(crate) fn find_installed(&self, paths: Vec<PathBuf>) -> Option<OwnedFd> {
        let is_installed = |path: &PathBuf| path.starts_with(DEBUG_DIRECTORY);
        let paths = paths.into_iter().filter(is_installed).collect();
        self.find_first(OWN_ROOT, Path::new(DEBUG_DIRECTORY), paths, |_| true)
    }

    /// The first of these paths in the root of a process, most of them in `directory`.
    pub(crate) fn find_in_root(
        &self,
        root: &str,
        directory: &Path,
        paths: Vec<PathBuf>,
    ) -> Option<OwnedFd> {
        let origin = self.origin?;
        let admits = move |found: &OwnedFd| origin.admits(found);
        self.find_first(root, directory, paths, admits)
    }

    fn find_first(
        &self,
        root: &str,
        directory: &Path,
        paths: Vec<PathBuf>,
        is_admitted: impl Fn(&OwnedFd) -> bool + Send + 'static,
    ) -> Option<OwnedFd> {
        if paths.is_empty() {
            return None;
        }
        let resource = Resource::of_directory(root, directory);
        let (root, bytes_max) = (root.to_owned(), self.bytes_max);
        let find = move || {
            let mut opened = paths
                .iter()
                .filter_map(|path| open_on_disk(&root, path, bytes_max));
            opened.find(is_admitted)
        };
        self.pool.run(resource, FILE_DEADLINE, find).flatten()
    }
}

/// A regular file of at most so many bytes on a real file system.
fn open_on_disk(root: &str, path: &Path, bytes_max: u64) -> Option<OwnedFd> {
    let opened = open_below(root, path).ok()?;
    check_size(&look_at(&opened).ok()?, bytes_max).ok()?;
    let system = fstatfs(opened.as_fd()).ok()?;
    // The kernel's number has 32 bits; some of them come with a sign.
    (!NOT_ON_DISK.contains(&(system.f_type as u32))).then_some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the files of the kernel's own file systems are not opened.
    #[test]
    fn only_files_on_a_disk_are_opened() {
        let own = std::env::current_exe().unwrap();
        let open = |path: &Path| open_on_disk("/", path.strip_prefix("/").unwrap(), u64::MAX);
        assert!(open(&own).is_some());
        for path in ["/proc/version", "/sys/kernel/notes"] {
            assert!(Path::new(path).exists() && open(Path::new(path)).is_none());
        }
    }
}
