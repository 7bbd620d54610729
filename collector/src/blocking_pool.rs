//! A pool of threads for file accesses that may block forever, each with a deadline.
//!
//! A network file system whose server is gone, or a FUSE file system whose process hangs, does not
//! answer. A thread that opens a file there, or only calls `stat`, blocks in the kernel until the
//! file system answers; only the end of the whole process wakes it. So the pool abandons a thread
//! that misses its deadline, and refuses further work on the same [`Resource`] until the thread has
//! returned.
//!
//! Without the pool, one program on such a file system kept the collector from starting, naming and
//! stopping. At most 16 threads are abandoned on resources that never answered, and 64 in all, so
//! that one volume that hangs in many containers does not block other files. Passing work to a
//! thread takes about 20 us, and is only needed for files that are new to the collector.
//!
//! Frames of such files have the reason `not_answering`, and stacks that need their rows are
//! incomplete, until the file system answers (`testdata/e2e/tests/e2e/hanging.rs`).

use std::any::Any;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use metrics::Figures;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use crate::clock::thread_cpu;
use crate::threads::spawn;

/// Deadline for opening and reading the head of a file. A disk takes milliseconds, a network tens
/// of milliseconds. A slower file is opened again in a later window, usually from the page cache.
pub(crate) const FILE_DEADLINE: Duration = Duration::from_secs(1);

/// Maximum number of threads stuck on resources that never answered in time. Each takes about 20
/// KB. The first access to such a resource costs its caller [`FILE_DEADLINE`], so 16 s in total,
/// which the queue of windows that wait for names can hold.
const STUCK_MAX: usize = 16;

/// Maximum number of stuck threads. At the limit no file is opened: 64 file systems hang that
/// answered before. Threads stuck on processes count apart, up to as many: a process
/// that keeps its memory map locked keeps no file from being opened.
const STUCK_IN_ALL_MAX: usize = 64;

/// Maximum number of resources known to answer in time, 8 bytes each; beyond it all are forgotten.
const GOOD_MAX: usize = 4096;

/// Idle threads to keep; rarely more callers work at the same time.
const IDLE_MAX: usize = 8;

/// Maximum number of threads stuck on the processes of one cgroup. While one is stuck, seven of
/// eight other processes can still be read; eight such cgroups reach [`STUCK_IN_ALL_MAX`].
const PROCESS_GROUPS: u32 = 8;

/// A resource on which an access may block: a file system, a directory of a mount namespace, or the memory map of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    key: u64,
    is_process: bool,
}

impl Resource {
    /// The file system with this device number.
    pub fn of_device(device: u64) -> Self {
        Self::of((0_u8, device))
    }

    /// A directory below the root of a process (`/proc/PID/root`, or `/`). Reads only `/proc`.
    pub(crate) fn of_directory(root: &str, directory: &Path) -> Self {
        let process = root.strip_suffix("/root").unwrap_or("/proc/self");
        // For example `mnt:[4026531841]`: all processes with the same mounts share it, such as
        // those of a container.
        let namespace = rustix::fs::readlink(format!("{process}/ns/mnt"), Vec::new());
        let namespace = namespace.map(|link| link.into_bytes()).unwrap_or_default();
        Self::of((1_u8, namespace, directory.as_os_str().as_bytes()))
    }

    /// The memory map of a process, which can hold the map's lock for any time. The key is the
    /// cgroup, which a process cannot choose, and the process id modulo [`PROCESS_GROUPS`]. So the
    /// number of stuck threads is limited whatever the processes of a container do.
    pub(crate) fn of_process(pid: u32) -> Self {
        let cgroup = std::fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        Self {
            is_process: true,
            ..Self::of((2_u8, cgroup, pid % PROCESS_GROUPS))
        }
    }

    fn of(key: impl Hash) -> Self {
        let mut hasher = FxHasher::default();
        key.hash(&mut hasher);
        Self {
            key: hasher.finish(),
            is_process: false,
        }
    }
}

/// Counts of accesses that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockingPoolStats {
    /// Threads that are stuck now.
    pub stuck: usize,
    /// Accesses that missed their deadline.
    pub timed_out: u64,
    /// Accesses refused because a thread is stuck on their resource, or too many threads are stuck.
    pub refused: u64,
}

