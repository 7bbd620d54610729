//! Runs a server and a collector together on one machine.
//!
//! `make run` is this crate's binary; the end-to-end test uses the same pieces, so that what it tests is started and
//! stopped as people start and stop it. Nothing here samples, stores or computes a profile: the numbers come from the
//! collector's `/metrics` and the server's HTTP API.
//!
//! - [`child`]: one program, in a process group of its own, with its standard error kept in a file.
//! - [`http`]: GET from an address on this machine, as text or JSON.
//! - [`metrics`]: the Prometheus text format, read.
//! - [`wait`]: until a condition holds, with a time-out.
//! - [`summary`]: two snapshots of the numbers -> the lines that the terminal shows.

#![forbid(unsafe_code)]

pub mod child;
pub mod http;
pub mod metrics;
pub mod summary;
pub mod wait;
