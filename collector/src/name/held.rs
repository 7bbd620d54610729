//! Descriptors of files that may be gone when they are to be named.
//!
//! In: a file, and the processes through which it can be reached now. Out: descriptors of it, and of the file with its
//! debug information. Nothing is read but its headers, and its build id, which must be the one that was mapped.
//!
//! A descriptor keeps what a deleted file takes of its disk, and its file system mounted. So who holds one drops it as
//! soon as the file has its names.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::debug_file::{FoundBy, find_debug_file_in};
use super::facts::{FileFacts, Segment};
use super::headers::read_headers;
use super::naming::UnnamedReason;
use super::object::ElfFile;
use super::open::{is_of_build, look_in_time, open_elf_that, open_in_root, reopen, root_of};
use crate::patience::Patience;

/// Larger files are not held, as they are not named.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// Processes of a cgroup whose roots are tried: they are most often in the same container, so that the first is enough.
const CGROUP_PROCESSES_MAX: usize = 4;

/// Bytes read of a cgroup's list of processes: numbers have at most 8 digits.
const CGROUP_BYTES_MAX: u64 = 64;

/// A file that is held open.
#[derive(Debug)]
pub struct HeldFile {
    pub(super) file: OwnedFd,
    /// What it says about itself.
    facts: Option<FileFacts>,
    /// What may have its debug information.
    debug_file: Option<(OwnedFd, FoundBy)>,
}

impl HeldFile {
    /// The file with its debug information that was found when it was opened.
    pub(super) fn debug_file(&self) -> Option<(OwnedFd, FoundBy)> {
        let (file, found_by) = self.debug_file.as_ref()?;
        Some((file.try_clone().ok()?, *found_by))
    }

    /// Where the parts of the file are mapped.
    pub(super) fn segments(&self) -> &[Segment] {
        self.facts.as_ref().map_or(&[], |it| &it.segments)
    }

    /// A descriptor to read from.
    pub fn read(&self) -> Option<File> {
        reopen(&self.file).ok()
    }
}

/// Who is likely to have the same root as a process that has ended.
#[derive(Clone, Debug, Default)]
pub struct Relatives {
    /// Those that made it, the nearest first.
    pub ancestors: Vec<u32>,
    /// The directory of its cgroup: what `exec` puts into a container has no ancestors there.
    pub cgroup: Option<Arc<Path>>,
}

/// Opens a file to hold it: by a process that maps it, in its root, or in its relatives'.
///
/// # Errors
/// Why it cannot be opened.
pub fn hold(
    file: ElfFile,
    relatives: Relatives,
    patience: &Patience,
) -> Result<HeldFile, UnnamedReason> {
    let file = Arc::new(file);
    let wanted = file.clone();
    let find = move || find_to_hold(&wanted, &relatives);
    let (found, root, facts) = look_in_time(patience, file.place(), find)?;
    let debug_file = facts.as_ref().filter(|it| !it.has_debug_info);
    let debug_file = debug_file.and_then(|facts| {
        let link = facts.debug_link.as_deref();
        find_debug_file_in(&[root], &file, link, FILE_BYTES_MAX, patience)
    });
    Ok(HeldFile {
        file: found,
        facts,
        debug_file,
    })
}

/// The file, the root that it was found in, and what it says about itself.
fn find_to_hold(
    file: &ElfFile,
    relatives: &Relatives,
) -> Result<(OwnedFd, String, Option<FileFacts>), UnnamedReason> {
    let is_it = |found: &OwnedFd| is_of_build(found, file.build_id);
    let (found, root) = match open_elf_that(file, FILE_BYTES_MAX, is_it) {
        Ok(opened) => (opened.file, opened.root),
        Err(reason) => relatives.find(file, is_it).ok_or(reason)?,
    };
    let facts = reopen(&found).ok().and_then(|file| {
        let read = |at, buffer: &mut [u8]| file.read_exact_at(buffer, at).is_ok();
        read_headers(read)
    });
    Ok((found, root, facts))
}

impl Relatives {
    /// The file in a root of one of them, and that root.
    fn find(&self, file: &ElfFile, is_it: impl Fn(&OwnedFd) -> bool) -> Option<(OwnedFd, String)> {
        let in_cgroup = || self.cgroup.as_deref().map_or_else(Vec::new, read_processes);
        let ancestors = self.ancestors.iter().copied();
        let pids = ancestors.chain(std::iter::once_with(in_cgroup).flatten());
        pids.map(root_of).find_map(|root| {
            let found = open_in_root(&root, file, FILE_BYTES_MAX).ok()?;
            is_it(&found).then_some((found, root))
        })
    }
}

/// Some of the processes of a cgroup.
fn read_processes(directory: &Path) -> Vec<u32> {
    let mut text = String::new();
    if let Ok(file) = File::open(directory.join("cgroup.procs")) {
        // What was read before an error is as good.
        let _ = file.take(CGROUP_BYTES_MAX).read_to_string(&mut text);
    }
    // The last number may be cut.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let pids = whole.lines().filter_map(|line| line.parse().ok());
    pids.take(CGROUP_PROCESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the processes of a cgroup are read, whole numbers only, and not more than are wanted.
    #[test]
    fn processes_of_a_cgroup() {
        let directory = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(directory.path().join("cgroup.procs"), text).unwrap();
            read_processes(directory.path())
        };
        assert_eq!(read("1\n22\n333\n"), [1, 22, 333]);
        assert_eq!(read("1\n2\n3\n4\n5\n"), [1, 2, 3, 4]);
        assert!(read("").is_empty());
        let cut = format!("{}\n4444444444444444", "0".repeat(60));
        assert_eq!(read(&cut), [0]);
        assert!(read_processes(Path::new("/nowhere")).is_empty());
    }
}
