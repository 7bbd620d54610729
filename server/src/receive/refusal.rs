//! Reasons for which a message is refused.

use std::fmt;

/// A refused message, with a text for the operator of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, for counting.
    pub reason: RefusalReason,
    /// The mistake and its position.
    pub message: String,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The collector's instance, the sequence number or the node's name.
    Identity,
    /// The bytes are not a message.
    Malformed,
    /// A repeated field has more entries than a node can have.
    Entries,
    /// The message did not arrive in time.
    Slow,
    /// Too many other messages are being received.
    Busy,
    /// The window's start or length.
    Time,
    /// The label sets.
    Labels,
    /// The compressed profile could not be opened, or has another length than stated.
    Compression,
    /// The profile is above the size limit.
    TooLarge,
    /// The profile is not a valid pprof of the agreed form.
    Profile,
    /// The account of the window.
    Account,
    /// The load segments of files.
    Layouts,
    /// The node brings too many label sets to an hour.
    NewSeries,
    /// The node brings too long labels to an hour.
    NewLabels,
    /// The node brings too many different stacks to an hour.
    NewStacks,
    /// The node brings too many locations to an hour.
    NewLocations,
    /// Too many names of nodes come in an hour.
    NewNodes,
    /// The store's disk is full.
    DiskFull,
    /// The store failed for another reason.
    Store,
    /// The server is stopping.
    Stopping,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [Self; 20] = [
        Self::Identity,
        Self::Time,
        Self::Labels,
        Self::Compression,
        Self::TooLarge,
        Self::Profile,
        Self::Account,
        Self::Layouts,
        Self::NewSeries,
        Self::NewLabels,
        Self::NewStacks,
        Self::NewLocations,
        Self::NewNodes,
        Self::DiskFull,
        Self::Store,
        Self::Stopping,
        Self::Malformed,
        Self::Entries,
        Self::Slow,
        Self::Busy,
    ];

    /// The reason as a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Malformed => "malformed",
            Self::Entries => "entries",
            Self::Slow => "slow",
            Self::Busy => "busy",
            Self::Time => "time",
            Self::Labels => "labels",
            Self::Compression => "compression",
            Self::TooLarge => "too_large",
            Self::Profile => "profile",
            Self::Account => "account",
            Self::Layouts => "layouts",
            Self::NewSeries => "new_series",
            Self::NewLabels => "new_labels",
            Self::NewStacks => "new_stacks",
            Self::NewLocations => "new_locations",
            Self::NewNodes => "new_nodes",
            Self::DiskFull => "disk_full",
            Self::Store => "store",
            Self::Stopping => "stopping",
        }
    }

    /// The gRPC status, as the protocol defines it.
    pub fn code(self) -> tonic::Code {
        match self {
            Self::Identity
            | Self::Malformed
            | Self::Entries
            | Self::Time
            | Self::Labels
            | Self::Compression
            | Self::Profile
            | Self::Account
            | Self::Layouts
            // A window belongs to its hour, so that it is refused later too.
            | Self::NewSeries
            | Self::NewLabels
            | Self::NewStacks
            | Self::NewLocations
            | Self::NewNodes => tonic::Code::InvalidArgument,
            Self::TooLarge | Self::DiskFull => tonic::Code::ResourceExhausted,
            Self::Slow | Self::Busy | Self::Store | Self::Stopping => tonic::Code::Unavailable,
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
