//! Opens and reads the files of others without waiting for ever.
//!
//! A file system may not answer: one from the network whose server is gone, or one that a process serves (FUSE) and that does
//! not. Who opens a file there, or only looks at it, waits in the kernel until it does, and nothing but the end of the whole
//! process wakes it. So such work is done by threads that can be left behind. The place that held one is not gone to again
//! until that thread is back.

use std::any::Any;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use crate::clock::thread_cpu;

/// What a look at a file may take. From a disk it takes some ms, over a network some 10 ms; what takes longer than this is
/// looked at again with a later window, and then most often in the cache.
pub(crate) const LOOK_TIME: Duration = Duration::from_secs(1);

/// Threads that may be left behind in places where nothing ever was done in time. Each takes some 20 KB. A place costs whoever
/// goes there first [`LOOK_TIME`]: these are 16 s in all, which the windows that wait for their names bear.
const LEFT_MAX: usize = 16;

/// Threads that may be left behind in all. Beyond that nothing is opened any more: 64 file systems hang that worked before.
const LEFT_IN_ALL_MAX: usize = 64;

/// Places remembered for having been good; beyond, all are forgotten. 8 bytes each.
const GOOD_MAX: usize = 4096;

/// Threads that are kept for the next work; as many as ask at the same time, as a rule.
const IDLE_MAX: usize = 8;

/// Where a file is: whatever hangs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(u64);

impl Place {
    /// The file system with this number of a device.
    pub fn of_device(device: u64) -> Self {
        Self::of((0_u8, device))
    }

    /// A directory below the root of a process (`/proc/PID/root`, or `/`). Reads only what the kernel itself says.
    pub(crate) fn of_directory(root: &str, directory: &Path) -> Self {
        let process = root.strip_suffix("/root").unwrap_or("/proc/self");
        // `mnt:[4026531841]`: the processes of a container have one, and so have all others that share what is mounted.
        let namespace = rustix::fs::readlink(format!("{process}/ns/mnt"), Vec::new());
        let namespace = namespace.map(|it| it.into_bytes()).unwrap_or_default();
        Self::of((1_u8, namespace, directory.as_os_str().as_bytes()))
    }

