//! The one file that knows every stage.
//!
//! | thread | its work |
//! | --- | --- |
//! | `sample` | drains the kernel's buffers; orders, locates and counts samples |
//! | `proc` | reads processes |
//! | `cgroup` | follows the tree of cgroups |
//! | `accounts` | reads the kernel's CPU accounts of containers |
//! | `unwind` | keeps the kernel's unwind tables, and walks copied stacks |
//! | `evaluate` (two) | makes unwind rows of files |
//! | `prove` | walks some stacks again, with another unwinder |
//! | `hold` | keeps files open that may be gone when they are named |
//! | `name` | names a closed window, makes its profile and hands it to the sender |
//! | `send` | sends windows |
//! | `upload` | sends files that the server asks for |
//! | `pods` | watches the node's pods |
//! | `enforce` | keeps the kernel's verdicts on cgroups as the policy wants them |
//!
//! The thread `policy`, which follows the rules for what is profiled, starts before these.
//!
//! Between them are bounded queues that count the entries that they drop.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cgroupfs::MemoryLimit;
use k8s::Relabeling;
use metrics::{Registry, register_figures};

use crate::{
    blocking_pool::BlockingPool,
    cgroup::{Cgroups, CpuFiles, Subscriber, Watcher},
    clock::monotonic_ns,
    config::{Config, Unwind},
    hand_over::Turn,
    health::Health,
    kubernetes::{NodePods, PodWatch, PodWatchOptions},
    label::{LabelSources, Labeller},
    locate::KernelText,
    memory::MemoryNeeds,
    metrics::{PREFIX, SharedRegistry, Stats, seconds},
    name::{Namer, NamerOptions},
    policy::{Enforcer, EnforcerStats, PolicyNow, PolicyState},
    process::KernelCode,
    queue::Queue,
    sample::{CgroupHierarchy, PidNamespace, Program, ProgramOptions, read_online_cpus},
    send::{
        DropReason, PendingUploads, Sender, SenderOptions, SenderWatch, Uploader, UploaderOptions,
    },
    threads::{has_panicked, spawn},
    unwind::PAGE_BYTES,
    upload::Offers,
};

mod account;
mod attribution;
mod code_requests;
mod container_accounts;
mod cost;
mod drain;
mod dropped;
mod evaluator;
mod kernel;
mod label_messages;
mod open_files;
mod proc_reader;
mod prover;
mod routing;
mod row_store;
mod sampler;
mod sampler_stats;
mod sent_layouts;
mod stacks_by_binary;
mod unattributed;
mod unread_file;
mod unwind_stats;
mod unwinder;
mod waiting_stacks;
mod window_clock;
mod window_publisher;
mod windows;

use container_accounts::{ContainerAccounts, ContainerStats};
use cost::register_cost;
use open_files::{FileOpener, OpenFileCache};
use proc_reader::ProcReader;
use prover::Prover;
use row_store::RowStore;
use sampler::{Sampler, SamplingStats, Sources};
use sampler_stats::SamplerStats;
use unwind_stats::UnwindStats;
use unwinder::{Unwinder, UnwinderOptions};
use waiting_stacks::WaitingStats;
use window_publisher::{Names, NamingStats, WindowPublisher};
use windows::{ClosedWindow, WindowStats};

/// Windows that may wait for their names.
///
/// Naming a window takes some 10 ms when names are known and a few seconds when a
/// large program is seen for the first time; 4 windows are 40 s. A
/// window of two busy processors takes about 1 MB here.
const NAME_QUEUE_MAX: usize = 4;

/// Deadline for sending the last windows at the end.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The running pipeline.
pub struct Pipeline {
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<()>,
    publisher: JoinHandle<Sender>,
    uploader: Option<Uploader>,
    pods: Option<NodePods>,
    _pod_watch: Option<PodWatch>,
}

