//! A source of names for tests: a table in memory.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "for tests, of which each uses a part"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use query::names::{NameSource, SourceFrame};

type Frames = Vec<(String, String, u32)>;

/// Names by build id and offset.
#[derive(Default)]
pub struct NameTable {
    files: Mutex<BTreeMap<String, BTreeMap<u64, Frames>>>,
    asked: AtomicUsize,
    calls: AtomicUsize,
}

impl NameTable {
    /// Adds an offset: its functions, innermost first, each with file and line.
    pub fn insert(&self, build_id: &str, offset: u64, frames: &[(&str, &str, u32)]) {
        let own = |(function, file, line): &(&str, &str, u32)| {
            ((*function).to_owned(), (*file).to_owned(), *line)
        };
        let frames = frames.iter().map(own).collect();
        let mut files = self.files.lock();
        files
            .entry(build_id.to_owned())
            .or_default()
            .insert(offset, frames);
    }

    /// Removes an offset.
    pub fn remove(&self, build_id: &str, offset: u64) {
        if let Some(file) = self.files.lock().get_mut(build_id) {
            file.remove(&offset);
        }
    }

    /// Number of look-ups.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Number of offsets in all look-ups.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl NameSource for NameTable {
    fn knows(&self, build_id: &str) -> bool {
        self.files.lock().contains_key(build_id)
    }

    fn name(
        &self,
        build_id: &str,
        offsets: &[u64],
        name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.asked.fetch_add(offsets.len(), Ordering::Relaxed);
        let files = self.files.lock();
        let Some(file) = files.get(build_id) else {
            return false;
        };
        for (at, offset) in offsets.iter().enumerate() {
            let Some(frames) = file.get(offset) else {
                continue;
            };

            let frames: Vec<SourceFrame<'_>> = frames
                .iter()
                .map(|(function, file, line)| SourceFrame {
                    function,
                    system_name: "",
                    file,
                    line: *line,
                    start_line: 1,
                })
                .collect();
            name(at, &frames);
        }
        true
    }
}
