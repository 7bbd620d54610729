//! What addresses lie in: the kernel, the vDSO, or an ELF file.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::held::HeldFile;
use super::open::{OWN_ROOT, root_of};
use crate::patience::Place;
use crate::process::BuildId;

/// What makes a file's contents unique, so that its names are kept under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKey {
    /// By build id.
    BuildId(BuildId),
    /// Without one, by an id that the caller made unique (a hash of the file's
    /// head, tail and size, or of its device, inode and generation).
    FileId(u128),
}

/// Where a file is on its file system, as the kernel's mapping records and
/// `/proc/PID/maps` give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    /// Major number of the device.
    pub major: u32,
    /// Minor number of the device.
    pub minor: u32,
    /// Number of the inode on the device.
    pub number: u64,
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
    /// What its names are kept under.
    pub key: FileKey,
    /// Its path as the process saw it, in the process's root.
    pub path: OsString,
    /// Its build id, if known.
    pub build_id: Option<BuildId>,
    /// Its inode, if known.
    pub inode: Option<Inode>,
    /// Processes that map it. Ended ones do no harm; without a living one the
    /// path is tried in the collector's own root.
    pub candidates: Vec<MappedBy>,
    /// The file itself, if it was opened while it was there.
    pub held: Option<Arc<HeldFile>>,
}

impl ElfFile {
    /// Where it hangs, should it. Nothing is read for that but what the kernel itself says.
    pub(crate) fn place(&self) -> Place {
        if let Some(inode) = self.inode {
            return Place::of_device(rustix::fs::makedev(inode.major, inode.minor));
        }
        let root = self.candidates.first().map(|it| root_of(it.pid));
        Place::of_directory(root.as_deref().unwrap_or(OWN_ROOT), self.directory())
    }

    /// The directory that it is in.
    pub(super) fn directory(&self) -> &Path {
        Path::new(&self.path).parent().unwrap_or(Path::new(""))
    }
}

/// What addresses are named in, and how they are to be read.
#[derive(Clone, Debug)]
pub enum Object {
    /// The kernel, its modules and BPF programs. Addresses are relative to
    /// `_text`, wrapping where they lie below it.
    Kernel,
    /// The code the kernel maps into each process. Addresses are offsets in its image.
    Vdso,
    /// A file. Addresses are offsets in it.
    Elf(Arc<ElfFile>),
}

impl fmt::Display for Object {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => out.write_str("[kernel]"),
            Self::Vdso => out.write_str("[vdso]"),
            Self::Elf(file) => file.path.display().fmt(out),
        }
    }
}
