//! The thread `sample`: drains, orders, locates, counts.

use std::{
    mem,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use profiler_bpf::outcome::Outcome;
use rustc_hash::FxHashMap;

use super::{
    holder::{HoldRequest, Holder},
    prover::{Proof, Proved, Prover},
    unwinder::{self, Request, Unwinder, Walked},
    window_clock::WindowBounds,
};
use crate::{
    accounts::MachineTime,
    aggregate::{Check, SeriesKey, Window},
    clock::{monotonic_ns, unix_ns},
    config::Config,
    label::{CgroupHierarchy, CgroupTable},
    locate::{Addresses, KernelText, StackOutcome, StandIns, locate_stack},
    metrics::{SharedMetrics, Stage},
    name::{MappedBy, Relatives},
    patience::Patience,
    process::{Process, ProcessTable, SideBand, Timed},
    queue::Queue,
    sample::{Batch, CounterTotals, Program, Sample, Schedule, Timers, read_online_cpus},
};

/// Time between two drains. Rings are sized for it (see `sample::program` and
/// `process::side_band`).
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

/// Samples this young wait for the next drain: an event of another processor with
/// an earlier time may still be on its way into its buffer, which takes
/// microseconds.
const SETTLE_NS: u64 = 2_000_000;

/// Likewise, and a little more.
const SETTLE: Duration = Duration::from_nanos(SETTLE_NS + 500_000);

/// Time between two drains when the program asks for one: 50 a second, of some 50 us each, are 0.25 % of a
/// processor.
const DRAIN_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Time between two looks at which processors are online.
const CPU_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Samples whose stacks are being walked in user space. Each keeps its kernel frames and what was
/// known of its process, some 300 bytes; the copies themselves are the unwinder's to limit.
const WAITING_MAX: usize = 16_384;

/// How long a closed window waits for such samples: a little longer than they wait for rows.
const CLOSING_NS: u64 = unwinder::WAIT_NS + 500_000_000;

/// After this what a process says of the code that it makes is asked for again, then after twice the time, and so on: six
/// times in a window, of some 50 us.
const MADE_WAIT_NS: u64 = 250_000_000;

/// Processes that are looked for, by build id, for a file whose own have all ended: one is enough, if it does not end, too.
const OTHER_PROCESSES_MAX: usize = 2;

/// A window that is over, on its way to get names.
pub(super) struct ClosedWindow {
    pub(super) bounds: WindowBounds,
    pub(super) window: Window,
    pub(super) account: Account,
}

/// The balance of one window.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// Entries that ended without a record, by outcome.
    pub(super) lost: Vec<(Outcome, u64)>,
    /// Samples that were dropped between the ring and the window, by stage.
    pub(super) dropped: Vec<(Stage, u64)>,
    pub(super) expected: u64,
    pub(super) busy_ns: u64,
    /// Time that the hypervisor took, nanoseconds.
    pub(super) stolen_ns: u64,
    pub(super) bpf_ns: u64,
    /// CPU time that one sample stands for.
    pub(super) sample_ns: u64,
}

impl Account {
    /// Adds the account of an earlier window that is not sent, with the samples in it.
    fn add_unsent(&mut self, unsent: Self, samples: u64) {
        self.lost.extend(unsent.lost);
        self.dropped.extend(unsent.dropped);
        self.dropped.push((Stage::Name, samples));
        self.expected += unsent.expected;
        self.busy_ns += unsent.busy_ns;
        self.stolen_ns += unsent.stolen_ns;
        self.bpf_ns += unsent.bpf_ns;
    }
}

/// A sample whose stack is being walked in user space.
struct Waiting {
    sample: Sample,
    /// Bytes of the copy of its stack.
    stack_bytes: usize,
    /// The kernel's walk, when the copy is there to prove it.
    walked: Option<Vec<u64>>,
    /// Its innermost user frame.
    leaf: u64,
    kernel: Vec<u64>,
    process: Process,
}

/// A window that is over but for some samples.
struct Closing {
    bounds: WindowBounds,
    window: Window,
    account: Account,
    until_ns: u64,
}

/// Where samples come from.
pub(super) struct Sources<'a> {
    pub(super) program: Program,
    pub(super) hierarchy: CgroupHierarchy,
    pub(super) unwinder: Unwinder,
    pub(super) prover: Prover,
    pub(super) holder: Holder,
    pub(super) online: &'a [u32],
    pub(super) started: Instant,
    pub(super) patience: Patience,
}

