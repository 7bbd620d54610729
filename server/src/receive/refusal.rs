//! Why a message was not taken.

use std::fmt;

/// A message that was not taken, with a text for the person who runs its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, for counting.
    pub reason: RefusalReason,
    /// What is wrong, and where.
    pub message: String,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The collector's instance, the sequence number or the node's name.
    Identity,
    /// The window's start or length.
    Time,
    /// The label sets.
    Labels,
    /// The compressed profile could not be opened, or has another length than stated.
    Compression,
    /// The profile is larger than the server takes.
    TooLarge,
    /// The profile is not a valid pprof of the agreed form.
    Profile,
    /// The account of the window.
    Account,
    /// Where files are loaded.
    Layouts,
    /// The store's disk is full.
    DiskFull,
    /// The store could not take it for another reason.
    Store,
    /// The server is stopping.
    Stopping,
}

impl RefusalReason {
    /// The reason as a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Time => "time",
            Self::Labels => "labels",
            Self::Compression => "compression",
            Self::TooLarge => "too_large",
            Self::Profile => "profile",
            Self::Account => "account",
            Self::Layouts => "layouts",
            Self::DiskFull => "disk_full",
            Self::Store => "store",
            Self::Stopping => "stopping",
        }
    }

    /// The gRPC status, as the protocol's definition promises it.
    pub fn code(self) -> tonic::Code {
        match self {
            Self::Identity
            | Self::Time
            | Self::Labels
            | Self::Compression
            | Self::Profile
            | Self::Account
            | Self::Layouts => tonic::Code::InvalidArgument,
            Self::TooLarge | Self::DiskFull => tonic::Code::ResourceExhausted,
            Self::Store | Self::Stopping => tonic::Code::Unavailable,
        }
    }
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.reason.code(), refusal.message)
    }
}
