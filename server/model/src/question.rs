//! A question while it is worked on: whether somebody still waits for its answer, and the memory that it takes.
//!
//! Whatever grows with the stored data holds a [`Charge`] of its size. All questions together charge at most what their
//! [`QuestionMemory`] has; a cache may use the rest ([`SpareCharge`](crate::SpareCharge)), and evicts entries for a charge that needs
//! their memory. A charge that still does not fit waits while other questions may give memory back, and else stops the question. The
//! work on a stopped question ends at its next check, and what it returns is of no use.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::reading::Reading;
use crate::spare::{Spare, reclaim};

/// Time that a charge waits for other questions: the longest ones of a busy server take a few seconds.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Why the work on a question ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Nobody waits for the answer.
    #[error("the client is gone")]
    Cancelled,
    /// It took longer than it may.
    #[error("the query took longer than it may")]
    TimedOut,
    /// It needs more memory than all questions together may take.
    #[error(
        "the query needs more than {bytes_max} bytes of memory: it asked for {needed} bytes so far"
    )]
    TooLarge {
        /// Bytes that it had and asked for.
        needed: usize,
        /// Bytes of all questions.
        bytes_max: usize,
    },
    /// It needs more memory than other questions leave.
    #[error(
        "other queries take the memory that this one needs: it asked for {needed} of {bytes_max} bytes so far"
    )]
    NoRoom {
        /// Bytes that it had and asked for.
        needed: usize,
        /// Bytes of all questions.
        bytes_max: usize,
    },
    /// The answer is longer than answers may be.
    #[error("the answer has more than {bytes_max} bytes")]
    LongAnswer {
        /// Bytes that it may have.
        bytes_max: usize,
    },
}

/// The memory of all questions.
#[derive(Debug)]
pub struct QuestionMemory {
    bytes_max: usize,
    state: Mutex<MemoryState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryState {
    used: usize,
    questions: usize,
    waiting: usize,
    pub(crate) spare: Spare,
}

impl MemoryState {
    /// Whether so many bytes are left.
    pub(crate) fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.missing(bytes, bytes_max) == 0
    }

    fn missing(&self, bytes: usize, bytes_max: usize) -> usize {
        let needed = self.used.saturating_add(self.spare.bytes);
        needed.saturating_add(bytes).saturating_sub(bytes_max)
    }
}

impl QuestionMemory {
    /// At most so many bytes for all questions.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Bytes that all questions have now.
    pub fn used(&self) -> usize {
        self.state.lock().used
    }

    /// Questions that wait for others to give memory back.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Bytes that a cache has of what questions do not need now.
    pub fn spare(&self) -> usize {
        self.state.lock().spare.bytes
    }

    /// Bytes that they may have.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock()
    }

    /// Memory was given back.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }
}

/// A question while it is worked on.
#[derive(Debug)]
pub struct Question {
    memory: Arc<QuestionMemory>,
    used: AtomicUsize,
    /// Held by the thread that asks for memory, so that a question waits only once.
    turn: Mutex<()>,
    stop: OnceLock<Stop>,
    reading: Arc<Reading>,
}

impl Question {
    /// A question that takes its memory from here.
    pub fn new(memory: Arc<QuestionMemory>) -> Arc<Self> {
        memory.state.lock().questions += 1;
        Arc::new(Self {
            memory,
            used: AtomicUsize::new(0),
            turn: Mutex::default(),
            stop: OnceLock::new(),
            reading: Arc::default(),
        })
    }

    /// A question that may take any memory.
    pub fn unlimited() -> Arc<Self> {
        Self::new(QuestionMemory::new(usize::MAX))
    }

    /// Ends the work on it. The first reason stays; false if there was one.
    pub fn stop(&self, reason: Stop) -> bool {
        let is_first = self.stop.set(reason).is_ok();
        if is_first {
            // Under the lock, so that a thread that is about to wait sees it.
            let _state = self.memory.state.lock();
            self.memory.changed.notify_all();
        }
        is_first
    }

    /// Why it was stopped.
    pub fn stopped(&self) -> Option<Stop> {
        self.stop.get().copied()
    }

