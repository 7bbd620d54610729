//! Files whose layouts the server was sent: it keeps them by build id, so that each goes once and not with every window.

use elf::BuildId;
use rustc_hash::FxHashMap;

/// Time after which a layout is sent again, an hour: a window that is lost, or a server that loses its data, costs no more.
const AGAIN_NS: u64 = 3_600_000_000_000;

/// Files that are remembered, some 50 bytes each. A node that compiles has some thousand in an hour; of more, some are sent
/// again sooner.
const FILES_MAX: usize = 4096;

/// Build ids with the end of the window that their layout went with.
#[derive(Default)]
pub(super) struct SentLayouts {
    sent: FxHashMap<BuildId, u64>,
    /// The end of the current window, nanoseconds of CLOCK_MONOTONIC.
    window_ns: u64,
}

impl SentLayouts {
    /// The window that layouts go with from now on ends at this time.
    pub(super) fn begin_window(&mut self, end_ns: u64) {
        self.window_ns = end_ns;
    }

    /// Whether a file's layout is due in the current window; if so, it counts as sent.
    pub(super) fn take_due(&mut self, build_id: BuildId) -> bool {
        let Self { sent, window_ns } = self;
        let is_recent = |sent_ns: &u64| *window_ns < sent_ns.saturating_add(AGAIN_NS);
        if sent.get(&build_id).is_some_and(is_recent) {
            return false;
        }
        if sent.len() >= FILES_MAX {
            sent.retain(|_, sent_ns| is_recent(sent_ns));
        }
        if sent.len() >= FILES_MAX {
            sent.clear();
        }
        sent.insert(build_id, *window_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> BuildId {
        BuildId::new(&number.to_be_bytes()).unwrap()
    }

    /// Check that a layout is due once an hour, however long windows are, and that the memory of many files has an end.
    #[test]
    fn a_layout_is_sent_once_an_hour() {
        for window_s in [1, 10, 60] {
            let mut sent = SentLayouts::default();
            let mut is_due = |time_s: u64| {
                sent.begin_window(time_s * 1_000_000_000);
                sent.take_due(id(1))
            };
            let due = (0..7300).step_by(window_s);
            let due: Vec<u64> = due
                .map(|time_s| time_s as u64)
                .filter(|time_s| is_due(*time_s))
                .collect();
            assert_eq!(due, [0, 3600, 7200]);
        }
        let mut sent = SentLayouts::default();
        for number in 2..10_000 {
            assert!(sent.take_due(id(number)), "{number}");
            assert!(sent.sent.len() <= FILES_MAX);
        }
    }
}
