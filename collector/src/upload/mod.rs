//! Files with symbols -> the server, when it asks for them.
//!
//! In: files of which the node could not name all (its time was used up, or it may not use debug information). Out: for one that
//! the server asks for, the parts of it that names are made of, as places in the file. Never parses more of a file than its
//! headers, and reads it only when it was asked for; [`crate::send`] brings the parts to the server.

mod offers;
mod pace;
mod parts;
mod source;

pub use offers::{Offer, Offers, SeenFile};
pub use pace::Pace;
pub use parts::{FileParts, PARTS_MAX, find_parts};
pub use source::{FileSource, SourceError, open_source};