impl Pipeline {
    /// Loads the program, starts all threads, and registers their statistics. `instance` is the
    /// collector's name in its messages.
    ///
    /// # Errors
    /// A stage cannot be started. Those that were started end by themselves.
    pub fn start(
        config: &Config,
        instance: [u8; 16],
        registry: &SharedRegistry,
        health: &Health,
        policy: PolicyState,
        started: Instant,
    ) -> Result<Self> {
        let starting = Starting {
            config,
            health,
            pods: config.kubernetes.as_ref().map(|_| NodePods::default()),
            has_policy: !matches!(policy.now(), PolicyNow::None),
            hierarchy: CgroupHierarchy::detect(),
            online: read_online_cpus()?,
            pool: BlockingPool::default(),
            stats: PipelineStats::default(),
            queue: Queue::new(NAME_QUEUE_MAX),
            held: OpenFileCache::default(),
            kernel_code: KernelCode::new(read_kernel_text().0),
            stop: Arc::default(),
        };
        let stop = StopUnlessStarted(Some(starting.stop.clone()));
        let relabeling = read_relabeling(config)?;
        let pod_watch = starting.start_pod_watch()?;
        let program = starting.load_program()?;
        let map_bytes = program.map_bytes();
        let wanted = PendingUploads::default();
        let sender = Sender::start(SenderOptions {
            queue_bytes_max: config.buffer_bytes as usize,
            wanted: wanted.clone(),
            ..SenderOptions::new(config.server.clone())
        })?;
        let sender_watch = sender.watch();
        let sampler = starting.start_sampler(program, policy, started)?;
        let publisher = starting.make_publisher(instance, relabeling, sender);
        let uploader = starting.start_uploader(instance, publisher.offers(), wanted)?;
        let Starting {
            pods,
            has_policy,
            pool,
            stats,
            queue,
            ..
        } = starting;
        let stages = Stages {
            sender: sender_watch,
            queue: queue.clone(),
            uploader: uploader.as_ref(),
            pool,
            map_bytes,
            pods: pods.clone(),
            has_policy,
        };
        stats.register(&mut registry.write(), stages);
        let publisher = spawn("name", move || publisher.run(&queue))?;
        Ok(Self {
            stop: stop.started(),
            sampler,
            publisher,
            uploader,
            pods,
            _pod_watch: pod_watch,
        })
    }

    /// The node's pods; `None` without Kubernetes.
    pub fn pods(&self) -> Option<&NodePods> {
        self.pods.as_ref()
    }

    /// Stops sampling, and sends the last windows. Returns whether all were stored.
    ///
    /// # Errors
    /// A thread ended in a panic.
    pub fn stop(self) -> Result<bool> {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.uploader);
        let ended = |_| anyhow::anyhow!("a thread of the collector panicked");
        self.sampler.join().map_err(ended)?;
        let sender = self.publisher.join().map_err(ended)?;
        let stats = sender.shutdown(Instant::now() + DRAIN_TIME);
        Ok(stats.dropped_for(DropReason::Shutdown).windows == 0)
    }

    /// Whether a thread has ended although nothing stopped it.
    pub fn has_failed(&self) -> bool {
        has_panicked() || self.sampler.is_finished() || self.publisher.is_finished()
    }
}

/// The parts that several threads get when they are started.
struct Starting<'a> {
    config: &'a Config,
    health: &'a Health,
    /// `None` without Kubernetes.
    pods: Option<NodePods>,
    has_policy: bool,
    hierarchy: CgroupHierarchy,
    online: Vec<u32>,
    pool: BlockingPool,
    stats: PipelineStats,
    queue: Queue<ClosedWindow>,
    held: OpenFileCache,
    kernel_code: KernelCode,
    stop: Arc<AtomicBool>,
}

