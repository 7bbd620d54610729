//! What the server keeps of a node's ten seconds, independent of the wire and of the disk.
//!
//! In: checked profiles from `receive`, decoded records from `store`. Out: windows for the store, tables
//! for the queries. Does no IO and knows no encoding.

pub mod dictionary;
pub mod labels;
pub mod outcome;
pub mod tables;
pub mod unnamed;
pub mod window;

pub use dictionary::{Dictionary, Import};
pub use labels::LabelSet;
pub use tables::{
    Function, Line, Location, Mapping, MappingFlags, StackNode, Tables, Tag, TagValue, Unnamed,
};
pub use unnamed::WhyNot;
pub use window::{Account, ProfileHead, Row, SAMPLE_TYPES, Window, WindowHead, WindowKey};

#[cfg(test)]
pub mod text;
