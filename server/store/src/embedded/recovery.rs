//! The start of a store: what is on the disk, after a kill at any moment.
//!
//! Replacements are finished. The catalog is opened, or made anew. Segments are opened; the messages of those that the catalog does not
//! have are read. Logs are read into blocks, which become segments. Files of earlier versions are opened, and converted later.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use segment::{Damage, Error as SegmentError};
use tracing::{error, warn};
use ulid::Ulid;

use super::catalog::{Catalog, CatalogError, SegmentEntry};
use super::content::{Content, StoredSegment};
use super::directory::{Directory, LOGS, SEGMENTS};
use super::doubles::find_doubled;
use super::files::DAMAGED;
use super::logs::read_logs;
use super::old::OldFile;
use super::replace::finish_all;
use super::report::RecoveryReport;
use super::span::{Level, SegmentName};

/// sled's thread keeps the lock for some milliseconds after a catalog was dropped.
const LOCK_TIME: Duration = Duration::from_secs(5);

/// Result of a recovery.
pub struct Recovered {
    /// The catalog.
    pub catalog: Catalog,
    /// Content of the store. Its blocks get no more windows.
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
    let finished = finish_all(directory.disk(), directory.path(), &[SEGMENTS, LOGS])
        .context("failed to finish what was begun before the last end")?;
    report.replacements_finished = finished.replacements.len() as u64;
    report.lists_damaged = finished.damaged_lists;
    report.unfinished_removed = finished.removed;
    let catalog = open_catalog(&directory.catalog_path(), &mut report)?;
    take_old_catalog(directory, &catalog);
    let replaced = finished.replacements.iter();
    for path in replaced.flat_map(|replacement| &replacement.old) {
        if let Some(name) = StoredSegment::parse_path(path) {
            catalog.remove_segment(&name)?;
        }
    }
    let mut known = catalog.segments()?;
    let versions = catalog.versions()?;
    let mut content = Content::default();
    open_segments(directory, &mut known, &catalog, &mut content, &mut report)?;
    if finished.damaged_lists > 0 {
        remove_doubled(directory, &mut content)?;
    }
    read_logs(directory, &mut content, &mut report)?;
    for path in directory.list_old(DAMAGED)? {
        let reason = "a file of an earlier version is damaged";
        note_old(directory, &mut content, &path, reason);
    }
    for path in directory.list_old(".seg")? {
        match OldFile::open(&**directory.disk(), directory.path(), &path) {
            Ok(file) => {
                report.old_files += 1;
                report.records_damaged += file.damaged();
                content.old.push(Arc::new(file));
            }
            Err(err) => {
                error!(path = %path.display(), err = %format_args!("{err:#}"), "failed to read a file of an earlier version, leaving it as it is");
                report.segments_damaged += 1;
                note_old(directory, &mut content, &path, &format!("{err:#}"));
            }
        }
    }
    content.old.sort_by_key(|file| file.hour_ms());
    for (name, bytes, versions) in versions {
        let found = content.segments.get(&name);
        if let Some(found) = found.filter(|found| found.segment.file_bytes() == bytes) {
            found.set_versions(versions);
        }
    }
    note_gone(directory, known, &catalog, &mut content, &mut report)?;
    Ok(Recovered {
        catalog,
        content,
        report,
    })
}

/// Notes a file of an earlier version that cannot be read.
fn note_old(directory: &Directory, content: &mut Content, path: &Path, reason: &str) {
    if let Some(hour_ms) = OldFile::hour_of(path) {
        let relative = path.strip_prefix(directory.path()).unwrap_or(path);
        let span = Level::Hour.span_of(hour_ms);
        content.note_unreadable(directory, relative.to_owned(), span, 0, reason);
    }
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

/// Opens all segments. What is left in `known` is not there.
fn open_segments(
    directory: &Directory,
    known: &mut BTreeMap<SegmentName, SegmentEntry>,
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
        let entry = known.remove(&name);
        match StoredSegment::open(directory, name, entry.as_ref()) {
            Ok(segment) => {
                let found = segment.entry();
                if entry.as_ref() != Some(&found) {
                    catalog.put_segment(&name, &found)?;
                    report.segments_read += 1;
                }
                content.segments.insert(name, Arc::new(segment));
            }
            Err(err) => {
                error!(file, err = %format_args!("{err:#}"), "failed to open a segment, leaving it as it is");
                report.segments_damaged += 1;
                let messages = entry.map(|entry| entry.messages).unwrap_or_default();
                let reason = format!("the segment cannot be opened: {err:#}");
                let path = StoredSegment::path_of(&name);
                content.note_unreadable(directory, path, name.span, messages.len(), &reason);
                if !is_damage(&err) {
                    content.hidden.extend(&messages);
                }
            }
        }
    }
    Ok(())
}

/// Whether the bytes of a segment are wrong. Else the disk failed, or a newer server wrote it, and a later start may read it.
pub fn is_damage(err: &anyhow::Error) -> bool {
    match err.downcast_ref() {
        Some(SegmentError::NotASegment(_)) => true,
        Some(SegmentError::Damaged(damage)) => damage.is_lasting(),
        Some(_) => false,
        None => err.downcast_ref().is_some_and(Damage::is_lasting),
    }
}

/// Removes segments whose windows are in others, after a list of replaced files was damaged.
fn remove_doubled(directory: &Directory, content: &mut Content) -> Result<()> {
    let messages = content.segments.iter();
    let messages = messages.map(|(name, found)| (*name, found.messages.clone()));
    for name in find_doubled(&messages.collect()) {
        warn!(%name, "removing a segment whose windows are in others");
        let path = directory.path().join(StoredSegment::path_of(&name));
        directory.disk().remove(&path)?;
        content.segments.remove(&name);
    }
    Ok(directory
        .disk()
        .sync_folder(&directory.path().join(SEGMENTS))?)
}

/// Notes segments that the catalog has and the directory lacks. A damaged catalog may have an old state, with segments that were merged
/// since then: their messages are in others.
fn note_gone(
    directory: &Directory,
    gone: BTreeMap<SegmentName, SegmentEntry>,
    catalog: &Catalog,
    content: &mut Content,
    report: &mut RecoveryReport,
) -> Result<()> {
    for (name, entry) in gone {
        let messages = entry.messages.iter();
        let lost = messages.filter(|(instance, number)| !content.has_message(instance, *number));
        let windows = lost.count() as u64;
        if windows == 0 {
            catalog.remove_segment(&name)?;
            continue;
        }
        error!(%name, windows, "a segment is gone");
        report.segments_damaged += 1;
        let path = StoredSegment::path_of(&name);
        content.note_unreadable(directory, path, name.span, windows, "the segment is gone");
    }
    Ok(())
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
