//! ELF files and their call frame information to rows of unwind rules, and walks by them over
//! copied stacks.
//!
//! In: the bytes of a file. Out: a [`Table`] of its rows, by file offset; and from the rows of all
//! files and the mappings of processes the kernel's [`Tables`]. Pure: no IO, no panic on odd bytes,
//! and memory within the limits that stand here. [`walk_copy`] is what the kernel does too, with
//! the same core, where the stack's bytes were copied instead.

mod cfi;
mod elf;
mod intervals;
mod pages;
#[cfg(test)]
mod random;
mod rules;
mod second;
mod stored;
mod table;
mod tables;
mod walk;

pub use cfi::{CallFrameInformation, CfiError, Evaluated, read_table};
pub use elf::{CodeRange, Limits};
pub use pages::PAGE_BYTES;
pub use rules::RuleSet;
pub use second::{MappedSections, SecondWalk, Sections, are_followed, walk_again};
pub use stored::{Digest, StoredError, decode_table, encode_table};
pub use table::{Block, Table};
pub use tables::{Evaluation, Found, RefusedStats, TableKey, Tables, TablesStats, Write};
pub use walk::{AllRegisters, Lookup, StackCopy, walk, walk_copy};
