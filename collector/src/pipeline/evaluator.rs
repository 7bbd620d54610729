//! The threads that evaluate the call frame information of files, and read code that has none.
//!
//! In: a file and a process that maps it. Out: its rows, or those of some code in it. Files are read and not mapped: a truncated
//! file causes an error and not a signal.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use anyhow::Result;
use parking_lot::Mutex;

use super::{row_store::RowStore, unread_file::describe_unread};
use crate::{
    blocking_pool::{BlockingPool, Resource},
    clock::thread_cpu,
    file::{MappedBy, UnnamedReason, find_elf, look_in_time, reopen},
    name::copy_vdso,
    process::{FileKind, Mapping},
    threads::spawn,
    unwind::{
        CallFrameInformation, CfiError, CodeAddress, Digest, Evaluation, KnownDigests, Limits,
        ReadCode, RuleSet, TableKey, encode_table, read_code,
    },
};

/// Threads: two, so that a large file (0.2 s for 100 MB of code) does not hold up small ones.
const THREADS: usize = 2;

/// The largest file to open. Only its headers and its call frame information are read.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// Time limit for a file: the largest take 0.2 s of CPU time, and 100 times that on a busy machine
/// or over a slow network.
const EVALUATION_TIME: Duration = Duration::from_secs(20);

/// Rows that took less time are not kept on disk: reading them and the digest of their source takes
/// a tenth of the time, which is not worth a file. About 6 MB of code.
const KEPT_FROM: Duration = Duration::from_millis(5);

/// A file to evaluate.
pub(super) struct Job {
    pub(super) key: TableKey,
    pub(super) pid: u32,
    pub(super) mapping: Mapping,
    pub(super) work: Work,
}

/// The rows that a job makes of a file.
pub(super) enum Work {
    /// All rows of its call frame information.
    CallFrameInformation,
    /// Rows by instructions at these addresses.
    Code(Vec<CodeAddress>),
}

/// The result of a job.
pub(super) struct Evaluated {
    pub(super) key: TableKey,
    pub(super) rows: EvaluatedRows,
    /// CPU time of the job.
    pub(super) cpu: Duration,
}

/// The rows that a job made.
pub(super) enum EvaluatedRows {
    /// Of the file's call frame information.
    CallFrameInformation(Evaluation),
    /// Of code; `None` if the file could not be read.
    Code(Option<ReadCode>),
}

/// The threads. When this is dropped they end after the current file, and nobody waits for them: a
/// file may take [`EVALUATION_TIME`].
pub(super) struct Evaluators {
    jobs: Sender<Job>,
    is_ended: Arc<AtomicBool>,
}

impl Evaluators {
    /// Starts the threads. They send their results to `done`, and keep rows on disk that took long
    /// to evaluate.
    pub(super) fn start(
        cache: &RowCache,
        pool: &BlockingPool,
        done: impl Fn(Evaluated) + Clone + Send + 'static,
    ) -> Result<Self> {
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let is_ended = Arc::new(AtomicBool::new(false));
        for _ in 0..THREADS {
            let thread = Evaluator {
                waiting: waiting.clone(),
                is_ended: is_ended.clone(),
                cache: cache.clone(),
                pool: pool.with_own_cpu_account(),
            };
            let done = done.clone();
            spawn("evaluate", move || thread.run(done))?;
        }
        Ok(Self { jobs, is_ended })
    }

    /// Adds a file. The queue is bounded by the number of files in the tables, since each is
    /// requested once, and its code once at a time.
    pub(super) fn push(&self, job: Job) {
        // The threads only end after this is dropped.
        let _ = self.jobs.send(job);
    }
}

impl Drop for Evaluators {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
    }
}

/// The state of one thread.
struct Evaluator {
    waiting: Arc<Mutex<Receiver<Job>>>,
    /// The remaining jobs are obsolete.
    is_ended: Arc<AtomicBool>,
    cache: RowCache,
    pool: BlockingPool,
}

