//! The indexes that there are, the best for each build id, in one directory within a cap.
//!
//! `symbols/index/<first two digits>/<build id>.index` are the indexes; each appears by a rename when it is whole and on
//! the disk. `symbols/incoming/` has what is being made, and is emptied at start. `symbols/layouts` has what is known of
//! where files are loaded.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use hashbrown::HashMap;
use rustix::fs::statvfs;
use tempfile::NamedTempFile;
use tracing::{info, warn};

use super::build_id::BuildId;
use super::child::ChildLimits;
use super::convert::{FileRefusal, RefusalKind};
use super::index::{Index, IndexError, IndexHead, Rank};
use super::known_layouts::{KnownLayouts, LayoutSource};
use super::layout::Layout;
use super::process::{Conversion, ConversionError, run_conversion};
use super::source::{NameSource, SourceFrame};
use super::wanted::Wanted;
use crate::metrics::Metrics;

/// Indexes at most, however small: each that is used is one mapping, of which a process may have 65,530.
const FILES_MAX: usize = 20_000;

/// An index that is used is marked so on the disk once in this time, so that a restart knows which were used least lately.
const MARK_TIME: Duration = Duration::from_secs(3600);

/// Where a file came from that a collector has sent: any process of its node could have made it.
pub const COLLECTOR_ORIGIN: &str = "collector";

/// What a shelf is made from.
#[derive(Clone, Debug)]
pub struct ShelfOptions {
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of all indexes.
    pub bytes_max: u64,
    /// Bytes of one file that is uploaded or fetched, unpacked.
    pub file_bytes_max: u64,
    /// Free bytes of the disk that nothing here may use.
    pub reserve_bytes: u64,
    /// The server's program, that makes indexes.
    pub program: PathBuf,
    /// What that may take.
    pub child: ChildLimits,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Its index is there now.
    Stored(IndexHead),
    /// There is an index that is as good or better; this one.
    Unchanged(IndexHead),
}

/// Why a file has no index.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The file is not taken.
    #[error("{0}")]
    Refused(#[from] FileRefusal),
    /// The disk is full.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The server failed.
    #[error("{0}")]
    Failed(String),
}

impl PlaceError {
    /// As metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.kind.name(),
            Self::DiskFull(_) => "disk_full",
            Self::Failed(_) => "failed",
        }
    }
}

impl From<io::Error> for PlaceError {
    fn from(err: io::Error) -> Self {
        if err.kind() == io::ErrorKind::StorageFull || err.kind() == io::ErrorKind::QuotaExceeded {
            Self::DiskFull(err.to_string())
        } else {
            Self::Failed(err.to_string())
        }
    }
}

/// One index, for a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it says about itself.
    pub head: IndexHead,
    /// Its bytes on the disk.
    pub bytes: u64,
    /// When it was used last, in seconds since the Unix epoch.
    pub used_s: u64,
    /// Whether it is known where its file is loaded; else it names nothing yet.
    pub has_layout: bool,
}

#[derive(Debug)]
struct Entry {
    head: IndexHead,
    path: PathBuf,
    bytes: u64,
    used_s: AtomicU64,
    /// What the disk says about that.
    marked_s: AtomicU64,
    /// Mapped when it is first asked; `None` is damaged.
    index: OnceLock<Option<Index>>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<BuildId, Arc<Entry>>,
    bytes: u64,
}

/// The indexes.
pub struct Shelf {
    options: ShelfOptions,
    metrics: Arc<Metrics>,
    entries: RwLock<Entries>,
    layouts: Mutex<KnownLayouts>,
    generation: AtomicU64,
    /// One child at a time: each may take 2 GiB, and most take less than a second.
    converting: Mutex<()>,
    wanted: Wanted,
}

impl Shelf {
    /// Opens a directory, or makes one.
    ///
    /// # Errors
    /// It cannot be read or written. Indexes that are damaged are dropped.
    pub fn open(options: ShelfOptions, metrics: Arc<Metrics>, wanted: Wanted) -> Result<Self> {
        let index = options.path.join("index");
        let incoming = options.path.join("incoming");
        for folder in [&index, &incoming] {
            fs::create_dir_all(folder)
                .with_context(|| format!("failed to create `{}`", folder.display()))?;
        }
        empty_folder(&incoming)
            .with_context(|| format!("failed to empty `{}`", incoming.display()))?;
        let layouts = options.path.join("layouts");
        let layouts = KnownLayouts::open(&layouts)
            .with_context(|| format!("failed to open `{}`", layouts.display()))?;
        let shelf = Self {
            entries: RwLock::default(),
            layouts: Mutex::new(layouts),
            generation: AtomicU64::new(1),
            converting: Mutex::new(()),
            metrics,
            wanted,
            options,
        };
        shelf
            .read_folder(&index)
            .with_context(|| format!("failed to read `{}`", index.display()))?;
        shelf.evict(None);
        shelf.show_numbers();
        Ok(shelf)
    }

