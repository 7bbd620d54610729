//! The start of a store: what is on the disk, after a kill at any moment.
//!
//! Replacements are finished. The catalog is opened, or made anew. Segments are opened; the messages of those that the catalog does not
//! have are read. Logs are read into blocks, which become segments. Files of earlier versions are opened, and converted later.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use segment::{LogError, Source as _, replay};
use tracing::{error, warn};
use ulid::Ulid;

use super::block::Block;
use super::catalog::{Catalog, CatalogError};
use super::content::{Content, StoredSegment, read_messages};
use super::directory::{Directory, LOGS, SEGMENTS};
use super::old::OldFile;
use super::replace::{DAMAGED, finish_all, keep_damaged};
use super::span::{Level, SegmentName};

/// sled's thread keeps the lock for some milliseconds after a catalog was dropped.
const LOCK_TIME: Duration = Duration::from_secs(5);

/// Work that was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The catalog was made anew.
    pub catalog_rebuilt: bool,
    /// Replacements of files that were finished.
    pub replacements_finished: u64,
    /// Files that did not count yet, and were removed.
    pub unfinished_removed: u64,
    /// Segments.
    pub segments: u64,
    /// Segments whose messages the catalog lacked.
    pub segments_read: u64,
    /// Segments that could not be opened, and were left as they are.
    pub segments_damaged: u64,
    /// Logs that were read.
    pub logs_read: u64,
    /// Windows in them.
    pub windows_read: u64,
    /// Bytes of unfinished records at the end of logs.
    pub tail_bytes_cut: u64,
    /// Damaged stretches of logs and of files of earlier versions, which are kept beside what could be read.
    pub records_damaged: u64,
    /// Files of earlier versions.
    pub old_files: u64,
}

/// What was found.
pub struct Recovered {
    /// The catalog.
    pub catalog: Catalog,
    /// What the store has. Its blocks get no more windows.
    pub content: Content,
    /// The work that was done.
    pub report: RecoveryReport,
}

/// Opens what is in a directory.
///
/// # Errors
/// The disk failed, or the catalog is of a newer server. Damaged files are not an error.
pub fn recover(directory: &Directory) -> Result<Recovered> {
    let mut report = RecoveryReport::default();
    let (finished, removed) = finish_all(directory.path(), &[SEGMENTS, LOGS])
        .context("failed to finish what was begun before the last end")?;
    report.replacements_finished = finished.len() as u64;
    report.unfinished_removed = removed as u64;
    let catalog = open_catalog(&directory.catalog_path(), &mut report)?;
    take_old_catalog(directory, &catalog);
    for path in finished.iter().flat_map(|replacement| &replacement.old) {
        if let Some(name) = StoredSegment::parse_path(path) {
            catalog.remove_segment(&name)?;
        }
    }
    let mut content = Content::default();
    open_segments(directory, &catalog, &mut content, &mut report)?;
    read_logs(directory, &mut content, &mut report)?;
    for path in directory.list_old(DAMAGED)? {
        let span = OldFile::hour_of(&path).map(|hour_ms| Level::Hour.span_of(hour_ms));
        let relative = path.strip_prefix(directory.path()).unwrap_or(&path);
        if let Some(span) = span {
            let reason = "a file of an earlier version is damaged";
            content.note_unreadable(directory, relative.to_owned(), span, 0, reason);
        }
    }
    for path in directory.list_old(".seg")? {
        match OldFile::open(directory.path(), &path) {
            Ok(file) => {
                report.old_files += 1;
                report.records_damaged += file.damaged();
                content.old.push(Arc::new(file));
            }
            Err(err) => {
                error!(path = %path.display(), err = %format_args!("{err:#}"), "failed to read a file of an earlier version, leaving it as it is");
                report.segments_damaged += 1;
            }
        }
    }
    content.old.sort_by_key(|file| file.hour_ms());
    find_gone(directory, &catalog, &mut content, &mut report)?;
    Ok(Recovered {
        catalog,
        content,
        report,
    })
}

/// Takes what is in no file of an earlier version. The rest of its catalog is known from these files.
fn take_old_catalog(directory: &Directory, catalog: &Catalog) {
    let path = directory.old_catalog_path();
    if !path.exists() {
        return;
    }
    if let Err(err) = catalog.take_reports(&path) {
        warn!(%err, "the last reports of nodes cannot be taken from the catalog of an earlier version; collectors send others");
    }
    if let Err(err) = fs::remove_dir_all(&path) {
        warn!(%err, path = %path.display(), "failed to remove the catalog of an earlier version");
    }
}

