//! An ELF file of a process: its identity and the ways to open it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use elf::BuildId;

use super::held::HeldFile;
use super::proc_path::{OWN_ROOT, root_of};
use super::stamp::{FileStamp, Inode};
use crate::blocking_pool::Resource;

/// The key of a file's names. The build id is not part of it: a file can claim that of any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKey {
    /// The stamp of the file that was opened.
    Stamp(FileStamp),
    /// The key of a file that could not be opened: a number that is unique to its path and inode.
    Place(u128),
}

/// A process that has the file mapped, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedBy {
    /// The process's number, as the collector sees it.
    pub pid: u32,
    /// The number of the process that made it, 0 if not known: in its root the file is looked for when the process
    /// has ended, as those that live for some milliseconds have.
    pub parent: u32,
    /// First address of one mapping of the file.
    pub start: u64,
    /// First address after that mapping.
    pub end: u64,
}

/// One ELF file.
#[derive(Clone, Debug)]
pub struct ElfFile {
    /// The key of its names: see [`ElfFile::with_stamp`].
    pub key: FileKey,
    /// Its path as the process saw it, in the process's root.
    pub path: OsString,
    /// The build id that it claims, if known. A file that is opened must have it.
    pub build_id: Option<BuildId>,
    /// Its inode, if known. A file that is opened must have it.
    pub inode: Option<Inode>,
    /// Processes that map it. Ended ones do no harm; without a living one the
    /// path is tried in the collector's own root.
    pub candidates: Vec<MappedBy>,
    /// The file itself, if it was opened while it was there.
    pub held: Option<Arc<HeldFile>>,
}

impl ElfFile {
    /// The account of accesses to it: its file system, as far as the kernel tells it without reading.
    pub(crate) fn resource(&self) -> Resource {
        if let Some(inode) = self.inode {
            return Resource::of_device(inode.device);
        }
        let root = self
            .candidates
            .first()
            .map(|candidate| root_of(candidate.pid));
        Resource::of_directory(root.as_deref().unwrap_or(OWN_ROOT), self.directory())
    }

    /// The directory that it is in.
    pub(crate) fn directory(&self) -> &Path {
        Path::new(&self.path).parent().unwrap_or(Path::new(""))
    }
}
