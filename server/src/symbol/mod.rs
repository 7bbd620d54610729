//! Names that the node did not know: what there is to name addresses with, by build id.
//!
//! In: ELF files with symbols or debug information, that people upload, that a debuginfod server has, or that a collector is
//! asked for ([`intake`]: [`asked`], [`plan`], [`partial`]). Out: names, inlined calls, files and lines of offsets in a file. Files are read by a child process only ([`process`], [`child`],
//! [`convert`]); what is kept of one is its index ([`index`]), not the file. [`shelf`] keeps the indexes, the best for
//! each build id, within a cap; [`layout`] leads from offsets, as profiles have them, to addresses, as symbols have them.

pub mod asked;
pub mod build_id;
mod bytes;
pub mod child;
pub mod convert;
mod debugdata;
pub mod debuginfo_command;
mod demangle;
pub mod elf;
pub mod fetch;
pub mod index;
pub mod intake;
pub mod known_layouts;
mod labels;
pub mod layout;
mod lines;
mod none;
pub mod partial;
mod paths;
pub mod plan;
pub mod process;
pub mod shelf;
mod source;
#[cfg(test)]
pub mod table;
pub mod wanted;

pub use build_id::BuildId;
pub use intake::Intake;
pub use none::NoNames;
pub use shelf::{Shelf, ShelfOptions};
pub use source::{NameSource, SourceFrame};
