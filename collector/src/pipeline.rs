//! The one file that knows every stage.
//!
//! `sample` drains, orders, locates and counts; `unwind`, with two threads `evaluate`, keeps the
//! kernel's unwind tables and walks copied stacks; `hold` keeps files open that may be gone when they
//! are named; `name` names a closed window, makes its profile and hands it to the sender; `send` is the
//! sender's own, and `upload` sends files that the server asks for. Between them are bounded queues that count what they drop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    config::{Config, Unwind},
    label::CgroupHierarchy,
    metrics::SharedMetrics,
    name::{Namer, NamerOptions},
    patience::Patience,
    queue::Queue,
    sample::{Program, ProgramOptions, read_online_cpus},
    send::{
        DropReason, Sender, SenderOptions, SenderWatch, Uploader, UploaderOptions, WantedFiles,
    },
    unwind::PAGE_BYTES,
};

mod evaluator;
mod finisher;
mod holder;
mod prover;
mod row_store;
mod sampler;
mod unwinder;
mod window_clock;

pub use holder::HoldStats;
pub use row_store::RowStoreStats;

use finisher::Finisher;
use holder::{Held, Holder};
use prover::Prover;
use row_store::RowStore;
use sampler::{Sampler, Sources};
use unwinder::{Unwinder, UnwinderOptions};

/// Windows that may wait for their names.
///
/// Naming a window takes some 10 ms when names are known and a few seconds when a
/// large program is seen for the first time; 4 windows are 40 s of patience. A
/// window of two busy processors takes about 1 MB here.
const NAME_QUEUE_MAX: usize = 4;

/// How long the last windows may take to reach the server at the end.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The running pipeline.
pub struct Pipeline {
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<()>,
    finisher: JoinHandle<Sender>,
    sender: SenderWatch,
    uploader: Option<Uploader>,
}

impl Pipeline {
    /// Loads the program and starts all threads.
    ///
    /// # Errors
    /// A stage cannot be started.
    pub fn start(config: &Config, metrics: SharedMetrics, started: Instant) -> Result<Self> {
        let hierarchy = CgroupHierarchy::detect();
        let patience = Patience::default();
        let online = read_online_cpus()?;
        let mut program = Program::load(&ProgramOptions {
            cpus: online.len(),
            hierarchy: &hierarchy,
            walk_budget_ppm: config.walk_budget_ppm,
            prove_one_in: config.prove_one_in,
        })?;
        metrics.lock().map_bytes = program.map_bytes();
        let tables = program
            .take_tables()
            .context("the walk's tables are taken already")?;
        let unwinder = Unwinder::start(
            tables,
            UnwinderOptions {
                table_bytes_max: config.unwind_bytes,
                frame_pointers_only: config.unwind == Unwind::FramePointers,
                store: open_row_store(config),
                patience: patience.clone(),
            },
            metrics.clone(),
        )?;
        let wanted = WantedFiles::default();
        let sender = Sender::start(SenderOptions {
            queue_bytes_max: config.buffer_bytes as usize,
            wanted: wanted.clone(),
            ..SenderOptions::new(config.server.clone())
        })?;
        let watch = sender.watch();
        let queue = Queue::new(NAME_QUEUE_MAX);
        let stop = Arc::new(AtomicBool::new(false));

        let held = Held::default();
        let sampler = Sampler::new(
            config,
            Sources {
                program,
                hierarchy,
                unwinder,
                prover: Prover::start(&patience)?,
                holder: Holder::start(held.clone(), descriptors(config, online.len()), &patience)?,
                online: &online,
                started,
                patience: patience.clone(),
            },
            metrics.clone(),
            queue.clone(),
        )?;
        let flag = stop.clone();
        let sampler = spawn("sample", move || sampler.run(&flag))?;
        let mut options = NamerOptions::default();
        options.cpu = options.cpu.with_share(config.name_cpu_share);
        options.patience = patience.clone();
        let namer = Namer::new(options);
        let naming = (namer, held, patience.clone());
        let finisher = Finisher::new(config, naming, sender, metrics.clone());
        let uploader = finisher.offers().map(|offers| {
            let options = UploaderOptions::new(
                config.server.clone(),
                finisher.instance(),
                config.upload_rate,
            );
            Uploader::start(options, wanted, (offers, patience), metrics)
        });
        let uploader = uploader.transpose()?;
        let finisher = spawn("name", move || finisher.run(&queue))?;
        Ok(Self {
            stop,
            sampler,
            finisher,
            sender: watch,
            uploader,
        })
    }

    /// Shows what the sender does.
    pub fn sender(&self) -> SenderWatch {
        self.sender.clone()
    }

    /// Stops sampling, and sends what was sampled. Gives whether all of it was stored.
    ///
    /// # Errors
    /// A thread ended in a panic.
    pub fn stop(self) -> Result<bool> {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.uploader);
        let ended = |_| anyhow::anyhow!("a thread of the collector panicked");
        self.sampler.join().map_err(ended)?;
        let sender = self.finisher.join().map_err(ended)?;
        let stats = sender.shutdown(Instant::now() + DRAIN_TIME);
        Ok(stats.dropped_for(DropReason::Shutdown).windows == 0)
    }

    /// Whether a thread has ended by itself, which it should not.
    pub fn has_failed(&self) -> bool {
        let has_panicked = HAS_PANICKED.load(Ordering::Relaxed);
        has_panicked || self.sampler.is_finished() || self.finisher.is_finished()
    }
}

/// Descriptors that the collector needs beside the files that it holds: one for each page of 64 KiB of rows, three on each
/// processor (two timers and the side band), and for its threads, its connections and the files that it has open for a
/// moment some 128.
fn descriptors(config: &Config, processors: usize) -> u64 {
    config.unwind_bytes / PAGE_BYTES + 3 * processors as u64 + 128
}

/// The rows that were kept. Without them the collector works as well, only later.
fn open_row_store(config: &Config) -> Option<RowStore> {
    let folder = config.cache_dir.as_ref()?.join("unwind");
    RowStore::open(&folder, config.cache_bytes)
        .inspect_err(|err| {
            tracing::warn!(
                err = format!("{err:#}"),
                "unwind rows are not kept across restarts (--cache-dir)"
            );
        })
        .ok()
}

/// Whether any thread of a pipeline in this process has panicked. The others would go on without it: without
/// `unwind`, say, all that is new on the node would have torn stacks for good.
static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// Notes the end of a thread that panics.
struct PanicNote;

impl Drop for PanicNote {
    fn drop(&mut self) {
        if thread::panicking() {
            HAS_PANICKED.store(true, Ordering::Relaxed);
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let _note = PanicNote;
            work()
        })
        .with_context(|| format!("failed to start the thread `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a thread which panics is noted, whichever it is, and one that ends is not.
    #[test]
    fn panics_are_noted() {
        spawn("ends", || ()).unwrap().join().unwrap();
        assert!(!HAS_PANICKED.load(Ordering::Relaxed));
        let panics = spawn("panics", || panic!("as the test wants it"));
        panics.unwrap().join().unwrap_err();
        assert!(HAS_PANICKED.swap(false, Ordering::Relaxed));
    }
}