impl Evaluator {
    fn run(self, done: impl Fn(Evaluated)) {
        while let Some(job) = self.next() {
            let before = self.pool.cpu();
            let (rows, unkept) = match &job.work {
                Work::CallFrameInformation => {
                    let (evaluation, unkept) = evaluate(&job, &self.cache, &self.pool);
                    (EvaluatedRows::CallFrameInformation(evaluation), unkept)
                }
                Work::Code(addresses) => {
                    let read = read_code_of(&job, addresses, &self.pool);
                    (EvaluatedRows::Code(read), None)
                }
            };
            let cpu = self.pool.cpu().saturating_sub(before);
            tracing::debug!(file = %job.mapping.file.path, ?cpu, "evaluated a file");
            done(Evaluated {
                key: job.key,
                rows,
                cpu,
            });
            // Stacks wait for the rows, so the disk comes last.
            if let (Some(store), Some((digest, bytes))) = (&self.cache.store, unkept) {
                store.write(digest, &bytes);
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let waiting = self.waiting.lock();
        let job = waiting.recv().ok();
        job.filter(|_| !self.is_ended.load(Ordering::Relaxed))
    }
}

/// Sources of rows that need no evaluation.
#[derive(Clone, Default)]
pub(super) struct RowCache {
    /// Rows in the tables.
    pub(super) known: KnownDigests,
    /// Rows on disk.
    pub(super) store: Option<Arc<RowStore>>,
}

/// Encoded rows to keep on disk.
type Unkept = Option<(Digest, Vec<u8>)>;

fn evaluate(job: &Job, cache: &RowCache, pool: &BlockingPool) -> (Evaluation, Unkept) {
    let evaluation = match open(job.pid, &job.mapping, pool) {
        Ok(Some((file, resource))) => {
            let cache = cache.clone();
            let read = move || read_rows(file, &cache);
            let rows = pool.run(resource, EVALUATION_TIME, read);
            return rows.unwrap_or((Evaluation::Unreadable, None));
        }
        Ok(None) => Evaluation::NoRows,
        Err(reason) => {
            tracing::debug!(file = %job.mapping.file.path, ?reason, "failed to open a file");
            Evaluation::Unreadable
        }
    };
    (evaluation, None)
}

/// Reads the code of a job's file at some addresses.
fn read_code_of(job: &Job, addresses: &[CodeAddress], pool: &BlockingPool) -> Option<ReadCode> {
    let (file, resource) = open(job.pid, &job.mapping, pool).ok().flatten()?;
    let addresses = addresses.to_vec();
    pool.run(resource, EVALUATION_TIME, move || {
        read_code(&file, &addresses)
    })
}

/// Opens the file of a mapping for reading, and returns the resource on which it may block; `None`
/// if there is no file, as for a missing vDSO.
pub(super) fn open(
    pid: u32,
    mapping: &Mapping,
    pool: &BlockingPool,
) -> Result<Option<(File, Resource)>, UnnamedReason> {
    let Mapping {
        start, end, file, ..
    } = mapping;
    if file.kind == FileKind::Vdso {
        let image = copy_vdso().map_err(|_| UnnamedReason::FileGone)?;
        // The vDSO's image is in memory.
        return Ok(image.map(|image| (File::from(image), Resource::of_device(0))));
    }
    let mapped_by = MappedBy {
        pid,
        parent: 0,
        start: *start,
        end: *end,
    };
    let described = describe_unread(file, &[mapped_by]);
    let resource = described.resource();
    let found = find_elf(&Arc::new(described), FILE_BYTES_MAX, pool)?;
    let open = move || reopen(&found.file);
    Ok(Some((look_in_time(pool, resource, open)?, resource)))
}

fn read_rows(file: File, cache: &RowCache) -> (Evaluation, Unkept) {
    let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let evaluation = match find_rows(&file, cache) {
        Ok(found) => return found,
        Err(CfiError::TooLarge) => Evaluation::TooLarge { file_bytes },
        Err(CfiError::NotElf | CfiError::OtherMachine) => Evaluation::NoRows,
    };
    (evaluation, None)
}

/// The rows of a file: from another file with the same information, from the disk, or evaluated
/// now.
fn find_rows(file: &File, cache: &RowCache) -> Result<(Evaluation, Unkept), CfiError> {
    let limits = Limits::default();
    let information = CallFrameInformation::read(file, &limits)?;
    let digest = information.digest();
    if cache.known.contains(digest) {
        return Ok((Evaluation::Known(digest), None));
    }
    let store = cache.store.as_ref();
    let rows = |table, rules| Evaluation::Rows {
        digest,
        table,
        rules,
    };
    if let Some((table, rules)) = store.and_then(|store| store.read(digest, &limits)) {
        return Ok((rows(table, rules), None));
    }
    let before = thread_cpu();
    let mut rule_set = RuleSet::new();
    let table = information.evaluate(&mut rule_set, &limits)?.table;
    let is_kept = store.is_some() && thread_cpu().saturating_sub(before) >= KEPT_FROM;
    let unkept = is_kept.then(|| (digest, encode_table(&table, &rule_set)));
    Ok((rows(table, rule_set), unkept))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::process::{FileIdentity, Files, MappedFile};

    fn job(file: &Arc<MappedFile>) -> Job {
        Job {
            key: TableKey::of(file).unwrap(),
            // No such process, so the file cannot be opened.
            pid: 0x7fff_0000,
            mapping: Mapping::new(0x1000..0x2000, 0, file.clone()),
            work: Work::CallFrameInformation,
        }
    }

    /// Check that the end neither waits for the current file nor evaluates the waiting ones.
    #[test]
    fn the_end_waits_for_no_file() {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/nowhere", FileIdentity::Path);
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = sync_channel::<()>(0);
        let may_go_on = Arc::new(Mutex::new(may_go_on));
        let evaluators =
            Evaluators::start(&RowCache::default(), &BlockingPool::default(), move |_| {
                begun.send(()).unwrap();
                let _ = may_go_on.lock().recv();
            });
        let evaluators = evaluators.unwrap();
        for _ in 0..10 {
            evaluators.push(job(&file));
        }
        has_begun.recv().unwrap();
        drop(evaluators);
        drop(go_on);
        let evaluated = 1 + has_begun.iter().count();
        assert!(evaluated <= THREADS, "{evaluated} of 10");
    }
}
