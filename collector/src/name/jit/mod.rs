//! Code that a process made at run time, of which its compiler wrote a perf map or a jitdump: which files these are, and
//! those that are held.
//!
//! ```text
//! namer -- process (which files) ==descriptor==> notes (those held) -> symbolize::jit
//! ```
//!
//! The code lies in memory without a file, or in a file that is no ELF file (a memory file, shared
//! memory, a deleted file; `FileFormat` in the module `file`), and is told apart by process. The
//! collector opens the process's perf map (its own or root's, not older than the process) or the
//! jitdump that it maps. The child reads what was added since the last window. A frame has the name
//! of the code that was there when it was sampled, or the reason `replaced` (`symbolize::jit`). A file
//! that is shorter than before, or has other bytes before the place that was read to, was written
//! anew, and is read from its start. The thread `hold` opens both in each window in which the
//! process is sampled, so that a process which has ended is named too. The collector caches none of
//! these names: other code may lie there in the next window.
//!
//! V8 writes the addresses of lines 64 bytes too high, because `perf inject` once put an ELF header
//! before the code. Its dumps are known by their names, and the lines are moved back. The fuzz
//! target `jit` compares random files that grow, shrink and begin again with a plain model.

mod namer;
mod notes;
mod process;

pub(super) use namer::JitNamer;
pub use namer::SampledAddress;
pub(super) use notes::{JitFiles, JitRequest};
pub use process::HeldJit;