    /// Whether it goes on.
    ///
    /// # Errors
    /// Why it was stopped.
    pub fn check(&self) -> Result<(), Stop> {
        self.stopped().map_or(Ok(()), Err)
    }

    /// What it has read.
    pub fn reading(&self) -> &Arc<Reading> {
        &self.reading
    }

    /// The memory of all questions.
    pub fn memory(&self) -> &Arc<QuestionMemory> {
        &self.memory
    }

    /// Bytes that it has now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A charge of so many bytes.
    ///
    /// # Errors
    /// The question was stopped, or is now for want of memory.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, Stop> {
        let mut charge = Charge {
            question: Some(Arc::clone(self)),
            bytes: 0,
        };
        charge.set(bytes)?;
        Ok(charge)
    }

    fn reserve(&self, bytes: usize) -> Result<(), Stop> {
        let _turn = self.turn.lock();
        let QuestionMemory {
            bytes_max, changed, ..
        } = &*self.memory;
        let bytes_max = *bytes_max;
        let until = Instant::now() + WAIT_MAX;
        let mut state = self.memory.state.lock();
        loop {
            self.check()?;
            let needed = self.used().saturating_add(bytes);
            let missing = state.missing(bytes, bytes_max);
            if missing == 0 {
                state.used += bytes;
                self.used.fetch_add(bytes, Ordering::Relaxed);
                return Ok(());
            }
            if needed <= bytes_max && reclaim(&mut state, missing) {
                continue;
            }
            let reason = if needed > bytes_max {
                Stop::TooLarge { needed, bytes_max }
            } else {
                Stop::NoRoom { needed, bytes_max }
            };
            // If all others wait too, none of them gives memory back.
            let is_last = state.waiting + 1 >= state.questions;
            if needed > bytes_max || is_last || Instant::now() >= until {
                drop(state);
                self.stop(reason);
                return self.check();
            }
            state.waiting += 1;
            changed.wait_until(&mut state, until);
            state.waiting -= 1;
        }
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.memory.state.lock().used -= bytes;
        self.memory.changed.notify_all();
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.memory.state.lock().questions -= 1;
        self.memory.changed.notify_all();
    }
}

/// Memory that a question takes, given back when this is dropped. The default is on no account.
#[derive(Debug, Default)]
pub struct Charge {
    question: Option<Arc<Question>>,
    bytes: usize,
}

