//! The thread `sample`: a loop over drain, attribution, waiting stacks and windows.

mod turn;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use profiler_bpf::outcome::Outcome;

use super::{
    account::{Accounting, SampledTime, Totals},
    attribution::{Attribution, Owner},
    container_accounts::ContainerAccounts,
    drain::{Drain, Item, merge},
    dropped::{DroppedSamples, Stage},
    kernel::{Kernel, REORDER_NS},
    open_files::FileOpener,
    proc_reader::{ProcReader, ProcRequest},
    prover::Prover,
    routing::{Route, Routing, SampledUsage},
    sampler_stats::SamplerStats,
    unattributed::{self, Waiting, WaitsFor},
    unwinder::Unwinder,
    waiting_stacks::{Finished, WAIT_NS, WaitingStacks, WaitingStats},
    windows::{ClosedWindow, Now, WindowEnd, WindowStats, Windows},
};
use crate::{
    accounts::MachineTime,
    aggregate::Check,
    cgroup::Cgroups,
    clock::{monotonic_ns, unix_ns},
    config::Config,
    hand_over::{HandOver, Turn},
    health::Heartbeat,
    locate::Addresses,
    metrics::Stats,
    policy::Enforcer,
    process::{KernelCode, Process, ProcessTable, SideBand, SideBandEvent, Timed},
    queue::Queue,
    sample::{Batch, Program, Sample, Schedule, Timers},
};

/// Interval of checks for online processors and loaded modules.
const CPU_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Interval of checks for finished reads at the end, when there is nothing else to do.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The threads that work for the sampler, and its initial state.
pub(super) struct Sources<'a> {
    pub(super) program: Program,
    pub(super) cgroups: Cgroups,
    pub(super) accounts: ContainerAccounts,
    /// `None` without a policy.
    pub(super) enforcer: Option<Enforcer>,
    pub(super) proc_reader: ProcReader,
    pub(super) unwinder: Unwinder,
    pub(super) prover: Prover,
    pub(super) file_opener: FileOpener,
    pub(super) online: &'a [u32],
    pub(super) started: Instant,
    pub(super) kernel_code: KernelCode,
    pub(super) heartbeat: Heartbeat,
    pub(super) turn: Turn,
    pub(super) hand_over: HandOver,
}

/// Statistics of the sampler's parts.
#[derive(Clone, Default)]
pub(super) struct SamplingStats {
    pub(super) sampler: Stats<SamplerStats>,
    pub(super) stacks: Stats<WaitingStats>,
    pub(super) windows: Stats<WindowStats>,
    pub(super) dropped: DroppedSamples,
}

pub(super) struct Sampler {
    kernel: Kernel,
    drain: Drain,
    attribution: Attribution,
    proc_reader: ProcReader,
    routing: Routing,
    file_opener: FileOpener,
    stacks: WaitingStacks,
    windows: Windows,
    accounts: ContainerAccounts,
    stats: Stats<SamplerStats>,
    started: Instant,
    heartbeat: Heartbeat,
    turn: Turn,
    hand_over: HandOver,
    /// The time of the last drain.
    drained: Instant,
    /// The time of the last check for processors and modules.
    looked: Instant,
}

impl Sampler {
    /// Opens the side band, then requests a read of /proc, then starts the timers, unless another collector samples: this order
    /// misses no process. The first samples wait for their processes.
    pub(super) fn new(
        config: &Config,
        sources: Sources<'_>,
        stats: SamplingStats,
        queue: Queue<ClosedWindow>,
    ) -> Result<Self> {
        let mut side_band = SideBand::new();
        side_band.follow(sources.online)?;
        if !side_band.has_build_ids() {
            tracing::info!(
                "this kernel gives no build ids with mappings: reading them from the files"
            );
        }
        let mut attribution =
            Attribution::new(ProcessTable::new(), sources.cgroups, sources.kernel_code);
        for request in attribution.take_requests(monotonic_ns()) {
            sources.proc_reader.push(request);
        }
        sources.proc_reader.push(ProcRequest::Modules);
        let schedule = Schedule::new(config.frequency_hz);
        let mut timers = Timers::new(
            config.event,
            schedule,
            config.include_idle,
            sources.program.descriptor()?,
        )?;
        timers.follow(sources.online)?;
        {
            let mut sampler = stats.sampler.lock();
            sampler.cpus = sources.online.len();
            sampler.frequency_hz = config.frequency_hz;
        }
        let sampled_time = if config.include_idle {
            SampledTime::WithIdle
        } else {
            SampledTime::Busy
        };
        let mut sampler = Self {
            kernel: Kernel {
                program: sources.program,
                timers,
                side_band,
                cpus: sources.online.len(),
            },
            drain: Drain::default(),
            attribution,
            proc_reader: sources.proc_reader,
            routing: Routing::new(sources.enforcer, schedule.sample_ns()),
            file_opener: sources.file_opener,
            stacks: WaitingStacks::new(sources.unwinder, sources.prover, stats.stacks),
            windows: Windows::new(
                config.window.as_nanos() as u64,
                Accounting::new(schedule, sampled_time, Totals::default()),
                queue,
                (stats.dropped, stats.windows),
            ),
            accounts: sources.accounts,
            stats: stats.sampler,
            started: sources.started,
            heartbeat: sources.heartbeat,
            turn: sources.turn,
            hand_over: sources.hand_over,
            drained: Instant::now(),
            looked: Instant::now(),
        };
        if sampler.try_turn() {
            sampler.begin()?;
        }
        Ok(sampler)
    }

