//! Addresses -> files and offsets.
//!
//! In: a sample and its process. Out: its stack as (file, offset), the form in
//! which stacks are compared, sent and stored. It never names anything.

mod kernel_text;
mod stack;

pub use kernel_text::{KernelText, find_kernel_text};
pub use stack::{Addresses, Located, LocatedFrame, StackOutcome, StandIns, locate_stack};
