//! The pure half of the end-to-end test: what was expected, what was answered, and whether the two agree.
//!
//! The other half, in `tests/e2e/`, starts programs and asks them; here are only functions of their output.
//!
//! - [`expected`]: the expected profile of a workload, and the truth that the workload reports of itself.
//! - [`graph`]: the flame graph of the server's HTTP API -> stacks.
//! - [`pprof`]: the table that `go tool pprof -top` prints.
//! - [`statistics`]: how unlikely a count is.

#![forbid(unsafe_code)]

pub mod expected;
pub mod graph;
pub mod pprof;
pub mod statistics;
