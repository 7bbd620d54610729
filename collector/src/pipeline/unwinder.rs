//! The thread `unwind`: keeps the kernel's tables, and walks the stacks that were copied because
//! something was missing there.
//!
//! In: processes that were sampled without rows, copies of their stacks, and changes of processes.
//! Out: writes to the kernel's tables, and the stacks' frames. Files and processes that are not
//! sampled cause no work.
//!
//! Rows are loaded lazily, on the first sample. When the walk meets an address whose rows are not
//! in the kernel, the program copies registers and the top of the stack into the ring: at most 128
//! KiB and 64 KiB before its end, 8 MiB a second and processor. It wakes the collector for that, at
//! most each 20 ms, and the process is walked in the kernel some 25 ms after its first sample. A
//! sample waits up to 5 s for the rows of a file, and the window of its time with it.
//!
//! Code without call frame information has no rows at first. The walk over a copy asks for those of each such frame in turn, which
//! are made from the code's instructions, and goes on when they are there.
//!
//! New pages are put into their places by several threads together, since the kernel waits at each
//! for all running programs (10 to 30 ms, a hundred times for librustc_driver), and threads that
//! wait together wait once: of rustc's first five seconds 98.2 % of the stacks were complete when
//! pages went one by one, and 99.9 % are now.

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
    code_requests::CodeRequests,
    evaluator::{Evaluated, EvaluatedRows, Evaluators, Job, RowCache, Work},
    row_store::RowStore,
    unwind_stats::UnwindStats,
};
use crate::{
    blocking_pool::BlockingPool,
    clock::monotonic_ns,
    metrics::Stats,
    process::{Change, MappedFile, Mappings},
    sample::{CopiedStack, KernelTables},
    threads::spawn,
    unwind::{CodeAddress, Evaluation, Found, Lookup, TableKey, Tables, walk},
};

/// Maximum number of batches that wait for the thread: of 20 ms each, 5 s. Writing a compiler's
/// rows to the kernel takes up to a second, since the kernel waits for running programs at each new
/// page.
const BATCHES_MAX: usize = 256;

/// Maximum wait of a stack for the rows of files. Evaluating takes 1 ms per megabyte of code, 0.2 s
/// for the largest files, and several times that on an overloaded machine.
pub(super) const WAIT_NS: u64 = 5_000_000_000;

/// Maximum bytes of waiting stacks: 24 MiB hold 1,500 of 16 KiB. Beyond it, stacks are not copied
/// from the ring.
pub(super) const WAITING_BYTES_MAX: usize = 24 << 20;

/// Pause after the kernel refused a write, which it does for lack of memory.
const REFUSED_NS: u64 = 10_000_000_000;

/// Maximum wait for a message; after it, entries whose grace period is over are freed.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// A process whose rows the kernel lacked.
pub(super) struct Request {
    pub(super) pid: u32,
    pub(super) identity: u64,
    /// Its mappings at the time of the sample.
    pub(super) mappings: Arc<Mappings>,
    /// An address whose rows are needed in any case.
    pub(super) address: u64,
    /// A stack to walk, and the number that identifies its result.
    pub(super) stack: Option<(u64, Arc<CopiedStack>)>,
}

/// The requests and changes of one drain.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) requests: Vec<Request>,
    pub(super) changes: Vec<(u32, Change)>,
    /// Changes before these were dropped: the mappings that the unwinder has may be stale.
    pub(super) has_dropped_changes: bool,
    /// Sampled processes.
    pub(super) sampled: Vec<u32>,
}

/// The result of a walk.
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

/// Options of the unwinder.
pub(super) struct UnwinderOptions {
    /// Kernel memory for rows.
    pub(super) table_bytes_max: u64,
    /// Evaluate no file: treat all code as code without call frame information.
    pub(super) frame_pointers_only: bool,
    /// The store of rows on disk, if there is one.
    pub(super) store: Option<RowStore>,
    /// Reads files, whose file systems may hang.
    pub(super) pool: BlockingPool,
}

/// The sampler's handle of the thread.
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
        stats: Stats<UnwindStats>,
    ) -> Result<Self> {
        let (to, messages) = sync_channel(BATCHES_MAX);
        let (results, from) = channel();
        let evaluated = to.clone();
        let tables = Tables::new(options.table_bytes_max);
        let cache = RowCache {
            known: tables.known_digests(),
            store: options.store.map(Arc::new),
        };
        let evaluators = Evaluators::start(&cache, &options.pool, move |result| {
            // The thread ends after the evaluators.
            let _ = evaluated.send(Message::Evaluated(result));
        })?;
        let thread = Thread {
            kernel,
            tables,
            evaluators,
            code_requests: CodeRequests::new(monotonic_ns()),
            store: cache.store,
            frame_pointers_only: options.frame_pointers_only,
            refused_until_ns: 0,
            waiting: Vec::new(),
            results,
            stats,
        };
        Ok(Self {
            to,
            from,
            thread: Some(spawn("unwind", move || thread.run(messages))?),
        })
    }

    /// Queues a batch. Returns it if the queue is full.
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

    /// The next finished walk.
    pub(super) fn pop(&self) -> Option<Walked> {
        self.from.try_recv().ok()
    }
}

