//! Processes and their mappings.
//!
//! In: perf's side band (each exec, mapping, fork and exit, in order), and reads of `/proc` for the processes without events.
//! Out: a table with the process of a sample and its mappings at the time of the sample, also when the process has ended since.
//! The table is pure: [`SnapshotReader`] does the reads that it requests. The memory and the files of a process are not read, but
//! for the build ids of files that were mapped before the side band was open.

mod content;
mod file;
mod kernel_code;
mod kernel_modules;
mod mappings;
mod path;
mod reads;
mod side_band;
mod snapshot;
mod table;

pub use content::{Contents, identify, read_contents};
pub use file::{ContentId, FileIdentity, FileKind, Files, MappedFile};
pub use kernel_code::{KernelCode, KernelFrame, KernelOwner, is_unloaded, module_of};
pub use kernel_modules::{Module, parse_modules, read_modules};
pub use mappings::{Mapping, Mappings};
pub use side_band::{SideBand, SideBandError, SideBandEvent, Timed};
pub use snapshot::{
    ProcessList, ProcessRead, ProcessSnapshot, SnapshotError, SnapshotMapping, SnapshotReader,
    StartTime,
};
#[cfg(test)]
pub(crate) use table::testing;
pub use table::{Change, Found, LivingMapping, Process, ProcessTable, TableStats};
