//! DWARF in one file that is large, or in several files, which blazesym looks for by paths and the child has none.
//!
//! In: open files. Out: functions at addresses as linked, with inlined calls, files and lines; or which further file is
//! needed for that. gimli decodes entries and headers; this module decides which of them are read, and keeps what is asked for again.
//!
//! ```text
//! packed (a compressed section) -- bytes (in blocks) -- image (its sections) --+
//!                                                                              |
//! functions, lines, inlined (of a unit) -- unit -- units (index of all) -------+-- reader -- linked (what belongs together)
//! ```
//!
//! Sources: DWARF 5, 7.3.2 (split units), 7.3.5 (packages); GCC wiki, "DebugFission" (DWARF 4); dwz(1) and the comment at
//! the head of `dwz.c` (`.gnu_debugaltlink`).

mod bytes;
mod functions;
mod image;
mod inlined;
mod lines;
mod linked;
mod packed;
mod reader;
mod split_file;
mod unit;
mod units;

pub use linked::{LinkedFiles, Linking};
pub use reader::Lookup;
pub use split_file::{SPLIT_PATH_BYTES_MAX, SplitFile};
