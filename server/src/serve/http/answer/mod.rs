//! The JSON of answers, as docs/api.md describes it: a file for each route.

mod containers;
mod flamegraph;
mod labels;
mod lines;
mod nodes;
mod progress;
mod stacks;
mod status;
mod timeseries;
mod top;
mod unknown;
mod versions;

use model::Unread;
use model::outcome::is_complete;
use query::overlap::OverlapSum;
use query::series::Usage;
use serde::Serialize;
use store::Snapshot;

pub use containers::ContainersAnswer;
pub use flamegraph::{FlamegraphAnswer, FlamegraphColumns};
pub use labels::{LabelsAnswer, SeriesAnswer, ValuesAnswer};
pub use lines::LinesAnswer;
pub use nodes::NodesAnswer;
pub use progress::ProgressAnswer;
pub use stacks::StacksAnswer;
pub use status::StatusAnswer;
pub use timeseries::{TimeseriesAnswer, Unit};
pub use top::TopAnswer;
pub use unknown::UnknownAnswer;
pub use versions::VersionsAnswer;

/// An answer, and what it lacks.
#[derive(Serialize)]
pub struct Answered<T> {
    #[serde(flatten)]
    answer: T,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<UnreadEntry>,
    #[serde(flatten)]
    overlap: Option<OverlapEntry>,
    #[serde(skip_serializing_if = "is_false")]
    lacks_addresses: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
struct OverlapEntry {
    overlap_ns: u64,
    overlap_kept_ns: u64,
}

#[derive(Serialize)]
struct UnreadEntry {
    from_ms: i64,
    to_ms: i64,
    windows: u64,
    samples: u64,
    cpu_ns: u64,
    reason: String,
}

impl UnreadEntry {
    fn new(unread: Unread) -> Self {
        let Unread {
            range,
            windows,
            samples,
            ns,
            reason,
        } = unread;
        Self {
            from_ms: range.from_ms,
            to_ms: range.to_ms,
            windows,
            samples,
            cpu_ns: ns,
            reason,
        }
    }
}

impl<T> Answered<T> {
    /// An answer without these windows, and what two collectors sampled.
    pub fn new(answer: T, unread: Vec<Unread>, overlap: OverlapSum) -> Self {
        Self {
            answer,
            incomplete: unread.into_iter().map(UnreadEntry::new).collect(),
            overlap: (overlap != OverlapSum::default()).then_some(OverlapEntry {
                overlap_ns: overlap.left_out.ns,
                overlap_kept_ns: overlap.kept_ns,
            }),
            lacks_addresses: false,
        }
    }

    /// An answer about the windows of a snapshot, and what two collectors sampled.
    pub fn about(answer: T, snapshot: &dyn Snapshot, overlap: OverlapSum) -> Self {
        Self {
            lacks_addresses: snapshot.lacks_addresses(),
            ..Self::new(answer, snapshot.unread(), overlap)
        }
    }
}

/// Samples of one outcome.
#[derive(Serialize)]
struct OutcomeEntry {
    outcome: String,
    complete: bool,
    samples: u64,
    cpu_ns: u64,
}

impl OutcomeEntry {
    fn new(outcome: &str, usage: Usage) -> Self {
        Self {
            outcome: outcome.to_owned(),
            complete: is_complete(outcome),
            samples: usage.samples,
            cpu_ns: usage.ns,
        }
    }
}
