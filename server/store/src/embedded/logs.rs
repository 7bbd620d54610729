//! The logs that a start finds: each is read into a block, which becomes a segment.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use segment::{Builder, LogError, Source as _, WindowSet, replay};
use tracing::{error, warn};
use ulid::Ulid;

use super::block::Block;
use super::content::{Content, read_messages};
use super::directory::{Directory, LOGS};
use super::files::{self, DAMAGED, ignore_existing, ignore_missing, keep_damaged};
use super::report::RecoveryReport;
use super::shared::effort;
use super::span::Level;

/// Reads all logs into blocks. Windows that the content has already are left out.
///
/// # Errors
/// The disk failed. Damaged logs are not an error.
pub fn read_logs(
    directory: &Directory,
    content: &mut Content,
    report: &mut RecoveryReport,
) -> Result<()> {
    for file in directory.list_names(LOGS)? {
        if let Some((hour_ms, id)) = Block::parse_log_name(&file) {
            let path = directory.path().join(LOGS).join(&file);
            let bytes = match files::read(&**directory.disk(), &path) {
                Ok(bytes) => bytes,
                Err(err) => {
                    error!(path = %path.display(), %err, "failed to read a log, leaving it as it is");
                    report.records_damaged += 1;
                    let reason = format!("the log cannot be read: {err}");
                    let span = Level::Part.span_of(hour_ms);
                    let path = Path::new(LOGS).join(&file);
                    content.note_unreadable(directory, path, span, 0, &reason);
                    continue;
                }
            };
            let block = read_log(directory, &path, &bytes, (hour_ms, id), content, report)
                .with_context(|| format!("failed to read the log `{}`", path.display()))?;
            content.blocks.extend(block.map(Arc::new));
        }
    }
    // With those of this start.
    for file in directory.list_names(LOGS)? {
        let name = file.strip_suffix(DAMAGED).map(|name| format!("{name}.log"));
        if let Some((hour_ms, _)) = name.as_deref().and_then(Block::parse_log_name) {
            let span = Level::Part.span_of(hour_ms);
            let path = Path::new(LOGS).join(&file);
            content.note_unreadable(directory, path, span, 0, "the log is damaged");
        }
    }
    content.blocks.sort_by_key(|block| block.id);
    Ok(())
}

/// Reads a log into a block; none if it has no window that is to be kept. A copy of a damaged one is kept.
fn read_log(
    directory: &Directory,
    path: &Path,
    bytes: &[u8],
    (hour_ms, id): (i64, Ulid),
    content: &Content,
    report: &mut RecoveryReport,
) -> Result<Option<Block>> {
    let disk = &**directory.disk();
    let read = match replay(bytes) {
        Ok(read) => read,
        // No window in it was ever acknowledged.
        Err(LogError::Cut) => {
            ignore_missing(disk.remove(path))?;
            return Ok(None);
        }
        Err(LogError::NotALog) => {
            error!(path = %path.display(), "a log has no whole record, keeping it");
            report.records_damaged += 1;
            disk.rename(path, &keep_damaged(path))?;
            return Ok(None);
        }
        Err(err @ LogError::Version { .. }) => return Err(err.into()),
    };
    report.logs_read += 1;
    report.windows_read += read.builder.window_count() as u64;
    report.tail_bytes_cut += read.torn_bytes;
    report.records_damaged += read.damage.len() as u64;
    for damage in &read.damage {
        error!(path = %path.display(), %damage, lost_windows = read.lost_windows, "a log is damaged, keeping a copy");
    }
    if !read.damage.is_empty() {
        ignore_existing(disk.link(path, &keep_damaged(path)))?;
    }
    // Pages that were in the page cache when the server was killed may not be on the disk yet.
    disk.open(path)?.sync()?;
    let builder = leave_out_known(read.builder, content, report)?;
    let messages = read_messages(&builder)?;
    let block = Block::new(hour_ms, id, builder, messages, bytes.len() as u64);
    Ok(Some(block))
}

/// The windows that are nowhere else. A record that could not be synced, and not be cut either, was sent again, and is in two logs.
fn leave_out_known(
    read: Builder,
    content: &Content,
    report: &mut RecoveryReport,
) -> Result<Builder> {
    let messages = read.read_messages()?.value;
    let is_known: Vec<bool> = messages
        .iter()
        .map(|found| content.has_message(&found.instance, found.message.sequence))
        .collect();
    let repeated = is_known.iter().filter(|is_known| **is_known).count();
    if repeated == 0 {
        return Ok(read);
    }
    warn!(
        windows = repeated,
        "a log has windows that are stored already, leaving them out"
    );
    report.windows_repeated += repeated as u64;
    let mut builder = Builder::default();
    for (found, _) in messages
        .iter()
        .zip(is_known)
        .filter(|(_, is_known)| !is_known)
    {
        let mut number = 0..;
        let starts = read.read_window_starts()?;
        let wanted = WindowSet::of(&starts, |_| number.next() == Some(found.window));
        for window in read.read_whole_windows(&wanted, effort())? {
            builder.add_message(&window, found.digest)?;
        }
    }
    Ok(builder)
}
