//! The identity of a file by its contents, the same on every node: its build id, or a hash.

use std::{
    fs::File,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
};

use elf::find_build_id;
use xxhash_rust::xxh3::Xxh3;

use super::{
    ContentId, FileIdentity,
    snapshot::{Opened, open_regular},
};
use crate::{
    blocking_pool::{BlockingPool, FILE_DEADLINE, Resource},
    file::{FileFormat, MappedBy, open_mapped},
};

/// Bytes of the head and of the tail that are hashed. Two builds of one program
/// differ there: the head has the sections' sizes, the tail the section headers.
const PART_BYTES: u64 = 4096;

/// Format and identity of a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its format.
    pub format: FileFormat,
    /// Its identity; none for code that a process wrote, which changes.
    pub id: Option<ContentId>,
}

impl Contents {
    /// The contents of an open file; `None` when it cannot be read.
    pub fn read(file: &File) -> Option<Self> {
        let format = FileFormat::read(file)?;
        let id = match format {
            FileFormat::Memory => None,
            FileFormat::Elf | FileFormat::Other => identify(file),
        };
        Some(Self { format, id })
    }
}

/// Reads what a process maps, on a file system that may hang; `None` when it is
/// gone, may not be read in time, or has another inode number by now: a library that was unloaded leaves its
/// place to others.
pub fn read_contents(
    mapped_by: &MappedBy,
    identity: FileIdentity,
    resource: Resource,
    pool: &BlockingPool,
) -> Option<Contents> {
    let mapped = open_mapped(mapped_by, pool).ok()?;
    let read = move || read_mapped(&mapped, identity);
    pool.run(resource, FILE_DEADLINE, read).flatten()
}

fn read_mapped(mapped: &OwnedFd, identity: FileIdentity) -> Option<Contents> {
    match open_regular(mapped)? {
        Opened::Regular(file) => {
            if let FileIdentity::Inode { inode, .. } = identity
                && file.metadata().ok()?.ino() != inode
            {
                return None;
            }
            Contents::read(&file)
        }
        // A device's memory, or the kernel's: no ELF file is mapped from there.
        Opened::Special => Some(Contents {
            format: FileFormat::Memory,
            id: None,
        }),
    }
}

/// The identity of a file by its contents; `None` when it cannot be read.
pub fn identify(file: &File) -> Option<ContentId> {
    if let Some(id) = find_build_id(file) {
        return Some(ContentId::BuildId(id));
    }
    hash_file(file).map(ContentId::Hash)
}

/// Hash of head, tail and size.
fn hash_file(file: &File) -> Option<u128> {
    let size = file.metadata().ok()?.len();
    let mut hash = Xxh3::new();
    hash.update(&size.to_le_bytes());
    for at in [0, size.saturating_sub(PART_BYTES)] {
        let mut part = vec![0; size.min(PART_BYTES) as usize];
        file.read_exact_at(&mut part, at).ok()?;
        hash.update(&part);
    }
    Some(hash.digest128())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Check that size, head and tail each make another hash, and the name does not.
    #[test]
    fn hashes() {
        let hash = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            hash_file(&file).unwrap()
        };
        let base = vec![0; 20_000];
        let mut head = base.clone();
        head[10] = 1;
        let mut tail = base.clone();
        tail[19_990] = 1;
        let all = [
            hash(&base),
            hash(&head),
            hash(&tail),
            hash(&base[1..]),
            hash(b""),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one));
        }
        assert_eq!(hash(&base), all[0]);
    }
}
