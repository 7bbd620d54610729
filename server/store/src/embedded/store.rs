//! The store in files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use model::node_report::NodeReport;
use model::{Question, TimeRange, Unread, Window};
use parking_lot::Mutex;
use tracing::error;

use super::catalog::CatalogError;
use super::compactor::{run_compactor, run_sealer};
use super::directory::Directory;
use super::disk::{Disk, RealDisk};
use super::hour_limits::HourLimits;
use super::limits::{RetentionFlags, choose, describe_kept};
use super::metrics::StoreMetrics;
use super::recovery::recover;
use super::report::RecoveryReport;
use super::shared::Shared;
use super::snapshot::EmbeddedSnapshot;
use super::space::Space;
use super::verifier::run_verifier;
use super::versions::list_versions;
use super::writer::{AppendJob, Job, Writer};
use crate::{
    Appended, DiskSpace, Kept, Snapshot, Store, StoreError, StoreNumbers, StoreState, Versions,
};

/// Windows that wait for the writer. The receiver admits fewer pushes at once, so the queue never fills.
const QUEUE_WINDOWS: usize = 64;

/// Configuration of the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of windows in memory that are in no segment yet. A large node's five minutes take 20 MB.
    pub block_bytes_max: usize,
    /// Time after which windows are written as a segment. One of five minutes takes 1.6 bytes a row of generated load, one of ten 1.2;
    /// and a start reads the logs of so much time again.
    pub block_time: Duration,
    /// Bytes of the disk left free for the catalog.
    pub reserve_bytes: u64,
    /// Limits of age and size.
    pub retention: RetentionFlags,
    /// Limits of new entries of a node in an hour.
    pub hour_limits: HourLimits,
    /// Bytes of segments that are read a second to verify them in the background; `None` verifies none.
    pub verify_bytes_per_second: Option<u64>,
}

impl StoreOptions {
    /// A store that evicts nothing and writes a block when it is told to, or when the block is full: for tests and benches.
    pub fn keep_all(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            block_bytes_max: 64 << 20,
            block_time: Duration::from_secs(3600),
            reserve_bytes: 0,
            retention: RetentionFlags::keep_all(),
            hour_limits: HourLimits::default(),
            verify_bytes_per_second: None,
        }
    }
}

/// The store in files.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    queue: Mutex<Option<SyncSender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    background: Mutex<Vec<JoinHandle<()>>>,
    report: RecoveryReport,
}

impl EmbeddedStore {
    /// Opens the store, recovers from a crash, and starts its threads.
    ///
    /// # Errors
    /// Another server has the directory, or it cannot be read or written.
    pub fn open(options: &StoreOptions, metrics: StoreMetrics) -> Result<Self> {
        Self::open_on(Arc::new(RealDisk), options, metrics)
    }

