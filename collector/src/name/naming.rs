//! What an address is called, or why it has no name.

use std::sync::Arc;

/// One function at an address: the one whose code it is, or one it was inlined into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function's name as a person would write it.
    pub function: Arc<str>,
    /// Its name in the symbol table, empty if that is the same.
    pub system_name: Arc<str>,
    /// Its source file with directory, as the debug information says, or empty.
    pub file: Arc<str>,
    /// Line in `file` that the address belongs to, or 0.
    pub line: u32,
    /// Column in that line, or 0.
    pub column: u32,
    /// Line where the function starts, or 0.
    pub start_line: u32,
    /// Whether the next frame of the same address called it inline.
    pub inlined: bool,
}

/// Why an address has no name.
///
/// The numbers are those of `UnnamedReason` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
}

impl UnnamedReason {
    /// All reasons, in the order of their numbers, which start at 1.
    pub const ALL: [Self; 9] = [
        Self::NoMapping,
        Self::Anonymous,
        Self::FileGone,
        Self::NoSymbol,
        Self::Permission,
        Self::Corrupt,
        Self::Limit,
        Self::ProcessUnknown,
        Self::NotAnswering,
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
        }
    }

    /// Whether asking again later may give a name: another process may map the
    /// file, a permission may be granted, a limit may no longer be reached, a file system may answer again.
    pub(super) fn may_pass(self) -> bool {
        match self {
            Self::FileGone | Self::Permission | Self::Limit | Self::NotAnswering => true,
            Self::NoMapping
            | Self::Anonymous
            | Self::NoSymbol
            | Self::Corrupt
            | Self::ProcessUnknown => false,
        }
    }
}

/// The names of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// At least one frame, the innermost first.
    Named(Arc<[Frame]>),
    /// No name.
    Unnamed(UnnamedReason),
    /// No symbol, but so many bytes before the address its function starts.
    InFunction(u32),
}

impl Naming {
    /// Why there is no name, if there is none.
    pub fn unnamed(&self) -> Option<UnnamedReason> {
        match self {
            Self::Named(_) => None,
            Self::Unnamed(reason) => Some(*reason),
            Self::InFunction(_) => Some(UnnamedReason::NoSymbol),
        }
    }
}
