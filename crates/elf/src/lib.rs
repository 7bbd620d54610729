//! Headers of untrusted ELF files.
//!
//! A profiler meets ELF files that processes map and that people upload. Both may be hostile: a file may be truncated while it is
//! read, claim 200 million sections, or place a segment at the end of the address space. This crate reads the headers of such
//! files within fixed limits, and never panics.
//!
//! # Contents
//!
//! | part | type | source |
//! | --- | --- | --- |
//! | program headers, section headers, section names | [`Headers`] | ELF header |
//! | file offset <-> address as linked | [`Layout`] of [`Segment`]s | `PT_LOAD` |
//! | contents of a section, decompressed | [`SectionData`] | `SHF_COMPRESSED`, `.zdebug_*` |
//! | the linker's identity of a build | [`BuildId`] | `NT_GNU_BUILD_ID` |
//! | other files with debug information | [`DebugLink`], [`AlternativeLink`] | `.gnu_debuglink`, `.gnu_debugaltlink` |
//!
//! ```
//! use elf::{Headers, Limits};
//!
//! let file = std::fs::File::open("/bin/ls")?;
//! let headers = Headers::read(&file, Limits::MAPPED).expect("ls is an ELF file");
//! let layout = headers.layout();
//! let first = layout.segments()[0];
//! assert_eq!(layout.address_of(first.file_offset), Some(first.address));
//! assert!(headers.section(b".text").is_some());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The caller
//!
//! - opens the file and passes it as [`ReadAt`]: bytes in memory, a [`File`](std::fs::File), or a [`CachedFile`] for parsers
//!   with small scattered reads;
//! - chooses [`Limits`]: [`Limits::MAPPED`] for files that processes map, [`Limits::OBJECTS`] for object files and on the server;
//! - checks [`SectionData::memory_bytes`] before [`SectionData::read`]: a section may claim any size.
//!
//! # Limits of the crate
//!
//! It does not map files: a truncated file is a short read and never a signal. It follows no link to another file. It parses
//! neither symbols nor DWARF. The `object` crate parses all structures and unpacks compressed sections.
//!
//! Formats: System V ABI, chapters 4 (ELF header, section headers) and 5 (program headers), of both classes and byte orders.

mod build_id;
mod cache;
mod headers;
mod layout;
mod limits;
mod links;
mod notes;
mod read;
mod section_data;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;

pub use build_id::{BuildId, ParseBuildIdError};
pub use cache::{BlockCache, CachedFile};
pub use headers::{Headers, HeadersError, ProgramHeader, SectionHeader};
pub use layout::{Layout, Segment};
pub use limits::{Limits, NOTES_BYTES_MAX, SEGMENTS_MAX};
pub use links::{AlternativeLink, DebugLink, FILE_NAME_BYTES_MAX, PATH_BYTES_MAX, is_file_name};
pub use notes::find_build_id;
pub use read::{FileRange, ReadAt, slice_ranges};
pub use section_data::SectionData;
