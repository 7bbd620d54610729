//! Turns answers into the forms that people and tools read.
//!
//! In: trees of calls, samples of windows. Out: columns for the page, folded stacks, SVG, pprof. Reads nothing and
//! decides nothing about what is selected.

pub mod folded;
pub mod graph;
pub mod pprof;
pub mod svg;
