//! Living processes that map given files.
//!
//! In: processes, and files whose own processes have ended. Out: mappings through which the same files can still be opened.

use std::sync::Arc;

use elf::BuildId;
use rustc_hash::FxHashMap;

use super::Process;
use crate::{file::Inode, process::MappedFile};

/// A file in a process that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivingMapping {
    /// The file that is wanted.
    pub file: Arc<MappedFile>,
    /// The process that maps it.
    pub pid: u32,
    /// The process that made this one; 0 if not known.
    pub parent: u32,
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

/// Equal for the mappings of one file, whatever their paths.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum SameFile {
    /// Its inode, and the build id that it claims, which tells it from a later file in its place.
    Inode(Inode, Option<BuildId>),
    /// Only itself.
    Path(*const MappedFile),
}

impl SameFile {
    fn of(file: &Arc<MappedFile>) -> Self {
        match file.identity.inode() {
            Some(inode) => Self::Inode(inode, file.identity.claimed_build_id()),
            None => Self::Path(Arc::as_ptr(file)),
        }
    }
}

/// For each of `files` up to `each_max` of these processes that map it, also by another path. Another file that
/// claims its build id is not it.
///
/// Looks at every mapping of every process: 5,000 of 20 are 100,000, some milliseconds.
pub(super) fn find_mappings<'a>(
    processes: impl Iterator<Item = (u32, &'a Process)>,
    files: &[Arc<MappedFile>],
    each_max: usize,
) -> Vec<LivingMapping> {
    if files.is_empty() {
        return Vec::new();
    }
    let mut wanted: FxHashMap<SameFile, Vec<&Arc<MappedFile>>> = FxHashMap::default();
    for file in files {
        wanted.entry(SameFile::of(file)).or_default().push(file);
    }
    let mut counts: FxHashMap<SameFile, usize> = FxHashMap::default();
    let mut found = Vec::new();
    for (pid, process) in processes {
        for mapping in process.mappings.iter() {
            let same = SameFile::of(&mapping.file);
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
