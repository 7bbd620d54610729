//! The interface of stores.

use std::sync::Arc;

use model::{
    FunctionNames, LabelSet, NodeReport, Question, SeriesId, SeriesTable, StackSums, Stop,
    TimeRange, Unread, Window, WindowTotals,
};

use crate::{Kept, Versions, WindowCells};

/// Nodes whose last report is kept: of at most 256 KiB, and usually 6 KB, so that 4,096 take 24 MB. A node on which a policy excludes
/// 100 pods adds 12 KB.
pub const REPORTS_MAX: usize = 4096;

/// Entries of [`Snapshot::unread`]: 100 with a reason of 200 bytes are 30 KB of JSON.
pub const UNREAD_MAX: usize = 100;

/// Outcome of appending a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable now.
    Stored,
    /// It was durable before.
    Duplicate,
}

/// Why a call of a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space is left.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The disk or the catalog failed.
    #[error("{0}")]
    Failed(String),
    /// The message was stored before, with other content.
    #[error(
        "message {sequence} of this collector was stored before with other content: two collectors use the same instance, or one counts anew"
    )]
    OtherContent {
        /// Number of the message.
        sequence: u64,
    },
    /// The node has brought so much to the hour of the window that this one would be beyond a limit.
    #[error("{message}")]
    HourLimit {
        /// The limit.
        limit: HourLimit,
        /// The node, what it brought, and what a person can do.
        message: String,
    },
    /// The store is being closed.
    #[error("the server is stopping")]
    Stopping,
    /// The question was stopped.
    #[error(transparent)]
    Stopped(#[from] Stop),
}

/// Quantity that is limited for each hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HourLimit {
    /// Different label sets.
    Series,
    /// Bytes of different label sets.
    Labels,
    /// Nodes of the tree of stacks.
    Stacks,
    /// Locations.
    Locations,
    /// Nodes of the cluster.
    Nodes,
}

impl HourLimit {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Series => "label sets",
            Self::Labels => "bytes of labels",
            Self::Stacks => "frames of stacks that no stack before had",
            Self::Locations => "locations",
            Self::Nodes => "names of nodes",
        }
    }

    /// Remedy.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Series => {
                "drop the label that has many values with --relabel-config of the collector, or raise --hour-series-max of the server"
            }
            Self::Labels => {
                "drop long labels with --relabel-config of the collector, or raise --hour-series-max of the server"
            }
            Self::Stacks => {
                "lower --frequency of the collector, exclude the program by its policy, or raise --hour-stacks-max of the server"
            }
            Self::Locations => {
                "exclude the program that makes code all the time by the policy of the collector, or raise --hour-locations-max of the server"
            }
            Self::Nodes => "give each collector the same --node at each start",
        }
    }
}

/// The series that a query selects.
pub struct SeriesFilter<'a> {
    /// Labels that must have these values; they are looked up in postings.
    pub equal: Vec<(&'a str, &'a str)>,
    /// Whether a label set is selected; called for all series with these values.
    pub matches: &'a dyn Fn(&LabelSet) -> bool,
}

impl SeriesFilter<'_> {
    /// Whether a label set is selected.
    pub fn selects(&self, labels: &LabelSet) -> bool {
        let mut equal = self.equal.iter();
        equal.all(|(name, value)| labels.value(name) == *value) && (self.matches)(labels)
    }
}

/// Sizes of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreNumbers {
    /// Segments.
    pub segments: usize,
    /// Bytes of their files.
    pub segment_bytes: u64,
    /// Blocks: windows that are in no segment yet.
    pub blocks: usize,
    /// Bytes of them in memory.
    pub block_bytes: usize,
    /// Bytes of their logs.
    pub log_bytes: u64,
    /// Files of earlier versions that are not converted yet.
    pub old_files: usize,
    /// Files that are known to be damaged or gone.
    pub damaged_files: usize,
}

/// State of a store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreState {
    /// Whether queries can be answered, or the cause.
    pub readable: Result<(), StoreError>,
    /// Whether windows can be appended, or the cause.
    pub writable: Result<(), StoreError>,
    /// The store's file system, or why it does not tell.
    pub space: Result<DiskSpace, StoreError>,
}

/// The file system of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes free for the server's user.
    pub free_bytes: u64,
    /// Bytes in all.
    pub size_bytes: u64,
    /// Free bytes that windows leave for the catalog.
    pub reserve_bytes: u64,
}

impl DiskSpace {
    pub(crate) fn has_room(self, bytes: u64) -> bool {
        self.free_bytes >= self.reserve_bytes.saturating_add(bytes)
    }
}

/// A store of windows. All methods may block: they are for threads that may.
pub trait Store: Send + Sync {
    /// Appends a window. Returns when it is durable.
    ///
    /// # Errors
    /// It was not stored.
    fn append(&self, window: Window) -> Result<Appended, StoreError>;

    /// Takes what the store has now of a range, for one question.
    ///
    /// # Errors
    /// The catalog failed.
    fn ask(
        &self,
        range: TimeRange,
        question: &Arc<Question>,
    ) -> Result<Box<dyn Snapshot + '_>, StoreError>;

