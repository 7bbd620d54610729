//! Rows on disk, so that the files that take long are evaluated once and not at each start.
//!
//! In: a [`Digest`] of all that an evaluation reads. Out: its rows, if they were kept. A folder of one file
//! for each; the least recently used are evicted. The store is only a cache: a file that cannot be
//! read or written is counted, and evaluated.
//!
//! Files whose evaluation took 5 ms of CPU time are kept, in `--cache-dir`, up to `--cache-bytes`.
//! Reading libLLVM's sections for the digest, and its rows, takes 11 ms where evaluating takes 76;
//! librustc_driver's 16 and 109, cc1plus's 3 and 49 (the example `rows_cost`). Smaller files are
//! not worth a file.
//!
//! The key is a BLAKE3 digest of all bytes that the evaluation reads, and not the build id: a file
//! can claim any build id, and wrong rows would be wrong again at each start. Rows that are read
//! back are checked by a checksum, and then for every property that a search relies on.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::{
    private_folder::make_private_folder,
    unwind::{Digest, Limits, RuleSet, Table, decode_table},
};

/// Maximum number of files, 100 bytes of memory each.
const FILES_MAX: usize = 8_192;

/// Suffix of a file that is being written.
const UNFINISHED: &str = "new";

/// Counters since the start, and the store's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowStoreStats {
    /// Rows that were read instead of evaluated.
    pub reads: u64,
    /// Rows that were written.
    pub writes: u64,
    /// Rows that were evicted to make room.
    pub evictions: u64,
    /// Files that were damaged or of another version, and were deleted.
    pub damaged: u64,
    /// Files that could not be read or written.
    pub errors: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Their number.
    pub files: usize,
}

/// The folder.
#[derive(Debug)]
pub(super) struct RowStore {
    folder: PathBuf,
    bytes_max: u64,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    files: FxHashMap<Digest, Kept>,
    stats: RowStoreStats,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    bytes: u64,
    used: SystemTime,
}

impl RowStore {
    /// Opens the folder, or creates it. It keeps at most `bytes_max` bytes.
    ///
    /// # Errors
    /// The folder cannot be created or read, or other users may write to it: the kernel walks
    /// stacks by its contents.
    pub(super) fn open(folder: &Path, bytes_max: u64) -> Result<Self> {
        make_private_folder(folder)?;
        let mut index = Index::default();
        let entries =
            fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension() == Some(OsStr::new(UNFINISHED)) {
                let _ = fs::remove_file(path);
            } else if let Some(digest) = digest_of(&path)
                && let Ok(found) = entry.metadata()
                && found.is_file()
            {
                index.add(
                    digest,
                    found.len(),
                    found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                );
            }
        }
        let store = Self {
            folder: folder.to_owned(),
            bytes_max,
            index: Mutex::new(index),
        };
        store.make_room(0);
        Ok(store)
    }

    /// The rows with this digest, if they are in the store.
    pub(super) fn read(&self, digest: Digest, limits: &Limits) -> Option<(Table, RuleSet)> {
        let kept = *self.index.lock().files.get(&digest)?;
        let path = self.path_of(digest);
        // The index limits the file's size, and so the memory used here.
        let bytes = fs::read(&path)
            .ok()
            .filter(|bytes| bytes.len() as u64 <= kept.bytes);
        let Some(bytes) = bytes else {
            self.index.lock().stats.errors += 1;
            self.remove(digest);
            return None;
        };
        match decode_table(&bytes, limits) {
            Ok(rows) => {
                let now = SystemTime::now();
                // So that the order of eviction survives a restart.
                let _ = fs::File::open(&path).and_then(|file| file.set_modified(now));
                let mut index = self.index.lock();
                index.stats.reads += 1;
                if let Some(kept) = index.files.get_mut(&digest) {
                    kept.used = now;
                }
                Some(rows)
            }
            Err(err) => {
                tracing::debug!(path = %path.display(), %err, "dropped rows");
                self.index.lock().stats.damaged += 1;
                self.remove(digest);
                None
            }
        }
    }

    /// Stores encoded rows; the bytes come from [`encode_table`](crate::unwind::encode_table).
    pub(super) fn write(&self, digest: Digest, bytes: &[u8]) {
        let count = bytes.len() as u64;
        if count > self.bytes_max {
            return;
        }
        self.make_room(count);
        match self.write_file(digest, bytes) {
            Ok(()) => {
                let mut index = self.index.lock();
                index.add(digest, count, SystemTime::now());
                index.stats.writes += 1;
            }
            Err(err) => {
                tracing::warn!(%err, folder = %self.folder.display(), "failed to keep unwind rows");
                self.index.lock().stats.errors += 1;
            }
        }
    }

    /// Writes under another name first, so that a file with the final name is complete. The file is
    /// not flushed: its checksum reveals damage by a crash.
    fn write_file(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self.path_of(digest);
        let unfinished = path.with_extension(UNFINISHED);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options
            .open(&unfinished)
            .and_then(|mut file| io::Write::write_all(&mut file, bytes))
            .and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Evicts the least recently used files until there is room for another file of this size.
    fn make_room(&self, bytes: u64) {
        let mut index = self.index.lock();
        let has_room = |index: &Index| {
            index.stats.bytes + bytes <= self.bytes_max && index.files.len() < FILES_MAX
        };
        if has_room(&index) {
            return;
        }
        let mut by_time: Vec<(SystemTime, Digest)> = index
            .files
            .iter()
            .map(|(digest, kept)| (kept.used, *digest))
            .collect();
        by_time.sort_unstable();
        for (_, digest) in by_time {
            if has_room(&index) {
                break;
            }
            index.stats.evictions += 1;
            index.forget(digest);
            let _ = fs::remove_file(self.path_of(digest));
        }
    }

    fn remove(&self, digest: Digest) {
        self.index.lock().forget(digest);
        let _ = fs::remove_file(self.path_of(digest));
    }

    /// Counters, and the files that are there.
    pub(super) fn stats(&self) -> RowStoreStats {
        self.index.lock().stats
    }

    fn path_of(&self, digest: Digest) -> PathBuf {
        let name: String = digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name + ".rows")
    }
}

