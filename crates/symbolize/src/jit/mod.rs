//! Names of code that a process made at run time, from its compiler's reports: a perf map or a jitdump.
//!
//! In: an untrusted file that grows, and addresses in the process. Out: functions. Each reading reads the appended bytes; memory has a
//! limit.
//!
//! ```text
//! growing (position) -> map | dump (v8) -> code (names), replaced (older names)
//! ```

mod code;
mod dump;
mod growing;
mod map;
mod replaced;
mod v8;
mod when;

pub use code::{Code, CodeAt, CodeName};
pub use growing::{GrowingFile, JitFormat};
pub use v8::split_script_name;
pub use when::When;
