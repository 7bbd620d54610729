//! How far questions are. A client names its question in a header, and asks by the name while it waits for the answer.
//!
//! The answer has numbers only, so that a name that somebody else finds out tells nothing about the profiles.

use std::sync::{Arc, OnceLock};

use axum::http::{HeaderMap, HeaderName};
use hashbrown::HashMap;
use model::{ReadCounts, Reading};
use parking_lot::Mutex;

use super::error::{ApiError, ErrorKind};
use super::lane::{Lane, Ticket};

/// Header with the name of a question.
pub const QUESTION: HeaderName = HeaderName::from_static("pilotlight-question");

/// Characters of a name: a hash of 256 bits in hexadecimal digits.
const NAME_LENGTH_MAX: usize = 64;

/// A question from its way into a lane to its answer.
pub struct Progress {
    lane: Arc<Lane>,
    ticket: Ticket,
    reading: OnceLock<Arc<Reading>>,
}

/// The state of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits, and has this position in its lane; 0 before it is in one.
    Waiting(usize),
    /// It reads profiles.
    Reading(ReadCounts),
    /// All is read.
    Rendering(ReadCounts),
}

impl Progress {
    /// A question that is about to enter a lane.
    pub fn new(lane: Arc<Lane>) -> Arc<Self> {
        Arc::new(Self {
            lane,
            ticket: Ticket::issue(),
            reading: OnceLock::new(),
        })
    }

    /// The lane.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// Its identity in the lane.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The question has a place, and reads.
    pub fn note_place(&self, reading: &Arc<Reading>) {
        self.reading.get_or_init(|| Arc::clone(reading));
    }

    /// Its state now.
    pub fn step(&self) -> Step {
        let Some(reading) = self.reading.get() else {
            return Step::Waiting(self.lane.position(self.ticket));
        };
        let counts = reading.counts();
        if counts.is_done() {
            Step::Rendering(counts)
        } else {
            Step::Reading(counts)
        }
    }
}

/// The questions with a name that are being answered. Each has a request, and so a connection: 512 at most.
#[derive(Clone, Default)]
pub struct NamedQuestions(Arc<Mutex<HashMap<String, Arc<Progress>>>>);

/// A question in the list. It is taken out when this is dropped.
pub struct NamedQuestion {
    list: NamedQuestions,
    name: String,
    progress: Arc<Progress>,
}

impl NamedQuestions {
    /// Puts a question into the list, in place of an earlier one of the same name.
    pub fn insert(&self, name: String, progress: Arc<Progress>) -> NamedQuestion {
        self.0.lock().insert(name.clone(), Arc::clone(&progress));
        NamedQuestion {
            list: self.clone(),
            name,
            progress,
        }
    }

    /// The state of a question, if it is in the list.
    pub fn step(&self, name: &str) -> Option<Step> {
        let progress = self.0.lock().get(name).cloned();
        progress.map(|progress| progress.step())
    }
}

impl Drop for NamedQuestion {
    fn drop(&mut self) {
        let mut list = self.list.0.lock();
        let listed = list.get(&self.name);
        // A later question may have the name.
        if listed.is_some_and(|listed| Arc::ptr_eq(listed, &self.progress)) {
            list.remove(&self.name);
        }
    }
}

/// The name of a request's question, if the client gave it one.
///
/// # Errors
/// It is too long, or has other characters than letters, digits, `-` and `_`.
pub fn read_name(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(&QUESTION) else {
        return Ok(None);
    };
    let is_character = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let name = value.to_str().ok();
    let name = name.filter(|name| (1..=NAME_LENGTH_MAX).contains(&name.len()));
    match name.filter(|name| name.as_bytes().iter().all(is_character)) {
        Some(name) => Ok(Some(name.to_owned())),
        None => {
            let message =
                format!("not a name of 1 to {NAME_LENGTH_MAX} letters, digits, `-` and `_`");
            let kind = ErrorKind::BadParameter;
            Err(ApiError::in_parameter(kind, QUESTION.as_str(), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_its_last_question() {
        let list = NamedQuestions::default();
        let question = || Progress::new(Lane::new(1, 1));
        let (first, second) = (question(), question());
        let first = list.insert("a".to_owned(), first);
        let reading = Arc::new(Reading::default());
        second.note_place(&reading);
        let second = list.insert("a".to_owned(), second);
        drop(first);
        let counts = reading.counts();
        assert_eq!(list.step("a"), Some(Step::Reading(counts)));
        drop(second);
        assert_eq!((list.step("a"), list.0.lock().len()), (None, 0));
    }

    /// Check that a question is rendered when all passes over the segments are done.
    #[test]
    fn steps_follow_the_reading() {
        let (progress, reading) = (Progress::new(Lane::new(1, 1)), Arc::default());
        assert_eq!(progress.step(), Step::Waiting(0));
        progress.note_place(&reading);
        assert_eq!(progress.step(), Step::Reading(ReadCounts::default()));
        reading.begin(&[10, 90]);
        reading.note_read(10);
        let counts = ReadCounts {
            segments: 2,
            segments_read: 1,
            bytes: 100,
            bytes_read: 10,
        };
        assert_eq!(progress.step(), Step::Reading(counts));
        reading.note_read(90);
        let counts = ReadCounts {
            segments_read: 2,
            bytes_read: 100,
            ..counts
        };
        assert_eq!(progress.step(), Step::Rendering(counts));
        reading.begin(&[5]);
        assert!(matches!(progress.step(), Step::Reading(_)));
    }
}
