//! Files of processes: their identity, and how they are opened.
//!
//! In: a file as a mapping tells of it, and the processes that map it. Out: its descriptor and that of its debug information. A
//! file is opened by its place in a process, in the root of a process, or in the collector's own, and only if it is what was
//! mapped. Naming, unwinding and uploads all open files here.

mod debug_file;
mod elf_file;
mod format;
mod held;
mod hold;
mod linked;
mod open;
mod proc_path;
mod stamp;

pub(crate) use debug_file::build_id_path;
pub use elf_file::{ElfFile, FileKey, MappedBy};
pub use format::FileFormat;
pub use held::HeldFile;
pub use hold::{Relatives, hold};
pub(crate) use linked::{DEBUG_DIRECTORY, LinkedFiles};
pub(crate) use open::{Owner, find_elf, look_in_time, open_elf, open_mapped, open_owned};
pub(crate) use proc_path::{reopen, root_of};
pub use profile::UnnamedReason;
pub(crate) use stamp::Origin;
pub use stamp::{FileStamp, Inode};
