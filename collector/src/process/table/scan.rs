//! When all processes are read: after events were lost, one read at a time, and not too often.

/// Time between the starts of two scans: a scan reads every process, each of which takes some 100 us.
pub(super) const SCAN_INTERVAL_NS: u64 = 10_000_000_000;

/// The schedule of scans.
#[derive(Debug)]
pub(super) struct ScanSchedule {
    is_wanted: bool,
    is_running: bool,
    /// When the next scan may begin.
    next_ns: u64,
}

impl ScanSchedule {
    /// A scan is wanted at once.
    pub(super) fn new() -> Self {
        Self {
            is_wanted: true,
            is_running: false,
            next_ns: 0,
        }
    }

    /// Asks for a scan.
    pub(super) fn request(&mut self) {
        self.is_wanted = true;
    }

    /// Begins a scan if one is due. Returns whether it did.
    pub(super) fn begin(&mut self, now_ns: u64) -> bool {
        let begins = self.is_wanted && !self.is_running && now_ns >= self.next_ns;
        if begins {
            *self = Self {
                is_wanted: false,
                is_running: true,
                next_ns: now_ns + SCAN_INTERVAL_NS,
            };
        }
        begins
    }

    /// The scan that was running is done.
    pub(super) fn end(&mut self) {
        self.is_running = false;
    }
}
