//! Keeps windows of profiles, and finds them by time and labels.
//!
//! [`Store`] is what the server asks of a store; [`EmbeddedStore`] is the one in plain files, and [`MemoryStore`] the plain one
//! that it is compared with: `tests/conformance/` puts the same questions to both. A store gets windows that were
//! checked, and shows label sets, sums and samples by stack. It knows neither the wire, nor the syntax of selectors, nor symbols, nor
//! what a query does with the samples.
//!
//! # What a store promises
//!
//! - A window is durable when [`Store::append`] returns [`Appended::Stored`]. A message (instance and sequence of the
//!   [`WindowKey`](model::WindowKey)) is kept once; a repeat is an
//!   [`Appended::Duplicate`], and one with other content a [`StoreError::OtherContent`].
//! - A question is put to a [`Snapshot`]: the windows that *start* in a range, as they were when it was taken. Each counts whole, and
//!   once.
//! - Equal label sets have one [`SeriesId`](model::SeriesId) in a snapshot.
//! - Windows' sums are shown by time, and samples as [`StackSums`](model::StackSums).
//! - What could not be read is left out and told: [`Snapshot::unread`].
//! - Methods block, and may be called by any number of threads.

mod cells;
pub mod embedded;
mod kept;
mod memory;
mod store;
mod unread;
mod versions;

pub use cells::{WindowCell, WindowCells, WindowSpan};
pub use embedded::{EmbeddedStore, HourLimits, RetentionFlags, StoreMetrics, StoreOptions};
pub use kept::{BeyondDefaults, Kept, RollUp, RollUpAddresses};
pub use memory::MemoryStore;
pub use store::{
    Appended, DiskSpace, HourLimit, REPORTS_MAX, SeriesFilter, Snapshot, Store, StoreError,
    StoreNumbers, StoreState, UNREAD_MAX,
};
pub use versions::{
    PROGRAM_LABEL, SEGMENT_VERSIONS_MAX, VersionKey, VersionKind, VersionTimes, Versions,
    WORKLOAD_LABELS,
};
