//! What was sent and what was lost, for the collector's metrics.

use std::time::Duration;

/// Why a window was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The server was away for longer than the queue's bytes last.
    QueueFull,
    /// The server said that the window is malformed.
    Refused,
    /// The window is larger than the server takes.
    TooLarge,
    /// The collector ended before the server took it.
    Shutdown,
}

impl DropReason {
    /// All reasons, in the order of [`SenderStats::dropped`].
    pub const ALL: [Self; 4] = [
        Self::QueueFull,
        Self::Refused,
        Self::TooLarge,
        Self::Shutdown,
    ];

    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What was dropped for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Messages.
    pub windows: u64,
    /// Samples in them.
    pub samples: u64,
    /// Their encoded bytes.
    pub bytes: u64,
}

/// Counts since the start, and the state of now.
///
/// Each window that was pushed is in exactly one of `queue_windows`,
/// `sent_windows` and `dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Windows that wait or are on their way.
    pub queue_windows: u64,
    /// Their encoded bytes.
    pub queue_bytes: u64,
    /// Windows that the server acknowledged.
    pub sent_windows: u64,
    /// Samples in them.
    pub sent_samples: u64,
    /// Their encoded bytes, before gRPC's framing.
    pub sent_bytes: u64,
    /// Of those windows, the ones that the server already had: an acknowledgement was lost.
    pub repeated_windows: u64,
    /// Tries that failed and were or will be repeated.
    pub retries: u64,
    /// What was dropped, by the reason's place in [`DropReason::ALL`].
    pub dropped: [Dropped; DropReason::ALL.len()],
    /// Whether the last try reached the server.
    pub connected: bool,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Time from sending the last acknowledged window to its acknowledgement.
    pub ack_time_last: Duration,
    /// Sum of these times over all acknowledged windows.
    pub ack_time_total: Duration,
}

impl SenderStats {
    /// What was dropped for `reason`.
    pub fn dropped_for(&self, reason: DropReason) -> Dropped {
        self.dropped[reason as usize]
    }

    pub(super) fn drop_window(&mut self, reason: DropReason, samples: u64, bytes: usize) {
        let dropped = &mut self.dropped[reason as usize];
        dropped.windows += 1;
        dropped.samples += samples;
        dropped.bytes += bytes as u64;
    }
}