/// When the files of a process were asked for last.
struct Asked {
    /// What it mapped then, see [`Process::files_version`].
    version: u64,
    /// When they are asked for again though it is the same.
    again_ns: u64,
    /// How long that waits.
    wait_ns: u64,
}

pub(super) struct Sampler {
    program: Program,
    unwinder: Unwinder,
    prover: Prover,
    holder: Holder,
    /// Processes whose files were asked for in this window.
    asked: FxHashMap<u32, Asked>,
    to_unwind: unwinder::Batch,
    waiting: FxHashMap<u64, Waiting>,
    waiting_bytes: usize,
    next_number: u64,
    closing: Option<Closing>,
    timers: Timers,
    side_band: SideBand,
    table: ProcessTable,
    cgroups: CgroupTable,
    stand_ins: StandIns,
    kernel_text: KernelText,
    metrics: SharedMetrics,
    queue: Queue<ClosedWindow>,
    schedule: Schedule,
    include_idle: bool,
    window_ns: u64,
    started: Instant,

    events: Vec<Timed>,
    batch: Batch,
    bounds: WindowBounds,
    window: Window,
    dropped: [u64; Stage::ALL.len()],
    /// Accounts and samples of windows that were dropped since the last one was closed.
    unsent: Vec<(Account, u64)>,
    counters_before: CounterTotals,
    machine_before: MachineTime,
}

impl Sampler {
    /// Opens the side band, then reads /proc, then starts the timers: in this
    /// order nothing is missed.
    pub(super) fn new(
        config: &Config,
        sources: Sources<'_>,
        metrics: SharedMetrics,
        queue: Queue<ClosedWindow>,
    ) -> Result<Self> {
        let Sources {
            program,
            hierarchy,
            unwinder,
            prover,
            holder,
            online,
            started,
            patience,
        } = sources;
        let mut side_band = SideBand::new();
        side_band.follow(online)?;
        let mut table = ProcessTable::scan(patience);
        let kernel_text = KernelText::read()?.unwrap_or_else(|| {
            tracing::warn!(
                "the kernel hides its addresses (kernel.kptr_restrict): kernel frames have no names; \
                 CAP_SYSLOG, or kernel.kptr_restrict=1 for root, shows them"
            );
            KernelText(0)
        });
        let schedule = Schedule::new(config.frequency_hz);
        let mut timers = Timers::new(
            config.event,
            schedule,
            config.include_idle,
            program.descriptor()?,
        )?;
        timers.follow(online)?;
        metrics.lock().cpus = online.len();
        let window_ns = config.window.as_nanos() as u64;
        Ok(Self {
            program,
            unwinder,
            prover,
            holder,
            asked: FxHashMap::default(),
            to_unwind: unwinder::Batch::default(),
            waiting: FxHashMap::default(),
            waiting_bytes: 0,
            next_number: 0,
            closing: None,
            timers,
            side_band,
            stand_ins: StandIns::new(&mut table),
            table,
            cgroups: CgroupTable::new(hierarchy),
            kernel_text,
            metrics,
            queue,
            schedule,
            include_idle: config.include_idle,
            window_ns,
            started,
            events: Vec::new(),
            batch: Batch::default(),
            bounds: WindowBounds::begin(unix_ns(), monotonic_ns(), window_ns),
            window: Window::default(),
            dropped: [0; Stage::ALL.len()],
            unsent: Vec::new(),
            counters_before: CounterTotals::default(),
            machine_before: MachineTime::read()?,
        })
    }

