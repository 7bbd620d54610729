//! The unwinder core: registers and a way to read memory give the next frame.
//!
//! Pure functions without IO, the same in the kernel, in user space over a
//! copied stack, and in tests. They never panic and never read but through the
//! closure that they are given. Frame pointers are the one rule so far; rules
//! from unwind tables join them here.

use crate::outcome::Outcome;

/// What one step of a walk gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The registers are now the caller's.
    Caller,
    /// There is no caller: the stack is complete.
    End,
    /// The caller could not be found, for this reason.
    Failed(Outcome),
}
