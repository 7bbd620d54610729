//! Names that the nodes did not know, joined to stored windows.
//!
//! Windows are kept as received. A location without lines gets those of a [`NameSource`] when a question is about to read it,
//! so an upload also names older profiles; the location's identity does not change. A location that the node named from a
//! symbol table alone gets lines with a source file, and inlined calls.
//!
//! Every form of answer reads samples through [`Profiles`](crate::Profiles), so all show the same names.

mod join;
mod source;
#[cfg(test)]
pub mod table;

pub(crate) use join::join_names;
pub use source::{NameSource, SourceFrame};
