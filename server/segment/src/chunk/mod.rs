//! The chunks of each section: entries as bytes, and back. Pure.

pub(crate) mod accounts;
pub(crate) mod callees;
pub(crate) mod cells;
pub(crate) mod dictionary;
pub(crate) mod digests;
mod distinct;
pub(crate) mod labels;
pub(crate) mod rows;
pub(crate) mod tree;
pub(crate) mod windows;

/// The bytes of a chunk, for the file.
pub(crate) struct EncodedChunk {
    pub(crate) bytes: Vec<u8>,
    /// Number of its first entry.
    pub(crate) first: u32,
    /// Number of its entries.
    pub(crate) items: u32,
}
