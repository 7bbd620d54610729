//! Files of `/proc`, and files that `/proc` leads to.
//!
//! The parsers are pure; [`open_unleased`] opens a file without waiting for a lease, and [`read_attributes`] reads
//! attributes without waiting for a server.

mod attributes;
mod lease;
mod maps;
mod stat;

pub(crate) use attributes::read_attributes;
pub(crate) use lease::open_unleased;
pub use maps::{MapsEntry, parse_maps_line};
pub(crate) use stat::Stat;
