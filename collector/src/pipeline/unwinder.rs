//! The thread `unwind`: keeps the kernel's tables, and walks the stacks that were copied because
//! something was missing there.
//!
//! In: processes that were sampled without rows, copies of their stacks, and what became of them.
//! Out: writes to the kernel's tables, and the stacks' frames. It works when a sample asked for
//! something, and never on what nobody samples.

use std::{
    mem,
    sync::{
        Arc,
        mpsc::{
            Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
        },
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use profiler_bpf::{arch::x86_64::rule::Rule, outcome::Outcome, settings::WALKED_FRAMES_MAX};

use super::{
    evaluator::{Evaluated, Evaluators, Job},
    row_store::RowStore,
    spawn,
};
use crate::{
    clock::monotonic_ns,
    metrics::SharedMetrics,
    patience::Patience,
    process::{Change, MappedFile, Mappings},
    sample::{CopiedStack, KernelTables},
    unwind::{Evaluation, Found, Lookup, TableKey, Tables, walk},
};

/// Batches that may wait for the thread: of 20 ms each, 5 s of patience. Putting the rows of a
/// compiler into the kernel takes up to a second, since the kernel waits for running programs at each
/// new page.
const BATCHES_MAX: usize = 256;

/// How long a stack waits for the rows of files. Evaluating takes 1 ms a megabyte of code, the
/// largest files 0.2 s; on a machine with many times more to do than it has processors, that often
/// longer.
pub(super) const WAIT_NS: u64 = 5_000_000_000;

/// Bytes of copied stacks that wait: 24 MiB are 1,500 of 16 KiB. Beyond, stacks are not copied from the
/// ring.
pub(super) const WAITING_BYTES_MAX: usize = 24 << 20;

/// How long the kernel is let alone after it refused a write, which it does for want of memory.
const REFUSED_NS: u64 = 10_000_000_000;

/// Time after which the thread looks at what it may free.
const TURN: Duration = Duration::from_millis(250);

/// A process of which the kernel had not what it needed.
pub(super) struct Request {
    pub(super) pid: u32,
    pub(super) identity: u64,
    /// What it mapped when the sample was taken.
    pub(super) mappings: Arc<Mappings>,
    /// An address whose rows are wanted in any case.
    pub(super) address: u64,
    /// A stack to walk, and the number under which its frames are expected.
    pub(super) stack: Option<(u64, Arc<CopiedStack>)>,
}

/// What the sampler found in one drain.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) requests: Vec<Request>,
    pub(super) changes: Vec<(u32, Change)>,
    /// Processes that were sampled.
    pub(super) sampled: Vec<u32>,
}

/// A stack that was walked.
pub(super) struct Walked {
    pub(super) number: u64,
    /// Innermost first.
    pub(super) frames: Vec<u64>,
    pub(super) outcome: Outcome,
}

enum Message {
    Batch(Batch),
    Evaluated(Evaluated),
    Stop,
}

/// How stacks are unwound.
pub(super) struct UnwinderOptions {
    /// Kernel memory for rows.
    pub(super) table_bytes_max: u64,
    /// No file is evaluated: all code is taken for code without call frame information.
    pub(super) frame_pointers_only: bool,
    /// Where rows are kept, if anywhere.
    pub(super) store: Option<RowStore>,
    /// Reads files whose file system may not answer.
    pub(super) patience: Patience,
}

/// The sampler's end of the thread.
pub(super) struct Unwinder {
    to: SyncSender<Message>,
    from: Receiver<Walked>,
    thread: Option<JoinHandle<()>>,
}

impl Unwinder {
    /// Starts the thread.
    pub(super) fn start(
        kernel: KernelTables,
        options: UnwinderOptions,
        metrics: SharedMetrics,
    ) -> Result<Self> {
        let (to, messages) = sync_channel(BATCHES_MAX);
        let (results, from) = channel();
        let evaluated = to.clone();
        let store = options.store.map(Arc::new);
        let evaluators = Evaluators::start(store.as_ref(), &options.patience, move |it| {
            // The thread ends after the evaluators only.
            let _ = evaluated.send(Message::Evaluated(it));
        })?;
        let thread = Thread {
            kernel,
            tables: Tables::new(options.table_bytes_max),
            evaluators,
            store,
            table_bytes_max: options.table_bytes_max,
            frame_pointers_only: options.frame_pointers_only,
            refused_until_ns: 0,
            waiting: Vec::new(),
            results,
            metrics,
        };
        Ok(Self {
            to,
            from,
            thread: Some(spawn("unwind", move || thread.run(messages))?),
        })
    }

    /// Hands over what a drain found. Gives it back when the thread is behind.
    pub(super) fn push(&self, batch: Batch) -> Result<(), Batch> {
        match self.to.try_send(Message::Batch(batch)) {
            Ok(()) => Ok(()),
            Err(
                TrySendError::Full(Message::Batch(batch))
                | TrySendError::Disconnected(Message::Batch(batch)),
            ) => Err(batch),
            Err(_) => Ok(()),
        }
    }

    /// A stack that was walked meanwhile.
    pub(super) fn pop(&self) -> Option<Walked> {
        self.from.try_recv().ok()
    }

    /// Waits for a stack to be walked.
    pub(super) fn wait(&self, timeout: Duration) -> Option<Walked> {
        self.from.recv_timeout(timeout).ok()
    }
}

impl Drop for Unwinder {
    fn drop(&mut self) {
        // The evaluators hold senders too, so that the channel does not close by itself.
        let _ = self.to.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A stack that waits for rows.
struct Waiting {
    number: u64,
    pid: u32,
    mappings: Arc<Mappings>,
    stack: Arc<CopiedStack>,
    /// The file whose rows it waits for.
    missing: Option<TableKey>,
    until_ns: u64,
}

struct Thread {
    kernel: KernelTables,
    tables: Tables,
    evaluators: Evaluators,
    store: Option<Arc<RowStore>>,
    table_bytes_max: u64,
    frame_pointers_only: bool,
    /// The kernel refused a write: no process is made known to it before this time.
    refused_until_ns: u64,
    waiting: Vec<Waiting>,
    results: Sender<Walked>,
    metrics: SharedMetrics,
}

impl Thread {
    fn run(mut self, messages: Receiver<Message>) {
        while self.turn(&messages) {}
        // No evaluator may wait for room in the channel when it is to end.
        drop(messages);
    }

    /// Does what came in. Gives `false` at the end.
    fn turn(&mut self, messages: &Receiver<Message>) -> bool {
        let mut message = match messages.recv_timeout(TURN) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let now_ns = monotonic_ns();
        while let Some(it) = message {
            match it {
                Message::Batch(batch) => self.take_batch(batch, now_ns),
                Message::Evaluated(evaluated) => self.take_evaluated(evaluated, now_ns),
                Message::Stop => return false,
            }
            message = messages.try_recv().ok();
        }
        let taken_ns = monotonic_ns();
        self.walk_waiting(now_ns);
        let walked_ns = monotonic_ns();
        self.write();
        tracing::trace!(
            take_us = (taken_ns - now_ns) / 1000,
            walk_us = (walked_ns - taken_ns) / 1000,
            write_us = (monotonic_ns() - walked_ns) / 1000,
            "unwound"
        );
        true
    }

    fn take_batch(&mut self, batch: Batch, now_ns: u64) {
        let Batch {
            requests,
            changes,
            sampled,
        } = batch;
        for pid in sampled {
            self.tables.touch_process(pid, now_ns);
        }
        for request in requests {
            self.request(request, now_ns);
        }
        for (pid, change) in changes {
            match change {
                Change::Mapped(mappings) => self.tables.change_mappings(pid, &mappings, now_ns),
                Change::Ended => self.tables.remove_process(pid, now_ns),
            }
        }
    }

    fn take_evaluated(&mut self, evaluated: Evaluated, now_ns: u64) {
        let Evaluated {
            key,
            evaluation,
            cpu,
        } = evaluated;
        self.tables.load(&key, evaluation, now_ns);
        let mut metrics = self.metrics.lock();
        metrics.unwind.evaluated += 1;
        metrics.unwind.evaluation_cpu += cpu;
    }

    fn request(&mut self, request: Request, now_ns: u64) {
        let Request {
            pid,
            identity,
            mappings,
            address,
            stack,
        } = request;
        if now_ns >= self.refused_until_ns {
            self.tables.set_process(pid, identity, &mappings, now_ns);
        }
        if let Found::Missing(file) = self.tables.find_rule(&mappings, address) {
            self.evaluate(&file, pid, &mappings, now_ns);
        }
        if let Some((number, stack)) = stack {
            self.waiting.push(Waiting {
                number,
                pid,
                mappings,
                stack,
                missing: None,
                until_ns: now_ns + WAIT_NS,
            });
        }
    }

    /// Has a file evaluated if nobody did. Gives its key if its rows will come.
    fn evaluate(
        &mut self,
        file: &Arc<MappedFile>,
        pid: u32,
        mappings: &Mappings,
        now_ns: u64,
    ) -> Option<TableKey> {
        let key = TableKey::of(file)?;
        if self.tables.wants(file, now_ns) {
            if self.frame_pointers_only {
                self.tables.load(&key, Evaluation::NoRows, now_ns);
                return None;
            }
            let mapping = mappings.iter().find(|it| it.file == *file)?.clone();
            self.evaluators.push(Job {
                key: key.clone(),
                pid,
                mapping,
            });
        }
        self.tables.is_evaluating(&key).then_some(key)
    }

    /// Has all files evaluated at once whose rows this stack is likely to need: those that a word on it
    /// points into. The walk would find one after the other.
    fn evaluate_all(&mut self, waiting: &Waiting, now_ns: u64) {
        let (words, _) = waiting.stack.bytes.as_chunks();
        let mut last = 0..0;
        for word in words.iter().map(|word| u64::from_le_bytes(*word)) {
            if last.contains(&word) {
                continue;
            }
            let Some(mapping) = waiting.mappings.find(word) else {
                continue;
            };
            last = mapping.start..mapping.end;
            let file = mapping.file.clone();
            self.evaluate(&file, waiting.pid, &waiting.mappings, now_ns);
        }
    }

    /// Walks the stacks that need not wait any longer.
    fn walk_waiting(&mut self, now_ns: u64) {
        for mut waiting in mem::take(&mut self.waiting) {
            let is_late = waiting.until_ns <= now_ns;
            if !is_late
                && let Some(key) = &waiting.missing
                && self.tables.is_evaluating(key)
            {
                self.waiting.push(waiting);
                continue;
            }
            let (walked, missing) = self.walk(&waiting);
            let evaluating = match missing {
                Some(file) if !is_late => {
                    self.evaluate(&file, waiting.pid, &waiting.mappings, now_ns)
                }
                _ => None,
            };
            if evaluating.is_some() {
                self.evaluate_all(&waiting, now_ns);
                waiting.missing = evaluating;
                self.waiting.push(waiting);
                continue;
            }
            if walked.outcome == Outcome::BadFrame {
                // It may be that an address led into no code: nothing more will be known of it.
                self.tables.settle(waiting.pid, &waiting.mappings);
            }
            self.metrics.lock().unwind.count_copied(walked.outcome);
            // The sampler takes it, or has ended.
            let _ = self.results.send(walked);
        }
    }

    /// Walks a stack with the rows that are there; gives the file, too, whose rows are not.
    fn walk(&self, waiting: &Waiting) -> (Walked, Option<Arc<MappedFile>>) {
        let mut missing = None;
        let mut is_innermost = true;
        let mut frames = Vec::new();
        let outcome = walk(
            &waiting.stack.registers,
            |address| waiting.stack.read(address),
            |address| {
                let is_innermost = mem::replace(&mut is_innermost, false);
                match self.tables.find_rule(&waiting.mappings, address) {
                    Found::Rule(rule) => Lookup::Rule(rule),
                    // The processor did execute there.
                    Found::NoMapping if is_innermost => Lookup::Rule(Rule::NONE),
                    Found::NoMapping => Lookup::NoCode,
                    Found::Missing(file) => {
                        missing = Some(file);
                        Lookup::Missing
                    }
                }
            },
            &mut frames,
            WALKED_FRAMES_MAX,
        );
        let outcome = match outcome {
            // The stack is there, but not in the copy.
            Outcome::Unreadable if waiting.stack.is_cut() => Outcome::CutAtDepth,
            outcome => outcome,
        };
        let walked = Walked {
            number: waiting.number,
            frames,
            outcome,
        };
        (walked, missing)
    }

    /// Empties the tables: what the kernel has is not known any more.
    fn begin_anew(&mut self) {
        if let Err(err) = self.kernel.clear() {
            tracing::error!(
                err = format!("{err:#}"),
                "failed to clear the walk's tables"
            );
        }
        self.tables = Tables::new(self.table_bytes_max);
        self.refused_until_ns = monotonic_ns() + REFUSED_NS;
    }

    /// Brings the kernel's tables up to date.
    fn write(&mut self) {
        let writes = self.tables.take_writes();
        let count = writes.len();
        if let Err(err) = self.kernel.apply(writes, &self.tables) {
            tracing::error!(
                err = format!("{err:#}"),
                "failed to write the walk's tables: beginning anew, stacks are copied meanwhile"
            );
            self.metrics.lock().unwind.write_errors += 1;
            self.begin_anew();
        }
        self.tables.end_turn(monotonic_ns());
        let mut metrics = self.metrics.lock();
        metrics.unwind.writes += count as u64;
        metrics.unwind.tables = self.tables.stats();
        metrics.unwind.table_bytes = self.kernel.bytes();
        metrics.unwind.waiting = self.waiting.len();
        metrics.unwind.kept = self.store.as_ref().map(|it| it.stats()).unwrap_or_default();
    }
}
