//! Names that the node did not know: what there is to name addresses with, by build id.

mod source;

pub use source::{NameSource, SourceFrame};
