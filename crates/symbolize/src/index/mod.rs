//! The index of a build: made once from an ELF file with symbols or debug information, then mapped to name addresses.
//!
//! In: an ELF file ([`convert()`], which runs in a confined child), or an index ([`Index`]). Out: an index, or [`SourceFrame`]s at
//! file offsets.
//!
//! ```text
//! ELF file -> facts | labels, lines, debugdata -> convert -> file (head, symcache, paths) -> frames
//! ```

mod convert;
mod debugdata;
mod facts;
mod file;
mod labels;
mod lines;
mod paths;

pub use convert::{ConvertError, FileRefusal, RefusalKind, convert, no_build_id, no_symbols};
pub use facts::{ElfFacts, is_elf, read_elf};
pub use file::{HEAD_BYTES, Index, IndexError, IndexHead, ORIGIN_BYTES_MAX, Rank, SourceFrame};
