//! The store of indexes: the best of each file, in one directory, within a cap with LRU eviction.
//!
//! `symbols/index/<first two digits>/<build id>.index` are the indexes of uploaded and fetched files: each names every file with its
//! build id. `symbols/sent/<first two digits>/<file id>.index` are those of files that collectors have sent. Any process of a node
//! could have made such a file and can claim any build id, so its index names only the mappings with its file id. An index
//! appears by a rename when it is complete and synced. `symbols/incoming/` has unfinished files, and is emptied at start.
//! `symbols/layouts` has the load segments of files ([`KnownLayouts`]).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use elf::{BuildId, Layout};
use hashbrown::HashMap;
use metrics::Figures;
use parking_lot::{Mutex, RwLock};
use query::names::{NameSource, SourceFrame};
use rustix::fs::statvfs;
use symbolize::index::{self, FileRefusal, Index, IndexError, IndexHead, Rank, RefusalKind};
use tempfile::NamedTempFile;
use tracing::{info, warn};

use super::child::ChildLimits;
use super::error::AddError;
use super::fetch_queue::FetchQueue;
use super::index_entry::{COLLECTOR_ORIGIN, Entry, Key};
use super::known_layouts::{KnownLayouts, LayoutSource};
use super::metrics::SymbolMetrics;
use super::process::{Conversion, run_conversion};

/// Indexes at most, however small: each that is used is one mapping, of which a process may have 65,530.
const FILES_MAX: usize = 20_000;

/// Configuration of a store.
#[derive(Clone, Debug)]
pub struct IndexStoreOptions {
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of all indexes.
    pub bytes_max: u64,
    /// Bytes of one file that is uploaded or fetched, unpacked.
    pub file_bytes_max: u64,
    /// Bytes of the disk to leave free.
    pub reserve_bytes: u64,
    /// The server's program, which makes indexes.
    pub program: PathBuf,
    /// Limits of the child that makes an index.
    pub child: ChildLimits,
}

/// Outcome of adding a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// Its index was stored.
    Stored(IndexHead),
    /// The store has this index, which is as good or better.
    Unchanged(IndexHead),
}

/// One index, for a list.
#[derive(Clone, Debug)]
pub struct IndexSummary {
    /// Its head.
    pub head: IndexHead,
    /// Its bytes on the disk.
    pub bytes: u64,
    /// Time of the last use, in seconds since the Unix epoch.
    pub used_s: u64,
    /// Whether its file's load segments are known; without them it names nothing yet.
    pub has_layout: bool,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, Arc<Entry>>,
    bytes: u64,
}

/// Indexes by build id.
pub struct IndexStore {
    options: IndexStoreOptions,
    metrics: SymbolMetrics,
    entries: RwLock<Entries>,
    layouts: Mutex<KnownLayouts>,
    /// Held while a child runs: each may take all memory that the server leaves, and most take less than a second.
    converting: Mutex<()>,
    fetch_queue: FetchQueue,
    /// Reads the free bytes of the disk of a folder.
    read_free: fn(&Path) -> io::Result<u64>,
}

impl IndexStore {
    /// Opens a directory, or makes one.
    ///
    /// # Errors
    /// It cannot be read or written. Indexes that are damaged are dropped.
    pub fn open(
        options: IndexStoreOptions,
        metrics: SymbolMetrics,
        fetch_queue: FetchQueue,
    ) -> Result<Self> {
        let [index, sent, incoming] =
            ["index", "sent", "incoming"].map(|name| options.path.join(name));
        for folder in [&index, &sent, &incoming] {
            fs::create_dir_all(folder)
                .with_context(|| format!("failed to create `{}`", folder.display()))?;
        }
        empty_folder(&incoming)
            .with_context(|| format!("failed to empty `{}`", incoming.display()))?;
        let layouts = options.path.join("layouts");
        let layouts = KnownLayouts::open(&layouts)
            .with_context(|| format!("failed to open `{}`", layouts.display()))?;
        let store = Self {
            entries: RwLock::default(),
            layouts: Mutex::new(layouts),
            converting: Mutex::new(()),
            metrics,
            fetch_queue,
            read_free: read_free_bytes,
            options,
        };
        for (folder, key) in [(&index, Key::BuildId as fn(_) -> _), (&sent, Key::Sent)] {
            store
                .read_folder(folder, key)
                .with_context(|| format!("failed to read `{}`", folder.display()))?;
        }
        store.evict(None);
        Ok(store)
    }