    /// As [`Self::ask`], for a question that may take any memory and is never stopped.
    ///
    /// # Errors
    /// The catalog failed.
    fn snapshot(&self, range: TimeRange) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.ask(range, &Question::unlimited())
    }

    /// Keeps a node's report in place of the one before, if it [replaces](NodeReport::replaces) that. Above
    /// [`REPORTS_MAX`] nodes the one that was silent longest is forgotten. Is durable within a second.
    ///
    /// # Errors
    /// The catalog failed.
    fn put_report(&self, report: NodeReport) -> Result<(), StoreError>;

    /// The last report of each node, by name.
    ///
    /// # Errors
    /// The catalog failed.
    fn reports(&self) -> Result<Vec<NodeReport>, StoreError>;

    /// Which versions of workloads and programs ran, and when. May be read from the windows of the last minutes.
    fn versions(&self) -> Versions;

    /// Checks what the store can do now. Reads the disk, which may not answer: probes are shown the last state.
    fn state(&self) -> StoreState;

    /// Sizes, for the metrics.
    fn numbers(&self) -> StoreNumbers;

    /// All damage that is known, by time, whichever question needs what is damaged: at most [`UNREAD_MAX`] entries, of which the last has
    /// the rest. Does not read the disk.
    fn damage(&self) -> Vec<Unread>;

    /// Size and limits of the store. Does not read the disk.
    fn kept(&self) -> Kept;
}

/// The windows that start in a range, as the store had them when the snapshot was taken: all that were durable then. Later windows are
/// not in it, and nothing in it is taken away, whatever the store removes.
///
/// Where two collectors of a node sampled at the same time, the one that started later counts: a window all of whose time is in windows of
/// such collectors, in the range or not, is left out of [`Self::list_series`] and [`Self::sum_stacks`], and [`Self::scan_totals`] shows it with
/// that ([`WindowTotals::overlap`]). A window of which a part is there counts whole. So the answer about a range is the sum of those
/// about its parts.
///
/// All methods may block, and may be called any number of times by any number of threads. What they cannot read they leave out, and
/// [`Self::unread`] tells it. What they keep in memory is on the account of the question; they end with an error soon after it was
/// stopped.
pub trait Snapshot: Send + Sync {
    /// The question.
    fn question(&self) -> &Arc<Question>;

    /// A number for what it has: another one, if the store got, changed or removed something of the range meanwhile.
    fn version(&self) -> u64;

    /// About how many bytes a question for the samples of these series reads. Takes less than a millisecond for a hundred files.
    fn estimate_bytes(&self, filter: &SeriesFilter<'_>) -> u64;

    /// Finds series; some may have no window in the range, only a later one, or only some that are left out.
    ///
    /// # Errors
    /// The catalog failed.
    fn find_series(&self, filter: &SeriesFilter<'_>) -> Result<SeriesTable, StoreError>;

    /// Finds the series that have a window in the range. Cheaper than reading the windows.
    ///
    /// # Errors
    /// The catalog failed.
    fn list_series(&self, filter: &SeriesFilter<'_>) -> Result<SeriesTable, StoreError>;

    /// The labels of series and of accounts of containers in [`WindowTotals`], parallel to their numbers.
    ///
    /// # Errors
    /// The catalog failed.
    fn find_labels(&self, ids: &[SeriesId]) -> Result<Vec<Arc<LabelSet>>, StoreError>;

    /// Shows the sums of each window, by time, also of those that are left out.
    ///
    /// # Errors
    /// The catalog failed.
    fn scan_totals(&self, visit: &mut dyn FnMut(&WindowTotals)) -> Result<(), StoreError>;

    /// Shows of [`Self::scan_totals`] what a time series needs: the windows that are not left out, in any order, and the samples of these
    /// series in them.
    ///
    /// # Errors
    /// The catalog failed.
    fn scan_cells(
        &self,
        series: &SeriesTable,
        visit: &mut dyn FnMut(&WindowCells),
    ) -> Result<(), StoreError> {
        self.scan_totals(&mut |totals| {
            if !totals.overlap.is_left_out() {
                visit(&WindowCells::of(totals, series));
            }
        })
    }

    /// Shows the samples of these series, added up by group, stack and tags, as far as that is cheap: the same ones may come again, in the
    /// same tables or in others. `groups` has the group of each series of the table: with one group for all, there are a tenth of the
    /// sums. The tables have these names of functions at least.
    ///
    /// # Errors
    /// The catalog failed.
    fn sum_stacks(
        &self,
        series: &SeriesTable,
        groups: &[u32],
        names: FunctionNames,
        visit: &mut dyn FnMut(&StackSums<'_>),
    ) -> Result<(), StoreError>;

    /// Whether windows of the snapshot overlap windows of other collectors of their nodes. If not, [`WindowTotals::overlap`] has no time.
    ///
    /// # Errors
    /// The catalog failed.
    fn has_overlaps(&self) -> Result<bool, StoreError>;

    /// Whether addresses of locations with functions and lines were dropped of some of its windows.
    fn lacks_addresses(&self) -> bool;

    /// Windows that could not be read by now, by time: at most [`UNREAD_MAX`] entries, of which the last has the rest. A window counts once,
    /// however often it was asked for.
    fn unread(&self) -> Vec<Unread>;
}
