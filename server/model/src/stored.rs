//! Windows as a store shows them: the sums of each window, and the samples of many windows by stack.

use crate::series::SeriesId;
use crate::tables::{StackId, Tables, TagSetId};
use crate::time_range::TimeRange;
use crate::window::{ContainerUsage, WindowHead};

/// The messages of a window that may have been rolled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages {
    /// How many.
    pub count: u64,
    /// The highest number among them; the window's key has the first.
    pub last_sequence: u64,
}

/// How much of a window another collector of the node sampled too, which started later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowOverlap {
    /// Milliseconds of that.
    pub overlap_ms: i64,
    /// Milliseconds that the window's messages have.
    pub sampled_ms: i64,
}

impl WindowOverlap {
    /// Adds a message of the window.
    pub fn add(&mut self, overlap_ms: i64, sampled_ms: i64) {
        self.overlap_ms = self.overlap_ms.saturating_add(overlap_ms);
        self.sampled_ms = self.sampled_ms.saturating_add(sampled_ms);
    }

    /// Whether the window is left out: all of its time is in windows of a collector that started later.
    pub fn is_left_out(self) -> bool {
        self.overlap_ms > 0 && self.overlap_ms >= self.sampled_ms
    }

    /// The part of a number that is proportional to the time that both sampled.
    pub fn share_of(self, number: u64) -> u64 {
        let [overlap_ms, sampled_ms] =
            [self.overlap_ms, self.sampled_ms.max(1)].map(|ms| ms.max(0) as u128);
        let share = u128::from(number) * overlap_ms / sampled_ms;
        u64::try_from(share).unwrap_or(u64::MAX).min(number)
    }
}

/// The sums of one window.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowTotals {
    /// Node and time.
    pub head: WindowHead,
    /// The messages that it was added up from; one if it is as it was received.
    pub messages: Messages,
    /// The window's series, by their position in the window.
    pub series: Vec<SeriesId>,
    /// Samples of each.
    pub samples: Vec<u64>,
    /// CPU nanoseconds of each.
    pub ns: Vec<u64>,
    /// The kernel's accounts of containers, with the number of their labels.
    pub containers: Vec<(SeriesId, ContainerUsage)>,
    /// How much of it another collector of the node sampled too.
    pub overlap: WindowOverlap,
}

/// Samples of one group of series with one stack and one tag set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackSum {
    /// The group.
    pub group: u32,
    /// Their stack.
    pub stack: StackId,
    /// Their tags.
    pub tags: TagSetId,
    /// Number of samples.
    pub samples: u64,
    /// CPU time of the samples, in nanoseconds.
    pub ns: u64,
}

/// Samples whose stacks and tags are in the same tables.
pub struct StackSums<'a> {
    /// The tables that the sums refer to.
    pub tables: &'a Tables,
    /// The sums. A group, stack and tag set may come more than once.
    pub sums: &'a [StackSum],
}

/// Windows that an answer lacks, because they could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The stretch of time that the windows start in.
    pub range: TimeRange,
    /// Number of the windows.
    pub windows: u64,
    /// Samples of the asked series that the answer lacks, as far as the sums of the windows were read.
    pub samples: u64,
    /// CPU time of these samples, in nanoseconds.
    pub ns: u64,
    /// The first cause, for people.
    pub reason: String,
}
