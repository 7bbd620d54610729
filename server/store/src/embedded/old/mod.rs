//! Files of earlier versions, which kept each window as it came: `.seg` files of one hour with a record for each window. They are read
//! as logs, and converted to segments in the background.
//!
//! [`file`] is the format of a file, [`record`] that of a window, of versions 1 to 4.

pub mod columns;
pub mod file;
pub mod record;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use model::{TimeRange, Window, WindowKey};

use self::columns::Damaged;
use self::file::{FooterEntry, scan_segment};
use self::record::read_window;
use super::disk::{Disk, DiskFile};
use super::files;
use super::sequences::Sequences;
use super::span::{HOUR_MS, parse_start};

/// A file of an earlier version.
pub struct OldFile {
    path: PathBuf,
    relative_path: PathBuf,
    file: Arc<dyn DiskFile>,
    hour_ms: i64,
    bytes: u64,
    windows: Vec<FooterEntry>,
    messages: Sequences,
    /// Stretches of the file that hold no whole record.
    damaged: u64,
}

impl OldFile {
    /// Opens a file below the folder of profiles, and finds its windows.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub fn open(disk: &dyn Disk, root: &Path, path: &Path) -> Result<Self> {
        let file = disk.open(path)?;
        let bytes = file.size()?;
        let hour_ms = Self::hour_of(path).context("its folder is not an hour")?;
        let footer = read_footer(&*file, bytes).ok().flatten();
        let (windows, damaged) = match footer {
            Some(windows) => (windows, 0),
            // It was not sealed, or its footer is damaged.
            None => find_windows(&files::read(disk, path)?)?,
        };
        let messages = windows
            .iter()
            .map(|window| (window.key.instance, window.key.sequence))
            .collect();
        Ok(Self {
            path: path.to_owned(),
            relative_path: path.strip_prefix(root).unwrap_or(path).to_owned(),
            file,
            hour_ms,
            bytes,
            windows,
            messages,
            damaged,
        })
    }

    /// Its path, relative to the folder of profiles.
    pub fn relative_path(&self) -> &Path {
        &self.relative_path
    }

    /// The start of the hour that a file's folder is named after.
    pub fn hour_of(path: &Path) -> Option<i64> {
        parse_start(path.parent()?.file_name()?.to_str()?)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Start of the hour in which its windows start, milliseconds since the Unix epoch.
    pub fn hour_ms(&self) -> i64 {
        self.hour_ms
    }

    /// End of that hour.
    pub fn end_ms(&self) -> i64 {
        self.hour_ms.saturating_add(HOUR_MS)
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The messages in it.
    pub fn messages(&self) -> &Sequences {
        &self.messages
    }

    /// Stretches that hold no whole record.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Reads the windows that start in a range, one after the other. A record that cannot be read is shown as its window and the cause.
    pub fn windows(
        &self,
        range: TimeRange,
    ) -> impl Iterator<Item = Result<Window, (WindowKey, anyhow::Error)>> {
        let in_range = move |window: &&FooterEntry| range.contains(window.key.start_ms);
        self.windows.iter().filter(in_range).map(move |window| {
            let read = self.read(window);
            read.map_err(|err| (window.key, err))
        })
    }

    fn read(&self, entry: &FooterEntry) -> Result<Window> {
        let mut record = vec![0; entry.length as usize];
        self.file.read_exact_at(&mut record, entry.offset)?;
        let window = read_window(&record)?;
        anyhow::ensure!(
            window.head.key == entry.key,
            "the record is of another window, {}",
            window.head.key
        );
        Ok(window)
    }
}

/// Reads the index at the end of a sealed file.
fn read_footer(file: &dyn DiskFile, bytes: u64) -> Result<Option<Vec<FooterEntry>>> {
    let Some(end) = bytes.checked_sub(file::END_BYTES as u64) else {
        return Ok(None);
    };
    let mut trailer = [0; file::END_BYTES];
    file.read_exact_at(&mut trailer, end)?;
    let Some(offset) = file::read_end(&trailer) else {
        return Ok(None);
    };
    let length = end
        .checked_sub(offset)
        .context("the footer is behind the end")?;
    let mut footer = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut footer, offset)?;
    Ok(Some(file::read_footer(&footer)?))
}

/// Finds the windows of a file without a footer, and the number of damaged stretches.
fn find_windows(content: &[u8]) -> Result<(Vec<FooterEntry>, u64), Damaged> {
    let scan = scan_segment(content)?;
    let mut damaged = scan.damaged_stretches;
    let mut windows = Vec::new();
    for (offset, length) in scan.records {
        let record = &content[offset as usize..][..length as usize];
        match record::read_key(record) {
            Ok(key) => windows.push(FooterEntry {
                key,
                offset,
                length,
            }),
            Err(_) => damaged += 1,
        }
    }
    Ok((windows, damaged))
}
