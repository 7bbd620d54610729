//! The store in files.
//!
//! A window is added to a [block](block) in memory and appended to its log; it is durable when the log is synced. After five minutes a
//! block is written as a columnar segment (see the crate `segment`), which takes the place of the log. Segments are merged from parts of
//! hours to hours, days and weeks, rolled up and evicted as the [plan] says. Questions read [snapshots](snapshot): lists of segments and
//! blocks, which stay readable when their files are removed.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`writer`] | adds windows, the only thread that does |
//! | [`hour_limits`] | how much new a node may bring to an hour |
//! | [`compactor`] | writes blocks as segments, converts files of earlier versions, merges, evicts |
//! | [`plan`] | which segments are merged, rolled up and evicted; pure |
//! | [`output`] | new segments, checked before they count |
//! | [`replace`] | lets files take the place of others, all or none |
//! | [`files`], [`disk`] | small steps on files, and the file system |
//! | [`recovery`] | the start, after a kill at any moment; [`logs`] and [`doubles`] are parts of it |
//! | [`snapshot`] | answers questions |
//! | [`overlap`] | windows that an answer leaves out |
//! | [`verifier`] | reads all segments again, so that damage is known before a question finds it |
//! | [`versions`] | images and builds that ran, and when |
//! | [`sum_cache`] | sums of segments that were asked for before |
//! | [`inspect`] | what is damaged, and what takes how many bytes |
//! | [`catalog`] | sled: what is small; segments are the truth |
//! | [`old`] | files of earlier versions |

pub mod block;
pub mod catalog;
pub mod compactor;
pub mod content;
pub mod directory;
pub mod disk;
pub mod doubles;
pub mod files;
pub mod hour_limits;
pub mod inspect;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod old;
pub mod output;
pub mod overlap;
pub mod plan;
pub mod recovery;
pub mod replace;
pub mod report;
pub mod sequences;
pub mod shared;
pub mod snapshot;
pub mod space;
pub mod span;
mod store;
pub mod sum_cache;
pub mod verifier;
pub mod versions;
pub mod wakeup;
pub mod writer;

pub use self::metrics::StoreMetrics;
pub use hour_limits::HourLimits;
pub use limits::RetentionFlags;
pub use store::{EmbeddedStore, StoreOptions};
