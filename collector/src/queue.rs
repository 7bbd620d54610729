//! A bounded queue between two threads that gives up its oldest item when full.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Condvar, Mutex};

/// One end, or both, of a queue. Clones are the same queue.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    items_max: usize,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    /// A queue of at most `items_max` items.
    pub fn new(items_max: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            closed: false,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
                items_max,
            }),
        }
    }

    /// Adds an item; gives the oldest one back when there was no room.
    #[must_use = "an item that is given back is lost: count it"]
    pub fn push(&self, item: T) -> Option<T> {
        let mut state = self.shared.state.lock();
        let oldest = if state.items.len() >= self.shared.items_max {
            state.items.pop_front()
        } else {
            None
        };
        state.items.push_back(item);
        self.shared.changed.notify_one();
        oldest
    }

    /// Waits for the next item; `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.shared.changed.wait(&mut state);
        }
    }

    /// Looks at the oldest item.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.shared.state.lock().items.front().map(look)
    }

    /// Nothing more will be added.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.shared.state.lock().items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the oldest item is given up, and that a closed queue is emptied first.
    #[test]
    fn oldest_goes_first() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(1), None);
        assert_eq!(queue.push(2), None);
        assert_eq!(queue.push(3), Some(1));
        queue.close();
        assert_eq!(
            (queue.pop(), queue.pop(), queue.pop()),
            (Some(2), Some(3), None)
        );
    }

    /// Check that a waiting thread is woken by an item and by the end.
    #[test]
    fn wakes() {
        let queue = Queue::new(2);
        let other = queue.clone();
        let thread = std::thread::spawn(move || (other.pop(), other.pop()));
        assert_eq!(queue.push(1), None);
        queue.close();
        assert_eq!(thread.join().unwrap(), (Some(1), None));
    }
}
