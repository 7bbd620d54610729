//! Names of addresses: a file or a table in, [`Frame`]s out.
//!
//! A frame is a function at an address, with its file and line if they are known; inlined calls are frames of their own. The source of
//! names depends on the memory that the address is in:
//!
//! | memory | source | module |
//! | --- | --- | --- |
//! | an ELF file | symbol tables, linkage tables | [`SymbolTables`] |
//! | | DWARF in the file, in split files and packages, shared by `dwz` | `dwarf` |
//! | | Go's own table of functions, which stripping leaves | [`go`] |
//! | | call frame information: starts of functions without a name | [`Boundaries`] |
//! | | instructions: ends of functions whose symbol has no length | `labels` |
//! | the kernel, a module, a BPF program | `/proc/kallsyms` | [`kallsyms`] |
//! | code of a JIT compiler | perf maps, jitdumps | [`jit`] |
//!
//! `ElfResolver` asks all sources of an ELF file in their order. A server names the same build again and again: it makes an index of
//! the file once and maps that (module `index`).
//!
//! Go's table also has the stack's depths: [`go`] makes unwind rows of them.
//!
//! [`FileFacts`] are the facts that decide how a file is named: debug information, and links to other files with it.
//! Names are mangled until [`demangle()`] makes them readable, once, before they leave the process.
//!
//! # The caller
//!
//! - calls this crate in a confined child, since a process may truncate, replace or invent the file that it maps;
//! - opens files, and decides which to trust. Where names are in another file, the crate returns the wanted file
//!   (`dwarf::Lookup::Wants`), and the caller passes it in. The crate opens no path;
//! - stays within a budget of time.
//!
//! Readers of untrusted files have fixed limits, never panic, and do not map: a truncated file is a short read. Only an index, which
//! the caller made itself, is mapped.
//!
//! # Features
//!
//! `files` names addresses in files (`ElfResolver`, `dwarf`); `index` makes and maps indexes. Each has its own DWARF reader, and each
//! program uses one of them.

mod boundaries;
mod demangle;
#[cfg(feature = "files")]
pub mod dwarf;
mod facts;
mod frame;
pub mod go;
#[cfg(feature = "index")]
pub mod index;
pub mod jit;
pub mod kallsyms;
#[cfg(any(feature = "files", feature = "index"))]
mod labels;
#[cfg(feature = "files")]
mod object_file;
#[cfg(feature = "files")]
mod resolver;
mod strings;
mod symbols;

pub use boundaries::Boundaries;
pub use demangle::{demangle, is_mangled};
pub use facts::{FileFacts, read_facts};
pub use frame::{FUNCTIONS_MAX, Frame, STRING_BYTES_MAX};
#[cfg(feature = "files")]
pub use object_file::ObjectFile;
#[cfg(feature = "files")]
pub use resolver::{
    Answer, DebugInfoReader, DebugOutcome, ElfResolver, FoundBy, Resolved, UseDebugInfo,
};
pub use symbols::SymbolTables;
