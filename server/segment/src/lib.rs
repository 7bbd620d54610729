//! Columnar segments: files of many windows with one dictionary, which are asked, merged and rolled up.
//!
//! A collector's window repeats the functions, files and stacks of the window before. A segment has each of them once, and the rows of
//! all windows as columns: a row of a busy cluster takes less than a byte. FORMAT.md describes the file.
//!
//! # Writing
//!
//! A [`Builder`] takes [windows](model::Window) in any order until it [is full](Builder::is_full), answers questions while it grows, and
//! writes a segment. [`Builder::measure_growth`] tells what a window would add to its dictionary. [`merge()`] makes one segment of several, or a few if the dictionary would be too large; it reads its inputs as
//! streams. It can add up the windows of a collector that start in the same minute, or in any other length of time. The caller syncs and
//! names the files.
//!
//! ```
//! use model::{TimeRange, text};
//! use model::FunctionNames;
//! use segment::{Builder, Effort, Segment, Selection, WindowSet, WriteOptions};
//!
//! let mut builder = Builder::default();
//! builder.add(&text::window_at("comm=sort | main sort_lines | 3", 0, 1))?;
//! builder.add(&text::window_at("comm=sort | main sort_lines | 4\ncomm=cat | main | 1", 10_000, 2))?;
//! let mut file = Vec::new();
//! builder.write(&WriteOptions::FAST, &mut file)?;
//!
//! let segment = Segment::open(file)?;
//! let series = segment.find_series(|labels| labels.value("comm") == "sort");
//! let range = TimeRange { from_ms: 10_000, to_ms: 20_000 };
//! let windows = WindowSet::in_range(&segment.read_window_starts()?, range);
//! let selection = Selection { series: &series, windows: &windows };
//! let sums = segment.sum_stacks(&selection, Effort::ONE).whole()?;
//! assert_eq!((sums.len(), sums[0].samples), (1, 4));
//! let read = segment.read_stacks(&[sums[0].stack], &[], FunctionNames::Shown, Effort::ONE).whole()?;
//! assert_eq!(read.tables.walk_stack(read.stacks[0].unwrap_or_default()).count(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The log of an open block
//!
//! A [`LogWriter`] makes records of what a builder got, which the caller appends to a file and syncs; [`replay()`] builds it again. LOG.md
//! describes the file.
//!
//! ```
//! use model::text;
//! use segment::{Builder, LogWriter, Source, replay};
//!
//! let (mut builder, mut log, mut file) = (Builder::default(), LogWriter::new(0), Vec::new());
//! builder.add(&text::window_at("comm=sort | main sort_lines | 3", 0, 1))?;
//! log.encode(&builder, &mut file);
//! log.commit(); // The file was synced.
//! builder.add(&text::window_at("comm=sort | main sort_lines | 4", 10_000, 2))?;
//! log.encode(&builder, &mut Vec::new());
//! log.roll_back(&mut builder); // The write failed.
//! assert_eq!(builder.window_count(), 1);
//! assert_eq!(replay(&file)?.builder.window_count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Opening
//!
//! [`Segment::open`] reads the footer and the labels of series. That gives, without another read: what the file has in all
//! ([`Segment::summary`]: range, resolution, level, nodes, messages, rows, samples), the entries and bytes of each section
//! ([`Segment::section`]), and series with their numbers ([`Segment::find_series`], [`Segment::series_label_set`]).
//!
//! Everything else is read when it is asked for, in chunks at any position ([`ReadAt`]). Nothing is cached; threads are those of the
//! caller's [`Effort`].
//!
//! # Asking
//!
//! Segments and builders are asked alike: both are a [`Source`]. A question is about a [`Selection`]: series, and windows of a range
//! ([`WindowSet::in_range`] of [`Source::read_window_starts`]).
//!
//! - [`Source::read_summed_rows`]: sums by series, stack and tag set, and one set of tables for all of them. It is
//!   [`Source::sum_pairs`] and [`Source::resolve_pairs`].
//! - [`Source::sum_groups`]: the same by groups of series, for `resolve_pairs`. It is the faster the fewer groups there are.
//! - [`Source::sum_stacks`]: sums by stack; [`Segment::fold_pairs`] by anything. [`Source::read_stacks`] has their stacks.
//! - [`Source::read_window_sums`]: for each window its head, the sums of its series and the accounts of containers.
//!   [`Source::read_cells`] shows these sums series by series. Neither reads rows.
//! - [`Source::read_windows`], [`Source::read_accounts`], [`Source::read_usage`], [`Source::read_containers`]: the parts of heads.
//! - [`Source::read_messages`]: which messages brought the windows, with their digests, also after a roll-up.
//! - [`Source::read_program_files`]: which builds of its program a series ran, and when.
//! - [`Source::read_rows`] and [`Source::read_whole_windows`]: windows as they were received.
//!
//! A merge that was split has all windows in each output, with equal numbers; heads are those of the first
//! ([`Segment::has_accounts`]), and sums are those of all.
//!
//! # Two collectors of a node
//!
//! [`find_overlaps`] tells which time of a window another collector sampled too. A roll-up keeps windows that can be left out apart.
//!
//! # Checking
//!
//! [`Segment::verify`] reads a file to the last byte. [`Builder::compare`] reads a segment and compares it with the windows that were
//! added to a builder: the one that wrote it, or one to which its source was added again. It is exact, and takes about as long as
//! building.
//!
//! # Damage
//!
//! Each chunk has a checksum. A question leaves out what a damaged chunk has, and says which one it is ([`Partial`]): sums are exact or
//! missing, never wrong. A merge stops at damage.
//!
//! # Limits
//!
//! They are in FORMAT.md, beside the code in constants, and checked before memory is taken. No bytes make the crate panic.

mod build;
mod chunk;
mod codec;
mod dictionary;
mod error;
mod file;
#[cfg(feature = "test-support")]
pub mod fuzzing;
mod log;
mod merge;
mod overlap;
mod read;
mod read_at;
mod section;
mod tree;
mod write;

pub use build::{BUILDER_BYTES_MAX, Builder, Growth, NODES_MAX};
pub use chunk::accounts::WindowAccount;
pub use chunk::cells::{Cell, UsageCell};
pub use chunk::digests::Digest;
pub use chunk::windows::{Message, WindowInfo};
pub use error::{Cause, Damage, Error, Partial};
pub use file::footer::{Addresses, Summary};
pub use log::{LogDamage, LogError, LogWriter, Replay, replay};
pub use merge::{MergeOptions, drop_addresses, merge};
pub use overlap::{NodeMessage, find_overlaps};
pub use read::Segment;
pub use read::parallel::Effort;
pub use read::program_files::{Program, ProgramFile};
pub use read::questions::{Pair, SegmentRow, StackSum};
pub use read::selection::{Selection, WindowSet};
pub use read::source::Source;
pub use read::stacks::StackTables;
pub use read::sums::SummedRows;
pub use read::window_sums::{SeriesSum, WindowSums};
pub use read::windows::ReceivedMessage;
pub use read_at::ReadAt;
pub use section::Section;
pub use write::WriteOptions;
