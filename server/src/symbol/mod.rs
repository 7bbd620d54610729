//! Names that the nodes did not know, from files with symbols, by build id.
//!
//! In: ELF files with symbols or debug information that people upload, that a debuginfod server has ([`fetch`]), or that a
//! collector sends when asked ([`collector_uploads`] with [`pending_uploads`], [`partial_uploads`] and [`plan`]). Out: names,
//! inlined calls, files and lines of offsets in a file.
//!
//! Only a child process reads the files ([`process`], [`child`]). It makes an index of each ([`symbolize::index`]), and the
//! file is not kept. [`index_store`] keeps the best index of each build id, within a cap. Profiles have file offsets and symbols
//! have addresses: [`elf::Layout`] translates, and [`known_layouts`] remembers it for files that do not have it themselves.

pub mod child;
pub mod collector_uploads;
pub mod debuginfo_command;
pub mod error;
pub mod fetch;
pub mod fetch_queue;
mod index_entry;
pub mod index_store;
pub mod known_layouts;
pub mod metrics;
pub mod partial_uploads;
pub mod pending_uploads;
pub mod plan;
pub mod process;

pub use self::metrics::SymbolMetrics;
pub use collector_uploads::CollectorUploads;
pub use index_store::{IndexStore, IndexStoreOptions};
