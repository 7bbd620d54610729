//! The files that processes map.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ptr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use elf::BuildId;
use rustc_hash::FxHashMap;

use crate::file::{FileFormat, Inode};

/// The kind of a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A file on some file system, or a memfd.
    File,
    /// The kernel's image, and code that was loaded into it before the first record.
    Kernel,
    /// Code that the kernel loaded with a record: a BPF program, a trampoline. Its path is its name.
    KernelSymbol,
    /// A module of the kernel.
    KernelModule,
    /// The kernel's shared object in every process.
    Vdso,
    /// Executable memory without a file: code made at run time.
    Anonymous,
    /// No mapping is known at the address.
    NoMapping,
    /// The process is not known.
    NoProcess,
    /// Stands for frames that were left out of the middle of a deep stack.
    LeftOut,
    /// A limit was reached.
    Limit,
}

/// The identity of a mapped file.
///
/// Device, inode and generation are the kernel's word, and no process can choose them. The build id is
/// the file's own word: two files can claim the same. It is part of the identity only to tell a file
/// from a later one in the same place, where a file system has no generations. Data that is shared
/// between processes is keyed by the whole identity or by what was read, never by the claim alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileIdentity {
    /// Its inode.
    Inode {
        /// Device number, as the kernel's mapping record gives it. `stat` of the same file may have another one: see
        /// [`Inode::is_of`].
        device: u64,
        /// Inode number.
        inode: u64,
        /// Generation of the inode; 0 when not known, and on file systems without.
        generation: u64,
        /// The build id that the file claims, if known before it was opened.
        claimed_build_id: Option<BuildId>,
    },
    /// Only the path is known, or it is no file.
    Path,
}

impl FileIdentity {
    /// The build id that the file claims, if known before it was opened.
    pub fn claimed_build_id(&self) -> Option<BuildId> {
        match *self {
            Self::Inode {
                claimed_build_id, ..
            } => claimed_build_id,
            Self::Path => None,
        }
    }

    /// The inode, if it is known.
    pub fn inode(&self) -> Option<Inode> {
        match *self {
            Self::Inode { device, inode, .. } => Some(Inode {
                device,
                number: inode,
            }),
            Self::Path => None,
        }
    }

    /// The same without the generation, which `/proc` does not tell, where a claimed build id tells a file from a later one
    /// in its place as well.
    fn without_generation(self) -> Self {
        match self {
            Self::Inode {
                device,
                inode,
                claimed_build_id: claimed_build_id @ Some(_),
                generation: _,
            } => Self::Inode {
                device,
                inode,
                generation: 0,
                claimed_build_id,
            },
            other => other,
        }
    }

    /// Whether both name one inode. A generation that is not known is taken for equal.
    pub fn is_same_inode(&self, other: &Self) -> bool {
        let place = |identity: &Self| match *identity {
            Self::Inode {
                device,
                inode,
                generation,
                ..
            } => Some((device, inode, generation)),
            Self::Path => None,
        };
        let (Some(one), Some(two)) = (place(self), place(other)) else {
            return false;
        };
        (one.0, one.1) == (two.0, two.1) && (one.2 == two.2 || one.2 == 0 || two.2 == 0)
    }
}

/// One file, or what stands for it. Equal only to itself: [`Files`] makes one of each.
#[derive(Debug)]
pub struct MappedFile {
    /// Its kind.
    pub kind: FileKind,
    /// Path as the process saw it, or a name in brackets.
    pub path: Arc<str>,
    /// Its identity, as the mapping gave it.
    pub identity: FileIdentity,
    /// Its identity by its contents, found when it was first opened.
    pub content: OnceLock<ContentId>,
    /// Its format, found when it was first opened.
    pub format: OnceLock<FileFormat>,
    /// When a frame was last located in it, nanoseconds of CLOCK_MONOTONIC.
    pub used_ns: AtomicU64,
    /// For the kernel and its modules: the times between which a reading of `/proc/kallsyms` has its names.
    pub since_ns: u64,
    pub(super) until_ns: AtomicU64,
}

