//! ELF files and their call frame information to rows of unwind rules.
//!
//! In: the bytes of a file. Out: a [`Table`] of its rows, by file offset. Pure: no IO, no
//! panic on odd bytes, and memory within the limits that stand here.

mod cfi;
mod elf;
mod rules;
mod table;

pub use cfi::{CfiError, Evaluated, read_table};
pub use elf::{CodeRange, Limits};
pub use rules::RuleSet;
pub use table::{Block, Table};
