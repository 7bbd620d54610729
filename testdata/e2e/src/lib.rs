//! The pure half of the end-to-end test: expected results, parsed answers, and their comparison.
//!
//! The other half, in `tests/e2e/`, starts programs and sends requests; this half has only
//! functions of their output.
//!
//! - [`expected`]: the expected profile of a workload, and the workload's own report.
//! - [`graph`]: the flame graph of the server's HTTP API -> stacks.
//! - [`pprof`]: the table of `go tool pprof -top`.
//! - [`sampled_once`]: accounts of seconds -> whether each moment was sampled once.
//! - [`statistics`]: the probability of a count.

#![forbid(unsafe_code)]

pub mod expected;
pub mod graph;
#[cfg(test)]
mod modules;
pub mod pprof;
pub mod sampled_once;
pub mod statistics;
