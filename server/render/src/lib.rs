//! Gives answers a form for people and tools.
//!
//! | form | from | for |
//! | --- | --- | --- |
//! | [`graph`] | a tree | the page: columns, cut to a number of nodes without losing a sample |
//! | [`folded`] | a tree | scripts: a line a stack, as Brendan Gregg's tools write it |
//! | [`svg`] | a tree | a browser: a flame graph with a search and a zoom of its own |
//! | [`pprof`] | stored windows | `go tool pprof` and others: gzipped, with mappings by which they find the code |
//!
//! Nothing here selects, reads files, or knows a URL.

pub mod folded;
pub mod graph;
mod mappings;
pub mod pprof;
pub mod svg;
