//! Files, and the state of the rows of each.
//!
//! In: the files that processes map. Out: the state of each, and the processes that a change
//! affects. Beyond the limit, the least recently used files are evicted, even if processes map
//! them: a sample requests them again.

use std::sync::{Arc, Weak, atomic::Ordering};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{TableKey, contents::ContentId, instruction_rows::InstructionRows};
use crate::process::MappedFile;

/// Maximum number of file entries, about 200 bytes each: 6 MB.
pub(super) const FILES_MAX: usize = 32_768;

/// Maximum number of files of one process, a sixteenth of all. A browser maps 300, a Python program
/// with all its extensions 1,000.
pub(super) const PROCESS_FILES_MAX: usize = 2_048;

/// Maximum number of paths of one inode; it has one for each hard link.
const PATHS_MAX: usize = 64;

/// A file.
#[derive(Debug)]
pub(super) struct File {
    /// The process table's files with this key.
    seen_as: Vec<Weak<MappedFile>>,
    pub(super) state: FileState,
    /// Processes that map it.
    pub(super) users: FxHashSet<u32>,
    /// Time at which it was evaluated, or gained or lost a user.
    pub(super) touched_ns: u64,
    /// Rows of its code without call frame information.
    pub(super) code: InstructionRows,
}

/// State of a file's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// Unknown; not to be evaluated before this time.
    Absent { retry_ns: u64 },
    /// A thread is evaluating it.
    Evaluating,
    /// The rows of this content.
    Rows(ContentId),
    /// The frame-pointer rule applies. Checked again for a process that maps the file after this
    /// time.
    FramePointer { retry_ns: u64 },
    /// Its call frame information exceeds the limits: no rule applies in its first `bytes` bytes,
    /// its size at that time.
    Unsupported { bytes: u64 },
}

impl File {
    fn new(now_ns: u64) -> Self {
        Self {
            seen_as: Vec::new(),
            state: FileState::Absent { retry_ns: 0 },
            users: FxHashSet::default(),
            touched_ns: now_ns,
            code: InstructionRows::default(),
        }
    }

    /// The latest known time of a sample with a frame in it.
    pub(super) fn used_ns(&self) -> u64 {
        let seen = self.seen_as.iter().filter_map(Weak::upgrade);
        let used = seen.map(|file| file.used_ns.load(Ordering::Relaxed)).max();
        used.unwrap_or(0).max(self.touched_ns)
    }

    fn see(&mut self, mapped: &Arc<MappedFile>, now_ns: u64) {
        let is_other = |seen: &Weak<MappedFile>| seen.as_ptr() != Arc::as_ptr(mapped);
        if self.seen_as.iter().all(is_other) {
            self.seen_as.retain(|seen| seen.strong_count() > 0);
            if self.seen_as.len() >= PATHS_MAX {
                self.seen_as.remove(0);
            }
            self.seen_as.push(Arc::downgrade(mapped));
        }
        if let FileState::FramePointer { retry_ns } = self.state
            && retry_ns <= now_ns
        {
            self.state = FileState::Absent { retry_ns: 0 };
        }
    }
}

/// All files.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: FxHashMap<TableKey, File>,
}

impl Files {
    /// The entry of a file; creates it if it is new. The caller makes room first: see
    /// [`is_full_for`](Self::is_full_for).
    pub(super) fn see(
        &mut self,
        key: &TableKey,
        mapped: &Arc<MappedFile>,
        now_ns: u64,
    ) -> &mut File {
        let file = self
            .known
            .entry(key.clone())
            .or_insert_with(|| File::new(now_ns));
        file.see(mapped, now_ns);
        file
    }

    /// Whether a file must be evicted before this one can be added.
    pub(super) fn is_full_for(&self, key: &TableKey) -> bool {
        self.known.len() >= FILES_MAX && !self.known.contains_key(key)
    }

    /// The least recently used sixteenth of all files. Several at once, since finding them is
    /// expensive.
    pub(super) fn least_used(&self) -> Vec<TableKey> {
        let files = self.known.iter();
        let files = files.filter(|(_, file)| file.state != FileState::Evaluating);
        let mut by_time: Vec<(u64, &TableKey)> =
            files.map(|(key, file)| (file.used_ns(), key)).collect();
        by_time.sort_unstable_by_key(|(used_ns, _)| *used_ns);
        let oldest = by_time.into_iter().take(FILES_MAX / 16);
        oldest.map(|(_, key)| key.clone()).collect()
    }

    pub(super) fn has(&self, key: &TableKey) -> bool {
        self.known.contains_key(key)
    }

    pub(super) fn get(&self, key: &TableKey) -> Option<&File> {
        self.known.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &TableKey) -> Option<&mut File> {
        self.known.get_mut(key)
    }

    pub(super) fn remove(&mut self, key: &TableKey) -> Option<File> {
        self.known.remove(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TableKey, &File)> {
        self.known.iter()
    }

    /// Marks all files as unused by any known process.
    pub(super) fn forget_users(&mut self) {
        for file in self.known.values_mut() {
            file.users.clear();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
