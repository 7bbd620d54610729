//! Queue of build ids to fetch from debuginfod servers. It is bounded, and remembers which were not found.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elf::BuildId;
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};

/// Build ids in the queue. A flame graph of a busy node has some hundred; one that finds no room is pushed again by the next
/// query.
const WAITING_MAX: usize = 256;

/// Build ids remembered as not found: 65,536 take some 8 MB.
const NOT_FOUND_MAX: usize = 1 << 16;

/// Time after which a build id that was not found is fetched again. Distributions publish debug information minutes to hours
/// after their packages.
pub const RETRY_TIME: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<BuildId>,
    /// Build ids that are waiting or being fetched, or were not found, with the time of the next try.
    known: HashMap<BuildId, Option<Instant>>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The queue; its clones are the same.
#[derive(Clone, Debug)]
pub struct FetchQueue {
    shared: Arc<Shared>,
    retry_time: Duration,
}

impl FetchQueue {
    /// A closed queue, for a server that has nowhere to fetch from.
    pub fn off() -> Self {
        let queue = Self::new(RETRY_TIME);
        queue.close();
        queue
    }

    /// A queue in which a build id that was not found is tried again after `retry_time`.
    pub fn new(retry_time: Duration) -> Self {
        Self {
            shared: Arc::default(),
            retry_time,
        }
    }

    /// Queues a build id, unless it is queued, being fetched, or was not found lately. Never waits.
    pub fn push(&self, build_id: &BuildId) {
        let mut state = self.shared.state.lock();
        if state.is_closed || state.waiting.len() >= WAITING_MAX {
            return;
        }
        let is_due = match state.known.get(build_id) {
            Some(Some(again)) => *again <= Instant::now(),
            Some(None) => false,
            None => true,
        };
        if is_due {
            state.known.insert(*build_id, None);
            state.waiting.push_back(*build_id);
            self.shared.changed.notify_one();
        }
    }

    /// Waits for a build id to fetch; `None` when the queue is closed.
    pub fn pop(&self) -> Option<BuildId> {
        let is_idle = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
        let mut state = self.shared.state.lock();
        self.shared.changed.wait_while(&mut state, is_idle);
        if state.is_closed {
            return None;
        }
        state.waiting.pop_front()
    }

    /// Notes that a build id was not found.
    pub fn note_not_found(&self, build_id: &BuildId) {
        let mut state = self.shared.state.lock();
        let now = Instant::now();
        if state.known.len() >= NOT_FOUND_MAX {
            let is_later = |again: Instant| now < again;
            state.known.retain(|_, again| again.is_none_or(is_later));
        }
        if state.known.len() >= NOT_FOUND_MAX {
            state.known.retain(|_, again| again.is_none());
        }
        state.known.insert(*build_id, Some(now + self.retry_time));
    }

    /// Notes that a build id has its symbols now.
    pub fn note_found(&self, build_id: &BuildId) {
        let mut state = self.shared.state.lock();
        state.known.remove(build_id);
        state.waiting.retain(|waiting| waiting != build_id);
    }

    /// Wakes all waiting threads, and takes nothing more.
    pub fn close(&self) {
        self.shared.state.lock().is_closed = true;
        self.shared.changed.notify_all();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.state.lock().is_closed
    }

    /// Number of build ids that wait.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> BuildId {
        BuildId::new(&number.to_be_bytes()).unwrap()
    }

    #[test]
    fn a_build_id_is_fetched_once_however_often_it_is_queued() {
        let queue = FetchQueue::new(RETRY_TIME);
        for _ in 0..3 {
            queue.push(&id(1));
        }
        assert_eq!(queue.pop(), Some(id(1)));
        queue.push(&id(1));
        assert_eq!(queue.waiting(), 0);
        queue.note_found(&id(1));
        queue.push(&id(1));
        assert_eq!(queue.waiting(), 1);
    }

    #[test]
    fn a_build_id_that_was_not_found_is_queued_again_later() {
        let soon = Duration::from_millis(20);
        let queue = FetchQueue::new(soon);
        queue.push(&id(1));
        queue.pop();
        let noted = Instant::now();
        queue.note_not_found(&id(1));
        loop {
            queue.push(&id(1));
            if queue.waiting() == 1 {
                break;
            }
            std::thread::yield_now();
        }
        assert!(noted.elapsed() >= soon);
    }

    #[test]
    fn the_queue_is_bounded_and_can_be_off() {
        let queue = FetchQueue::new(RETRY_TIME);
        for number in 0..10 * WAITING_MAX as u32 {
            queue.push(&id(number));
        }
        assert_eq!(queue.waiting(), WAITING_MAX);
        queue.close();
        assert_eq!(queue.pop(), None);
        let off = FetchQueue::off();
        off.push(&id(1));
        assert_eq!(off.pop(), None);
    }
}
