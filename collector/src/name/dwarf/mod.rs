//! Debug information that lies in more than one file, which blazesym looks for by paths and the child has none.
//!
//! In: open files. Out: functions at addresses as linked, with inlined calls, files and lines; or which further file is
//! needed for that. `addr2line` does the reading, as blazesym's own reader is a copy of it.
//!
//! ```text
//! bytes (of a file, in blocks) -- image (its sections) -- reader | unitwise -- linked (what belongs together)
//! ```
//!
//! Sources: DWARF 5, 7.3.2 (split units), 7.3.5 (packages); GCC wiki, "DebugFission" (DWARF 4); dwz(1) and the comment at
//! the head of `dwz.c` (`.gnu_debugaltlink`).

mod bytes;
mod image;
mod linked;
mod reader;
mod units;
mod unitwise;

pub use bytes::BlockCache;
pub use linked::{LinkedFiles, Linking};
pub use reader::Lookup;
