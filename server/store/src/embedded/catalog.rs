//! The catalog, in sled: what is small, and is slower to learn from the files.
//!
//! Trees: `meta` (the schema, the segment that was verified last), `segments` (the messages of each file, in postcard's form),
//! `versions` (those of each file, likewise), `reports` (the last of each node, as JSON). Segments are the truth: an entry that is
//! missing, damaged or of another file is read from its segment again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use model::LabelSet;
use model::node_report::NodeReport;
use serde::{Deserialize, Serialize};
use sled::{Db, Tree};

use super::sequences::Sequences;
use super::span::SegmentName;
use crate::versions::VersionTable;
use crate::{REPORTS_MAX, VersionKey, VersionKind, VersionTimes};

/// Version of these trees and entries. Schema 1 is that of servers that had no columnar segments.
pub const SCHEMA: u32 = 2;

/// The entries take some MB; sled's default would be 1 GB.
const CACHE_BYTES: u64 = 16 << 20;

/// sled's own default: its flusher does the real fsync and the garbage collection.
const FLUSH_EVERY_MS: u64 = 500;

/// Key of the segment that was verified last.
const LAST_VERIFIED: &str = "last_verified";

/// The catalog failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// sled failed.
    #[error("the catalog failed: {0}")]
    Sled(#[from] sled::Error),
    /// An entry cannot be encoded.
    #[error("the catalog failed: {0}")]
    Postcard(#[from] postcard::Error),
    /// A report cannot be encoded.
    #[error("the catalog failed: {0}")]
    Json(#[from] serde_json::Error),
    /// sled panicked, which it does on some damaged files.
    #[error("the catalog is damaged: {0}")]
    Panicked(String),
    /// It was written by a newer server.
    #[error(
        "the catalog has schema {found}, and this server knows {SCHEMA}: use the newer server again"
    )]
    Newer {
        /// The schema that was found.
        found: u32,
    },
}

/// Entry of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Length of the file: another file has no entry.
    pub bytes: u64,
    /// The messages in it.
    pub messages: Sequences,
}

/// The catalog.
pub struct Catalog {
    db: Db,
    meta: Tree,
    segments: Tree,
    versions: Tree,
    reports: Tree,
}

/// The versions in a segment.
#[derive(Serialize, Deserialize)]
struct VersionsEntry {
    /// Length of the file.
    bytes: u64,
    left_out: u64,
    versions: Vec<VersionEntry>,
}

#[derive(Serialize, Deserialize)]
struct VersionEntry {
    labels: Vec<(String, String)>,
    is_build_id: bool,
    version: String,
    first_ms: i64,
    last_ms: i64,
}