impl Starting<'_> {
    fn start_pod_watch(&self) -> Result<Option<PodWatch>> {
        let Some((access, pods)) = self.config.kubernetes.as_ref().zip(self.pods.clone()) else {
            return Ok(None);
        };
        let options = PodWatchOptions {
            readiness: self.health.readiness.clone(),
            ..PodWatchOptions::new(access.clone(), &self.config.node)
        };
        PodWatch::start(options, pods).map(Some)
    }

    fn load_program(&self) -> Result<Program> {
        Program::load(&ProgramOptions {
            cpus: self.online.len(),
            hierarchy: &self.hierarchy,
            namespace: PidNamespace::detect(),
            walk_budget_ppm: self.config.walk_budget_ppm,
            prove_one_in: self.config.prove_one_in,
            has_policy: self.has_policy,
        })
    }

    fn start_unwinder(&self, program: &mut Program) -> Result<Unwinder> {
        let tables = program
            .take_tables()
            .context("the walk's tables are taken already")?;
        let options = UnwinderOptions {
            table_bytes_max: self.config.unwind_bytes,
            frame_pointers_only: self.config.unwind == Unwind::FramePointers,
            store: open_row_store(self.config),
            pool: self.pool.clone(),
        };
        Unwinder::start(tables, options, self.stats.unwind.clone())
    }

    /// Starts to enforce a policy, if there is one.
    fn start_enforcer(
        &self,
        program: &mut Program,
        policy: PolicyState,
        accounts: &ContainerAccounts,
    ) -> Result<Option<Enforcer>> {
        if !self.has_policy {
            return Ok(None);
        }
        let kernel = program
            .take_verdicts()
            .context("the policy's verdicts are taken already")?;
        let pods = self.pods.clone().unwrap_or_default();
        let enforcer = Enforcer::new(policy, pods, kernel, self.stats.policy.clone());
        let (own, accounts, stop) = (enforcer.clone(), accounts.clone(), self.stop.clone());
        spawn("enforce", move || {
            own.run(|excluded| accounts.add_excluded(excluded), &stop);
        })?;
        Ok(Some(enforcer))
    }

    /// Starts to follow the tree of cgroups.
    fn start_cgroups(&self, subscribers: Vec<Subscriber>) -> Result<Cgroups> {
        let cgroups = Cgroups::new(&self.hierarchy)?;
        if let Some(watcher) = Watcher::new(cgroups.clone(), subscribers) {
            // It ends some time after the sampler.
            spawn("cgroup", move || watcher.run())?;
        }
        Ok(cgroups)
    }

    fn start_sampler(
        &self,
        mut program: Program,
        policy: PolicyState,
        started: Instant,
    ) -> Result<JoinHandle<()>> {
        let unwinder = self.start_unwinder(&mut program)?;
        let files = CpuFiles::detect(&self.hierarchy);
        let accounts = ContainerAccounts::start(files, self.stats.containers.clone())?;
        let enforcer = self.start_enforcer(&mut program, policy, &accounts)?;
        let mut subscribers = vec![accounts.subscriber()];
        subscribers.extend(enforcer.as_ref().map(Enforcer::subscriber));
        let descriptors = descriptors(self.config, self.online.len());
        let sources = Sources {
            program,
            cgroups: self.start_cgroups(subscribers)?,
            accounts,
            enforcer,
            proc_reader: ProcReader::start(&self.pool)?,
            unwinder,
            prover: Prover::start(&self.pool)?,
            file_opener: FileOpener::start(self.held.clone(), descriptors, &self.pool)?,
            online: &self.online,
            started,
            kernel_code: self.kernel_code.clone(),
            heartbeat: self.health.heartbeat.clone(),
            turn: prepare_turn(self.config),
            hand_over: self.health.hand_over.clone(),
        };
        let (stats, queue) = (self.stats.sampling.clone(), self.queue.clone());
        let sampler = Sampler::new(self.config, sources, stats, queue)?;
        let stop = self.stop.clone();
        Ok(spawn("sample", move || sampler.run(&stop))?)
    }

    fn make_publisher(
        &self,
        instance: [u8; 16],
        relabeling: Relabeling,
        sender: Sender,
    ) -> WindowPublisher {
        let config = self.config;
        let names = Names {
            namer: Namer::new(self.namer_options()),
            held: self.held.clone(),
            kernel_code: self.kernel_code.clone(),
            labeller: Labeller::new(LabelSources {
                node: config.node.clone(),
                external: config.external_labels.clone(),
                relabeling,
                values_max: config.label_values_max,
                pods: self.pods.clone(),
                window: config.window,
                is_stopping: self.stop.clone(),
            }),
            pool: self.pool.clone(),
        };
        let PipelineStats {
            sampling, naming, ..
        } = &self.stats;
        let stats = (sampling.dropped.clone(), naming.clone());
        WindowPublisher::new(config, instance, names, sender, stats)
    }

    fn namer_options(&self) -> NamerOptions {
        let config = self.config;
        let defaults = NamerOptions::default();
        let needs = MemoryNeeds::new(self.online.len(), config.unwind_bytes, config.buffer_bytes);
        NamerOptions {
            cpu: defaults.cpu.with_share(config.name_cpu_share),
            child: needs.limit_child(MemoryLimit::read(), defaults.child),
            pool: self.pool.clone(),
            is_ending: self.stop.clone(),
            ..defaults
        }
    }

    /// Starts to upload files, unless none are offered.
    fn start_uploader(
        &self,
        instance: [u8; 16],
        offers: Option<Offers>,
        wanted: PendingUploads,
    ) -> Result<Option<Uploader>> {
        let Some(offers) = offers else {
            return Ok(None);
        };
        let (server, rate) = (self.config.server.clone(), self.config.upload_rate);
        let options = UploaderOptions::new(server, instance, rate);
        let uploader = Uploader::start(options, wanted, (offers, self.pool.clone()))?;
        Ok(Some(uploader))
    }
}

