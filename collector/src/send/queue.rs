//! The queue of windows for the server.

use std::collections::VecDeque;
use std::time::Instant;

use prost::bytes::Bytes;

/// One encoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The collector's number of the window.
    pub(super) sequence: u64,
    /// Samples in it.
    pub(super) samples: u64,
    /// The encoded message.
    pub(super) message: Bytes,
}

/// Windows in order, limited in bytes.
#[derive(Debug)]
pub(super) struct WindowQueue {
    windows: VecDeque<Waiting>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Waiting {
    window: Window,
    since: Instant,
    /// Being sent: never dropped to make room, since the server may have received it.
    is_held: bool,
}

impl WindowQueue {
    /// An empty queue of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            windows: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Adds the newest window. Returns the windows dropped to make room, the oldest first; or the
    /// new window itself if it does not fit.
    pub(super) fn push(&mut self, window: Window) -> Vec<Window> {
        self.bytes += window.message.len();
        self.windows.push_back(Waiting {
            window,
            since: Instant::now(),
            is_held: false,
        });
        let mut dropped = Vec::new();
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.windows.iter().position(|waiting| !waiting.is_held)
        {
            dropped.extend(self.remove(oldest));
        }
        dropped
    }

    /// Holds and returns the oldest window of less than `bytes_below` bytes, until it is released
    /// or removed.
    pub(super) fn hold_oldest(&mut self, bytes_below: usize) -> Option<Window> {
        let waiting = self
            .windows
            .iter_mut()
            .find(|waiting| waiting.window.message.len() < bytes_below)?;
        waiting.is_held = true;
        Some(waiting.window.clone())
    }

    /// Releases a held window.
    pub(super) fn release(&mut self, sequence: u64) {
        let index = self.index_of(sequence);
        if let Some(waiting) = index.and_then(|index| self.windows.get_mut(index)) {
            waiting.is_held = false;
        }
    }

    /// Removes a held window.
    pub(super) fn take(&mut self, sequence: u64) -> Option<Window> {
        self.remove(self.index_of(sequence)?)
    }

    /// Removes all windows.
    pub(super) fn drain(&mut self) -> Vec<Window> {
        self.bytes = 0;
        self.windows
            .drain(..)
            .map(|waiting| waiting.window)
            .collect()
    }

    /// Number of windows.
    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }

    /// When the oldest window was added.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.windows.front().map(|waiting| waiting.since)
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A linear search: held windows are among the first.
    fn index_of(&self, sequence: u64) -> Option<usize> {
        self.windows
            .iter()
            .position(|waiting| waiting.window.sequence == sequence)
    }

    fn remove(&mut self, index: usize) -> Option<Window> {
        let window = self.windows.remove(index)?.window;
        self.bytes -= window.message.len();
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sequence: u64, bytes: usize) -> Window {
        Window {
            sequence,
            samples: 1,
            message: vec![0; bytes].into(),
        }
    }

    fn sequences(windows: &[Window]) -> Vec<u64> {
        windows.iter().map(|window| window.sequence).collect()
    }

    /// Check that the oldest windows make room, and that bytes are counted exactly.
    #[test]
    fn oldest_windows_make_room() {
        let mut queue = WindowQueue::new(10);
        assert!(queue.push(window(1, 4)).is_empty());
        assert!(queue.push(window(2, 4)).is_empty());
        assert_eq!(sequences(&queue.push(window(3, 8))), [1, 2]);
        assert_eq!((queue.len(), queue.bytes()), (1, 8));
        assert_eq!(sequences(&queue.push(window(4, 11))), [3, 4]);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    /// Check that a held window stays in the queue whatever is pushed.
    #[test]
    fn held_windows_stay() {
        let mut queue = WindowQueue::new(10);
        queue.push(window(1, 6));
        queue.push(window(2, 4));
        assert_eq!(queue.hold_oldest(usize::MAX), Some(window(1, 6)));
        assert_eq!(sequences(&queue.push(window(3, 4))), [2]);
        assert_eq!(sequences(&queue.push(window(4, 11))), [3, 4]);
        assert_eq!(queue.hold_oldest(6), None);
        queue.release(1);
        assert_eq!(sequences(&queue.push(window(5, 5))), [1]);
        queue.push(window(6, 2));
        assert_eq!(queue.hold_oldest(5), Some(window(6, 2)));
        assert_eq!(queue.take(6), Some(window(6, 2)));
        assert_eq!((queue.len(), queue.bytes()), (1, 5));
    }
}
