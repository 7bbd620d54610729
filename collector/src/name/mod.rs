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

pub use child::{CHILD_ARGUMENT, ChildLimits, run_child};
pub use debug_file::FoundBy;
pub use facts::{AlternativeLink, FileFacts, Segment};
pub use go::{GoFile, GoFunction};
pub use jit::{Code, CodeName, JitDump, PerfMap};
pub use namer::{Namer, NamerOptions};
pub use naming::{Frame, Naming, UnnamedReason};
pub use object::{ElfFile, FileKey, Inode, MappedBy, Object};
pub(crate) use open::open_elf_that;
pub use stats::{ChildEnds, NamerStats};
pub(crate) use vdso::copy_vdso;
