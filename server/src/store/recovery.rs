//! What happens to a store when it is opened.
//!
//! The catalog is opened, or repaired, or made anew. Then each segment that the catalog does not know as sealed is
//! read: a torn tail is cut, and windows that the catalog does not have are put into it. sled loses its last half
//! second when the server is killed, so that this is part of every start after a kill, and not an exception.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result};
use tracing::{error, info, warn};
use ulid::Ulid;

use super::SeriesId;
use super::block::Block;
use super::catalog::{Catalog, CatalogError, RecordPlace};
use super::columns::Damaged;
use super::directory::Directory;
use super::log::{ActiveSegment, seal_segment};
use super::record::{RecordHeader, Section, WindowTotals, decode_labels, decode_totals};
use super::segment::{FooterEntry, Scan, scan_segment};
use crate::profile::LabelSet;

/// What was found and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The catalog was made anew.
    pub catalog_rebuilt: bool,
    /// The catalog was opened without its snapshot.
    pub catalog_repaired: bool,
    /// Segments that were read.
    pub segments_scanned: u64,
    /// Segments that could not be read, and are left as they are.
    pub segments_damaged: u64,
    /// Segments whose last bytes were cut off.
    pub tails_cut: u64,
    /// Bytes that were cut off.
    pub tail_bytes_cut: u64,
    /// Records that are damaged, and are left as they are.
    pub records_damaged: u64,
    /// Windows that the catalog did not have.
    pub windows_restored: u64,
}

/// An open store.
pub struct Recovered {
    /// The catalog.
    pub catalog: Catalog,
    /// Segments to go on with.
    pub active: BTreeMap<Block, ActiveSegment>,
    /// What was done.
    pub report: RecoveryReport,
}

/// Opens the store in a directory.
///
/// # Errors
/// The disk failed, or the catalog is of a newer server. Damaged files are not an error.
pub fn recover(directory: &Directory) -> Result<Recovered> {
    let mut report = RecoveryReport::default();
    let catalog = open_catalog(&directory.catalog_path(), &mut report)?;
    let mut active: BTreeMap<Block, ActiveSegment> = BTreeMap::new();
    for (id, path) in directory.list_segments()? {
        let length = path
            .metadata()
            .with_context(|| format!("failed to read `{}`", path.display()))?
            .len();
        if catalog.sealed_length(id)? == Some(length) {
            continue;
        }
        report.segments_scanned += 1;
        let Some((block, segment)) = recover_segment(id, &path, &catalog, &mut report)? else {
            continue;
        };
        // A block goes on with its newest segment; ULIDs sort by time.
        if let Some(older) = active.insert(block, segment) {
            seal_segment(&older, &catalog)
                .with_context(|| format!("failed to seal the segment {}", older.id))?;
        }
    }
    catalog.flush()?;
    Ok(Recovered {
        catalog,
        active,
        report,
    })
}

/// Opens the catalog: as it is, or without its snapshot, or an empty one.
fn open_catalog(path: &Path, report: &mut RecoveryReport) -> Result<Catalog> {
    let err = match Catalog::open(path) {
        Ok(catalog) => return Ok(catalog),
        Err(err @ CatalogError::Newer { .. }) => return Err(err.into()),
        Err(err) => err,
    };
    if let CatalogError::Sled(sled::Error::Io(err)) = &err
        && matches!(
            err.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::PermissionDenied
        )
    {
        return Err(anyhow::anyhow!("{err}"))
            .with_context(|| format!("failed to open the catalog `{}`", path.display()));
    }
    warn!(%err, "the catalog is damaged, opening it without its snapshot");
    if move_snapshots_aside(path)? > 0
        && let Ok(catalog) = Catalog::open(path)
    {
        report.catalog_repaired = true;
        return Ok(catalog);
    }
    let aside = path.with_file_name(format!("catalog.damaged-{}", Ulid::new()));
    warn!(aside = %aside.display(), "the catalog cannot be repaired, making it anew from the segments");
    fs::rename(path, &aside)
        .with_context(|| format!("failed to move `{}` aside", path.display()))?;
    report.catalog_rebuilt = true;
    Catalog::open(path).with_context(|| format!("failed to make the catalog `{}`", path.display()))
}

/// sled starts from its newest snapshot; a damaged one is not needed, since all is in its log.
fn move_snapshots_aside(path: &Path) -> Result<u32> {
    let mut moved = 0;
    let entries =
        fs::read_dir(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    for entry in entries {
        let snapshot = entry?.path();
        let Some(name) = snapshot
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| name.starts_with("snap."))
        else {
            continue;
        };
        let aside = path.with_file_name(format!("catalog.{name}.damaged-{}", Ulid::new()));
        fs::rename(&snapshot, &aside)
            .with_context(|| format!("failed to move `{}` aside", snapshot.display()))?;
        moved += 1;
    }
    Ok(moved)
}

