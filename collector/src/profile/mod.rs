//! Counts, names and labels -> pprof.
//!
//! In: a window, its names and its label sets. Out: one pprof of the whole node. Does no IO.

mod build;
mod strings;

pub use build::{Built, build_profile};
pub(crate) use build::{mapping_id, split_module};
