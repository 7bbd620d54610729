//! Opens files that may be gone when they are to be named.
//!
//! In: a file, and the processes through which it can be reached now. Out: descriptors of it, and of the file with its
//! debug information. Nothing is read but its headers, and its build id, which must be the one that was mapped.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use elf::{Headers, Limits};
use profile::UnnamedReason;
use symbolize::read_facts;

use super::elf_file::ElfFile;
use super::format::FileFormat;
use super::held::HeldFile;
use super::linked::LinkedFiles;
use super::open::{Found, find_elf, look_in_time, open_in_root};
use super::proc_path::{reopen, root_of};
use super::stamp::Origin;
use crate::blocking_pool::BlockingPool;

/// Larger files are not held, as they are not named.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// Processes of a cgroup whose roots are tried: they are most often in the same container, so that the first is enough.
const CGROUP_PROCESSES_MAX: usize = 4;

/// Bytes read of a cgroup's list of processes: numbers have at most 8 digits.
const CGROUP_BYTES_MAX: u64 = 64;

/// Processes that are likely to have the same root as one that has ended.
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
    pool: &BlockingPool,
) -> Result<HeldFile, UnnamedReason> {
    let file = Arc::new(file);
    let found = find_elf(&file, FILE_BYTES_MAX, pool).or_else(|reason| {
        let wanted = file.clone();
        look_in_time(pool, file.resource(), move || {
            relatives.find(&wanted).ok_or(reason)
        })
    })?;
    let read = move || {
        let opened = reopen(&found.file).ok();
        let format = opened.as_ref().and_then(FileFormat::read);
        let facts = opened.and_then(|file| {
            let headers = Headers::read(&file, Limits::MAPPED).ok()?;
            let is_named = headers.is_64_bit_little_endian();
            is_named.then(|| read_facts(&headers, &file).0)
        });
        Ok((found, format, facts))
    };
    let (found, format, facts) = look_in_time(pool, file.resource(), read)?;
    let debug_file = facts.as_ref().filter(|facts| !facts.has_debug_info);
    let debug_file = debug_file.and_then(|facts| {
        let linked = LinkedFiles {
            file: &file,
            origin: Origin::of(&found.file),
            bytes_max: FILE_BYTES_MAX,
            pool,
        };
        linked.debug_file_in(&[found.root], facts.debug_link.as_deref())
    });
    Ok(HeldFile {
        file: found.file,
        format,
        facts,
        debug_file,
    })
}

impl Relatives {
    /// The file in a root of one of them.
    fn find(&self, file: &ElfFile) -> Option<Found> {
        let in_cgroup = || self.cgroup.as_deref().map_or_else(Vec::new, read_processes);
        let ancestors = self.ancestors.iter().copied();
        let pids = ancestors.chain(std::iter::once_with(in_cgroup).flatten());
        pids.map(root_of).find_map(|root| {
            let file = open_in_root(&root, file, FILE_BYTES_MAX).ok()?;
            Some(Found { file, root })
        })
    }
}

/// Some of the processes of a cgroup.
fn read_processes(directory: &Path) -> Vec<u32> {
    let mut text = String::new();
    if let Ok(file) = File::open(directory.join("cgroup.procs")) {
        // The part that was read before an error is as good.
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