    /// Waits for its turn, samples until `stop` is set, then closes the last window and the queue.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        if self.wait_for_turn(stop) {
            while !stop.load(Ordering::Relaxed) {
                self.kernel.wait(self.drained);
                self.follow();
            }
            self.end();
        }
        self.windows.end_queue();
    }

    /// Applies what has happened since the last time.
    fn follow(&mut self) {
        self.drained = Instant::now();
        self.heartbeat.beat();
        self.drain(monotonic_ns().saturating_sub(REORDER_NS));
        if self.drained.duration_since(self.looked) >= CPU_CHECK_INTERVAL {
            self.looked = self.drained;
            self.follow_cpus();
            self.send_accounts();
            self.proc_reader.push(ProcRequest::Modules);
        }
    }

    /// Waits for the processes and cgroups of samples that are being read. Samples wait for two seconds at most.
    fn wait_for_processes(&mut self) {
        while self.routing.is_waiting() {
            thread::sleep(POLL_INTERVAL);
            self.read_processes();
        }
        self.stacks.end_drain(Vec::new(), Vec::new());
    }

    /// Applies all events and samples until `until_ns`; younger ones stay queued.
    fn drain(&mut self, until_ns: u64) {
        let Drain { events, batch } = self.read(until_ns);
        // Reads are older than the events that are not applied yet.
        self.read_processes();
        let is_loss = |event: &&Timed| matches!(event.event, SideBandEvent::Lost { .. });
        if let Some(loss) = events.iter().find(is_loss) {
            // The record of a loss follows the loss: all samples of this drain are uncertain.
            self.attribution.distrust(loss.time_ns);
        }
        for item in merge(events, batch.samples()) {
            match item {
                Item::Event(event) => self.attribution.apply(event),
                Item::Sample(sample) => {
                    self.close_windows_until(sample.time_ns);
                    self.take(&batch, sample);
                }
            }
        }
        for request in self.attribution.take_requests(monotonic_ns()) {
            self.proc_reader.push(request);
        }
        let sampled = sampled_processes(&batch);
        let changes = self.attribution.take_changes();
        self.stacks.end_drain(changes, sampled);
        self.poll_stacks();
        if until_ns != u64::MAX {
            self.close_windows_until(until_ns);
        }
        let (processes, cgroups) = self.attribution.stats();
        let mut stats = self.stats.lock();
        stats.processes = processes;
        stats.cgroups = cgroups;
        stats.kernel_symbols = self.attribution.kernel_symbols();
    }

    /// Applies the reads of processes and cgroups that are done, and takes the samples that waited for them.
    fn read_processes(&mut self) {
        let now_ns = monotonic_ns();
        while let Some(result) = self.proc_reader.pop() {
            self.attribution.apply_result(result, now_ns);
        }
        let (batch, waiting) = self.routing.take_waiting();
        for (sample, waiting) in batch.samples().iter().zip(waiting) {
            self.take_again(&batch, sample, waiting);
        }
    }

    /// Counts a sample that has waited, or keeps it if it must wait longer.
    fn take_again(&mut self, batch: &Batch, sample: &Sample, waiting: Waiting) {
        let Waiting {
            waits_for,
            until_ns,
        } = waiting;
        let owner = match waits_for {
            WaitsFor::Process => self.attribution.find(sample),
            WaitsFor::Cgroup(process) if self.attribution.is_cgroup_pending(sample) => {
                Owner::CgroupPending(process)
            }
            WaitsFor::Cgroup(process) => Owner::Known(process),
        };
        self.route(batch, sample, owner, until_ns);
    }

    /// Reads the kernel's buffers. Returns the events and samples until `until_ns`.
    fn read(&mut self, until_ns: u64) -> Drain {
        let malformed_events = self.kernel.side_band.drain(&mut self.drain.events);
        let malformed = self.kernel.program.drain(&mut self.drain.batch);
        let drained = self.drain.take_until(until_ns);
        self.windows.drop_samples(Stage::Decode, malformed);
        let mut stats = self.stats.lock();
        stats.side_band_malformed += malformed_events;
        stats.decoded += drained.batch.samples().len() as u64;
        if stats.first_sample_seconds.is_none() && !drained.batch.samples().is_empty() {
            stats.first_sample_seconds = Some(self.started.elapsed().as_secs_f64());
        }
        match self.kernel.program.read_counters() {
            Ok(counters) => stats.program = counters,
            Err(err) => tracing::warn!(%err, "failed to read the program's counters"),
        }
        drop(stats);
        drained
    }

    /// Counts a sample, unless it waits for something or is dropped.
    fn take(&mut self, batch: &Batch, sample: &Sample) {
        // An excluded process is not looked at.
        if let Some(stage) = self.routing.exclude(sample) {
            return self.windows.drop_samples(stage, 1);
        }
        let owner = self.attribution.find(sample);
        // Relative to now: after a stall of the collector, samples are old when they arrive.
        let until_ns = monotonic_ns() + unattributed::WAIT_NS;
        self.route(batch, sample, owner, until_ns);
    }

    fn route(&mut self, batch: &Batch, sample: &Sample, owner: Owner, until_ns: u64) {
        let now_ns = monotonic_ns();
        match self.routing.route((batch, sample), owner, until_ns, now_ns) {
            Route::Count(process) => self.count(batch, sample, process),
            Route::Wait(_) => {}
            Route::Drop(stage) => self.windows.drop_samples(stage, 1),
        }
    }

    /// Tells the accounts of containers what was sampled and what was dropped.
    fn send_accounts(&mut self) {
        let SampledUsage { sampled, excluded } = self.routing.take_usage();
        self.accounts.add_sampled(sampled);
        self.accounts.add_excluded(excluded);
    }

    /// Counts a sample of a process, unless it waits for its stack.
    fn count(&mut self, batch: &Batch, sample: &Sample, process: Option<Process>) {
        if let Some(process) = &process {
            if let Some(request) = self.attribution.request_files(sample, process) {
                self.file_opener.push(request);
            }
            if sample.outcome == Outcome::NoRows {
                self.attribution.follow(sample.pid);
            }
            if self.stacks.push(batch, sample, process) {
                return;
            }
        }
        let addresses = Addresses::of_sample(batch, sample);
        self.add(sample, process.as_ref(), &addresses, Check::None);
    }

    /// Counts the samples whose stacks are complete now, and finishes the window that waited for
    /// them.
    fn poll_stacks(&mut self) {
        let now_ns = monotonic_ns();
        let finished = self.stacks.poll(now_ns);
        self.add_finished(finished);
        if self.windows.is_over(now_ns, |end_ns| {
            self.stacks.has_before(end_ns) || self.routing.has_before(end_ns)
        }) {
            self.finish_closing();
        }
    }

    fn add_finished(&mut self, finished: Vec<Finished>) {
        for finished in finished {
            let Finished {
                sample,
                process,
                addresses,
                check,
            } = finished;
            self.add(&sample, Some(&process), &addresses, check);
        }
    }

    /// Locates a stack and counts it into the window of its time.
    fn add(
        &mut self,
        sample: &Sample,
        process: Option<&Process>,
        addresses: &Addresses<'_>,
        check: Check,
    ) {
        let series = self.attribution.series(sample, process);
        let kernel = self.attribution.locate_kernel(addresses, sample);
        let stack = self.attribution.locate(addresses, sample, process, &kernel);
        self.windows.add(sample, series, &stack, check);
    }

    fn follow_cpus(&mut self) {
        match self.kernel.follow_cpus() {
            Ok((0, 0)) => {}
            Ok((came, gone)) => tracing::info!(came, gone, "processors changed"),
            // A processor went offline between the list and the opening: it is retried a second later.
            Err(err) => tracing::warn!(err = format!("{err:#}"), "failed to follow the processors"),
        }
        self.stats.lock().cpus = self.kernel.cpus;
    }

    fn close_windows_until(&mut self, time_ns: u64) {
        while let Some(end_ns) = self.windows.end_by(time_ns) {
            self.close_window(end_ns);
        }
    }

    /// Closes the open window at `end_ns` and begins the next.
    fn close_window(&mut self, end_ns: u64) {
        let now = now();
        let Some(bounds) = self.windows.end(end_ns, now) else {
            return;
        };
        self.finish_closing();
        let end = self.read_window_end();
        self.windows.close(bounds, end, now.monotonic_ns + WAIT_NS);
        self.attribution.end_window(now.monotonic_ns);
        if !self.stacks.has_before(end_ns) && !self.routing.has_before(end_ns) {
            self.finish_closing();
        }
    }

    /// Queues the closing window for naming.
    fn finish_closing(&mut self) {
        if let Some(window) = self.windows.closing() {
            self.attribution.add_living_processes(window);
        }
        self.windows.finish();
    }

    /// Reads the totals and accounts for a window that ends now.
    fn read_window_end(&mut self) -> WindowEnd {
        let last = self.windows.last_totals();
        let totals = Totals {
            program: self.kernel.program.read_counters().unwrap_or(last.program),
            machine: MachineTime::read().unwrap_or(last.machine),
        };
        self.send_accounts();
        WindowEnd {
            cpus: self.kernel.cpus,
            totals,
            usages: self.accounts.end_window(),
        }
    }
}

fn now() -> Now {
    Now {
        unix_ns: unix_ns(),
        monotonic_ns: monotonic_ns(),
    }
}

/// The processes of a batch, each once.
fn sampled_processes(batch: &Batch) -> Vec<u32> {
    let mut pids: Vec<u32> = batch.samples().iter().map(|sample| sample.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}
