//! The threads that evaluate the call frame information of files.
//!
//! In: a file and a process that maps it. Out: its rows. Files are read and never mapped: one that
//! is truncated meanwhile gives an error here and not a signal.

use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use object::ReadCache;

use super::{finisher::describe_unread, row_store::RowStore, spawn};
use crate::{
    clock::thread_cpu,
    name::{MappedBy, UnnamedReason, copy_vdso, is_of_build, look_in_time, open_elf_that, reopen},
    patience::{Patience, Place},
    process::{FileIdentity, FileKind, Mapping},
    unwind::{
        CallFrameInformation, CfiError, Digest, Evaluation, Limits, RuleSet, Table, TableKey,
        encode_table,
    },
};

/// Threads: two, so that a large file (0.2 s for 100 MB of code) does not hold up small ones.
const THREADS: usize = 2;

/// The largest file that is opened. Only its headers and its call frame information are read.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// How long a file may take: the largest take 0.2 s of CPU time, and 100 times that where many others want it, or where the file
/// comes over a slow network.
const EVALUATION_TIME: Duration = Duration::from_secs(20);

/// Rows that took less are not kept on disk: reading them, and the digest of what they were made from,
/// takes a tenth of the time, which is not worth a file. About 6 MB of code.
const KEPT_FROM: Duration = Duration::from_millis(5);

/// A file to evaluate.
pub(super) struct Job {
    pub(super) key: TableKey,
    pub(super) pid: u32,
    pub(super) mapping: Mapping,
}

/// What came of it.
pub(super) struct Evaluated {
    pub(super) key: TableKey,
    pub(super) evaluation: Evaluation,
    /// CPU time that it took.
    pub(super) cpu: Duration,
}

/// The threads. They end when this is dropped.
pub(super) struct Evaluators {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Evaluators {
    /// Starts the threads, which give what they find to `done`, and keep in `store` what took long.
    pub(super) fn start(
        store: Option<&Arc<RowStore>>,
        patience: &Patience,
        done: impl Fn(Evaluated) + Clone + Send + 'static,
    ) -> Result<Self> {
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = (0..THREADS)
            .map(|_| {
                let (waiting, store, done) = (waiting.clone(), store.cloned(), done.clone());
                let patience = patience.on_own_account();
                spawn("evaluate", move || {
                    run(&waiting, store.as_ref(), &patience, done);
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            jobs: Some(jobs),
            threads,
        })
    }

    /// Adds a file. There are never more than the tables have files, since each is asked for once.
    pub(super) fn push(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The threads end after this is dropped only.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Evaluators {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(
    waiting: &Mutex<Receiver<Job>>,
    store: Option<&Arc<RowStore>>,
    patience: &Patience,
    done: impl Fn(Evaluated),
) {
    loop {
        let job = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(job) = job else { return };
        let before = patience.cpu();
        let (evaluation, unkept) = evaluate(&job, store, patience);
        let cpu = patience.cpu().saturating_sub(before);
        tracing::debug!(file = %job.mapping.file.path, ?cpu, "evaluated a file");
        done(Evaluated {
            key: job.key,
            evaluation,
            cpu,
        });
        // Stacks wait for the rows, and nobody for the disk.
        if let (Some(store), Some((digest, bytes))) = (store, unkept) {
            store.write(digest, &bytes);
        }
    }
}

/// Rows that are to be kept, as bytes.
type Unkept = Option<(Digest, Vec<u8>)>;

fn evaluate(job: &Job, store: Option<&Arc<RowStore>>, patience: &Patience) -> (Evaluation, Unkept) {
    let evaluation = match open(job.pid, &job.mapping, patience) {
        Ok(Some((file, place))) => {
            let store = store.cloned();
            let read = move || read_rows(file, store.as_deref());
            let rows = patience.run(place, EVALUATION_TIME, read);
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

/// Opens the file of a mapping to read from, and tells where it may hang; `None` when there is none, as without a vDSO.
pub(super) fn open(
    pid: u32,
    mapping: &Mapping,
    patience: &Patience,
) -> Result<Option<(File, Place)>, UnnamedReason> {
    let Mapping {
        start, end, file, ..
    } = mapping;
    if file.kind == FileKind::Vdso {
        let image = copy_vdso().map_err(|_| UnnamedReason::FileGone)?;
        // It is in memory.
        return Ok(image.map(|it| (File::from(it), Place::of_device(0))));
    }
    let mapped_by = MappedBy {
        pid,
        parent: 0,
        start: *start,
        end: *end,
    };
    let described = describe_unread(file, &[mapped_by]);
    let expected = match file.identity {
        FileIdentity::BuildId(expected) => Some(expected),
        FileIdentity::Inode { .. } | FileIdentity::Path => None,
    };
    let place = described.place();
    let open = move || {
        let is_it = |found: &OwnedFd| is_of_build(found, expected);
        reopen(&open_elf_that(&described, FILE_BYTES_MAX, is_it)?.file)
    };
    Ok(Some((look_in_time(patience, place, open)?, place)))
}

fn read_rows(file: File, store: Option<&RowStore>) -> (Evaluation, Unkept) {
    let file_bytes = file.metadata().map_or(0, |it| it.len());
    let evaluation = match find_rows(&ReadCache::new(file), store) {
        Ok((table, rules, unkept)) => return (Evaluation::Rows { table, rules }, unkept),
        Err(CfiError::TooLarge) => Evaluation::TooLarge { file_bytes },
        Err(CfiError::NotElf | CfiError::OtherMachine) => Evaluation::NoRows,
    };
    (evaluation, None)
}

/// The rows of a file: those that were kept, or evaluated now.
fn find_rows(
    data: &ReadCache<File>,
    store: Option<&RowStore>,
) -> Result<(Table, RuleSet, Unkept), CfiError> {
    let limits = Limits::default();
    let information = CallFrameInformation::read(data, &limits)?;
    let kept_as = store.map(|store| (store, information.digest()));
    if let Some((store, digest)) = kept_as
        && let Some((table, rules)) = store.read(digest, &limits)
    {
        return Ok((table, rules, None));
    }
    let before = thread_cpu();
    let mut rules = RuleSet::new();
    let table = information.evaluate(&mut rules, &limits)?.table;
    let is_kept = thread_cpu().saturating_sub(before) >= KEPT_FROM;
    let unkept = kept_as
        .filter(|_| is_kept)
        .map(|(_, digest)| (digest, encode_table(&table, &rules)));
    Ok((table, rules, unkept))
}