impl BlockingPoolStats {
    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.gauge(
            "files_hanging",
            "Threads that wait for a file system that does not answer. No file there is opened as long",
            self.stuck,
        );
        figures.counters(
            "files_not_opened",
            "Looks at files that came to nothing: their file system did not answer in time, or was not asked since it hangs, or \
             too many others do",
            ["reason"],
            [
                (["not_answering"], self.timed_out),
                (["hangs"], self.refused),
            ],
        );
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// The queue of one thread.
type Worker = Sender<Work>;

#[derive(Debug, Default)]
struct State {
    idle: Vec<Worker>,
    /// Stuck threads, by the number of their work.
    stuck: FxHashMap<u64, (Resource, Worker)>,
    /// Resources that answered in time, and have not missed a deadline since.
    good: FxHashSet<Resource>,
    last_number: u64,
    stats: BlockingPoolStats,
}

/// The pool. Clones share its threads.
#[derive(Clone, Debug, Default)]
pub struct BlockingPool {
    state: Arc<Mutex<State>>,
    /// CPU time of this clone's work, in nanoseconds.
    cpu_ns: Arc<AtomicU64>,
}

impl BlockingPool {
    /// Runs `work`, which may block on `resource`, and waits for its result until the deadline. `None`: the work was refused, or
    /// missed its deadline and may still run.
    ///
    /// # Panics
    /// The work panicked before its deadline.
    pub fn run<T: Send + 'static>(
        &self,
        resource: Resource,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (number, worker) = self.begin(resource)?;
        let (done, result) = channel();
        let own = self.clone();
        let run = move || {
            let before = thread_cpu();
            let value = catch_unwind(AssertUnwindSafe(work));
            let cpu = thread_cpu().saturating_sub(before);
            own.cpu_ns
                .fetch_add(cpu.as_nanos() as u64, Ordering::Relaxed);
            // The caller leaves at its deadline.
            let _ = done.send(value);
            own.return_worker(number);
        };
        worker.send(Box::new(run)).ok()?;
        match self.wait(&result, resource, deadline, (number, &worker))? {
            Ok(value) => {
                self.finish(resource, worker);
                Some(value)
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Counts since the start, and the threads that are stuck now.
    pub fn stats(&self) -> BlockingPoolStats {
        let state = self.state.lock();
        BlockingPoolStats {
            stuck: state.stuck.len(),
            ..state.stats
        }
    }

    /// A clone with its own count of CPU time.
    pub(crate) fn with_own_cpu_account(&self) -> Self {
        Self {
            state: self.state.clone(),
            cpu_ns: Arc::default(),
        }
    }

    /// CPU time of this clone's work.
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }

    /// A number and a thread for new work, unless the resource is blocked.
    fn begin(&self, resource: Resource) -> Option<(u64, Worker)> {
        let mut state = self.state.lock();
        let stuck = state.stuck.values();
        let same_kind = stuck.filter(|(at, _)| at.is_process == resource.is_process);
        let stuck = same_kind.count();
        let is_blocked = state.stuck.values().any(|(at, _)| *at == resource);
        let is_good = state.good.contains(&resource);
        let is_full = stuck >= STUCK_IN_ALL_MAX || stuck >= STUCK_MAX && !is_good;
        let worker = if is_blocked || is_full {
            None
        } else {
            state.idle.pop().or_else(start_worker)
        };
        let Some(worker) = worker else {
            state.stats.refused += 1;
            return None;
        };
        state.last_number += 1;
        Some((state.last_number, worker))
    }

    /// Waits for a result until the deadline; a thread that misses it is stuck.
    fn wait<T>(
        &self,
        result: &Receiver<Result<T, Box<dyn Any + Send>>>,
        resource: Resource,
        deadline: Duration,
        (number, worker): (u64, &Worker),
    ) -> Option<Result<T, Box<dyn Any + Send>>> {
        match result.recv_timeout(deadline) {
            Ok(value) => return Some(value),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        let mut state = self.state.lock();
        // The thread sends its result before it takes this lock and checks whether it counts as
        // stuck.
        if let Ok(value) = result.try_recv() {
            return Some(value);
        }
        state.stuck.insert(number, (resource, worker.clone()));
        state.good.remove(&resource);
        state.stats.timed_out += 1;
        drop(state);
        tracing::warn!(
            ?deadline,
            "a file system does not answer, or a process locks its memory map: its files have no names until that ends"
        );
        None
    }

    /// Keeps the thread for further work, and remembers that the resource answers in time.
    fn finish(&self, resource: Resource, worker: Worker) {
        let mut state = self.state.lock();
        if state.good.len() >= GOOD_MAX {
            state.good.clear();
        }
        state.good.insert(resource);
        state.keep(worker);
    }

    /// Takes a thread back that was stuck.
    fn return_worker(&self, number: u64) {
        let mut state = self.state.lock();
        if let Entry::Occupied(stuck) = state.stuck.entry(number) {
            let (_, worker) = stuck.remove();
            state.keep(worker);
        }
    }
}

impl State {
    /// Keeps a thread for further work, or lets it end if there are enough.
    fn keep(&mut self, worker: Worker) {
        if self.idle.len() < IDLE_MAX {
            self.idle.push(worker);
        }
    }
}

/// Starts a thread. It ends when its queue has no sender left.
fn start_worker() -> Option<Worker> {
    let (worker, works) = channel::<Work>();
    spawn("files", move || works.into_iter().for_each(|work| work()))
        .inspect_err(|err| tracing::warn!(%err, "no thread for an access of files"))
        .ok()
        .map(|_| worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn device(number: u64) -> Resource {
        Resource::of_device(number)
    }

    /// Blocks a thread of the pool until the sender is dropped.
    fn hang(pool: &BlockingPool, resource: Resource) -> Sender<()> {
        let (end, ended) = channel::<()>();
        let hangs = pool.run(resource, SHORT, move || ended.recv().is_ok());
        assert_eq!(hangs, None);
        end
    }

    fn wait_for(is_so: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LONG, "waited for in vain");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Check that a resource is refused while a thread is stuck on it, and accepted again after the
    /// thread has returned.
    #[test]
    fn a_blocked_resource_is_refused_until_its_thread_returns() {
        let pool = BlockingPool::default();
        let end = hang(&pool, device(1));
        assert_eq!(pool.run(device(1), LONG, || 1), None);
        assert_eq!(pool.run(device(2), LONG, || 2), Some(2));
        let expected = BlockingPoolStats {
            stuck: 1,
            timed_out: 1,
            refused: 1,
        };
        assert_eq!(pool.stats(), expected);
        drop(end);
        wait_for(|| pool.stats().stuck == 0);
        assert_eq!(pool.run(device(1), LONG, || 1), Some(1));
    }

    /// Check that threads are reused, including those that were stuck, and that the number of idle
    /// threads is limited.
    #[test]
    fn threads_are_used_again() {
        let pool = BlockingPool::default();
        let this = || std::thread::current().id();
        let first = pool.run(device(1), LONG, this);
        assert_eq!(pool.run(device(2), LONG, this), first);
        let ends: Vec<_> = (0..STUCK_MAX as u64)
            .map(|number| hang(&pool, device(number)))
            .collect();
        drop(ends);
        wait_for(|| pool.stats().stuck == 0);
        assert_eq!(pool.state.lock().idle.len(), IDLE_MAX);
    }

    /// Check that resources that answered before stay accepted while others hang, up to the total
    /// limit.
    #[test]
    fn stuck_resources_do_not_keep_good_ones_out() {
        let pool = BlockingPool::default();
        let good = |number| device(1000 + number);
        for number in 0..STUCK_IN_ALL_MAX as u64 {
            pool.run(good(number), LONG, || ()).unwrap();
        }
        let mut ends: Vec<_> = (0..STUCK_MAX as u64)
            .map(|number| hang(&pool, device(number)))
            .collect();
        assert_eq!(pool.run(device(500), LONG, || ()), None);
        assert_eq!(pool.run(good(0), LONG, || ()), Some(()));
        for number in STUCK_MAX..STUCK_IN_ALL_MAX {
            ends.push(hang(&pool, good(number as u64)));
        }
        assert_eq!(pool.run(good(0), LONG, || ()), None);
        assert_eq!(pool.stats().stuck, STUCK_IN_ALL_MAX);
    }

    /// Check that file systems are used however many processes are stuck.
    #[test]
    fn stuck_processes_do_not_keep_file_systems_out() {
        let pool = BlockingPool::default();
        let process = |number| Resource {
            is_process: true,
            ..device(number)
        };
        let _ends: Vec<_> = (0..STUCK_MAX as u64)
            .map(|number| hang(&pool, process(number)))
            .collect();
        assert_eq!(pool.run(process(500), LONG, || ()), None);
        assert_eq!(pool.run(device(0), LONG, || ()), Some(()));
    }

    /// Check that a panic before the deadline reaches the caller, and that a later one frees the
    /// thread.
    #[test]
    fn panics_reach_the_caller() {
        let pool = BlockingPool::default();
        let own = pool.clone();
        let panics = move || {
            own.run(device(1), LONG, || -> u32 {
                panic!("as the test wants it")
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        let (end, ended) = channel::<()>();
        let late = move || {
            let _ = ended.recv();
            panic!("as the test wants it");
        };
        assert_eq!(pool.run(device(1), SHORT, late), None::<()>);
        drop(end);
        wait_for(|| pool.stats().stuck == 0);
        assert_eq!(pool.run(device(1), LONG, || 1), Some(1));
    }

    /// Check that directories are distinguished by mount namespace and path, and that `/` is this
    /// process's root.
    #[test]
    fn directories_are_resources() {
        let own = Resource::of_directory("/", Path::new("usr/lib/debug"));
        let same = format!("/proc/{}/root", std::process::id());
        assert_eq!(
            Resource::of_directory(&same, Path::new("usr/lib/debug")),
            own
        );
        assert_ne!(Resource::of_directory("/", Path::new("usr/lib")), own);
        let gone = Resource::of_directory("/proc/2147483647/root", Path::new("usr/lib/debug"));
        assert_ne!(gone, own);
    }
}
