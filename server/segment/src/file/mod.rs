//! The file: chunks one after the other, and the footer that says where they are.

pub(crate) mod footer;
pub(crate) mod output;
