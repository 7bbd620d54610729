//! Reasons for frames without a name, by their numbers on the wire.

use serde::{Deserialize, Serialize};

/// Why an address has no name.
///
/// The numbers are those of `UnnamedReason` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UnnamedReason {
    /// The address lies in no mapping that the collector knows.
    NoMapping = 1,
    /// Executable memory without a file, and no perf map or jitdump that describes it.
    Anonymous = 2,
    /// The file was gone before it could be read.
    FileGone = 3,
    /// The file was read, and has no symbol for this address.
    NoSymbol = 4,
    /// The file, or what its process says of the code that it made, may not be read; or a process holds a lease on it.
    Permission = 5,
    /// The file could not be parsed.
    Corrupt = 6,
    /// A limit of the collector was reached.
    Limit = 7,
    /// The process ended, or its mappings were lost, before they were known; or before what it says of the code that it made.
    ProcessUnknown = 8,
    /// The file system that the file is on did not answer.
    NotAnswering = 9,
    /// Code that can be unloaded or replaced was, at a time by which its name cannot be told.
    Replaced = 10,
}

impl UnnamedReason {
    /// All reasons, in the order of their numbers, which start at 1.
    pub const ALL: [Self; 10] = [
        Self::NoMapping,
        Self::Anonymous,
        Self::FileGone,
        Self::NoSymbol,
        Self::Permission,
        Self::Corrupt,
        Self::Limit,
        Self::ProcessUnknown,
        Self::NotAnswering,
        Self::Replaced,
    ];

    /// The number on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoMapping => "no_mapping",
            Self::Anonymous => "anonymous",
            Self::FileGone => "file_gone",
            Self::NoSymbol => "no_symbol",
            Self::Permission => "permission",
            Self::Corrupt => "corrupt",
            Self::Limit => "limit",
            Self::ProcessUnknown => "process_unknown",
            Self::NotAnswering => "not_answering",
            Self::Replaced => "replaced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each number has its reason, and no other number has one.
    #[test]
    fn reasons_have_their_numbers() {
        for reason in UnnamedReason::ALL {
            assert_eq!(UnnamedReason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(UnnamedReason::from_code(0), None);
        assert_eq!(UnnamedReason::from_code(11), None);
    }
}
