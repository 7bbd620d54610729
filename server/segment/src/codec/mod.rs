//! Numbers and texts as bytes.

pub(crate) mod column;
pub(crate) mod varint;