/// The flag that stops the threads; sets it when it is dropped before all were started.
struct StopUnlessStarted(Option<Arc<AtomicBool>>);

impl StopUnlessStarted {
    fn started(mut self) -> Arc<AtomicBool> {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for StopUnlessStarted {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Statistics of the stages.
#[derive(Clone, Default)]
struct PipelineStats {
    sampling: SamplingStats,
    containers: Stats<ContainerStats>,
    policy: Stats<EnforcerStats>,
    unwind: Stats<UnwindStats>,
    naming: Stats<NamingStats>,
}

/// Stages with statistics of their own.
struct Stages<'a> {
    sender: SenderWatch,
    queue: Queue<ClosedWindow>,
    uploader: Option<&'a Uploader>,
    pool: BlockingPool,
    /// Bytes of the program's maps, without the tables.
    map_bytes: u64,
    pods: Option<NodePods>,
    has_policy: bool,
}

impl PipelineStats {
    /// Registers all of it.
    fn register(self, registry: &mut Registry, stages: Stages<'_>) {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let Self {
            sampling,
            containers,
            policy,
            unwind,
            naming,
        } = self;
        let Stages {
            sender,
            queue,
            uploader,
            pool,
            map_bytes,
            pods,
            has_policy,
        } = stages;
        if let Some(pods) = pods {
            pods.register(registry);
        }
        sampling.sampler.register(registry, SamplerStats::show);
        sampling.windows.register(registry, WindowStats::show);
        sampling.stacks.register(registry, WaitingStats::show);
        sampling.dropped.register(registry, sender.clone());
        containers.register(registry, ContainerStats::show);
        if has_policy {
            policy.register(registry, EnforcerStats::show);
        }
        unwind.register(registry, UnwindStats::show);
        naming.register(registry, NamingStats::show);
        sender.register(registry);
        if let Some(uploader) = uploader {
            uploader.register(registry);
        }
        register_figures(registry, move |figures| pool.stats().show(figures));
        register_queues(registry, sender, queue);
        register_cost(registry, naming, unwind, map_bytes);
    }
}

/// Registers how long windows wait for their names and for the server.
fn register_queues(registry: &mut Registry, sender: SenderWatch, queue: Queue<ClosedWindow>) {
    register_figures(registry, move |figures| {
        figures.gauge(
            "name_queue_windows",
            "Windows waiting for their names",
            queue.len(),
        );
        let ended_ns = queue.look(|closed| closed.bounds.end_ns);
        let for_names = ended_ns.map_or(0, |ended_ns| monotonic_ns().saturating_sub(ended_ns));
        let for_server = sender.stats().oldest_wait.unwrap_or_default();
        figures.gauges(
            "oldest_window_seconds",
            "Time that the oldest window has waited, by what it waits for; 0 when none does",
            ["queue"],
            [
                (["name"], seconds(for_names)),
                (["send"], for_server.as_secs_f64()),
            ],
        );
    });
}

/// Without `--hand-over` it is always this collector's turn.
fn prepare_turn(config: &Config) -> Turn {
    if config.hand_over {
        Turn::prepare(config.cache_dir.as_deref())
    } else {
        Turn::default()
    }
}

/// The rules of relabelling; none without a file.
fn read_relabeling(config: &Config) -> Result<Relabeling> {
    let Some(path) = &config.relabel_config else {
        return Ok(Relabeling::default());
    };
    let failed = || format!("failed to read `{}` (--relabel-config)", path.display());
    let text = fs::read_to_string(path).with_context(failed)?;
    Relabeling::parse(&text).with_context(failed)
}

/// Zero if the kernel hides it: the checks at the start say so.
fn read_kernel_text() -> KernelText {
    KernelText::read().ok().flatten().unwrap_or(KernelText(0))
}

/// Descriptors that the collector needs beside the files that it holds: one for each page of 64 KiB of rows, three on each
/// processor (two timers and the side band), and for its threads, its connections and the files that it has open for a
/// moment some 128.
fn descriptors(config: &Config, processors: usize) -> u64 {
    config.unwind_bytes / PAGE_BYTES + 3 * processors as u64 + 128
}

/// The store of rows on disk. Without it rows are evaluated at each start.
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

#[cfg(test)]
mod metrics_tests;
