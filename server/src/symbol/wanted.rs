//! What is missing and may be had from elsewhere: a bounded queue that remembers what was not found.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::build_id::BuildId;

/// Build ids that wait. A flame graph of a busy node has some hundred; what finds no place is asked for again by the next
/// query.
const WAITING_MAX: usize = 256;

/// Build ids of which it is remembered that they were not found: 65,536 take some 8 MB.
const NOT_FOUND_MAX: usize = 1 << 16;

/// How long it is remembered. Distributions publish debug information some minutes to hours after their packages.
pub const RETRY_TIME: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<BuildId>,
    /// Waiting or being fetched, and when what was not found may be asked for again.
    known: HashMap<BuildId, Option<Instant>>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The queue; its clones are the same. One that is off takes nothing.
#[derive(Clone, Debug)]
pub struct Wanted {
    shared: Option<Arc<Shared>>,
    retry_time: Duration,
}

impl Wanted {
    /// A queue that takes nothing: there is nowhere to fetch from.
    pub fn off() -> Self {
        Self {
            shared: None,
            retry_time: RETRY_TIME,
        }
    }

    /// A queue in which what was not found is tried again after some time.
    pub fn new(retry_time: Duration) -> Self {
        Self {
            shared: Some(Arc::default()),
            retry_time,
        }
    }

    /// Asks for a build id. Never waits.
    pub fn ask(&self, build_id: &BuildId) {
        let Some(shared) = &self.shared else {
            return;
        };
        let mut state = shared.lock();
        if state.is_closed || state.waiting.len() >= WAITING_MAX {
            return;
        }
        match state.known.get(build_id) {
            Some(None) => return,
            Some(Some(again)) if Instant::now() < *again => return,
            _ => {}
        }
        state.known.insert(build_id.clone(), None);
        state.waiting.push_back(build_id.clone());
        shared.changed.notify_one();
    }

    /// Waits for a build id to fetch; `None` when the queue is closed.
    pub fn next(&self) -> Option<BuildId> {
        let shared = self.shared.as_ref()?;
        let mut state = shared.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(build_id) = state.waiting.pop_front() {
                return Some(build_id);
            }
            state = shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a build id was not found, so that it is not asked for again soon.
    pub fn note_not_found(&self, build_id: &BuildId) {
        let Some(shared) = &self.shared else {
            return;
        };
        let mut state = shared.lock();
        let now = Instant::now();
        if state.known.len() >= NOT_FOUND_MAX {
            state
                .known
                .retain(|_, again| again.is_none_or(|again| now < again));
        }
        if state.known.len() >= NOT_FOUND_MAX {
            state.known.retain(|_, again| again.is_none());
        }
        state
            .known
            .insert(build_id.clone(), Some(now + self.retry_time));
    }

    /// Notes that a build id is there now.
    pub fn note_found(&self, build_id: &BuildId) {
        if let Some(shared) = &self.shared {
            let mut state = shared.lock();
            state.known.remove(build_id);
            state.waiting.retain(|waiting| waiting != build_id);
        }
    }

    /// Lets all who wait go, and takes nothing more.
    pub fn close(&self) {
        if let Some(shared) = &self.shared {
            shared.lock().is_closed = true;
            shared.changed.notify_all();
        }
    }

    /// Says whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared
            .as_ref()
            .is_some_and(|shared| shared.lock().is_closed)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.shared
            .as_ref()
            .map_or(0, |shared| shared.lock().waiting.len())
    }

    /// Says whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> BuildId {
        BuildId::from_bytes(&number.to_be_bytes()).unwrap()
    }

    #[test]
    fn a_build_id_is_fetched_once_however_often_it_is_asked_for() {
        let wanted = Wanted::new(RETRY_TIME);
        for _ in 0..3 {
            wanted.ask(&id(1));
        }
        assert_eq!(wanted.next(), Some(id(1)));
        wanted.ask(&id(1));
        assert!(wanted.is_empty());
        wanted.note_found(&id(1));
        wanted.ask(&id(1));
        assert_eq!(wanted.len(), 1);
    }

    #[test]
    fn what_was_not_found_is_asked_for_again_after_a_while() {
        let soon = Duration::from_millis(20);
        let wanted = Wanted::new(soon);
        wanted.ask(&id(1));
        wanted.next();
        wanted.note_not_found(&id(1));
        let noted = Instant::now();
        loop {
            wanted.ask(&id(1));
            if wanted.len() == 1 {
                break;
            }
            std::thread::yield_now();
        }
        assert!(noted.elapsed() >= soon / 2);
    }

    #[test]
    fn the_queue_is_bounded_and_can_be_off() {
        let wanted = Wanted::new(RETRY_TIME);
        for number in 0..10 * WAITING_MAX as u32 {
            wanted.ask(&id(number));
        }
        assert_eq!(wanted.len(), WAITING_MAX);
        wanted.close();
        assert_eq!(wanted.next(), None);
        let off = Wanted::off();
        off.ask(&id(1));
        assert_eq!(off.next(), None);
    }
}