    /// Opens the store on another disk than the system's. Its lock and its catalog are files of the system all the same.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: &StoreOptions,
        metrics: StoreMetrics,
    ) -> Result<Self> {
        let directory = Arc::new(Directory::lock_on(disk, &options.path)?);
        let recovered = recover(&directory)?;
        let mut report = recovered.report;
        let retention = choose(
            &directory,
            &recovered.content,
            &options.retention,
            &mut report,
        )?;
        metrics.note_recovery(&report);
        let space = Space::new(Arc::clone(&directory), options.reserve_bytes);
        directory.make_ballast(options.reserve_bytes);
        let shared = Arc::new(Shared::new(
            directory,
            recovered.catalog,
            space,
            metrics,
            retention,
            recovered.content,
        ));
        let (queue, jobs) = sync_channel(QUEUE_WINDOWS);
        let writer = Writer::new(
            Arc::clone(&shared),
            options.block_bytes_max,
            options.block_time,
            options.hour_limits,
        );
        let writer = spawn("store-writer", move || writer.run(&jobs))?;
        let background = [
            ("store-sealer", run_sealer as fn(&Shared)),
            ("store-compactor", run_compactor),
        ];
        let mut threads = Vec::new();
        for (name, run) in background {
            let shared = Arc::clone(&shared);
            threads.push(spawn(name, move || run(&shared))?);
        }
        if let Some(bytes_per_second) = options.verify_bytes_per_second {
            let shared = Arc::clone(&shared);
            let run = move || run_verifier(&shared, bytes_per_second);
            threads.push(spawn("store-verifier", run)?);
        }
        Ok(Self {
            shared,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            background: Mutex::new(threads),
            report,
        })
    }

    /// Makes the catalog of a directory anew. Segments that were known to be gone are forgotten.
    ///
    /// # Errors
    /// A server has the directory, or it cannot be read or written.
    pub fn rebuild(path: &Path) -> Result<RecoveryReport> {
        let directory = Directory::lock(path)?;
        let catalog = directory.catalog_path();
        match fs::remove_dir_all(&catalog) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(err)
                    .with_context(|| format!("failed to remove `{}`", catalog.display()));
            }
            _ => {}
        }
        let recovered = recover(&directory)?;
        recovered.catalog.flush()?;
        Ok(recovered.report)
    }

    /// Recovery at the start.
    pub fn report(&self) -> RecoveryReport {
        self.report
    }

    /// Writes all windows as segments now, and merges what is due.
    pub fn settle(&self) {
        let queue = self.queue.lock().clone();
        let (reply, answer) = sync_channel(1);
        if queue.is_some_and(|queue| queue.send(Job::SealAll(reply)).is_ok()) {
            let _stopped = answer.recv();
        }
        self.shared.sealer.wait_idle();
        self.shared.compactor.wait_idle();
    }

    /// Writes the queued windows, and stops the threads. Later appends fail.
    pub fn close(&self) {
        drop(self.queue.lock().take());
        let writer = self.writer.lock().take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            error!("the store's writer panicked");
        }
        self.shared.sealer.stop();
        self.shared.compactor.stop();
        self.shared.verifier.stop();
        for thread in std::mem::take(&mut *self.background.lock()) {
            if thread.join().is_err() {
                error!("a thread of the store panicked");
            }
        }
        self.shared.note_catalog(self.shared.catalog.flush());
    }

    fn check_writable(&self, space: &Result<DiskSpace, StoreError>) -> Result<(), StoreError> {
        if self.queue.lock().is_none() {
            return Err(StoreError::Stopping);
        }
        let writer = self.writer.lock();
        if writer.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(StoreError::Failed("the store's writer stopped".into()));
        }
        self.shared.space.check(space.clone()?)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.with_context(|| format!("failed to start the thread `{name}`"))
}

impl Store for EmbeddedStore {
    fn append(&self, window: Window) -> Result<Appended, StoreError> {
        let queue = self.queue.lock().clone();
        let digest = window.digest();
        // Here and not by the writer, since it reads the disk.
        let content = self.shared.content();
        if let Some(repeat) = content.find_repeat(&window.head.key, &digest) {
            return repeat;
        }
        let (reply, answer) = sync_channel(1);
        let job = AppendJob {
            digest,
            window,
            reply,
        };
        queue
            .and_then(|queue| queue.send(Job::Append(Box::new(job))).ok())
            .ok_or(StoreError::Stopping)?;
        answer
            .recv()
            .unwrap_or(Err(StoreError::Failed("the store's writer stopped".into())))
    }

    fn ask(
        &self,
        range: TimeRange,
        question: &Arc<Question>,
    ) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let snapshot = EmbeddedSnapshot::new(&self.shared, range, Arc::clone(question));
        Ok(Box::new(snapshot))
    }

    fn put_report(&self, report: NodeReport) -> Result<(), StoreError> {
        self.shared.space.check_catalog()?;
        Ok(self.shared.catalog.put_report(report)?)
    }

    fn reports(&self) -> Result<Vec<NodeReport>, StoreError> {
        Ok(self.shared.catalog.reports()?)
    }

    fn versions(&self) -> Versions {
        list_versions(&self.shared.content())
    }

    fn state(&self) -> StoreState {
        let space = self.shared.space.read();
        StoreState {
            readable: Ok(()),
            writable: self.check_writable(&space),
            space,
        }
    }

    fn numbers(&self) -> StoreNumbers {
        self.shared.content().numbers()
    }

    fn damage(&self) -> Vec<Unread> {
        self.shared.content().damage()
    }

    fn kept(&self) -> Kept {
        describe_kept(&self.shared.content(), &self.shared.retention)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl From<CatalogError> for StoreError {
    fn from(err: CatalogError) -> Self {
        Self::Failed(err.to_string())
    }
}