impl Charge {
    /// Changes its size.
    ///
    /// # Errors
    /// The question was stopped, or is now for want of memory; the size is as before.
    pub fn set(&mut self, bytes: usize) -> Result<(), Stop> {
        let Some(question) = &self.question else {
            return Ok(());
        };
        if bytes > self.bytes {
            question.reserve(bytes - self.bytes)?;
        } else if bytes < self.bytes {
            question.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Makes it larger.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn add(&mut self, bytes: usize) -> Result<(), Stop> {
        self.set(self.bytes.saturating_add(bytes))
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An empty charge on the same account.
    pub fn another(&self) -> Self {
        Self {
            question: self.question.clone(),
            bytes: 0,
        }
    }

    /// Whether the question goes on.
    ///
    /// # Errors
    /// Why it was stopped.
    pub fn check(&self) -> Result<(), Stop> {
        let question = self.question.as_ref();
        question.map_or(Ok(()), |question| question.check())
    }

    /// Stops the question. Returns the first reason for which it was stopped.
    pub fn stop(&self, reason: Stop) -> Stop {
        let Some(question) = &self.question else {
            return reason;
        };
        question.stop(reason);
        question.stopped().unwrap_or(reason)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(question) = &self.question
            && self.bytes > 0
        {
            question.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::spare::{Evict, SpareCharge};

    /// Waits until so many questions wait for memory.
    fn wait_for_waiting(memory: &QuestionMemory, waiting: usize) {
        let until = Instant::now() + Duration::from_secs(30);
        while memory.state.lock().waiting != waiting {
            assert!(Instant::now() < until, "{:?}", memory.state.lock());
            thread::yield_now();
        }
    }

    #[test]
    fn charges_are_given_back() {
        let memory = QuestionMemory::new(100);
        let question = Question::new(Arc::clone(&memory));
        let mut first = question.charge(60).unwrap();
        let second = question.charge(40).unwrap();
        assert_eq!((memory.used(), question.used()), (100, 100));
        first.set(10).unwrap();
        assert_eq!((memory.used(), first.bytes()), (50, 10));
        drop((first, second));
        assert_eq!((memory.used(), question.used()), (0, 0));
        assert_eq!(question.check(), Ok(()));
    }

    /// Check that the error has what was needed, that the question is stopped by it, and that nothing stays charged.
    #[test]
    fn a_question_that_is_too_large_alone_is_stopped_at_once() {
        let memory = QuestionMemory::new(100);
        let _other = Question::new(Arc::clone(&memory));
        let question = Question::new(Arc::clone(&memory));
        let mut charge = question.charge(60).unwrap();
        let stop = Stop::TooLarge {
            needed: 101,
            bytes_max: 100,
        };
        assert_eq!(charge.add(41), Err(stop));
        assert_eq!(question.stopped(), Some(stop));
        assert_eq!(charge.another().set(1), Err(stop));
        drop(charge);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_charge_waits_for_another_question() {
        let memory = QuestionMemory::new(100);
        let (first, second) = (
            Question::new(Arc::clone(&memory)),
            Question::new(Arc::clone(&memory)),
        );
        let charge = first.charge(60).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| second.charge(50).map(|charge| charge.bytes()));
            wait_for_waiting(&memory, 1);
            drop(charge);
            assert_eq!(waits.join().unwrap(), Ok(50));
        });
        assert_eq!(memory.used(), 0);
    }

    /// A cache with one entry.
    #[derive(Default)]
    struct Cache(Mutex<Option<SpareCharge>>);

    impl Evict for Cache {
        fn evict(&self, _: usize) {
            let entry = self.0.lock().take();
            drop(entry);
        }
    }

    /// Check that a cache takes only what is left, and gives it back before a question waits or fails.
    #[test]
    fn a_cache_makes_room_for_questions() {
        let memory = QuestionMemory::new(100);
        let question = Question::new(Arc::clone(&memory));
        let mut charge = question.charge(60).unwrap();
        let cache = Arc::new(Cache::default());
        let take = |bytes| {
            let evict: Arc<dyn Evict> = Arc::clone(&cache) as _;
            SpareCharge::take(&memory, bytes, Arc::downgrade(&evict))
        };
        assert!(take(41).is_none());
        *cache.0.lock() = take(40);
        assert_eq!((memory.used(), memory.spare()), (60, 40));
        assert_eq!(charge.add(1), Ok(()));
        assert_eq!((memory.used(), memory.spare()), (61, 0));
        assert!(cache.0.lock().is_none());

        let read_elsewhere = take(30).unwrap();
        assert_eq!(charge.add(20), Err(question.stopped().unwrap()));
        drop((read_elsewhere, charge));
        assert_eq!((memory.used(), memory.spare()), (0, 0));
    }

    /// Check that of two questions that wait for each other one gives way, and that the other goes on.
    #[test]
    fn questions_do_not_wait_for_each_other() {
        let memory = QuestionMemory::new(100);
        let (first, second) = (
            Question::new(Arc::clone(&memory)),
            Question::new(Arc::clone(&memory)),
        );
        let mut kept = first.charge(50).unwrap();
        let mut given_up = second.charge(50).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| kept.add(10));
            wait_for_waiting(&memory, 1);
            let stop = Stop::NoRoom {
                needed: 60,
                bytes_max: 100,
            };
            assert_eq!(given_up.add(10), Err(stop));
            drop(given_up);
            assert_eq!(waits.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn a_stop_ends_a_wait() {
        let memory = QuestionMemory::new(100);
        let (first, second) = (
            Question::new(Arc::clone(&memory)),
            Question::new(Arc::clone(&memory)),
        );
        let _charge = first.charge(60).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| second.charge(50).map(|charge| charge.bytes()));
            wait_for_waiting(&memory, 1);
            second.stop(Stop::Cancelled);
            assert_eq!(waits.join().unwrap(), Err(Stop::Cancelled));
        });
        second.stop(Stop::TimedOut);
        assert_eq!(second.stopped(), Some(Stop::Cancelled));
    }
}
