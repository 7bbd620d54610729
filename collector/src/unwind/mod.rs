//! ELF files and their call frame information to rows of unwind rules, and walks by them over
//! copied stacks.
//!
//! In: the bytes of a file. Out: a [`Table`] of its rows, by file offset. Pure: no IO, no
//! panic on odd bytes, and memory within the limits that stand here. [`walk_copy`] is what the
//! kernel does too, with the same core, where the stack's bytes were copied instead.

mod cfi;
mod elf;
mod rules;
mod table;
mod walk;

pub use cfi::{CfiError, Evaluated, read_table};
pub use elf::{CodeRange, Limits};
pub use rules::RuleSet;
pub use table::{Block, Table};
pub use walk::{AllRegisters, Lookup, StackCopy, walk, walk_copy};
