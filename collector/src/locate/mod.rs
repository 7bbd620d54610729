//! Addresses -> files and offsets.
//!
//! In: a sample and its process. Out: its stack as (file, offset), the form in which stacks are
//! compared, sent and stored. Does not name anything.

mod kernel_text;
mod stack;

pub use kernel_text::{KernelText, find_kernel_text};
#[cfg(test)]
pub(crate) use stack::testing;
pub use stack::{Addresses, Located, LocatedFrame, StackOutcome, StandIns, locate_stack};