    /// Runs until `stop` is set, then closes the last window and the queue.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        let mut drained = Instant::now();
        let mut looked = drained;
        while !stop.load(Ordering::Relaxed) {
            let next = drained + DRAIN_INTERVAL;
            let left = next.saturating_duration_since(Instant::now());
            if self.program.wait(left) {
                // Somebody waits for this; but what woke us must be old enough to be taken.
                let soonest = (Instant::now() + SETTLE).max(drained + DRAIN_INTERVAL_MIN);
                thread::sleep(soonest.min(next).saturating_duration_since(Instant::now()));
            }
            drained = Instant::now();
            self.drain(monotonic_ns().saturating_sub(SETTLE_NS));
            if drained.duration_since(looked) >= CPU_CHECK_INTERVAL {
                looked = drained;
                self.follow_cpus();
            }
        }
        self.timers.stop();
        self.drain(u64::MAX);
        let until = Instant::now() + Duration::from_nanos(CLOSING_NS);
        while !self.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let Some(walked) = self.unwinder.wait(left) else {
                break;
            };
            self.take_walked(walked);
        }
        self.give_up_waiting(u64::MAX);
        self.finish_closing();
        self.close_window(monotonic_ns());
        self.finish_closing();
        self.queue.close();
    }

    /// Takes in all that happened until `until_ns`; what is younger waits.
    fn drain(&mut self, until_ns: u64) {
        let malformed_events = self.side_band.drain(&mut self.events);
        let malformed = self.program.drain(&mut self.batch);
        self.events.sort_by_key(|event| event.time_ns);
        self.batch.sort_by_time();
        let young_events = self
            .events
            .split_off(self.events.partition_point(|it| it.time_ns <= until_ns));
        let young_batch = self.batch.split_after(until_ns);
        let events = mem::replace(&mut self.events, young_events);
        let batch = mem::replace(&mut self.batch, young_batch);

        self.dropped[Stage::Decode as usize] += malformed;
        {
            let mut metrics = self.metrics.lock();
            metrics.drop_samples(Stage::Decode, malformed);
            metrics.side_band_malformed += malformed_events;
            metrics.decoded += batch.samples().len() as u64;
            if metrics.first_sample_seconds.is_none() && !batch.samples().is_empty() {
                metrics.first_sample_seconds = Some(self.started.elapsed().as_secs_f64());
            }
            match self.program.read_counters() {
                Ok(counters) => metrics.program = counters,
                Err(err) => tracing::warn!(%err, "failed to read the program's counters"),
            }
        }

        let mut events = events.into_iter().peekable();
        for sample in batch.samples() {
            while let Some(event) = events.next_if(|it| it.time_ns <= sample.time_ns) {
                self.table.apply(event.event, event.time_ns);
            }
            while sample.time_ns >= self.bounds.end_ns {
                self.close_window(self.bounds.end_ns);
            }
            self.count(&batch, sample);
        }
        for event in events {
            self.table.apply(event.event, event.time_ns);
        }
        self.unwind(&batch);
        while until_ns != u64::MAX && until_ns >= self.bounds.end_ns {
            self.close_window(self.bounds.end_ns);
        }
        self.metrics.lock().processes = self.table.stats();
    }

    fn count(&mut self, batch: &Batch, sample: &Sample) {
        // The idle task (pid 0) is no process; /proc does not have it.
        let process = match sample.pid {
            0 => None,
            pid => self.table.find(pid, sample.time_ns).cloned(),
        };
        if let Some(process) = &process {
            self.hold_files(sample, process);
        }
        if sample.outcome == Outcome::NoRows
            && let Some(process) = &process
            && self.ask_for_rows(batch, sample, process)
        {
            return;
        }
        if sample.is_proof
            && let Some(process) = &process
            && self.prove(batch, sample, process)
        {
            return;
        }
        let addresses = Addresses::of_sample(batch, sample);
        self.add(sample, process.as_ref(), &addresses, Check::None);
    }

    /// Has the files of a process opened, once in a window, and again when it has mapped another. What a process says of
    /// code that it makes it may say at any time, and end at once: it is asked for more often.
    fn hold_files(&mut self, sample: &Sample, process: &Process) {
        let version = process.files_version;
        let before = self.asked.get(&sample.pid);
        let before = before.filter(|it| it.version == version);
        if process.mappings.is_empty() || before.is_some_and(|it| sample.time_ns < it.again_ns) {
            return;
        }
        let wait_ns = before.map_or(MADE_WAIT_NS, |it| 2 * it.wait_ns);
        let again_ns = match process.mappings.have_made() {
            true => sample.time_ns.saturating_add(wait_ns),
            false => u64::MAX,
        };
        let asked = Asked {
            version,
            again_ns,
            wait_ns,
        };
        self.asked.insert(sample.pid, asked);
        let cgroup_id = sample.cgroup_id;
        // So that the cgroup is known.
        self.cgroups.find_container(cgroup_id, sample.time_ns);
        self.holder.push(HoldRequest {
            pid: sample.pid,
            parent: process.parent,
            relatives: Relatives {
                ancestors: self.table.ancestors(process),
                cgroup: self.cgroups.container_directory(cgroup_id),
            },
            mappings: process.mappings.clone(),
            time_ns: sample.time_ns,
        });
    }

    /// Has a stack walked again that was copied for it. Gives whether the sample waits for that.
    fn prove(&mut self, batch: &Batch, sample: &Sample, process: &Process) -> bool {
        let Some(stack) = sample.stack.clone().filter(|it| !it.is_cut()) else {
            self.metrics.lock().unchecked_stacks += 1;
            return false;
        };
        let frames = batch.user_frames(sample).to_vec();
        let number = self.next_number;
        self.next_number += 1;
        let is_taken = self.prover.push(Proof {
            number,
            pid: sample.pid,
            mappings: process.mappings.clone(),
            stack,
            frames: frames.clone(),
        });
        if !is_taken {
            self.metrics.lock().unchecked_stacks += 1;
            return false;
        }
        let waiting = Waiting {
            sample: sample.without_stack(),
            stack_bytes: 0,
            walked: Some(frames),
            leaf: 0,
            kernel: batch.kernel_frames(sample).to_vec(),
            process: process.clone(),
        };
        self.waiting.insert(number, waiting);
        true
    }

    /// Has the kernel's tables filled for a sample's process, and its stack walked if it was copied.
    /// Gives whether the sample waits for that.
    fn ask_for_rows(&mut self, batch: &Batch, sample: &Sample, process: &Process) -> bool {
        let is_exact = sample.user_leaf_exact;
        let leaf = batch.user_frames(sample).first().copied().unwrap_or(0);
        let stack = sample.stack.clone();
        let has_room =
            self.waiting.len() < WAITING_MAX && self.waiting_bytes < unwinder::WAITING_BYTES_MAX;
        if !has_room && stack.is_some() {
            self.metrics.lock().unwind.copied_dropped += 1;
        }
        let stack = stack.filter(|_| has_room);
        let number = self.next_number;
        self.next_number += 1;
        let waits = stack.is_some();
        let stack_bytes = stack.as_ref().map_or(0, |it| it.len());
        self.waiting_bytes += stack_bytes;
        self.table.follow(sample.pid);
        self.to_unwind.requests.push(Request {
            pid: sample.pid,
            identity: sample.identity,
            mappings: process.mappings.clone(),
            address: leaf.wrapping_sub(u64::from(!is_exact)),
            stack: stack.map(|stack| (number, stack)),
        });
        if waits {
            let waiting = Waiting {
                sample: sample.without_stack(),
                stack_bytes,
                walked: None,
                leaf,
                kernel: batch.kernel_frames(sample).to_vec(),
                process: process.clone(),
            };
            self.waiting.insert(number, waiting);
        }
        waits
    }

    /// Hands what a drain found to the unwinder, and takes what it has walked.
    fn unwind(&mut self, batch: &Batch) {
        self.to_unwind.changes = self.table.take_changes();
        let mut sampled: Vec<u32> = batch.samples().iter().map(|it| it.pid).collect();
        sampled.sort_unstable();
        sampled.dedup();
        self.to_unwind.sampled = sampled;
        if let Err(refused) = self.unwinder.push(mem::take(&mut self.to_unwind)) {
            let numbers = refused.requests.iter().filter_map(|it| it.stack.as_ref());
            let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
            tracing::debug!(stacks = numbers.len(), "the unwinder is behind");
            self.metrics.lock().unwind.copied_dropped += numbers.len() as u64;
            for number in numbers {
                self.take_unwalked(number);
            }
            // What was sampled comes again by itself; that a process changed does not.
            self.to_unwind.changes = refused.changes;
        }
        while let Some(walked) = self.unwinder.pop() {
            self.take_walked(walked);
        }
        while let Some(Proved { number, check }) = self.prover.pop() {
            self.take_proved(number, check);
        }
        let now_ns = monotonic_ns();
        self.give_up_waiting(now_ns.saturating_sub(CLOSING_NS));
        let is_over = |closing: &Closing| {
            let end_ns = closing.bounds.end_ns;
            closing.until_ns <= now_ns
                || !self.waiting.values().any(|it| it.sample.time_ns < end_ns)
        };
        if self.closing.as_ref().is_some_and(is_over) {
            self.finish_closing();
        }
    }

    fn take_walked(&mut self, walked: Walked) {
        let Walked {
            number,
            frames,
            outcome,
        } = walked;
        let Some(waiting) = self.waiting.remove(&number) else {
            return;
        };
        self.waiting_bytes -= waiting.stack_bytes;
        let Waiting {
            sample,
            kernel,
            process,
            ..
        } = &waiting;
        let addresses = Addresses::of_copy(frames, outcome, sample.user_leaf_exact, kernel);
        self.add(sample, Some(process), &addresses, Check::None);
    }

    /// Counts a sample whose walk was looked at again.
    fn take_proved(&mut self, number: u64, check: Check) {
        let Some(waiting) = self.waiting.remove(&number) else {
            return;
        };
        let Waiting {
            sample,
            walked,
            kernel,
            process,
            ..
        } = &waiting;
        {
            let mut metrics = self.metrics.lock();
            match check.name() {
                Some(result) => metrics.checked_stacks.add(process.exe.as_ref(), result),
                None => metrics.unchecked_stacks += 1,
            }
        }
        let addresses = Addresses {
            user: walked.as_deref().unwrap_or_default().into(),
            left_out_after: None,
            is_leaf_exact: sample.user_leaf_exact,
            kernel,
            is_walked_in_kernel: true,
            outcome: StackOutcome::Walked(sample.outcome),
        };
        self.add(sample, Some(process), &addresses, check);
    }

    /// Counts a sample whose stack nobody walked: with its innermost frame.
    fn take_unwalked(&mut self, number: u64) {
        if self
            .waiting
            .get(&number)
            .is_some_and(|it| it.walked.is_some())
        {
            self.take_proved(number, Check::None);
        } else if let Some(waiting) = self.waiting.get(&number) {
            let frames = vec![waiting.leaf];
            self.take_walked(Walked {
                number,
                frames,
                outcome: Outcome::NoRows,
            });
        }
    }

    /// Counts the samples that were taken before `time_ns` and wait still.
    fn give_up_waiting(&mut self, time_ns: u64) {
        let late = self.waiting.iter();
        let late = late.filter(|(_, it)| it.sample.time_ns < time_ns);
        let numbers: Vec<u64> = late.map(|(number, _)| *number).collect();
        if !numbers.is_empty() {
            tracing::debug!(
                stacks = numbers.len(),
                "copied stacks were not walked in time"
            );
        }
        self.metrics.lock().unwind.copied_dropped += numbers.len() as u64;
        for number in numbers {
            self.take_unwalked(number);
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
        let stack = locate_stack(
            addresses,
            sample.time_ns,
            process,
            self.kernel_text,
            &self.stand_ins,
        );
        let container_id = self
            .cgroups
            .find_container(sample.cgroup_id, sample.time_ns);
        let series = SeriesKey {
            comm: process.map_or_else(|| sample.thread_name(), |it| it.comm.clone()),
            exe: process.and_then(|it| it.exe.clone()),
            container_id,
        };
        if !stack.outcome.is_complete() {
            let binary = stack.frames.first().map(|it| &it.file.path);
            let mut metrics = self.metrics.lock();
            metrics.incomplete_stacks.add(binary, stack.outcome.name());
        }
        let window = match &mut self.closing {
            Some(closing) if sample.time_ns < closing.bounds.end_ns => &mut closing.window,
            _ => &mut self.window,
        };
        if !window.add(sample.pid, sample.comm, series, &stack, check) {
            self.dropped[Stage::Aggregate as usize] += 1;
            self.metrics.lock().drop_samples(Stage::Aggregate, 1);
        }
    }

    fn follow_cpus(&mut self) {
        let followed = read_online_cpus().and_then(|online| {
            self.side_band.follow(&online)?;
            let (came, gone) = self.timers.follow(&online)?;
            self.metrics.lock().cpus = online.len();
            Ok((came, gone))
        });
        match followed {
            Ok((0, 0)) => {}
            Ok((came, gone)) => tracing::info!(came, gone, "processors changed"),
            // A processor that went between the list and the opening: next time.
            Err(err) => tracing::warn!(err = format!("{err:#}"), "failed to follow the processors"),
        }
    }

    /// Closes the window at `end_ns` and begins the next.
    fn close_window(&mut self, end_ns: u64) {
        let now_ns = monotonic_ns();
        let next = self.bounds.next(unix_ns(), now_ns, self.window_ns);
        let bounds = WindowBounds {
            end_ns,
            ..mem::replace(&mut self.bounds, next)
        };
        if self.window.samples() == 0 && self.bounds.end_ns <= now_ns {
            // After a stall (the collector was stopped, the machine suspended) there are
            // empty windows to catch up with: the account goes to the one that ends it.
            return;
        }
        // It has waited a whole window's time.
        self.finish_closing();
        self.asked.clear();
        let window = mem::take(&mut self.window);
        let account = self.make_account(bounds);
        self.table.maintain(now_ns);
        self.closing = Some(Closing {
            bounds,
            window,
            account,
            until_ns: now_ns + CLOSING_NS,
        });
        let is_waited_for = |it: &Waiting| it.sample.time_ns < end_ns;
        if !self.waiting.values().any(is_waited_for) {
            self.finish_closing();
        }
    }

    /// Hands the window that is over to be named.
    fn finish_closing(&mut self) {
        let Some(closing) = self.closing.take() else {
            return;
        };
        let Closing {
            bounds,
            mut window,
            mut account,
            ..
        } = closing;
        self.find_other_processes(&mut window);
        let sampled_ns = window.samples() * self.schedule.sample_ns();
        let mut metrics = self.metrics.lock();
        metrics.windows += 1;
        metrics.expected += account.expected;
        metrics.busy_ns += account.busy_ns;
        metrics.stolen_ns += account.stolen_ns;
        metrics.sampled_ns += sampled_ns;
        metrics.last_window_rows = window.row_count() as u64;
        metrics.last_window_ratio = sampled_ns as f64 / account.busy_ns.max(1) as f64;
        for (outcome, count) in window.outcomes() {
            *metrics.stacks_by_outcome.entry(outcome.name()).or_default() += count;
        }
        for (unsent, samples) in self.unsent.drain(..) {
            account.add_unsent(unsent, samples);
        }
        let closed = ClosedWindow {
            bounds,
            window,
            account,
        };
        if let Some(oldest) = self.queue.push(closed) {
            tracing::error!(
                samples = oldest.window.samples(),
                "naming fell behind: dropped a window"
            );
            metrics.drop_samples(Stage::Name, oldest.window.samples());
            self.unsent.push((oldest.account, oldest.window.samples()));
        }
        metrics.name_queue = self.queue.len();
    }

    /// Finds processes that live for the files whose own have ended.
    fn find_other_processes(&self, window: &mut Window) {
        let orphans = window.orphans(|pid| self.table.is_living(pid));
        for it in self.table.find_living(&orphans, OTHER_PROCESSES_MAX) {
            let mapped_by = MappedBy {
                pid: it.pid,
                parent: it.parent,
                start: it.start,
                end: it.end,
            };
            window.add_process(&it.file, mapped_by);
        }
    }

    fn make_account(&mut self, bounds: WindowBounds) -> Account {
        let counters = self.program.read_counters().unwrap_or(self.counters_before);
        let before = mem::replace(&mut self.counters_before, counters);
        let machine = MachineTime::read().unwrap_or(self.machine_before);
        let machine_before = mem::replace(&mut self.machine_before, machine);
        let busy_ns = machine.busy_ns.saturating_sub(machine_before.busy_ns);
        let sampled_ns = match self.include_idle {
            true => (bounds.end_ns - bounds.start_ns) * self.metrics.lock().cpus as u64,
            false => busy_ns,
        };
        let lost = Outcome::ALL
            .into_iter()
            .zip(counters.outcomes.iter().zip(before.outcomes))
            .filter(|(outcome, _)| matches!(outcome, Outcome::RingFull | Outcome::Internal))
            .map(|(outcome, (now, before))| (outcome, now.saturating_sub(before)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let dropped = mem::take(&mut self.dropped);
        Account {
            lost,
            dropped: Stage::ALL
                .into_iter()
                .zip(dropped)
                .filter(|(_, count)| *count > 0)
                .collect(),
            expected: sampled_ns / self.schedule.sample_ns(),
            busy_ns,
            stolen_ns: machine.stolen_ns.saturating_sub(machine_before.stolen_ns),
            bpf_ns: counters.time_ns.saturating_sub(before.time_ns),
            sample_ns: self.schedule.sample_ns(),
        }
    }
}