impl Catalog {
    /// Opens or makes the catalog.
    ///
    /// # Errors
    /// It is damaged, of a newer schema, or the disk failed.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_trees(&config.open()?)));
        opened.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied());
            Err(CatalogError::Panicked(
                text.unwrap_or("sled panicked").to_owned(),
            ))
        })
    }

    fn open_trees(db: &Db) -> Result<Self, CatalogError> {
        let meta = db.open_tree("meta")?;
        let found = meta.get("schema")?;
        let found = found.and_then(|bytes| Some(u32::from_be_bytes(*bytes.first_chunk()?)));
        if let Some(found) = found.filter(|found| *found > SCHEMA) {
            return Err(CatalogError::Newer { found });
        }
        if found != Some(SCHEMA) {
            meta.insert("schema", &SCHEMA.to_be_bytes())?;
            db.flush()?;
        }
        Ok(Self {
            db: db.clone(),
            segments: db.open_tree("segments")?,
            versions: db.open_tree("versions")?,
            reports: db.open_tree("reports")?,
            meta,
        })
    }

    /// Keeps what is known of a segment.
    ///
    /// # Errors
    /// sled failed.
    pub fn put_segment(
        &self,
        name: &SegmentName,
        entry: &SegmentEntry,
    ) -> Result<(), CatalogError> {
        put(&self.segments, &name.to_string(), entry)
    }

    /// Forgets a segment.
    ///
    /// # Errors
    /// sled failed.
    pub fn remove_segment(&self, name: &SegmentName) -> Result<(), CatalogError> {
        self.segments.remove(name.to_string())?;
        self.versions.remove(name.to_string())?;
        Ok(())
    }

    /// Entries of all segments.
    ///
    /// # Errors
    /// sled failed.
    pub fn segments(&self) -> Result<BTreeMap<SegmentName, SegmentEntry>, CatalogError> {
        let mut segments = BTreeMap::new();
        for entry in &self.segments {
            let (key, value) = entry?;
            let name = std::str::from_utf8(&key).ok().and_then(SegmentName::parse);
            segments.extend(name.zip(postcard::from_bytes(&value).ok()));
        }
        Ok(segments)
    }

    /// Keeps the versions in a segment, whose file has so many bytes.
    ///
    /// # Errors
    /// sled failed.
    pub fn put_versions(
        &self,
        name: &SegmentName,
        bytes: u64,
        table: &VersionTable,
    ) -> Result<(), CatalogError> {
        let entry = VersionsEntry {
            bytes,
            left_out: table.left_out,
            versions: table.versions.iter().map(VersionEntry::new).collect(),
        };
        put(&self.versions, &name.to_string(), &entry)
    }

    /// The versions in all segments, with the bytes of their files.
    ///
    /// # Errors
    /// sled failed.
    pub fn versions(&self) -> Result<Vec<(SegmentName, u64, VersionTable)>, CatalogError> {
        let mut all = Vec::new();
        for entry in &self.versions {
            let (key, value) = entry?;
            let name = std::str::from_utf8(&key).ok().and_then(SegmentName::parse);
            let entry = postcard::from_bytes(&value).ok();
            let table = entry.map(VersionsEntry::into_table);
            all.extend(
                name.zip(table)
                    .map(|(name, (bytes, table))| (name, bytes, table)),
            );
        }
        Ok(all)
    }

    /// The segment that was verified last.
    ///
    /// # Errors
    /// sled failed.
    pub fn last_verified(&self) -> Result<Option<SegmentName>, CatalogError> {
        let name = self.meta.get(LAST_VERIFIED)?;
        let name = name.and_then(|name| SegmentName::parse(std::str::from_utf8(&name).ok()?));
        Ok(name)
    }

    /// Keeps which segment was verified last.
    ///
    /// # Errors
    /// sled failed.
    pub fn put_last_verified(&self, name: &SegmentName) -> Result<(), CatalogError> {
        let name = name.to_string();
        self.meta.insert(LAST_VERIFIED, name.as_bytes())?;
        Ok(())
    }

    /// Keeps the report of a node, as [`Store::put_report`](crate::Store::put_report) says.
    ///
    /// # Errors
    /// sled failed.
    pub fn put_report(&self, mut report: NodeReport) -> Result<(), CatalogError> {
        let kept = self.reports.get(&report.node)?;
        let kept = kept.and_then(|json| serde_json::from_slice::<NodeReport>(&json).ok());
        if let Some(kept) = kept {
            if !report.replaces(&kept) {
                return Ok(());
            }
            report.first_ms = kept.first_ms;
        } else if self.reports.len() >= REPORTS_MAX {
            let oldest = self.reports()?.into_iter();
            if let Some(oldest) = oldest.min_by_key(|report| report.content.received_ms) {
                self.reports.remove(&oldest.node)?;
            }
        }
        self.reports
            .insert(&report.node, serde_json::to_vec(&report)?)?;
        Ok(())
    }

    /// The last report of each node, by name. One that a later version wrote may be left out until it comes again.
    ///
    /// # Errors
    /// sled failed.
    pub fn reports(&self) -> Result<Vec<NodeReport>, CatalogError> {
        let mut reports = Vec::new();
        for entry in &self.reports {
            reports.extend(serde_json::from_slice::<NodeReport>(&entry?.1).ok());
        }
        Ok(reports)
    }

    /// Takes the reports of nodes from the catalog of an earlier version.
    ///
    /// # Errors
    /// One of the catalogs failed.
    pub fn take_reports(&self, earlier: &Path) -> Result<(), CatalogError> {
        // It has the tree in the same form.
        let earlier = Self::open(earlier)?;
        for entry in &earlier.reports {
            let (node, report) = entry?;
            if !self.reports.contains_key(&node)? {
                self.reports.insert(node, report)?;
            }
        }
        Ok(())
    }

    /// Flushes sled.
    ///
    /// # Errors
    /// sled failed.
    pub fn flush(&self) -> Result<(), CatalogError> {
        self.db.flush()?;
        Ok(())
    }
}

impl VersionsEntry {
    fn into_table(self) -> (u64, VersionTable) {
        let versions = self.versions.into_iter().map(VersionEntry::into_pair);
        let table = VersionTable {
            versions: versions.collect(),
            left_out: self.left_out,
        };
        (self.bytes, table)
    }
}

impl VersionEntry {
    fn new((key, times): (&VersionKey, &VersionTimes)) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            labels: key.labels.iter().map(owned).collect(),
            is_build_id: key.kind == VersionKind::BuildId,
            version: key.version.clone(),
            first_ms: times.first_ms,
            last_ms: times.last_ms,
        }
    }

    fn into_pair(self) -> (VersionKey, VersionTimes) {
        let kind = if self.is_build_id {
            VersionKind::BuildId
        } else {
            VersionKind::Image
        };
        let key = VersionKey {
            kind,
            // SANITY: they were those of a label set.
            labels: LabelSet::from_sorted(self.labels).unwrap_or_default(),
            version: self.version,
        };
        let times = VersionTimes {
            first_ms: self.first_ms,
            last_ms: self.last_ms,
        };
        (key, times)
    }
}

fn put<T: Serialize>(tree: &Tree, key: &str, value: &T) -> Result<(), CatalogError> {
    tree.insert(key, postcard::to_allocvec(value)?)?;
    Ok(())
}
