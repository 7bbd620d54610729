//! Files that the server asked for and that are not sent yet.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Files that wait to be sent. The server asks for at most eight at a time.
const WAITING_MAX: usize = 16;

/// Queue of file ids that the server asked for. The receiver of `PushResponse` fills it; the uploader drains it.
#[derive(Clone, Debug, Default)]
pub struct PendingUploads(Arc<Wanted>);

#[derive(Debug, Default)]
struct Wanted {
    state: Mutex<WantedState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct WantedState {
    /// The first is on its way.
    waiting: VecDeque<String>,
    asked: u64,
    dropped: u64,
}

impl PendingUploads {
    /// Adds the file ids of an answer, without waiting. Those that wait already are left out.
    pub fn ask<'a>(&self, file_ids: impl Iterator<Item = &'a str>) {
        let mut state = self.0.state.lock();
        for file_id in file_ids {
            if state.waiting.iter().any(|waiting| waiting == file_id) {
                continue;
            }
            state.asked += 1;
            if state.waiting.len() < WAITING_MAX {
                state.waiting.push_back(file_id.to_owned());
            } else {
                state.dropped += 1;
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }

    pub(super) async fn next(&self) -> String {
        loop {
            if let Some(file_id) = self.0.state.lock().waiting.front() {
                return file_id.clone();
            }
            self.0.changed.notified().await;
        }
    }

    /// Files that were asked for, those of them that wait, and those that were dropped.
    pub(super) fn counts(&self) -> [u64; 3] {
        let state = self.0.state.lock();
        [state.asked, state.waiting.len() as u64, state.dropped]
    }

    pub(super) fn remove_first(&self) {
        self.0.state.lock().waiting.pop_front();
    }
}
