//! How far a question is.

use model::ReadCounts;
use serde::Serialize;

use crate::serve::http::progress::Step;

/// `/api/v1/progress`
#[derive(Serialize)]
pub struct ProgressAnswer {
    state: &'static str,
    position: usize,
    segments: u64,
    segments_read: u64,
    bytes: u64,
    bytes_read: u64,
}

impl ProgressAnswer {
    /// Shows the state of a question; `None` if there is no such question.
    pub fn new(step: Option<Step>) -> Self {
        let (state, position, counts) = match step {
            None => ("unknown", 0, ReadCounts::default()),
            Some(Step::Waiting(position)) => ("waiting", position, ReadCounts::default()),
            Some(Step::Reading(counts)) => ("reading", 0, counts),
            Some(Step::Rendering(counts)) => ("rendering", 0, counts),
        };
        let ReadCounts {
            segments,
            segments_read,
            bytes,
            bytes_read,
        } = counts;
        Self {
            state,
            position,
            segments,
            segments_read,
            bytes,
            bytes_read,
        }
    }
}
