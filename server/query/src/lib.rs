//! Answers questions about stored profiles.
//!
//! A question is a [`Selection`]: labels ([`Selector`], in PromQL's syntax) and a range of time. It is put to one
//! [`Snapshot`](store::Snapshot) of a store, or to [`Profiles`] where it shows frames: those have the names that the nodes did not
//! know, from a [`NameSource`](names::NameSource). What could not be read, the snapshot tells after the question. Answers are trees, tables and series of numbers; `render` and the program give them a form.
//!
//! | question | answer |
//! | --- | --- |
//! | [`build_tree`] | the stacks as a tree of frames, merged as far as somebody looks |
//! | [`functions::list_functions`] | a tree's functions by own or total CPU time |
//! | [`lines::report_lines`] | one function by line |
//! | [`stacks::report_stacks`] | which stacks are complete, and where and why others end |
//! | [`unknown::report_unknown`] | frames without a name, and the reasons |
//! | [`timeseries::sum_over_time`] | CPU time over time, by a label |
//! | [`series::list_series`], [`label_values`] | the series, their labels and values |
//! | [`containers::report_containers`] | samples against the kernel's accounts of containers |
//! | [`overlap::sum_overlap`] | what two collectors of a node sampled at once |
//! | [`nodes::list_nodes`] | nodes: their windows, accounts and reports |
//! | [`versions::report_versions`] | images and builds that ran, and when they came |
//!
//! Sums saturate and never wrap. Equal questions about equal windows have equal answers, whatever is in a cache: lists are ordered
//! by CPU time and then by name.
//!
//! The crate does no IO of its own. It knows neither files nor URLs.

#[cfg(test)]
extern crate self as query;

pub mod containers;
pub mod frame_names;
pub mod frame_table;
pub mod functions;
pub mod label_values;
pub mod lines;
pub mod names;
pub mod nodes;
pub mod overlap;
pub mod profiles;
pub mod selection;
pub mod selector;
pub mod series;
pub mod sets;
pub mod stacks;
pub mod text;
pub mod time;
pub mod timeseries;
pub mod tree;
pub mod unknown;
pub mod unread;
pub mod versions;

pub use profiles::{NamedSums, Profiles};
pub use selection::Selection;
pub use selector::{Selector, SelectorError, parse_selector};
pub use tree::{Tree, build_tree};
