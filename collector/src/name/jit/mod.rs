//! Names of code that a process made at run time, from what its compiler wrote of it: a perf map or a jitdump.
//!
//! In: open files that grow, and addresses in the process. Out: functions. Reads only what is new, and holds no more than
//! its limits, whatever the files say.
//!
//! ```text
//! process (which files) ==descriptor==> notes (those held) -> growing (how far read) -> map | dump (v8) -> code (names)
//! ```

mod code;
mod dump;
mod growing;
mod map;
mod notes;
mod process;
mod v8;

pub use code::{Code, CodeName};
pub use dump::JitDump;
pub use growing::GrowingFile;
pub use map::PerfMap;
pub(super) use notes::{JitFiles, JitRequest};
pub use process::HeldJit;
pub(super) use process::{JitProcess, open_in_time};
