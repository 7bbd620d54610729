//! Reasons for which a file is not taken.

use std::io;

use symbolize::index::FileRefusal;

/// Why a file has no index.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The file is not taken.
    #[error("{0}")]
    Refused(#[from] FileRefusal),
    /// The disk is full.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The server failed.
    #[error("{0}")]
    Failed(String),
}

impl AddError {
    /// As metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.kind.name(),
            Self::DiskFull(_) => "disk_full",
            Self::Failed(_) => "failed",
        }
    }
}

impl From<io::Error> for AddError {
    fn from(err: io::Error) -> Self {
        if err.kind() == io::ErrorKind::StorageFull || err.kind() == io::ErrorKind::QuotaExceeded {
            Self::DiskFull(err.to_string())
        } else {
            Self::Failed(err.to_string())
        }
    }
}

/// Why a collector's request about a file is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The file is not assigned to this collector.
    #[error("this collector is not asked for this file, or not any more")]
    NotAsked,
    /// The collector sent less than the least rate.
    #[error("too little came of this file in its time")]
    TooSlow,
    /// The request is not valid.
    #[error("{0}")]
    Malformed(&'static str),
    /// The file has more bytes than one file may have.
    #[error("the file has {0} bytes, and at most {1} are taken (--symbol-file-bytes-max)")]
    TooLarge(u64, u64),
    /// Other files are being read.
    #[error("this file or others are being read at this moment")]
    Busy,
    /// No index was made of the file.
    #[error("{0}")]
    Add(#[from] AddError),
}

impl UploadError {
    /// Name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::TooSlow => "too_slow",
            Self::Malformed(_) => "malformed",
            Self::TooLarge(..) => "too_large",
            Self::Busy => "busy",
            Self::Add(err) => err.name(),
        }
    }

    /// Whether the cause is the file or its sender. The received parts are removed then, and the sender is not asked again soon.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::NotAsked
            | Self::TooSlow
            | Self::Busy
            | Self::Add(AddError::DiskFull(_) | AddError::Failed(_)) => false,
            Self::Malformed(_) | Self::TooLarge(..) | Self::Add(AddError::Refused(_)) => true,
        }
    }
}

impl From<io::Error> for UploadError {
    fn from(err: io::Error) -> Self {
        Self::Add(err.into())
    }
}
