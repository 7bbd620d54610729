//! What the end-to-end tests share: expected results, parsed answers, their comparison, and waits.
//!
//! The tests, in `tests/`, start programs and send requests; this library has only functions of their
//! output, and of functions that ask for it.
//!
//! - [`expected`]: the expected profile of a workload, and the workload's own report.
//! - [`graph`]: the flame graph of the server's HTTP API -> stacks.
//! - [`policy`]: whether a collector follows a policy.
//! - [`pprof`]: the table of `go tool pprof -top`.
//! - [`sampled_once`]: accounts of collectors -> whether each moment was sampled once.
//! - [`statistics`]: the probability of a count.
//! - [`wait`]: waits for answers.

#![forbid(unsafe_code)]

pub mod expected;
pub mod graph;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod modules;
pub mod policy;
pub mod pprof;
pub mod sampled_once;
pub mod statistics;
pub mod wait;