    fn read_folder(&self, root: &Path) -> io::Result<()> {
        let mut entries = self.write_entries();
        for folder in fs::read_dir(root)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(&folder)? {
                let file = file?;
                let path = file.path();
                match Index::read_head(&path) {
                    Ok(head) if path == self.index_path(&head.build_id) => {
                        let metadata = file.metadata()?;
                        let used_s = metadata.modified().map_or(0, seconds);
                        let entry = Entry::new(head, path, metadata.len(), used_s);
                        entries.bytes += entry.bytes;
                        entries
                            .by_id
                            .insert(entry.head.build_id.clone(), Arc::new(entry));
                    }
                    Ok(_) => self.drop_damaged(&path, &IndexError::Format),
                    Err(err) => self.drop_damaged(&path, &err),
                }
            }
        }
        Ok(())
    }

    fn drop_damaged(&self, path: &Path, err: &IndexError) {
        warn!(path = %path.display(), %err, "dropped an index that cannot be used; it is made again from the next upload");
        self.metrics.count_symbol_index_damaged();
        if let Err(err) = fs::remove_file(path) {
            warn!(path = %path.display(), %err, "failed to remove it");
        }
    }

    /// A file for what comes in. It has no name, and is gone when it is closed, also by a crash.
    ///
    /// # Errors
    /// The disk.
    pub fn make_incoming(&self) -> io::Result<File> {
        tempfile::tempfile_in(self.options.path.join("incoming"))
    }

    /// Its directory.
    pub fn folder(&self) -> &Path {
        &self.options.path
    }

    /// Bytes of one file at most.
    pub fn file_bytes_max(&self) -> u64 {
        self.options.file_bytes_max
    }

    /// Bytes of all indexes at most.
    pub fn bytes_max(&self) -> u64 {
        self.options.bytes_max
    }

    /// What is missing, for those who fetch it.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Checks that some bytes may be written.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn check_room(&self, bytes: u64) -> Result<(), PlaceError> {
        let stat = statvfs(&self.options.path).map_err(io::Error::from)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= self.options.reserve_bytes.saturating_add(bytes) {
            return Ok(());
        }
        let path = self.options.path.display();
        Err(PlaceError::DiskFull(format!(
            "`{path}` has {free} bytes left, of which {} are not for symbols",
            self.options.reserve_bytes
        )))
    }

    /// Makes the index of a file, and keeps it if it is better than what is there. Blocks.
    ///
    /// # Errors
    /// There is no index of it.
    pub fn place(
        &self,
        build_id: &BuildId,
        source: File,
        origin: &str,
    ) -> Result<Placed, PlaceError> {
        let _alone = lock(&self.converting);
        self.check_room(0)?;
        let unfinished = NamedTempFile::new_in(self.options.path.join("incoming"))?;
        let conversion = Conversion {
            program: &self.options.program,
            source,
            index: unfinished.reopen()?,
            build_id,
            origin,
            limits: self.options.child,
        };
        match run_conversion(conversion) {
            Ok(()) => self.keep(build_id, unfinished),
            Err(ConversionError::Refused(refusal)) => Err(refusal.into()),
            Err(ConversionError::Start(err)) => Err(PlaceError::Failed(format!(
                "failed to start the child that makes an index: {err}"
            ))),
        }
    }

    /// Takes an index that the child has made. The child read a file that somebody sent: its word is checked.
    fn keep(&self, build_id: &BuildId, unfinished: NamedTempFile) -> Result<Placed, PlaceError> {
        let index = Index::open(unfinished.path()).map_err(|err| {
            PlaceError::Failed(format!("the index that was made is not one: {err}"))
        })?;
        let head = index.head().clone();
        if head.build_id != *build_id {
            return Err(PlaceError::Failed(format!(
                "the index that was made is of {}",
                head.build_id
            )));
        }
        let bytes = unfinished.as_file().metadata()?.len();
        if bytes > self.options.bytes_max {
            let max = self.options.bytes_max;
            return Err(FileRefusal::new(
                RefusalKind::Limit,
                format!("the index of this file has {bytes} bytes, and all together may have {max} (--symbol-bytes-max)"),
            )
            .into());
        }
        if let Some(layout) = &head.layout {
            // Also when the index itself is not kept: what is there may lack it. A file of some process is believed no more than
            // what the collector itself says: the next one may say otherwise.
            let source = match head.origin == COLLECTOR_ORIGIN {
                true => LayoutSource::Profile,
                false => LayoutSource::File,
            };
            self.learn_layout(build_id, layout, source);
        }
        let present = self
            .read_entries()
            .by_id
            .get(build_id)
            .map(|entry| entry.head.clone());
        if let Some(present) = present.filter(|present| !is_better(&head, present)) {
            return Ok(Placed::Unchanged(present));
        }
        let path = self.index_path(build_id);
        let folder = path.parent().unwrap_or(&self.options.path);
        fs::create_dir_all(folder)?;
        unfinished.as_file().sync_all()?;
        unfinished.persist(&path).map_err(|err| err.error)?;
        File::open(folder)?.sync_all()?;

        let entry = Arc::new(Entry::new(
            head.clone(),
            path,
            bytes,
            seconds(SystemTime::now()),
        ));
        // What was opened by its first name is the same file.
        let _ = entry.index.set(Some(index));
        {
            let mut entries = self.write_entries();
            entries.bytes += bytes;
            if let Some(before) = entries.by_id.insert(build_id.clone(), entry) {
                entries.bytes -= before.bytes;
            }
        }
        self.wanted.note_found(build_id);
        self.evict(Some(build_id));
        self.note_change();
        info!(%build_id, rank = head.rank.name(), bytes, origin = head.origin, "made an index");
        Ok(Placed::Stored(head))
    }

    /// Learns where a file is loaded.
    pub fn learn_layout(&self, build_id: &BuildId, layout: &Layout, source: LayoutSource) {
        let (changed, known) = {
            let mut layouts = lock(&self.layouts);
            (layouts.learn(build_id, layout, source), layouts.len())
        };
        if !changed {
            return;
        }
        self.metrics.show_symbol_layouts(known);
        let waits = |entry: &Arc<Entry>| entry.head.layout.is_none();
        if self.read_entries().by_id.get(build_id).is_some_and(waits) {
            self.note_change();
        }
    }

    /// What there is of a build id.
    pub fn find(&self, build_id: &BuildId) -> Option<Listed> {
        let entry = self.read_entries().by_id.get(build_id).cloned()?;
        Some(self.list_entry(&entry))
    }

    /// All that there is, sorted by build id.
    pub fn list(&self) -> Vec<Listed> {
        let mut entries: Vec<_> = self.read_entries().by_id.values().cloned().collect();
        entries.sort_by(|a, b| a.head.build_id.cmp(&b.head.build_id));
        entries.iter().map(|entry| self.list_entry(entry)).collect()
    }

    fn list_entry(&self, entry: &Entry) -> Listed {
        Listed {
            head: entry.head.clone(),
            bytes: entry.bytes,
            used_s: entry.used_s.load(Ordering::Relaxed),
            has_layout: self.layout_of(&entry.head).is_some(),
        }
    }

    /// Removes an index; says whether there was one.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(&self, build_id: &BuildId) -> io::Result<bool> {
        let Some(entry) = self.read_entries().by_id.get(build_id).cloned() else {
            return Ok(false);
        };
        fs::remove_file(&entry.path)?;
        let removed = self.forget(build_id, &entry);
        self.note_change();
        Ok(removed)
    }

    /// Takes an entry out, unless it was replaced meanwhile.
    fn forget(&self, build_id: &BuildId, entry: &Arc<Entry>) -> bool {
        let mut entries = self.write_entries();
        let is_same = entries
            .by_id
            .get(build_id)
            .is_some_and(|present| Arc::ptr_eq(present, entry));
        if is_same {
            entries.by_id.remove(build_id);
            entries.bytes -= entry.bytes;
        }
        is_same
    }

    /// Removes what was used least lately until the cap is kept; `keep` stays.
    fn evict(&self, keep: Option<&BuildId>) {
        loop {
            let oldest = {
                let entries = self.read_entries();
                if entries.bytes <= self.options.bytes_max && entries.by_id.len() <= FILES_MAX {
                    return;
                }
                entries
                    .by_id
                    .iter()
                    .filter(|(id, _)| Some(*id) != keep)
                    .min_by_key(|(_, entry)| entry.used_s.load(Ordering::Relaxed))
                    .map(|(id, entry)| (id.clone(), Arc::clone(entry)))
            };
            let Some((build_id, entry)) = oldest else {
                return;
            };
            info!(%build_id, bytes = entry.bytes, "removed an index that was not used lately, for want of space");
            if let Err(err) = fs::remove_file(&entry.path) {
                warn!(path = %entry.path.display(), %err, "failed to remove an index");
            }
            self.forget(&build_id, &entry);
            self.metrics.count_symbol_eviction();
            self.note_change();
        }
    }

    /// The layout of an index's file: its own, or what is known from elsewhere.
    fn layout_of(&self, head: &IndexHead) -> Option<Layout> {
        head.layout
            .clone()
            .or_else(|| lock(&self.layouts).get(&head.build_id).cloned())
    }

    /// Maps the index of an entry. A damaged one is dropped.
    fn open_entry<'a>(&self, entry: &'a Arc<Entry>) -> Option<&'a Index> {
        let opened = entry.index.get_or_init(|| match Index::open(&entry.path) {
            Ok(index) => Some(index),
            Err(err) => {
                self.drop_entry(entry, &err);
                None
            }
        });
        opened.as_ref()
    }

    fn drop_entry(&self, entry: &Arc<Entry>, err: &IndexError) {
        if self.forget(&entry.head.build_id, entry) {
            self.drop_damaged(&entry.path, err);
            self.note_change();
        }
    }

    fn note_change(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.show_numbers();
    }

    fn show_numbers(&self) {
        let entries = self.read_entries();
        self.metrics
            .show_symbol_indexes(entries.by_id.len(), entries.bytes);
    }

    fn index_path(&self, build_id: &BuildId) -> PathBuf {
        let name = build_id.as_str();
        self.options
            .path
            .join("index")
            .join(&name[..2])
            .join(format!("{name}.index"))
    }

    fn read_entries(&self) -> std::sync::RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_entries(&self) -> std::sync::RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NameSource for Shelf {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn knows(&self, build_id: &str) -> bool {
        let build_id = build_id.parse::<BuildId>();
        build_id.is_ok_and(|build_id| self.read_entries().by_id.contains_key(&build_id))
    }

    fn name(
        &self,
        build_id: &str,
        offsets: &[u64],
        name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) -> bool {
        // What is no build id here (an id that the collector made of a file's head) is not known either.
        let Ok(build_id) = build_id.parse::<BuildId>() else {
            return false;
        };
        let entry = self.read_entries().by_id.get(&build_id).cloned();
        let Some(entry) = entry else {
            self.wanted.ask(&build_id);
            return false;
        };
        let Some(layout) = self.layout_of(&entry.head) else {
            self.wanted.ask(&build_id);
            return false;
        };
        if entry.head.rank < Rank::DebugInfo {
            // It names what it can; files and lines may be had from elsewhere.
            self.wanted.ask(&build_id);
        }
        let Some(index) = self.open_entry(&entry) else {
            return false;
        };
        entry.note_used();
        if let Err(err) = index.name(&layout, offsets, name) {
            self.drop_entry(&entry, &err);
        }
        true
    }
}

