//! ELF files and their call frame information to rows of unwind rules, and walks by them over
//! copied stacks. Go's functions have rows by Go's own table (`go`).
//!
//! In: the bytes of a file. Out: a [`Table`] of its rows, by file offset, and [`CodeRows`] of code without call frame information
//! where stacks stopped; and from the rows of all files and the mappings of processes the kernel's [`Tables`]. Pure: no IO, no panic on odd bytes,
//! and memory within limits. [`walk_copy`] walks as the kernel does, with
//! the same core, over a copy of the stack.
//!
//! A row takes 4 bytes: the low half of an address in a block of 64 KiB, and the number of a rule.
//! The 2,474 programs and libraries of a Debian (1.9 GB of code, 2.4 million functions) have 19.5
//! million rows in 78 MB, with some 4,500 different rules between them; reading them takes 1 ms a
//! megabyte of code. Against `llvm-dwarfdump`, all of 20.9 million rows are the same but 47 of
//! shapes that have no rule and 2 functions whose information is damaged; both are marked as
//! such. A part of the files is compared in each test run, all with `PILOTLIGHT_ALL_FILES=1
//! cargo test --release -p pilotlight-collector --test unwind -- --nocapture`. Files are read in
//! the collector itself, so of each at most 64 segments, 4,096 sections and 256 MiB of call frame
//! information are read, within 512 MiB that are looked through; a file with more has no rows.

mod cfi;
mod go;
mod instructions;
mod limits;
mod parts;
mod rules;
mod second;
mod stored;
mod table;
mod tables;
mod walk;

pub use cfi::{CallFrameInformation, CfiError, Evaluated, read_table};
pub use instructions::{CodeAddress, CodeRange, CodeRows, ReadCode, read_code};
pub use limits::Limits;
pub use rules::RuleSet;
pub use second::{MappedSections, SecondWalk, Sections, are_followed, walk_again};
pub use stored::{Digest, StoredError, decode_table, encode_table};
pub use table::{Block, Table};
pub use tables::{
    Evaluation, Found, KnownDigests, PAGE_BYTES, RefusedStats, TableKey, Tables, TablesStats, Write,
};
pub use walk::{AllRegisters, Lookup, StackCopy, walk, walk_copy};
