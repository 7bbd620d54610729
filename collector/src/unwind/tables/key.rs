//! The key of a file's rows.

use std::sync::Arc;

use crate::process::{FileIdentity, FileKind, MappedFile};

/// The key of a file's rows: its identity in the kernel, never only its build id, which any file
/// can claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TableKey {
    /// By its inode.
    Inode(FileIdentity),
    /// By its path, if nothing else is known.
    Path(Arc<str>),
    /// The kernel's shared object in every process.
    Vdso,
}

impl TableKey {
    /// The key of a mapping's file; `None` if it is not a file.
    pub fn of(file: &MappedFile) -> Option<Self> {
        match (file.kind, file.identity) {
            (FileKind::Vdso, _) => Some(Self::Vdso),
            (FileKind::File, FileIdentity::Inode { .. }) => Some(Self::Inode(file.identity)),
            (FileKind::File, FileIdentity::Path) => Some(Self::Path(file.path.clone())),
            _ => None,
        }
    }

    /// Whether a later file with the same name and inode has another key.
    pub(super) fn is_unique_in_time(&self) -> bool {
        match self {
            Self::Inode(FileIdentity::Inode {
                generation,
                claimed_build_id,
                ..
            }) => *generation != 0 || claimed_build_id.is_some(),
            Self::Inode(FileIdentity::Path) | Self::Path(_) => false,
            Self::Vdso => true,
        }
    }
}
