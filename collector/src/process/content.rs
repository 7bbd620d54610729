//! What a file is known by on every node: its build id, or a hash.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use xxhash_rust::xxh3::Xxh3;

use super::{
    ContentId, FileIdentity, find_build_id,
    scan::{map_file, open_regular},
};

/// Bytes of the head and of the tail that are hashed. Two builds of one program
/// differ there: the head has the sections' sizes, the tail the section headers.
const PART_BYTES: u64 = 4096;

/// Reads the identity of what a process maps at `start..end`; `None` when it is
/// gone, may not be read, or has another inode number by now: a library that was unloaded leaves its
/// place to others.
pub fn read_content_id(
    pid: u32,
    start: u64,
    end: u64,
    identity: FileIdentity,
) -> Option<ContentId> {
    let range = map_file(pid, start, end);
    let file = open_regular(Path::new(&range))?;
    if let FileIdentity::Inode { inode, .. } = identity
        && file.metadata().ok()?.ino() != inode
    {
        return None;
    }
    identify(&file)
}

/// The identity of a file by its contents; `None` when it cannot be read.
pub fn identify(file: &File) -> Option<ContentId> {
    if let Some(id) = find_build_id(|at, buffer| file.read_exact_at(buffer, at).is_ok()) {
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
