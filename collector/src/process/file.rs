//! The files that processes map.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ptr,
    sync::{Arc, OnceLock, Weak, atomic::AtomicU64},
};

use rustc_hash::FxHashMap;

use super::BuildId;

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A file on some file system, or a memfd.
    File,
    /// The kernel's image, modules and BPF programs.
    Kernel,
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

/// How a file is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileIdentity {
    /// By its contents: the linker's own id.
    BuildId(BuildId),
    /// By where it lies: device and inode, for files without a build id.
    Inode {
        /// Device number, as in `stat`.
        device: u64,
        /// Inode number.
        inode: u64,
        /// Generation of the inode; 0 when not known.
        generation: u64,
    },
    /// Only the path is known, or it is no file.
    Path,
}

/// One file, or what stands for it. Equal only to itself: [`Files`] makes one of each.
#[derive(Debug)]
pub struct MappedFile {
    /// What it is.
    pub kind: FileKind,
    /// Path as the process saw it, or a name in brackets.
    pub path: Arc<str>,
    /// Its identity, as the mapping told it.
    pub identity: FileIdentity,
    /// Its identity by its contents, found when it was first opened.
    pub content: OnceLock<ContentId>,
    /// When a frame was last located in it, nanoseconds of CLOCK_MONOTONIC.
    pub used_ns: AtomicU64,
}

/// What a file's contents are known by, on every node.
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
    fn new(kind: FileKind, path: Arc<str>, identity: FileIdentity) -> Self {
        let content = match identity {
            FileIdentity::BuildId(id) => OnceLock::from(ContentId::BuildId(id)),
            FileIdentity::Inode { .. } | FileIdentity::Path => OnceLock::new(),
        };
        Self {
            kind,
            path,
            identity,
            content,
            used_ns: AtomicU64::new(0),
        }
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
    /// 10 MB. Beyond it, files are told apart no more and counted as
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
        let key = (kind, path, identity);
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

    /// Files that are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}
