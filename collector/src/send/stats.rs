//! Counts of sent and lost windows.

use std::time::Duration;

use metrics::Figures;

/// Why a window was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The server was unreachable for longer than the queue lasts.
    QueueFull,
    /// The server refused the window as malformed.
    Refused,
    /// The window exceeds the server's size limit.
    TooLarge,
    /// The collector stopped before the server had taken the window.
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

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Windows that were dropped for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Messages.
    pub windows: u64,
    /// Samples in them.
    pub samples: u64,
    /// Their encoded bytes.
    pub bytes: u64,
}

/// Counts since the start, and the current state.
///
/// Each pushed window is in exactly one of `queue_windows`, `sent_windows` and `dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Windows that wait or are being sent.
    pub queue_windows: u64,
    /// Their encoded bytes.
    pub queue_bytes: u64,
    /// Windows that the server acknowledged.
    pub sent_windows: u64,
    /// Samples in them.
    pub sent_samples: u64,
    /// Their encoded bytes, before gRPC's framing.
    pub sent_bytes: u64,
    /// Acknowledged windows that the server already had, since an acknowledgement was lost.
    pub repeated_windows: u64,
    /// Failed attempts that were or will be repeated.
    pub retries: u64,
    /// Dropped windows, by the index of the reason in [`DropReason::ALL`].
    pub dropped: [Dropped; DropReason::ALL.len()],
    /// Whether the last attempt reached the server.
    pub connected: bool,
    /// Age of the oldest waiting window.
    pub oldest_wait: Option<Duration>,
    /// The last error.
    pub last_error: Option<String>,
    /// Time from sending the last acknowledged window to its acknowledgement.
    pub ack_time_last: Duration,
    /// Sum of these times over all acknowledged windows.
    pub ack_time_total: Duration,
}

impl SenderStats {
    /// Windows dropped for `reason`.
    pub fn dropped_for(&self, reason: DropReason) -> Dropped {
        self.dropped[reason as usize]
    }

    pub(super) fn drop_window(&mut self, reason: DropReason, samples: u64, bytes: usize) {
        let dropped = &mut self.dropped[reason as usize];
        dropped.windows += 1;
        dropped.samples += samples;
        dropped.bytes += bytes as u64;
    }

    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.gauge(
            "queue_windows",
            "Windows waiting for the server",
            self.queue_windows,
        );
        figures.gauge(
            "queue_bytes",
            "Bytes of the windows waiting for the server",
            self.queue_bytes,
        );
        figures.counters(
            "windows_dropped",
            "Windows that the server did not get, by reason",
            ["reason"],
            DropReason::ALL.map(|reason| ([reason.as_str()], self.dropped_for(reason).windows)),
        );
        figures.gauge(
            "server_connected",
            "Whether the last try reached the server",
            u32::from(self.connected),
        );
        for (name, help, count) in [
            (
                "windows_sent",
                "Windows that the server stored",
                self.sent_windows,
            ),
            (
                "sent_samples",
                "Samples that the server stored",
                self.sent_samples,
            ),
            (
                "sent_bytes",
                "Bytes of the windows that the server stored",
                self.sent_bytes,
            ),
            (
                "send_retries",
                "Tries to send a window that failed and were or will be repeated",
                self.retries,
            ),
        ] {
            figures.counter(name, help, count);
        }
    }
}
