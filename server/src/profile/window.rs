//! One node's ten seconds.

use std::collections::BTreeMap;
use std::fmt;

use super::labels::LabelSet;
use super::tables::{StackId, Tables, TagSetId};

/// What a sample counts, as pprof's pairs of type and unit, in this order.
pub const SAMPLE_TYPES: [(&str, &str); 2] = [("samples", "count"), ("cpu", "nanoseconds")];

/// Names a window: where it is in time, and the message that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowKey {
    /// Start, milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// The collector's instance.
    pub instance: [u8; 16],
    /// Number of the message, from 1.
    pub sequence: u64,
}

impl fmt::Display for WindowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instance = u128::from_be_bytes(self.instance);
        write!(
            f,
            "{instance:032x}/{} at {} ms",
            self.sequence, self.start_ms
        )
    }
}

/// What is known of a window without reading its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowHead {
    /// Its name.
    pub key: WindowKey,
    /// The node.
    pub node: String,
    /// Length in milliseconds.
    pub window_ms: i64,
    /// What happened to its samples on the node.
    pub account: Account,
    /// What the pprof said about itself.
    pub profile: ProfileHead,
}

/// The balance of a window, as its collector stated it. Counts are of samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Entries of the BPF program.
    pub entries: u64,
    /// What 100 Hz would have given on busy CPUs.
    pub expected: u64,
    /// The sum of all weights, in nanoseconds.
    pub sampled_ns: u64,
    /// What the kernel's accounts say was used, in nanoseconds.
    pub busy_ns: u64,
    /// CPU time of the collector and its child, in nanoseconds.
    pub collector_cpu_ns: u64,
    /// CPU time of the BPF program, in nanoseconds.
    pub bpf_ns: u64,
    /// Entries by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Samples lost after the ring, by stage.
    pub dropped: BTreeMap<String, u64>,
}

/// The fields of a pprof that belong to the whole of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileHead {
    /// Time of the profile, nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// Its length in nanoseconds.
    pub duration_ns: i64,
    /// Type and unit of the period; both empty when it has none.
    pub period_type: (String, String),
    /// The period.
    pub period: i64,
    /// Comments.
    pub comments: Vec<String>,
    /// Regular expression of frames to drop.
    pub drop_frames: String,
    /// Regular expression of frames to keep all the same.
    pub keep_frames: String,
    /// Name of the sample type to show first.
    pub default_sample_type: String,
}

/// The samples of one series, with one tag set and one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Position of the series among the window's series.
    pub series: u32,
    /// Labels of the samples.
    pub tags: TagSetId,
    /// Where they were.
    pub stack: StackId,
    /// How many.
    pub samples: u64,
    /// How much CPU time they stand for, in nanoseconds.
    pub ns: u64,
}

/// A window with all that is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// What is known without the samples.
    pub head: WindowHead,
    /// The label sets.
    pub series: Vec<LabelSet>,
    /// What the stacks refer to.
    pub tables: Tables,
    /// The samples, ordered by series.
    pub rows: Vec<Row>,
}
