//! (file, offset) -> names.
//!
//! In: offsets in the kernel, in the vDSO and in ELF files, and addresses of code made at run time. Out: functions with
//! files and lines, inlined ones included, or the reason why there are none.
//! Never parses a file in the collector's own process: its child does, and may die of it.
//!
//! ```text
//! Namer -- cache (known?) -- open (descriptor) -- process ==socket==> child -- kernel | vdso | elf -- dwarf | go | jit
//! ```

mod answers;
mod boundaries;
mod budget;
mod cache;
mod channel;
mod child;
mod confine;
mod debug_file;
mod demangle;
mod dwarf;
mod elf;
mod facts;
mod go;
mod headers;
mod held;
mod jit;
mod kallsyms;
mod kernel;
mod linked_file;
mod memory;
mod namer;
mod naming;
mod object;
mod open;
mod process;
pub mod protocol;
mod stats;
mod strings;
mod symbols;
mod vdso;

pub use answers::Found;
pub use boundaries::Boundaries;
pub use budget::CpuBudget;
pub use child::{CHILD_ARGUMENT, ChildLimits, run_child};
pub use debug_file::FoundBy;
pub(crate) use debug_file::find_debug_file;
pub use dwarf::{BlockCache, LinkedFiles, Linking, Lookup};
pub(crate) use facts::parse_debug_link;
pub use facts::{AlternativeLink, FileFacts, Segment, read_facts};
pub use go::{GoFile, GoFunction};
pub use headers::read_headers;
pub use held::{HeldFile, Relatives, hold};
pub use jit::{Code, CodeName, GrowingFile, HeldJit, JitDump, PerfMap};
pub use namer::{Namer, NamerOptions};
pub use naming::{Frame, Naming, UnnamedReason};
pub use object::{ElfFile, FileKey, Inode, MappedBy, Object};
pub(crate) use open::{is_of_build, look_in_time, open_elf_that, reopen};
pub use stats::{ChildEnds, HeldBack, NamerStats};
pub use symbols::{ReadAt, SymbolTables};
pub(crate) use vdso::copy_vdso;