fn open_segments(
    directory: &Directory,
    catalog: &Catalog,
    content: &mut Content,
    report: &mut RecoveryReport,
) -> Result<()> {
    for file in directory.list_names(SEGMENTS)? {
        let Some(name) = SegmentName::parse(&file) else {
            warn!(file, "a file is no segment, leaving it alone");
            continue;
        };
        report.segments += 1;
        match StoredSegment::open(directory, catalog, name) {
            Ok(segment) => {
                let entry = segment.entry();
                if catalog.segment(&name).as_ref() != Some(&entry) {
                    report.segments_read += 1;
                    catalog.put_segment(&name, &entry)?;
                }
                content.segments.insert(name, Arc::new(segment));
            }
            Err(err) => {
                error!(file, err = %format_args!("{err:#}"), "failed to open a segment, leaving it as it is");
                report.segments_damaged += 1;
                let windows = catalog
                    .segment(&name)
                    .map_or(0, |entry| entry.messages.len());
                let reason = format!("the segment cannot be opened: {err:#}");
                let path = StoredSegment::path_of(&name);
                content.note_unreadable(directory, path, name.span, windows, &reason);
            }
        }
    }
    Ok(())
}

/// Finds segments that the catalog has and the directory lacks. A damaged catalog may have an old state, with segments that were merged
/// since then: their messages are in others.
fn find_gone(
    directory: &Directory,
    catalog: &Catalog,
    content: &mut Content,
    report: &mut RecoveryReport,
) -> Result<()> {
    for (name, entry) in catalog.segments()? {
        let path = StoredSegment::path_of(&name);
        if content.segments.contains_key(&name) || content.unreadable.contains_key(&path) {
            continue;
        }
        let messages = entry.messages.iter();
        let lost = messages.filter(|(instance, number)| !content.has_message(instance, *number));
        let windows = lost.count() as u64;
        if windows == 0 {
            catalog.remove_segment(&name)?;
            continue;
        }
        error!(%name, windows, "a segment is gone");
        report.segments_damaged += 1;
        content.note_unreadable(directory, path, name.span, windows, "the segment is gone");
    }
    Ok(())
}

fn read_logs(
    directory: &Directory,
    content: &mut Content,
    report: &mut RecoveryReport,
) -> Result<()> {
    for file in directory.list_names(LOGS)? {
        if let Some((hour_ms, id)) = Block::parse_log_name(&file) {
            let path = directory.path().join(LOGS).join(&file);
            let block = read_log(&path, hour_ms, id, report)
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

/// Reads a log into a block; none if no window in it was ever acknowledged. A copy of a damaged one is kept.
fn read_log(
    path: &Path,
    hour_ms: i64,
    id: Ulid,
    report: &mut RecoveryReport,
) -> Result<Option<Block>> {
    let bytes = fs::read(path)?;
    let read = match replay(&bytes) {
        Ok(read) => read,
        Err(LogError::Cut) => {
            fs::remove_file(path)?;
            return Ok(None);
        }
        Err(LogError::NotALog) => {
            error!(path = %path.display(), "a log has no whole record, keeping it");
            report.records_damaged += 1;
            fs::rename(path, keep_damaged(path))?;
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
        match fs::hard_link(path, keep_damaged(path)) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err.into()),
            _ => {}
        }
    }
    // Pages that were in the page cache when the server was killed may not be on the disk yet.
    fs::File::open(path)?.sync_data()?;
    let messages = read_messages(&read.builder)?;
    let block = Block::new(hour_ms, id, read.builder, messages, bytes.len() as u64);
    Ok(Some(block))
}

/// Opens the catalog: as it is, or an empty one.
fn open_catalog(path: &Path, report: &mut RecoveryReport) -> Result<Catalog> {
    let is_new = !path.exists();
    let err = match open_unlocked(path) {
        Ok(catalog) => {
            report.catalog_rebuilt = is_new;
            return Ok(catalog);
        }
        Err(err @ CatalogError::Newer { .. }) => return Err(err.into()),
        Err(err) => err,
    };
    if let CatalogError::Sled(sled::Error::Io(io)) = &err
        && (is_locked(&err)
            || matches!(
                io.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied
            ))
    {
        return Err(anyhow::anyhow!("{io}"))
            .with_context(|| format!("failed to open the catalog `{}`", path.display()));
    }
    let aside = path.with_file_name(format!("catalog.damaged-{}", Ulid::new()));
    warn!(%err, aside = %aside.display(), "the catalog is damaged, making it anew from the segments");
    fs::rename(path, &aside)
        .with_context(|| format!("failed to move `{}` aside", path.display()))?;
    report.catalog_rebuilt = true;
    open_unlocked(path).with_context(|| format!("failed to make the catalog `{}`", path.display()))
}

/// Opens the catalog when its lock is free. Only a store that this process closed can have it: the directory's own lock is held.
fn open_unlocked(path: &Path) -> Result<Catalog, CatalogError> {
    let started = Instant::now();
    loop {
        match Catalog::open(path) {
            Err(err) if is_locked(&err) && started.elapsed() < LOCK_TIME => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// Whether sled says that its lock is taken. It says so in words alone.
fn is_locked(err: &CatalogError) -> bool {
    matches!(err, CatalogError::Sled(sled::Error::Io(err)) if err.to_string().starts_with("could not acquire lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a catalog is waited for whose lock is not free yet, and not taken for a damaged one.
    #[test]
    fn a_locked_catalog_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog");
        let catalog = Catalog::open(&path).unwrap();
        catalog.flush().unwrap();
        let mut report = RecoveryReport::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                drop(catalog);
            });
            open_catalog(&path, &mut report).unwrap();
        });
        assert_eq!(report, RecoveryReport::default());
    }
}
