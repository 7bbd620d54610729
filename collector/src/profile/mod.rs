//! Counts, names and labels -> pprof.
//!
//! In: a window, its names and its label sets. Out: one pprof of the whole node.
//! It does no IO.

mod build;
mod strings;

pub use build::{Built, build_profile};
