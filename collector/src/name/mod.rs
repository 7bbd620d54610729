//! (file, offset) -> names.
//!
//! In: offsets in the kernel, in the vDSO and in ELF files, and addresses of code made at run time. Out: functions with
//! files and lines, inlined ones included, or the reason why there are none.
//! Never parses a file in the collector's own process: its child does, and may die of it.
//!
//! ```text
//! namer -- cache (known?) -- file_opener (descriptor) -- budgeted_child -- naming_child ==socket==> child -- kernel | vdso | elf -- dwarf | go | jit
//! ```

mod answers;
mod backoff;
mod budget;
mod budgeted_child;
mod cache;
mod child;
mod confine;
mod elf;
mod failure;
mod file_opener;
mod jit;
mod kernel;
mod linked_file;
mod namer;
mod naming;
mod naming_child;
mod object;
mod options;
pub mod protocol;
mod stats;
mod strings;
mod vdso;

pub use budget::CpuBudget;
pub use child::run_child;
pub use jit::{HeldJit, SampledAddress};
pub use namer::Namer;
pub use naming::{Frame, Naming};
pub use object::{Object, Readings};
pub use options::{CHILD_ARGUMENT, ChildLimits, NamerOptions};
pub use stats::{ChildEnds, HeldBack, NamerStats};
pub(crate) use vdso::copy_vdso;
