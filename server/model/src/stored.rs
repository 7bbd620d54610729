//! Windows as a store shows them: the sums of each window, and the samples of many windows by stack.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

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
}

/// Identity of tables to which entries are only added: what was found out about an entry stays true as long as somebody
/// holds the identity.
#[derive(Clone, Debug, Default)]
pub struct TablesId(Arc<()>);

impl TablesId {
    /// A reference that does not keep the identity alive.
    pub fn downgrade(&self) -> WeakTablesId {
        WeakTablesId(Arc::downgrade(&self.0))
    }
}

/// A key for what was found out about tables. No other tables ever have an equal one.
#[derive(Clone, Debug)]
pub struct WeakTablesId(Weak<()>);

impl WeakTablesId {
    /// Whether somebody still has the tables.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

// The allocation, and so its address, stays as long as the key does.
impl PartialEq for WeakTablesId {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Eq for WeakTablesId {}

impl Hash for WeakTablesId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
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
    /// Identity of the tables, if they outlive the question: what was found out about their entries can be kept. Tables that were
    /// made for one question have none.
    pub id: Option<&'a TablesId>,
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