    fn of(what: impl Hash) -> Self {
        let mut hasher = FxHasher::default();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What was not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatienceStats {
    /// Threads that are waiting for a file system at the moment.
    pub left: usize,
    /// Work that was left behind.
    pub left_behind: u64,
    /// Work that was not begun, since its place holds a thread, or too many others do.
    pub refused: u64,
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread that does one work after the other.
type Worker = Sender<Work>;

#[derive(Debug, Default)]
struct State {
    idle: Vec<Worker>,
    /// Work that was left behind, by number, with the thread that does it.
    left: FxHashMap<u64, (Place, Worker)>,
    good: FxHashSet<Place>,
    /// Number of the last work.
    number: u64,
    stats: PatienceStats,
}

/// Does what may hang. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    state: Arc<Mutex<State>>,
    /// CPU time of what was done for whoever has this clone, in nanoseconds.
    cpu_ns: Arc<AtomicU64>,
}

impl Patience {
    /// Does this work, which may hang at `place`, and waits for it for at most `time`; `None`: it was not done, or not in time,
    /// and may still be.
    ///
    /// # Panics
    /// If the work does in this time.
    pub fn run<T: Send + 'static>(
        &self,
        place: Place,
        time: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (number, worker) = self.begin(place)?;
        let (done, result) = channel();
        let own = self.clone();
        let all = move || {
            let before = thread_cpu();
            let value = catch_unwind(AssertUnwindSafe(work));
            let cpu = thread_cpu().saturating_sub(before);
            own.cpu_ns
                .fetch_add(cpu.as_nanos() as u64, Ordering::Relaxed);
            // Nobody waits for what was left behind.
            let _ = done.send(value);
            own.come_back(number);
        };
        worker.send(Box::new(all)).ok()?;
        match self.wait(&result, place, time, (number, &worker))? {
            Ok(value) => {
                self.end(place, worker);
                Some(value)
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// What was not done so far.
    pub fn stats(&self) -> PatienceStats {
        let state = self.lock();
        PatienceStats {
            left: state.left.len(),
            ..state.stats
        }
    }

    /// The same, with an account of CPU time of its own.
    pub(crate) fn on_own_account(&self) -> Self {
        Self {
            state: self.state.clone(),
            cpu_ns: Arc::default(),
        }
    }

    /// CPU time of all work on this account.
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }

    /// A number and a thread for work, if it may be begun.
    fn begin(&self, place: Place) -> Option<(u64, Worker)> {
        let mut state = self.lock();
        let left = state.left.len();
        let is_held = state.left.values().any(|(it, _)| *it == place);
        let is_full = left >= LEFT_IN_ALL_MAX || left >= LEFT_MAX && !state.good.contains(&place);
        let worker = match is_held || is_full {
            true => None,
            false => state.idle.pop().or_else(start_worker),
        };
        let Some(worker) = worker else {
            state.stats.refused += 1;
            return None;
        };
        state.number += 1;
        Some((state.number, worker))
    }

    /// Waits for a result; if it does not come, the thread is left behind.
    fn wait<T>(
        &self,
        result: &Receiver<Result<T, Box<dyn Any + Send>>>,
        place: Place,
        time: Duration,
        (number, worker): (u64, &Worker),
    ) -> Option<Result<T, Box<dyn Any + Send>>> {
        match result.recv_timeout(time) {
            Ok(value) => return Some(value),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        let mut state = self.lock();
        // It sends before it looks whether it was left, for which it needs the lock.
        if let Ok(value) = result.try_recv() {
            return Some(value);
        }
        state.left.insert(number, (place, worker.clone()));
        state.good.remove(&place);
        state.stats.left_behind += 1;
        drop(state);
        tracing::warn!(
            ?time,
            "a file system does not answer: what lies there has no names until it does"
        );
        None
    }

    fn end(&self, place: Place, worker: Worker) {
        let mut state = self.lock();
        if state.good.len() >= GOOD_MAX {
            state.good.clear();
        }
        state.good.insert(place);
        state.keep(worker);
    }

    /// The thread of this work is back, should it have been left behind.
    fn come_back(&self, number: u64) {
        let mut state = self.lock();
        if let Entry::Occupied(left) = state.left.entry(number) {
            let (_, worker) = left.remove();
            state.keep(worker);
        }
    }

    /// What it guards is whole at each moment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps a thread for the next work, or lets it end.
    fn keep(&mut self, worker: Worker) {
        if self.idle.len() < IDLE_MAX {
            self.idle.push(worker);
        }
    }
}

/// A thread that ends when nobody can give it work any more; `None` if there can be none.
fn start_worker() -> Option<Worker> {
    let (worker, works) = channel::<Work>();
    let thread = std::thread::Builder::new().name("files".into());
    let thread = thread.spawn(move || works.into_iter().for_each(|work| work()));
    thread
        .inspect_err(|err| tracing::warn!(%err, "failed to start a thread `files`"))
        .ok()
        .map(|_| worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn place(number: u64) -> Place {
        Place::of_device(number)
    }

    /// Hangs until what is given back is dropped.
    fn hang(patience: &Patience, place: Place) -> Sender<()> {
        let (end, ended) = channel::<()>();
        let hangs = patience.run(place, SHORT, move || ended.recv().is_ok());
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

    /// Check that work that hangs is left behind, that nobody goes to its place meanwhile, and everybody to others and, when it is
    /// back, there too.
    #[test]
    fn a_place_that_hangs_is_left_alone() {
        let patience = Patience::default();
        let end = hang(&patience, place(1));
        assert_eq!(patience.run(place(1), LONG, || 1), None);
        assert_eq!(patience.run(place(2), LONG, || 2), Some(2));
        let expected = PatienceStats {
            left: 1,
            left_behind: 1,
            refused: 1,
        };
        assert_eq!(patience.stats(), expected);
        drop(end);
        wait_for(|| patience.stats().left == 0);
        assert_eq!(patience.run(place(1), LONG, || 1), Some(1));
    }

    /// Check that threads are used again, also those that were left behind, and that not all are kept.
    #[test]
    fn threads_are_used_again() {
        let patience = Patience::default();
        let this = || std::thread::current().id();
        let first = patience.run(place(1), LONG, this);
        assert_eq!(patience.run(place(2), LONG, this), first);
        let ends: Vec<_> = (0..LEFT_MAX as u64)
            .map(|number| hang(&patience, place(number)))
            .collect();
        drop(ends);
        wait_for(|| patience.stats().left == 0);
        assert_eq!(patience.lock().idle.len(), IDLE_MAX);
    }

    /// Check that however many places hang, those that were good before are gone to, up to the limit for all.
    #[test]
    fn many_places_that_hang_do_not_keep_others_out() {
        let patience = Patience::default();
        let good = |number| place(1000 + number);
        for number in 0..LEFT_IN_ALL_MAX as u64 {
            patience.run(good(number), LONG, || ()).unwrap();
        }
        let mut ends: Vec<_> = (0..LEFT_MAX as u64)
            .map(|number| hang(&patience, place(number)))
            .collect();
        assert_eq!(patience.run(place(500), LONG, || ()), None);
        assert_eq!(patience.run(good(0), LONG, || ()), Some(()));
        for number in LEFT_MAX..LEFT_IN_ALL_MAX {
            ends.push(hang(&patience, good(number as u64)));
        }
        assert_eq!(patience.run(good(0), LONG, || ()), None);
        assert_eq!(patience.stats().left, LEFT_IN_ALL_MAX);
    }

    /// Check that a panic reaches who asked, and nobody if nobody waits.
    #[test]
    fn panics_reach_who_asked() {
        let patience = Patience::default();
        let own = patience.clone();
        let panics = move || own.run(place(1), LONG, || -> u32 { panic!("as the test wants it") });
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        let (end, ended) = channel::<()>();
        let late = move || {
            let _ = ended.recv();
            panic!("as the test wants it");
        };
        assert_eq!(patience.run(place(1), SHORT, late), None::<()>);
        drop(end);
        wait_for(|| patience.stats().left == 0);
        assert_eq!(patience.run(place(1), LONG, || 1), Some(1));
    }

    /// Check that places are told apart by mount namespace and directory, and that a process and this one's root are one.
    #[test]
    fn directories_are_places() {
        let own = Place::of_directory("/", Path::new("usr/lib/debug"));
        let same = format!("/proc/{}/root", std::process::id());
        assert_eq!(Place::of_directory(&same, Path::new("usr/lib/debug")), own);
        assert_ne!(Place::of_directory("/", Path::new("usr/lib")), own);
        let gone = Place::of_directory("/proc/2147483647/root", Path::new("usr/lib/debug"));
        assert_ne!(gone, own);
    }
}
