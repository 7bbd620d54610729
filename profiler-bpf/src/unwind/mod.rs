//! The unwinder core: registers, a rule and a way to read memory give the next frame.
//!
//! Pure functions without IO, the same in the kernel, in user space over a
//! copied stack, and in tests. They never panic and never read but through the
//! closure that they are given. Rules and their application depend on the
//! processor and are in [`arch`](crate::arch); their look-up does not.

mod row;

pub use row::{BLOCK_BYTES, Row, find_rule};

use crate::outcome::Outcome;

/// The result of one step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The registers are now the caller's; the instruction pointer is a return address.
    Caller,
    /// The registers are now those of code that a signal interrupted: the instruction
    /// pointer is the interrupted instruction itself.
    Interrupted,
    /// There is no caller: the stack is complete.
    End,
    /// The caller could not be found, for this reason.
    Failed(Outcome),
}