    fn read_folder(&self, root: &Path, key: fn(BuildId) -> Key) -> io::Result<()> {
        let mut entries = self.entries.write();
        for folder in fs::read_dir(root)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(&folder)? {
                let path = file?.path();
                match Entry::read(&self.options.path, path.clone(), key) {
                    Ok(entry) => entries.insert(Arc::new(entry)),
                    Err(err) => self.drop_damaged(&path, &err),
                }
            }
        }
        Ok(())
    }

    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        let (indexes, bytes) = {
            let entries = self.entries.read();
            (entries.by_key.len(), entries.bytes)
        };
        figures.gauge("symbol_indexes", "Build ids with an index", indexes);
        figures.gauge(
            "symbol_indexes_bytes",
            "Size of all indexes on the disk",
            bytes,
        );
        figures.gauge(
            "symbol_layouts",
            "Files whose load addresses are known",
            self.layouts.lock().len(),
        );
        figures.gauges(
            "symbol_limits",
            "Limits of the symbol store, by kind: index_bytes (all indexes), file_bytes (one file that comes in), child_bytes \
             (memory of the child that reads a file)",
            ["kind"],
            [
                (["index_bytes"], self.options.bytes_max),
                (["file_bytes"], self.options.file_bytes_max),
                (["child_bytes"], self.options.child.data_bytes_max),
            ],
        );
        figures.gauge(
            "symbol_fetches_waiting",
            "Build ids that wait to be looked for",
            self.fetch_queue.waiting(),
        );
    }

    /// The counters.
    pub fn metrics(&self) -> &SymbolMetrics {
        &self.metrics
    }

    fn drop_damaged(&self, path: &Path, err: &IndexError) {
        warn!(path = %path.display(), %err, "dropped an index that cannot be used; it is made again from the next upload");
        self.metrics.damaged.inc();
        if let Err(err) = fs::remove_file(path) {
            warn!(path = %path.display(), %err, "failed to remove it");
        }
    }

    /// A file for incoming bytes. It has no name, and is gone when it is closed, also by a crash.
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

    /// Build ids to fetch from elsewhere.
    pub fn fetch_queue(&self) -> &FetchQueue {
        &self.fetch_queue
    }

    /// The same store on a disk whose free bytes `read_free` gives.
    #[cfg(test)]
    pub(super) fn with_free_bytes(self, read_free: fn(&Path) -> io::Result<u64>) -> Self {
        Self { read_free, ..self }
    }

    /// Checks that some bytes may be written.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn check_room(&self, bytes: u64) -> Result<(), AddError> {
        let free = (self.read_free)(&self.options.path)?;
        if free >= self.options.reserve_bytes.saturating_add(bytes) {
            return Ok(());
        }
        let path = self.options.path.display();
        Err(AddError::DiskFull(format!(
            "`{path}` has {free} bytes left, of which {} are not for symbols",
            self.options.reserve_bytes
        )))
    }

    /// Makes the index of a file, and stores it if it is better than the present one. Blocks.
    ///
    /// # Errors
    /// No index was made.
    pub fn add(&self, build_id: &BuildId, source: File, origin: &str) -> Result<Added, AddError> {
        self.add_as(Key::BuildId(*build_id), build_id, source, origin)
    }

    /// As [`Self::add`], for a file from a collector, which claims this build id.
    ///
    /// # Errors
    /// No index was made.
    pub fn add_sent(
        &self,
        file_id: &BuildId,
        build_id: &BuildId,
        source: File,
    ) -> Result<Added, AddError> {
        self.add_as(Key::Sent(*file_id), build_id, source, COLLECTOR_ORIGIN)
    }

    fn add_as(
        &self,
        key: Key,
        build_id: &BuildId,
        source: File,
        origin: &str,
    ) -> Result<Added, AddError> {
        let _alone = self.converting.lock();
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
        run_conversion(conversion)?;
        self.install(key, build_id, unfinished)
    }

    /// Stores an index that the child has made. The child read an untrusted file, so its result is checked.
    fn install(
        &self,
        key: Key,
        build_id: &BuildId,
        unfinished: NamedTempFile,
    ) -> Result<Added, AddError> {
        let index = Index::open(unfinished.path()).map_err(|err| {
            AddError::Failed(format!("the index that was made is not one: {err}"))
        })?;
        let head = index.head().clone();
        if head.build_id != *build_id {
            return Err(AddError::Failed(format!(
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
            // Also when the index itself is not stored: the present one may lack a layout.
            self.learn_layout(key.id(), layout, key.layout_source());
        }
        if let Some(present) = self.find_entry(&key)
            && !present.is_improved_by(&head)
        {
            return Ok(Added::Unchanged(present.head.clone()));
        }
        let path = key.path(&self.options.path);
        let folder = path.parent().unwrap_or(&self.options.path);
        fs::create_dir_all(folder)?;
        unfinished.as_file().sync_all()?;
        unfinished.persist(&path).map_err(|err| err.error)?;
        File::open(folder)?.sync_all()?;

        // The file that was opened by its first name is the same.
        let entry = Entry::new(key, index, path, bytes);
        self.entries.write().insert(Arc::new(entry));
        if matches!(key, Key::BuildId(_)) {
            self.fetch_queue.note_found(build_id);
        }
        self.evict(Some(&key));
        info!(%build_id, rank = head.rank.name(), bytes, origin = head.origin, "made an index");
        Ok(Added::Stored(head))
    }

    /// Learns the load segments of the file with this build id, or with this file id.
    pub fn learn_layout(&self, id: &BuildId, layout: &Layout, source: LayoutSource) {
        self.layouts.lock().learn(id, layout, source);
    }

    /// The index of a build id.
    pub fn find(&self, build_id: &BuildId) -> Option<IndexSummary> {
        let entry = self.find_entry(&Key::BuildId(*build_id))?;
        Some(self.list_entry(&entry))
    }

    /// The index of a file from a collector.
    pub fn find_sent(&self, file_id: &BuildId) -> Option<IndexSummary> {
        let entry = self.find_entry(&Key::Sent(*file_id))?;
        Some(self.list_entry(&entry))
    }

    fn find_entry(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.read().by_key.get(key).cloned()
    }

    /// All indexes, sorted by build id.
    pub fn list(&self) -> Vec<IndexSummary> {
        let mut entries: Vec<_> = self.entries.read().by_key.values().cloned().collect();
        entries.sort_by_key(|entry| (entry.head.build_id, entry.key));
        entries.iter().map(|entry| self.list_entry(entry)).collect()
    }

    fn list_entry(&self, entry: &Entry) -> IndexSummary {
        IndexSummary {
            head: entry.head.clone(),
            bytes: entry.bytes,
            used_s: entry.used_s(),
            has_layout: self.layout_of(entry).is_some(),
        }
    }

    /// Removes the indexes of a build id, also of files from collectors. Returns whether there was one.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(&self, build_id: &BuildId) -> io::Result<bool> {
        let entries: Vec<_> = self.entries.read().by_key.values().cloned().collect();
        let mut is_removed = false;
        for entry in entries {
            if entry.head.build_id == *build_id {
                fs::remove_file(&entry.path)?;
                is_removed |= self.remove_entry(&entry);
            }
        }
        Ok(is_removed)
    }

    /// Takes an entry out, unless it was replaced meanwhile.
    fn remove_entry(&self, entry: &Arc<Entry>) -> bool {
        let mut entries = self.entries.write();
        let present = entries.by_key.get(&entry.key);
        let is_same = present.is_some_and(|present| Arc::ptr_eq(present, entry));
        if is_same {
            entries.by_key.remove(&entry.key);
            entries.bytes -= entry.bytes;
        }
        is_same
    }

    /// Removes the least recently used indexes until the cap is kept; `keep` stays.
    fn evict(&self, keep: Option<&Key>) {
        loop {
            let oldest = {
                let entries = self.entries.read();
                if entries.bytes <= self.options.bytes_max && entries.by_key.len() <= FILES_MAX {
                    return;
                }
                entries
                    .by_key
                    .values()
                    .filter(|entry| Some(&entry.key) != keep)
                    .min_by_key(|entry| entry.used_s())
                    .cloned()
            };
            let Some(entry) = oldest else {
                return;
            };
            info!(build_id = %entry.head.build_id, bytes = entry.bytes, "evicted an index for lack of space");
            if let Err(err) = fs::remove_file(&entry.path) {
                warn!(path = %entry.path.display(), %err, "failed to remove an index");
            }
            self.remove_entry(&entry);
            self.metrics.evictions.inc();
        }
    }

    /// The layout of the file with this build id, if it is known.
    pub fn find_layout(&self, build_id: &str) -> Option<Layout> {
        self.layouts.lock().get(&build_id.parse().ok()?).cloned()
    }

    /// The layout of an index's file: its own, or the known one.
    fn layout_of(&self, entry: &Entry) -> Option<Layout> {
        let own = entry.head.layout.clone();
        own.or_else(|| self.layouts.lock().get(entry.key.id()).cloned())
    }

    fn drop_entry(&self, entry: &Arc<Entry>, err: &IndexError) {
        if self.remove_entry(entry) {
            self.drop_damaged(&entry.path, err);
        }
    }
}

impl NameSource for IndexStore {
    fn knows(&self, build_id: &str) -> bool {
        let build_id = build_id.parse::<BuildId>();
        build_id.is_ok_and(|build_id| self.find_entry(&Key::BuildId(build_id)).is_some())
    }

    fn name(
        &self,
        build_id: &str,
        offsets: &[u64],
        name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) -> bool {
        // An id that the collector made of a file's head is not known here either.
        let Ok(build_id) = build_id.parse::<BuildId>() else {
            return false;
        };
        let entry = self.find_entry(&Key::BuildId(build_id));
        let rank = entry.as_ref().map(|entry| entry.head.rank);
        let is_known = entry.is_some_and(|entry| self.name_by(&entry, offsets, name));
        if !is_known || rank < Some(Rank::DebugInfo) {
            // It has names; files and lines may be had from elsewhere.
            self.fetch_queue.push(&build_id);
        }
        is_known
    }

    fn name_sent(
        &self,
        file_id: &str,
        offsets: &[u64],
        name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) {
        let entry = file_id.parse().ok();
        let entry = entry.and_then(|file_id| self.find_entry(&Key::Sent(file_id)));
        if let Some(entry) = entry {
            self.name_by(&entry, offsets, name);
        }
    }
}

impl IndexStore {
    /// Names offsets by one index, if it is valid and its file's load segments are known.
    fn name_by(
        &self,
        entry: &Arc<Entry>,
        offsets: &[u64],
        name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) -> bool {
        let index = entry.open(|err| self.drop_entry(entry, err));
        let Some((layout, index)) = self.layout_of(entry).zip(index) else {
            return false;
        };
        entry.note_used();
        let mut convert = |at: usize, found: &[index::SourceFrame<'_>]| {
            name(at, &found.iter().map(source_frame).collect::<Vec<_>>());
        };
        if let Err(err) = index.name(&layout, offsets, &mut convert) {
            self.drop_entry(entry, &err);
        }
        true
    }
}

fn source_frame<'a>(frame: &index::SourceFrame<'a>) -> SourceFrame<'a> {
    let index::SourceFrame {
        function,
        system_name,
        file,
        line,
        start_line,
    } = *frame;
    SourceFrame {
        function,
        system_name,
        file,
        line,
        start_line,
    }
}

impl Entries {
    fn insert(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.bytes;
        if let Some(before) = self.by_key.insert(entry.key, entry) {
            self.bytes -= before.bytes;
        }
    }
}

fn read_free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn empty_folder(path: &Path) -> io::Result<()> {
    for file in fs::read_dir(path)? {
        fs::remove_file(file?.path())?;
    }
    Ok(())
}
