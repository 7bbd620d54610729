//! One index of the store: its place on the disk, its head, its last use, and its mapping once it names something.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use elf::BuildId;
use symbolize::index::{Index, IndexError, IndexHead};

use super::known_layouts::LayoutSource;

/// Interval at which the time of the last use is written to the disk, for the eviction after a restart.
const MARK_TIME: Duration = Duration::from_secs(3600);

/// The origin of a file that a collector has sent.
pub(super) const COLLECTOR_ORIGIN: &str = "collector";

/// Key of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// The build id of its file.
    BuildId(BuildId),
    /// The file id of a file that a collector has sent; it has a build id's form.
    Sent(BuildId),
}

impl Key {
    pub(super) fn id(&self) -> &BuildId {
        match self {
            Self::BuildId(id) | Self::Sent(id) => id,
        }
    }

    /// How a layout in the file is trusted: the file of some process no more than its collector.
    pub(super) fn layout_source(&self) -> LayoutSource {
        match self {
            Self::BuildId(_) => LayoutSource::File,
            Self::Sent(_) => LayoutSource::Profile,
        }
    }

    /// The place of its index below the store's directory.
    pub(super) fn path(&self, store: &Path) -> PathBuf {
        let folder = match self {
            Self::BuildId(_) => "index",
            Self::Sent(_) => "sent",
        };
        let name = self.id().to_string();
        store
            .join(folder)
            .join(&name[..2])
            .join(format!("{name}.index"))
    }
}

/// One index, mapped when it is first used.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) head: IndexHead,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    used_s: AtomicU64,
    /// `used_s` as the disk has it.
    marked_s: AtomicU64,
    /// `None` if it is damaged.
    index: OnceLock<Option<Index>>,
}

impl Entry {
    /// An index that was made now.
    pub(super) fn new(key: Key, index: Index, path: PathBuf, bytes: u64) -> Self {
        let head = index.head().clone();
        let entry = Self::unopened(key, head, path, bytes, SystemTime::now());
        Self {
            index: Some(index).into(),
            ..entry
        }
    }

    /// Reads the head of an index on the disk, which must be at the place of its key.
    pub(super) fn read(
        store: &Path,
        path: PathBuf,
        key: fn(BuildId) -> Key,
    ) -> Result<Self, IndexError> {
        let head = Index::read_head(&path)?;
        let id = path
            .file_stem()
            .and_then(|name| name.to_str()?.parse().ok());
        let key = id.map(key).filter(|key| path == key.path(store));
        // An index of a collector's file from before there were file ids is dropped: it would name every file with its build id.
        let is_right = match key {
            Some(Key::BuildId(id)) => head.build_id == id && head.origin != COLLECTOR_ORIGIN,
            Some(Key::Sent(_)) => true,
            None => false,
        };
        let key = key.filter(|_| is_right).ok_or(IndexError::Format)?;
        let metadata = fs::metadata(&path)?;
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Self::unopened(key, head, path, metadata.len(), used))
    }

    fn unopened(key: Key, head: IndexHead, path: PathBuf, bytes: u64, used: SystemTime) -> Self {
        let used_s = seconds(used);
        Self {
            key,
            head,
            path,
            bytes,
            used_s: used_s.into(),
            marked_s: used_s.into(),
            index: OnceLock::new(),
        }
    }

    /// Time of the last use, in seconds since the Unix epoch.
    pub(super) fn used_s(&self) -> u64 {
        self.used_s.load(Ordering::Relaxed)
    }

    pub(super) fn note_used(&self) {
        let now = SystemTime::now();
        let now_s = seconds(now);
        self.used_s.store(now_s, Ordering::Relaxed);
        let marked_s = self.marked_s.load(Ordering::Relaxed);
        if now_s.saturating_sub(marked_s) < MARK_TIME.as_secs() {
            return;
        }
        self.marked_s.store(now_s, Ordering::Relaxed);
        // Best effort: without it a restart evicts the index earlier.
        let _ = File::options()
            .write(true)
            .open(&self.path)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(now)));
    }

    /// The index, mapped at the first call. `on_damage` gets the error of one that is damaged.
    pub(super) fn open(&self, on_damage: impl FnOnce(&IndexError)) -> Option<&Index> {
        let opened = self
            .index
            .get_or_init(|| Index::open(&self.path).inspect_err(on_damage).ok());
        opened.as_ref()
    }

    /// Whether an index says more than this one of the same file: more kinds of things, or more of the same kind. A program's
    /// dynamic symbols are fewer than its symbol table, and line tables alone are smaller than all debug information.
    pub(super) fn is_improved_by(&self, head: &IndexHead) -> bool {
        (head.rank, head.body_bytes) > (self.head.rank, self.head.body_bytes)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}
