//! The reason why a request has no answer.

use crate::file::UnnamedReason;

/// The reason why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no child, or no time left. The file is not the cause.
    Postponed,
    /// The file could not be opened.
    Missing(UnnamedReason),
    /// The child failed at the file.
    Child(UnnamedReason),
    /// The child did not answer in time.
    TimedOut,
    /// The file system that the child reads from did not answer in time. The file's contents are
    /// not the cause.
    FileSystem,
}

impl Failure {
    pub(super) fn reason(self) -> UnnamedReason {
        match self {
            Self::Postponed | Self::TimedOut => UnnamedReason::Limit,
            Self::FileSystem => UnnamedReason::NotAnswering,
            Self::Missing(reason) | Self::Child(reason) => reason,
        }
    }
}