impl Entry {
    fn new(head: IndexHead, path: PathBuf, bytes: u64, used_s: u64) -> Self {
        Self {
            head,
            path,
            bytes,
            used_s: AtomicU64::new(used_s),
            marked_s: AtomicU64::new(used_s),
            index: OnceLock::new(),
        }
    }

    fn note_used(&self) {
        let now = SystemTime::now();
        let now_s = seconds(now);
        self.used_s.store(now_s, Ordering::Relaxed);
        let marked_s = self.marked_s.load(Ordering::Relaxed);
        if now_s.saturating_sub(marked_s) < MARK_TIME.as_secs() {
            return;
        }
        self.marked_s.store(now_s, Ordering::Relaxed);
        // Best effort: without it a restart takes it for older than it is.
        let _ = File::options()
            .write(true)
            .open(&self.path)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(now)));
    }
}

/// Whether an index says more than another of the same build id: more kinds of things, or more of the same kind. A program's
/// dynamic symbols are fewer than its symbol table, and line tables alone are smaller than all debug information.
///
/// What a collector has sent is a file of some process, which may claim any build id: it never replaces what a person or a
/// debuginfod has given, and debug information of theirs always replaces it. (Their symbol table replaces no debug information
/// and no larger table, since it may be of a stripped file.)
fn is_better(head: &IndexHead, present: &IndexHead) -> bool {
    let is_of_process = |head: &IndexHead| head.origin == COLLECTOR_ORIGIN;
    match (is_of_process(head), is_of_process(present)) {
        (true, false) => return false,
        (false, true) if head.rank == Rank::DebugInfo => return true,
        _ => {}
    }
    (head.rank, head.body_bytes) > (present.rank, present.body_bytes)
}

fn empty_folder(path: &Path) -> io::Result<()> {
    for file in fs::read_dir(path)? {
        fs::remove_file(file?.path())?;
    }
    Ok(())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}

/// What these locks guard is whole at each moment, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