/// Reads a segment, cuts its tail, and completes the catalog. Returns it if it is to be written on.
fn recover_segment(
    id: Ulid,
    path: &Path,
    catalog: &Catalog,
    report: &mut RecoveryReport,
) -> Result<Option<(Block, ActiveSegment)>> {
    let bytes = fs::read(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    let scan = match scan_segment(&bytes) {
        Ok(scan) => scan,
        Err(err) => {
            error!(%err, path = %path.display(), "failed to read a segment, leaving it as it is");
            report.segments_damaged += 1;
            return Ok(None);
        }
    };
    report.records_damaged += scan.damaged_stretches;
    if scan.damaged_stretches > 0 {
        error!(path = %path.display(), stretches = scan.damaged_stretches, "a segment has damaged records");
    }
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.with_context(|| format!("failed to open `{}`", path.display()))?;
    if !scan.sealed {
        cut_tail(&file, path, bytes.len() as u64, &scan, report)?;
    }
    // What was in the page cache when the server was killed is not on the disk yet, and is about to be relied on.
    file.sync_data()
        .with_context(|| format!("failed to sync `{}`", path.display()))?;
    let entries = restore_windows(id, path, &bytes, &scan, catalog, report)?;
    if scan.sealed {
        catalog.insert_sealed(id, bytes.len() as u64)?;
        return Ok(None);
    }
    Ok(Some((
        scan.block,
        ActiveSegment {
            id,
            file,
            length: scan.end,
            entries,
        },
    )))
}

fn cut_tail(
    file: &File,
    path: &Path,
    length: u64,
    scan: &Scan,
    report: &mut RecoveryReport,
) -> Result<()> {
    if length == scan.end {
        return Ok(());
    }
    report.tails_cut += 1;
    report.tail_bytes_cut += length - scan.end;
    info!(path = %path.display(), bytes = length - scan.end, "cutting an unfinished record");
    file.set_len(scan.end)
        .with_context(|| format!("failed to cut `{}`", path.display()))
}

fn restore_windows(
    id: Ulid,
    path: &Path,
    bytes: &[u8],
    scan: &Scan,
    catalog: &Catalog,
    report: &mut RecoveryReport,
) -> Result<Vec<FooterEntry>> {
    let mut entries = Vec::with_capacity(scan.records.len());
    for &(offset, length) in &scan.records {
        let record = &bytes[offset as usize..][..length as usize];
        let restored = restore_window(
            record,
            RecordPlace {
                segment: id,
                offset,
                length,
            },
            catalog,
        )?;
        match restored {
            Ok((entry, is_new)) => {
                entries.push(entry);
                report.windows_restored += u64::from(is_new);
            }
            Err(err) => {
                error!(%err, path = %path.display(), offset, "a record cannot be used");
                report.records_damaged += 1;
            }
        }
    }
    Ok(entries)
}

type Restored = std::result::Result<(FooterEntry, bool), Damaged>;

fn restore_window(record: &[u8], place: RecordPlace, catalog: &Catalog) -> Result<Restored> {
    let (totals, header) = match read_totals(record) {
        Ok(read) => read,
        Err(err) => return Ok(Err(err)),
    };
    let key = totals.head.key;
    let entry = FooterEntry {
        key,
        offset: place.offset,
        length: place.length,
    };
    if catalog.is_seen(&key)? {
        return Ok(Ok((entry, false)));
    }
    let labels = match header
        .unpack_from(Section::Labels, record)
        .and_then(|bytes| decode_labels(&bytes))
    {
        Ok(labels) if labels.len() == totals.series.len() => labels,
        Ok(_) => return Ok(Err(Damaged("totals and labels differ"))),
        Err(err) => return Ok(Err(err)),
    };
    let series: Vec<(SeriesId, &LabelSet)> = totals.series.iter().copied().zip(&labels).collect();
    for (id, labels) in &series {
        // Numbers come from the segments alone; they differ only if segments of two stores were mixed.
        if catalog
            .find_labels(*id)?
            .is_some_and(|known| known != **labels)
        {
            return Ok(Err(Damaged(
                "a series has the number of another: is the segment of this store?",
            )));
        }
    }
    catalog.insert_series(&series)?;
    catalog.insert_postings(Block::of(key.start_ms), &series)?;
    catalog.insert_window(&key, place)?;
    Ok(Ok((entry, true)))
}

fn read_totals(record: &[u8]) -> std::result::Result<(WindowTotals, RecordHeader), Damaged> {
    let header = RecordHeader::read(record)?;
    let totals = decode_totals(&header.unpack_from(Section::Totals, record)?)?;
    Ok((totals, header))
}
