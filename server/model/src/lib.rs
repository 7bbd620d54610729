//! The server's types: windows of nodes, their stacks and names, series, and reports of nodes.
//!
//! The receiving stage makes windows of messages, a store keeps them, a query reads them. These types are all that the three
//! share: they know neither the wire, nor the disk, nor a question. The crate does no IO.
//!
//! # Windows
//!
//! A [`Window`] is the profile of one node over some ten seconds: a head with the accounts of its samples, label sets, and a
//! [`Row`] for each (series, tags, stack). Rows are numbers; the texts, files, functions, locations and stacks that they refer
//! to are in the window's [`Tables`].
//!
//! A store gives each label set a [`SeriesId`]. It shows the sums of each window ([`WindowTotals`]), and the samples of many windows
//! by series, stack and tags ([`StackSums`]). What it could not read is [`Unread`].
//!
//! # Tables
//!
//! A [`Dictionary`] finds an entry by its whole value, so that each occurs once; [`Import`] copies what is used from other
//! tables into it. A stack is a node of a tree, (parent, location); parents come before their children.
//!
//! ```
//! use model::{Dictionary, Import, text};
//!
//! let window = text::window("comm=sort | main sort_lines | 3\ncomm=sort | main | 1");
//! let mut dictionary = Dictionary::default();
//! let mut import = Import::new(&window.tables);
//! let stacks: Vec<_> = window.rows.iter().map(|row| import.stack(&mut dictionary, row.stack)).collect();
//! assert_eq!(dictionary.tables().walk_stack(stacks[0]).count() + dictionary.tables().walk_stack(stacks[1]).count(), 3);
//! assert_eq!(dictionary.tables().stacks.len(), 3, "the empty stack, `main`, and `sort_lines` above it");
//! ```
//!
//! # Names
//!
//! A location has the lines that its node found. Lines that were found later ([`JoinedLines`]) are laid over the tables
//! ([`NamedTables`]); they are no part of a location's identity. A location without lines has a reason ([`Unnamed`],
//! [`WhyNot`]).
//!
//! # Questions
//!
//! A [`Question`] goes with the work on an answer, through all parts: it tells when nobody waits for the answer any more, has the
//! account of the memory that the work takes ([`Charge`]), and counts what is read ([`Reading`]).
//!
//! # Limits
//!
//! Numbers of entries have 32 bits. Nothing here checks lengths: a message is checked before a window is made of it.

mod charged_buffer;
pub mod dictionary;
mod digest;
mod import;
pub mod joined;
pub mod node_report;
pub mod outcome;
pub mod question;
pub mod reading;
pub mod series;
mod spare;
pub mod stored;
pub mod tables;
pub mod text;
pub mod time_range;
pub mod unnamed;
pub mod window;

pub use charged_buffer::ChargedBuffer;
pub use dictionary::Dictionary;
pub use import::Import;
pub use joined::{JoinedLines, Lines, NamedTables};
pub use node_report::NodeReport;
pub use profile::{LabelSet, UnnamedReason};
pub use question::{Charge, Question, QuestionMemory, Stop};
pub use reading::{ReadCounts, Reading};
pub use series::{SeriesId, SeriesTable};
pub use spare::{Evict, SpareCharge};
pub use stored::{Messages, StackSum, StackSums, Unread, WindowOverlap, WindowTotals};
pub use tables::{
    Function, FunctionNames, Line, Location, Mapping, MappingFlags, StackNode, Tables, Tag,
    TagValue, Unnamed,
};
pub use time_range::TimeRange;
pub use unnamed::WhyNot;
pub use window::{
    Account, ContainerAccount, ContainerUsage, PROCESS_LABELS, ProfileHead, Row, SAMPLE_TYPES,
    Window, WindowHead, WindowKey,
};