impl Index {
    fn add(&mut self, digest: Digest, bytes: u64, used: SystemTime) {
        self.forget(digest);
        self.files.insert(digest, Kept { bytes, used });
        self.stats.bytes += bytes;
        self.stats.files += 1;
    }

    fn forget(&mut self, digest: Digest) {
        if let Some(kept) = self.files.remove(&digest) {
            self.stats.bytes -= kept.bytes;
            self.stats.files -= 1;
        }
    }
}

/// The digest in a file's name; `None` for other files.
fn digest_of(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?.strip_suffix(".rows")?;
    if name.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(name.get(place * 2..place * 2 + 2)?, 16).ok()?;
    }
    Some(Digest(digest))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;
    use crate::unwind::encode_table;

    fn rows() -> Vec<u8> {
        encode_table(&Table::default(), &RuleSet::new())
    }

    fn digest(number: u8) -> Digest {
        Digest([number; 32])
    }

    /// Check that rows are available after a restart, and that damaged ones are deleted.
    #[test]
    fn rows_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("rows");
        let rows = rows();
        let limits = Limits::default();
        let store = RowStore::open(&folder, 1 << 20).unwrap();
        assert!(store.read(digest(1), &limits).is_none());
        store.write(digest(1), &rows);
        store.write(digest(2), &rows);
        fs::write(folder.join("0000.new"), "unfinished").unwrap();
        fs::write(folder.join("readme"), "of somebody else").unwrap();
        let damaged = store.path_of(digest(2));
        let mut bytes = fs::read(&damaged).unwrap();
        bytes[20] ^= 1;
        fs::write(&damaged, bytes).unwrap();

        let store = RowStore::open(&folder, 1 << 20).unwrap();
        assert_eq!(store.stats().files, 2);
        let (_, rules_again) = store.read(digest(1), &limits).unwrap();
        assert_eq!(rules_again.as_slice(), RuleSet::new().as_slice());
        assert!(store.read(digest(2), &limits).is_none());
        assert!(store.read(digest(2), &limits).is_none());
        let stats = store.stats();
        assert_eq!(
            (stats.reads, stats.damaged, stats.errors, stats.files),
            (1, 1, 0, 1)
        );
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                store.path_of(digest(1)).file_name().unwrap(),
                OsStr::new("readme")
            ]
        );
    }

    /// Check that the least recently used files are evicted when there is no room, also at the
    /// start.
    #[test]
    fn the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        let rows = rows();
        let each = rows.len() as u64;
        let store = RowStore::open(folder, each * 3).unwrap();
        for number in 1..=3 {
            store.write(digest(number), &rows);
            let used = SystemTime::now() - Duration::from_secs(100 - u64::from(number));
            store
                .index
                .lock()
                .files
                .get_mut(&digest(number))
                .unwrap()
                .used = used;
            let file = fs::File::open(store.path_of(digest(number))).unwrap();
            file.set_modified(used).unwrap();
        }
        store.read(digest(1), &Limits::default()).unwrap();
        store.write(digest(4), &rows);
        let has = |store: &RowStore| {
            [1, 2, 3, 4].map(|number| store.index.lock().files.contains_key(&digest(number)))
        };
        assert_eq!(has(&store), [true, false, true, true]);
        assert_eq!(
            (store.stats().evictions, store.stats().bytes),
            (1, each * 3)
        );
        let store = RowStore::open(folder, each * 2 + 1).unwrap();
        assert_eq!(has(&store), [true, false, false, true]);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
        // Rows larger than the whole store are not kept, and evict nothing.
        let store = RowStore::open(folder, each - 1).unwrap();
        store.write(digest(5), &rows);
        assert_eq!(store.stats().files, 0);
    }

    /// Check that a folder writable by others is refused, and that a full disk loses nothing.
    #[test]
    fn folders_that_do_not_serve() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = RowStore::open(&open, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("no other may write"), "{error}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        RowStore::open(&link, 1 << 20).unwrap_err();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        RowStore::open(&file, 1 << 20).unwrap_err();

        let gone = folder.path().join("gone");
        let store = RowStore::open(&gone, 1 << 20).unwrap();
        fs::remove_dir(&gone).unwrap();
        let rows = rows();
        store.write(digest(1), &rows);
        assert_eq!((store.stats().errors, store.stats().files), (1, 0));
    }
}
