//! The name of a file with a part of the debug information.

use serde::{Deserialize, Serialize};

use crate::frame::STRING_BYTES_MAX;

/// Bytes of a split file's name, and of the directory that it is relative to: what the system calls take.
pub const SPLIT_PATH_BYTES_MAX: usize = STRING_BYTES_MAX;

/// A file with a part of the debug information (`.dwo`), as the part that is left refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitFile {
    /// The id that the file must have.
    pub id: u64,
    /// Its name: a path, mostly relative to `directory`.
    pub name: String,
    /// The directory that the compiler ran in, or empty.
    pub directory: String,
}
