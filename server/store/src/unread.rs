//! Windows that a snapshot could not read, bounded.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::{TimeRange, Unread, WindowKey};

use crate::UNREAD_MAX;

/// Bytes of a reason: a path, and the system's words for an error.
const REASON_BYTES_MAX: usize = 200;

/// Collects what could not be read, by a stretch of time and by cause.
#[derive(Default)]
pub(crate) struct UnreadLog {
    windows: HashSet<WindowKey>,
    /// Windows, samples and nanoseconds of the stretches that were noted: each question to a snapshot finds the same damage.
    stretches: HashMap<EntryKey, [u64; 3]>,
    entries: BTreeMap<EntryKey, Unread>,
}

/// Start, end and reason.
type EntryKey = (i64, i64, String);

fn entry_key(stretch: TimeRange, reason: &str) -> EntryKey {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    (stretch.from_ms, stretch.to_ms, reason.to_owned())
}

impl UnreadLog {
    /// Notes that a window could not be read. `stretch` is the store's unit of time that it is in; `samples` and `ns` are what the answer
    /// lacks of it, if that is known. Returns whether it was not noted before.
    pub(crate) fn note(
        &mut self,
        key: WindowKey,
        stretch: TimeRange,
        [samples, ns]: [u64; 2],
        reason: &str,
    ) -> bool {
        let is_new = self.windows.insert(key);
        if is_new {
            self.add(entry_key(stretch, reason), [1, samples, ns]);
        }
        is_new
    }

    /// Notes that some windows of a stretch of time, or parts of them, could not be read. Returns whether it was not noted before.
    pub(crate) fn note_stretch(
        &mut self,
        stretch: TimeRange,
        windows: u64,
        [samples, ns]: [u64; 2],
        reason: &str,
    ) -> bool {
        let key = entry_key(stretch, reason);
        let known = self.stretches.get(&key).copied();
        let before = known.unwrap_or_default();
        let now = [windows, samples, ns];
        let now: [u64; 3] = std::array::from_fn(|i| now[i].max(before[i]));
        self.stretches.insert(key.clone(), now);
        self.add(key, std::array::from_fn(|i| now[i] - before[i]));
        known.is_none()
    }

    /// Adds to an entry, or to the last one if there is no room for another.
    fn add(&mut self, mut key: EntryKey, [windows, samples, ns]: [u64; 3]) {
        let (from_ms, to_ms, reason) = key.clone();
        if self.entries.len() >= UNREAD_MAX
            && !self.entries.contains_key(&key)
            && let Some((last, _)) = self.entries.last_key_value()
        {
            key = last.clone();
        }
        let entry = self.entries.entry(key).or_insert_with(|| Unread {
            range: TimeRange { from_ms, to_ms },
            windows: 0,
            samples: 0,
            ns: 0,
            reason,
        });
        entry.range.from_ms = entry.range.from_ms.min(from_ms);
        entry.range.to_ms = entry.range.to_ms.max(to_ms);
        entry.windows = entry.windows.saturating_add(windows);
        entry.samples = entry.samples.saturating_add(samples);
        entry.ns = entry.ns.saturating_add(ns);
    }

    /// The entries, by time. The last one also has what is beyond [`UNREAD_MAX`].
    pub(crate) fn entries(&self) -> Vec<Unread> {
        self.entries.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(sequence: u64) -> WindowKey {
        WindowKey {
            start_ms: 0,
            instance: [1; 16],
            sequence,
        }
    }

    fn hour(number: i64) -> TimeRange {
        TimeRange {
            from_ms: number * 10,
            to_ms: number * 10 + 10,
        }
    }

    #[test]
    fn windows_count_once_and_by_cause() {
        let mut log = UnreadLog::default();
        log.note(key(1), hour(1), [1, 10], "cut");
        log.note(key(2), hour(0), [0, 0], "gone");
        log.note(key(1), hour(1), [1, 10], "cut");
        log.note(key(3), hour(1), [2, 20], "cut");
        log.note(key(4), hour(1), [0, 0], &"ä".repeat(REASON_BYTES_MAX));
        let entry = |unread: &Unread| (unread.range, unread.windows, unread.samples, unread.ns);
        let entries: Vec<_> = log.entries().iter().map(entry).collect();
        assert_eq!(
            entries,
            [(hour(0), 1, 0, 0), (hour(1), 2, 3, 30), (hour(1), 1, 0, 0)]
        );
        assert_eq!(log.entries()[2].reason.len(), REASON_BYTES_MAX);
    }

    /// Check that damage that several questions find counts once, with the most that one of them found to be lost.
    #[test]
    fn stretches_count_once() {
        let mut log = UnreadLog::default();
        assert!(log.note_stretch(hour(1), 3, [0, 0], "cut"));
        assert!(!log.note_stretch(hour(1), 3, [5, 50], "cut"));
        assert!(!log.note_stretch(hour(1), 2, [4, 40], "cut"));
        let entries = log.entries();
        let found = (entries[0].windows, entries[0].samples, entries[0].ns);
        assert_eq!((entries.len(), found), (1, (3, 5, 50)));
    }

    /// Check that windows beyond the bound are counted all the same, with the time that they are in.
    #[test]
    fn entries_are_bounded() {
        let mut log = UnreadLog::default();
        for number in 0..3 * UNREAD_MAX as u64 {
            log.note(key(number), hour(number as i64 + 1), [1, 2], "cut");
        }
        // An early one comes late.
        log.note(key(1000), hour(0), [0, 0], "cut");
        let entries = log.entries();
        assert_eq!(entries.len(), UNREAD_MAX);
        assert_eq!(entries.iter().map(|entry| entry.windows).sum::<u64>(), 301);
        assert_eq!(entries.iter().map(|entry| entry.ns).sum::<u64>(), 600);
        let rest = &entries[UNREAD_MAX - 1];
        let range = TimeRange {
            from_ms: 0,
            to_ms: 3010,
        };
        assert_eq!((rest.range, rest.windows), (range, 202));
    }
}
