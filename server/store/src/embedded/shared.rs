//! State that the store's threads share.

use std::collections::VecDeque;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Result, ensure};
use parking_lot::{Mutex, MutexGuard, RwLock};
use segment::Effort;
use tracing::error;

use super::block::Block;
use super::catalog::{Catalog, CatalogError};
use super::content::{Content, StoredSegment};
use super::directory::Directory;
use super::metrics::StoreMetrics;
use super::plan::Retention;
use super::space::Space;
use super::sum_cache::SumCache;
use super::wakeup::Wakeup;

/// Threads of a question. Beyond eight, adding up what they found takes longer than they save.
const THREADS_MAX: usize = 8;

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// How hard a question is worked on.
pub fn effort() -> Effort<'static> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    Effort {
        threads: threads.min(THREADS_MAX),
        question: None,
    }
}

/// State that the store's threads share.
pub struct Shared {
    /// The files.
    pub directory: Arc<Directory>,
    /// The catalog.
    pub catalog: Catalog,
    /// Free space.
    pub space: Space,
    /// Metrics.
    pub metrics: StoreMetrics,
    /// Sums of segments that were asked for before.
    pub sums: Arc<SumCache>,
    /// Limits of the store.
    pub retention: Retention,
    /// Of the thread that writes blocks as segments.
    pub sealer: Wakeup,
    /// Of the thread that merges.
    pub compactor: Wakeup,
    /// Of the thread that verifies segments.
    pub verifier: Wakeup,
    /// Held while files take the place of others.
    replacing: Mutex<()>,
    content: RwLock<Arc<Content>>,
    /// Blocks that get no more windows, and become segments.
    sealed: Mutex<VecDeque<Arc<Block>>>,
}

impl Shared {
    /// With what was found at the start; its blocks get no more windows.
    pub fn new(
        directory: Arc<Directory>,
        catalog: Catalog,
        space: Space,
        metrics: StoreMetrics,
        retention: Retention,
        content: Content,
    ) -> Self {
        Self {
            directory,
            catalog,
            space,
            sums: SumCache::new(metrics.clone()),
            metrics,
            retention,
            sealer: Wakeup::default(),
            compactor: Wakeup::default(),
            verifier: Wakeup::default(),
            replacing: Mutex::default(),
            sealed: Mutex::new(content.blocks.iter().cloned().collect()),
            content: RwLock::new(Arc::new(content)),
        }
    }

    /// Content of the store now.
    pub fn content(&self) -> Arc<Content> {
        Arc::clone(&self.content.read())
    }

    /// Changes what the store has, for questions that begin from now on.
    pub fn change(&self, change: impl FnOnce(&mut Content)) {
        let mut content = self.content.write();
        let mut changed = Content::clone(&content);
        change(&mut changed);
        *content = Arc::new(changed);
    }

    /// Begins to let files take the place of others. A replacement that is not finished has files without their names; another one of
    /// the same files would be undone by it.
    ///
    /// # Errors
    /// The store is being closed, and may have given one up.
    pub fn begin_replacement(&self) -> Result<MutexGuard<'_, ()>> {
        let replacing = self.replacing.lock();
        let is_stopped = self.sealer.is_stopped() || self.compactor.is_stopped();
        ensure!(!is_stopped, "the server is stopping");
        Ok(replacing)
    }

    /// A block gets no more windows.
    pub fn seal(&self, block: Arc<Block>) {
        self.sealed.lock().push_back(block);
        self.sealer.wake();
    }

    /// The block to be written as a segment next.
    pub fn next_sealed(&self) -> Option<Arc<Block>> {
        self.sealed.lock().front().cloned()
    }

    /// A block was written.
    pub fn forget_sealed(&self, block: &Arc<Block>) {
        self.sealed
            .lock()
            .retain(|other| !Arc::ptr_eq(other, block));
        self.change(|content| content.blocks.retain(|other| !Arc::ptr_eq(other, block)));
    }

    /// Whether new files of so many bytes leave the reserve free.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.space.read().is_ok_and(|space| space.has_room(bytes))
    }

    /// Removes segments with these paths from the catalog, durably.
    pub fn forget_in_catalog<'p>(&self, paths: impl Iterator<Item = &'p Path>) {
        let names = paths.filter_map(StoredSegment::parse_path);
        let mut names = names.peekable();
        if names.peek().is_some() {
            let removed = names.try_for_each(|name| self.catalog.remove_segment(&name));
            self.note_catalog(removed.and_then(|()| self.catalog.flush()));
        }
    }

    /// Reports that the catalog could not be written. Segments have all that it has.
    pub fn note_catalog(&self, result: Result<(), CatalogError>) {
        if let Err(err) = result {
            error!(%err, "failed to write the catalog; it is completed from the segments at the next start");
        }
    }
}