impl Drop for Unwinder {
    fn drop(&mut self) {
        // The evaluators hold senders too, so the channel does not close when this one is dropped.
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
    /// The address at which the innermost frame's row is looked up.
    innermost: u64,
    missing: Option<Missing>,
    until_ns: u64,
}

/// The rows that a walk lacks.
enum Missing {
    /// Of a file.
    File(Arc<MappedFile>),
    /// Of an address in a file's code.
    Code(Arc<MappedFile>, CodeAddress),
}

struct Thread {
    kernel: KernelTables,
    tables: Tables,
    evaluators: Evaluators,
    code_requests: CodeRequests,
    store: Option<Arc<RowStore>>,
    frame_pointers_only: bool,
    /// The kernel refused a write: no process is written before this time.
    refused_until_ns: u64,
    waiting: Vec<Waiting>,
    results: Sender<Walked>,
    stats: Stats<UnwindStats>,
}

impl Thread {
    fn run(mut self, messages: Receiver<Message>) {
        while self.handle_messages(&messages) {}
        // So that no evaluator blocks on the full channel when it should end.
        drop(messages);
    }

    /// Waits for messages, and handles all that have arrived. Returns `false` at the end.
    fn handle_messages(&mut self, messages: &Receiver<Message>) -> bool {
        let mut message = match messages.recv_timeout(WAIT_MAX) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let now_ns = monotonic_ns();
        while let Some(received) = message {
            match received {
                Message::Batch(batch) => self.take_batch(batch, now_ns),
                Message::Evaluated(evaluated) => self.take_evaluated(evaluated, now_ns),
                Message::Stop => return false,
            }
            message = messages.try_recv().ok();
        }
        let taken_ns = monotonic_ns();
        self.walk_waiting(now_ns);
        for job in self.code_requests.take_jobs() {
            self.evaluators.push(job);
        }
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
            has_dropped_changes,
            sampled,
        } = batch;
        if has_dropped_changes {
            self.tables.remove_processes(now_ns);
        }
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
        let Evaluated { key, rows, cpu } = evaluated;
        let mut stats = self.stats.lock();
        match rows {
            EvaluatedRows::CallFrameInformation(evaluation) => {
                stats.evaluated += 1;
                stats.evaluation_cpu += cpu;
                self.tables.load(&key, evaluation, now_ns);
            }
            EvaluatedRows::Code(read) => {
                self.code_requests.finish(&key, cpu.as_nanos() as u64);
                stats.count_code(read.as_ref(), cpu);
                match read {
                    Some(read) => self.tables.load_code(&key, &read.rows, now_ns),
                    None => self.code_requests.set_unreadable(&key, now_ns),
                }
            }
        }
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
                innermost: address,
                missing: None,
                until_ns: now_ns + WAIT_NS,
            });
        }
    }

    /// Requests the evaluation of a file, unless it was or is being evaluated. Returns its key if
    /// its rows will come.
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
            let mapping = mappings
                .iter()
                .find(|mapping| mapping.file == *file)?
                .clone();
            self.evaluators.push(Job {
                key: key.clone(),
                pid,
                mapping,
                work: Work::CallFrameInformation,
            });
        }
        self.tables.is_evaluating(&key).then_some(key)
    }

    /// Requests the evaluation of all files that this stack probably needs: those that a word on
    /// the stack points into. The walk alone would find them one after the other.
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

    /// Walks the stacks whose rows are available, or that have waited too long.
    fn walk_waiting(&mut self, now_ns: u64) {
        for mut waiting in mem::take(&mut self.waiting) {
            let is_late = waiting.until_ns <= now_ns;
            let missing = waiting.missing.as_ref();
            if !is_late && missing.is_some_and(|missing| self.is_coming(missing)) {
                self.waiting.push(waiting);
                continue;
            }
            let (walked, missing) = self.walk(&waiting);
            if let Some(missing) = missing
                && !is_late
                && self.ask(&missing, &waiting, now_ns)
            {
                waiting.missing = Some(missing);
                self.waiting.push(waiting);
                continue;
            }
            if walked.outcome == Outcome::BadFrame {
                // An address may be outside of all code: a later copy would not help.
                self.tables.confirm_mappings(waiting.pid, &waiting.mappings);
            }
            self.stats.lock().count_copied(walked.outcome);
            // Without a receiver, the sampler has ended.
            let _ = self.results.send(walked);
        }
    }

    /// Whether rows are being made.
    fn is_coming(&self, missing: &Missing) -> bool {
        match missing {
            Missing::File(file) => {
                TableKey::of(file).is_some_and(|key| self.tables.is_evaluating(&key))
            }
            Missing::Code(file, address) => {
                TableKey::of(file).is_some_and(|key| self.code_requests.has(&key, *address))
            }
        }
    }

    /// Requests the rows that a walk lacks. Returns whether they will come.
    fn ask(&mut self, missing: &Missing, waiting: &Waiting, now_ns: u64) -> bool {
        match missing {
            Missing::File(file) => {
                let key = self.evaluate(file, waiting.pid, &waiting.mappings, now_ns);
                if key.is_some() {
                    self.evaluate_all(waiting, now_ns);
                }
                key.is_some()
            }
            Missing::Code(file, address) => {
                let mut mappings = waiting.mappings.iter();
                let mapping = mappings.find(|mapping| mapping.file == *file);
                let (Some(key), Some(mapping)) = (TableKey::of(file), mapping) else {
                    return false;
                };
                let by = (waiting.pid, mapping);
                self.code_requests.push(&key, by, *address, now_ns)
            }
        }
    }

    /// Walks a stack with the available rows. Also returns the rows that are missing.
    fn walk(&self, waiting: &Waiting) -> (Walked, Option<Missing>) {
        let mut missing = None;
        let mut is_innermost = true;
        let mut is_call = waiting.innermost != waiting.stack.registers[16];
        let mut frames = Vec::new();
        let outcome = walk(
            &waiting.stack.registers,
            |address| waiting.stack.read(address),
            |address| {
                let is_innermost = mem::replace(&mut is_innermost, false);
                let is_behind_call = mem::replace(&mut is_call, true);
                let address = if is_innermost {
                    waiting.innermost
                } else {
                    address
                };
                match self.tables.find_rule(&waiting.mappings, address) {
                    Found::Rule(rule) => {
                        is_call = rule != Rule::SIGNAL;
                        Lookup::Rule(rule)
                    }
                    // The processor did execute there.
                    Found::NoMapping if is_innermost => Lookup::Rule(Rule::NONE),
                    Found::NoMapping => Lookup::NoCode,
                    Found::Missing(file) => {
                        missing = Some(Missing::File(file));
                        Lookup::Missing
                    }
                    Found::Unread { file, offset } => {
                        let address = if is_behind_call {
                            CodeAddress::Call(offset)
                        } else {
                            CodeAddress::Instruction(offset)
                        };
                        missing = Some(Missing::Code(file, address));
                        Lookup::Missing
                    }
                }
            },
            &mut frames,
            WALKED_FRAMES_MAX,
        );
        let outcome = match outcome {
            // The stack continues beyond the copy.
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

    /// Empties the tables: the kernel's state is unknown.
    fn reset(&mut self) {
        if let Err(err) = self.kernel.clear() {
            tracing::error!(
                err = format!("{err:#}"),
                "failed to clear the walk's tables"
            );
        }
        let now_ns = monotonic_ns();
        self.tables.reset(now_ns);
        self.refused_until_ns = now_ns + REFUSED_NS;
    }

    /// Writes the changes of the tables to the kernel.
    fn write(&mut self) {
        let writes = self.tables.take_writes();
        let count = writes.len();
        if let Err(err) = self.kernel.apply(writes, &self.tables) {
            tracing::error!(
                err = format!("{err:#}"),
                "failed to write the walk's tables: beginning anew, stacks are copied meanwhile"
            );
            self.stats.lock().write_errors += 1;
            self.reset();
        }
        self.tables.end_epoch(monotonic_ns());
        let mut stats = self.stats.lock();
        stats.writes += count as u64;
        stats.tables = self.tables.stats();
        stats.table_bytes = self.kernel.bytes();
        stats.waiting = self.waiting.len();
        stats.code_requests = self.code_requests.stats();
        stats.row_store = self
            .store
            .as_ref()
            .map(|store| store.stats())
            .unwrap_or_default();
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// The other end of an unwinder without a thread.
    pub(in super::super) struct UnwinderEnd {
        messages: Receiver<Message>,
        pub(in super::super) results: Sender<Walked>,
    }

    impl UnwinderEnd {
        /// The next batch that was pushed.
        pub(in super::super) fn pop(&self) -> Option<Batch> {
            match self.messages.try_recv() {
                Ok(Message::Batch(batch)) => Some(batch),
                _ => None,
            }
        }
    }

    /// An unwinder that accepts this many batches, and its other end.
    pub(in super::super) fn detached(batches_max: usize) -> (Unwinder, UnwinderEnd) {
        let (to, messages) = sync_channel(batches_max);
        let (results, from) = channel();
        let unwinder = Unwinder {
            to,
            from,
            thread: None,
        };
        (unwinder, UnwinderEnd { messages, results })
    }
}
