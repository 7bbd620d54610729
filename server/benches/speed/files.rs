//! Files of a store: their bytes by level, also of those that are merged soon, and what `pilotlight-server stats` says of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

/// Time between two looks at the folder: a segment is there for longer before its merge is read back.
const LOOK_TIME: Duration = Duration::from_millis(20);

/// Bytes of files by name.
pub(crate) fn list(folder: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| {
        // Files go while they are listed.
        let bytes = entry.metadata().ok()?.len();
        Some((entry.file_name().to_string_lossy().into_owned(), bytes))
    });
    files.collect()
}

pub(crate) fn segments_folder(data: &Path) -> PathBuf {
    data.join("default/segments")
}

/// A thread that notes each segment.
pub(crate) struct SegmentWatch {
    stop: Sender<()>,
    thread: JoinHandle<BTreeMap<String, u64>>,
}

impl SegmentWatch {
    pub(crate) fn start(data: &Path) -> Self {
        let (stop, stopped) = channel();
        let folder = segments_folder(data);
        Self {
            stop,
            thread: thread::spawn(move || watch(&folder, &stopped)),
        }
    }

    /// Bytes of all segments that there were of a level.
    pub(crate) fn finish(self, level: &str) -> Result<u64> {
        drop(self.stop);
        let seen = self.thread.join();
        let seen = seen.map_err(|_| anyhow!("the thread that watches segments panicked"))?;
        let of_level = seen
            .iter()
            .filter(|(name, _)| name.split('.').nth(1) == Some(level));
        Ok(of_level.map(|(_, bytes)| bytes).sum())
    }
}

fn watch(folder: &Path, stopped: &Receiver<()>) -> BTreeMap<String, u64> {
    let mut seen = BTreeMap::new();
    loop {
        let files = list(folder).into_iter();
        seen.extend(files.filter(|(name, _)| name.ends_with(".seg")));
        if stopped.recv_timeout(LOOK_TIME) != Err(RecvTimeoutError::Timeout) {
            return seen;
        }
    }
}

/// The store's own account of its segments.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stats {
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    /// Bytes by section.
    pub(crate) sections: BTreeMap<String, u64>,
}

impl Stats {
    pub(crate) fn read(data: &Path) -> Result<Self> {
        let output = Command::new(env!("CARGO_BIN_EXE_pilotlight-server"))
            .args(["stats", "--data-dir"])
            .arg(data)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "`stats` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self::parse(&text).with_context(|| format!("`stats` says:\n{text}"))
    }

    /// Adds up the lines of the first two tables.
    fn parse(text: &str) -> Result<Self> {
        let mut stats = Self::default();
        let mut tables = text.split("\n\n");
        for line in tables.next().unwrap_or_default().lines().skip(1) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            if let [_, files, bytes, _, rows, ..] = cells[..] {
                stats.segments += files.parse::<u64>()?;
                stats.bytes += bytes.parse::<u64>()?;
                stats.rows += rows.parse::<u64>()?;
            }
        }
        for line in tables.next().unwrap_or_default().lines().skip(1) {
            let (name, bytes) = line.rsplit_once(' ').context("no section")?;
            stats
                .sections
                .insert(name.trim().to_owned(), bytes.parse()?);
        }
        ensure!(stats.segments > 0, "there is no segment");
        Ok(stats)
    }
}
