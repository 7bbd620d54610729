//! Names that the node did not know: what there is to name addresses with, by build id.

mod none;
mod source;
#[cfg(test)]
pub mod table;

pub use none::NoNames;
pub use source::{NameSource, SourceFrame};
