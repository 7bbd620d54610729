//! Processes and what they map.
//!
//! In: perf's side band (each exec, mapping, fork and exit, in order) and one
//! scan of `/proc`. Out: a table that answers "which process was this, and what
//! lay at this address" for the time of a sample, also when the process has
//! ended since. It never reads the memory or the files of a process but for
//! the build ids of files that were mapped before the side band was open.

mod build_id;
mod content;
mod file;
mod headers;
mod lease;
mod mappings;
mod maps;
mod scan;
mod side_band;
mod table;

pub use build_id::{BuildId, find_build_id};
pub(crate) use build_id::{u16_at, u32_at, u64_at};
pub use content::{identify, read_content_id};
pub use file::{ContentId, FileIdentity, FileKind, Files, MappedFile};
pub use headers::{ElfHeaders, FilePart, SectionHeader, SegmentHeader};
pub(crate) use headers::{NAMES_BYTES_MAX, SECTIONS_MAX, SEGMENTS_MAX};
pub(crate) use lease::open_unleased;
pub use mappings::{Mapping, Mappings};
pub use maps::{MapsEntry, parse_maps_line};
pub(crate) use scan::after_name;
pub use side_band::{SideBand, SideBandEvent, Timed};
pub use table::{Change, LivingMapping, Process, ProcessTable, TableStats};