/// The identity of a file's contents, the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentId {
    /// The linker's id.
    BuildId(BuildId),
    /// For files without one: a hash of head, tail and size.
    Hash(u128),
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuildId(id) => id.fmt(f),
            Self::Hash(hash) => write!(f, "file-{hash:032x}"),
        }
    }
}

impl MappedFile {
    pub(super) fn new(kind: FileKind, path: Arc<str>, identity: FileIdentity) -> Self {
        Self {
            kind,
            path,
            identity,
            content: OnceLock::new(),
            // The kernel finds build ids in ELF files only.
            format: match identity.claimed_build_id() {
                Some(_) => OnceLock::from(FileFormat::Elf),
                None => OnceLock::new(),
            },
            used_ns: AtomicU64::new(0),
            since_ns: 0,
            until_ns: AtomicU64::new(u64::MAX),
        }
    }

    /// Until when a reading of `/proc/kallsyms` has its names.
    pub fn until_ns(&self) -> u64 {
        self.until_ns.load(Ordering::Relaxed)
    }

    /// Later readings have its names no more.
    pub(super) fn end_at(&self, time_ns: u64) {
        self.until_ns.fetch_min(time_ns, Ordering::Relaxed);
    }

    /// Whether it may be memory into which a process wrote code: everything executable that is not known to be an ELF file.
    pub fn may_be_made(&self) -> bool {
        match self.kind {
            FileKind::Anonymous => true,
            FileKind::File => self.format.get() != Some(&FileFormat::Elf),
            _ => false,
        }
    }

    /// The identity of its contents: what was read, or else the build id that it claims.
    pub fn content_id(&self) -> Option<ContentId> {
        let claimed = || self.identity.claimed_build_id().map(ContentId::BuildId);
        self.content.get().copied().or_else(claimed)
    }
}

impl PartialEq for MappedFile {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

impl Eq for MappedFile {}

impl Hash for MappedFile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::from_ref(self).hash(state);
    }
}

/// Makes one [`MappedFile`] for each file, as long as something uses it.
pub struct Files {
    known: FxHashMap<(FileKind, Arc<str>, FileIdentity), Weak<MappedFile>>,
    limit: Arc<MappedFile>,
}

impl Files {
    /// Files known at the same time. A node with 5,000 processes maps some
    /// thousands; at about 300 bytes each (path, key, two counters) the limit is
    /// 10 MB. Beyond it, files are not distinguished any more and count as
    /// [`FileKind::Limit`].
    pub const FILES_MAX: usize = 32_768;

    /// Bytes of a path that are kept: PATH_MAX.
    const PATH_BYTES_MAX: usize = 4096;

    /// No files yet.
    pub fn new() -> Self {
        let limit = MappedFile::new(FileKind::Limit, "[limit]".into(), FileIdentity::Path);
        Self {
            known: FxHashMap::default(),
            limit: Arc::new(limit),
        }
    }

    /// The file of this kind, path and identity.
    pub fn intern(
        &mut self,
        kind: FileKind,
        path: &[u8],
        identity: FileIdentity,
    ) -> Arc<MappedFile> {
        let path = &path[..path.len().min(Self::PATH_BYTES_MAX)];
        let path: Arc<str> = String::from_utf8_lossy(path).into();
        let key = (kind, path, identity.without_generation());
        if let Some(file) = self.known.get(&key).and_then(Weak::upgrade) {
            return file;
        }
        if self.known.len() >= Self::FILES_MAX {
            self.forget_unused();
            if self.known.len() >= Self::FILES_MAX {
                return self.limit.clone();
            }
        }
        let file = Arc::new(MappedFile::new(kind, key.1.clone(), identity));
        self.known.insert(key, Arc::downgrade(&file));
        file
    }

    /// Forgets the files that nothing uses any more.
    pub fn forget_unused(&mut self) {
        self.known.retain(|_, file| file.strong_count() > 0);
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}
