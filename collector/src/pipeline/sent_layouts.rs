//! Files whose layouts the server was sent: it keeps them by build id, so that each goes once and not with every window.

use elf::BuildId;
use rustc_hash::FxHashMap;

/// Windows after which a layout is sent again, an hour of 10 s each: a window that is lost, or a server that loses its data,
/// costs no more.
const AGAIN_WINDOWS: u64 = 360;

/// Files that are remembered, some 50 bytes each. A node that compiles has some thousand in an hour; of more, some are sent
/// again sooner.
const FILES_MAX: usize = 4096;

/// Build ids with the number of the window that their layout went with.
#[derive(Default)]
pub(super) struct SentLayouts(FxHashMap<BuildId, u64>);

impl SentLayouts {
    /// Whether a file's layout is due in the window with this number; if so, it counts as sent.
    pub(super) fn take_due(&mut self, build_id: BuildId, window: u64) -> bool {
        let is_recent = |sent: u64| window < sent + AGAIN_WINDOWS;
        if self.0.get(&build_id).is_some_and(|sent| is_recent(*sent)) {
            return false;
        }
        if self.0.len() >= FILES_MAX {
            self.0.retain(|_, sent| is_recent(*sent));
        }
        if self.0.len() >= FILES_MAX {
            self.0.clear();
        }
        self.0.insert(build_id, window);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> BuildId {
        BuildId::new(&number.to_be_bytes()).unwrap()
    }

    /// Check that a layout is due once an hour, and that the memory of many files has an end.
    #[test]
    fn a_layout_is_sent_once_an_hour() {
        let mut sent = SentLayouts::default();
        let due = [1, 2, 360, 361, 362].map(|window| sent.take_due(id(1), window));
        assert_eq!(due, [true, false, false, true, false]);
        for number in 2..10_000 {
            assert!(sent.take_due(id(number), 363), "{number}");
            assert!(sent.0.len() <= FILES_MAX);
        }
    }
}
