//! The log of a builder: what it got, so that it can be built again.
//!
//! Each record has the windows of one write, and the entries of the dictionary that no record before has. So a stack is written once
//! a log, and a record can be read with those before it only; a checkpoint has all entries. LOG.md describes the file.

mod callees;
mod columns;
mod entries;
pub(crate) mod frame;
mod replay;
mod windows;
mod writer;

pub use replay::{LogDamage, LogError, Replay, replay};
pub use writer::LogWriter;
