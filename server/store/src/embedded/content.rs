//! Content of the store at a moment: segments, blocks that are no segments yet, and files of earlier versions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use model::{TimeRange, Unread, WindowKey};
use segment::{Damage, Digest, Segment, Source};
use ulid::Ulid;

use super::block::Block;
use super::catalog::SegmentEntry;
use super::directory::{Directory, SEGMENTS};
use super::disk::DiskFile;
use super::files;
use super::metrics::StoreMetrics;
use super::old::OldFile;
use super::overlap::{CollectorSpan, list_spans};
use super::plan::{Evictable, SegmentFacts};
use super::sequences::Sequences;
use super::span::{SegmentName, Span};
use crate::unread::UnreadLog;
use crate::versions::VersionTable;
use crate::{Appended, StoreError, StoreNumbers};

/// The file of a segment.
pub type SegmentFile = Arc<dyn DiskFile>;

/// A segment of the store. It can be read until it is dropped, also when its file was removed.
pub struct StoredSegment {
    /// Its name.
    pub name: SegmentName,
    /// The messages in it.
    pub messages: Sequences,
    /// The file.
    pub segment: Segment<SegmentFile>,
    /// Whether its bytes are wrong: it is not merged any more.
    is_damaged: AtomicBool,
    /// The first damage that a question or the verifier found.
    damage: OnceLock<String>,
    /// The versions in it, when they are known.
    versions: OnceLock<VersionTable>,
    /// The collectors in it, when somebody has asked.
    collectors: OnceLock<Vec<CollectorSpan>>,
}

impl StoredSegment {
    /// Path of a segment, relative to the folder of profiles.
    pub fn path_of(name: &SegmentName) -> PathBuf {
        PathBuf::from(SEGMENTS).join(name.to_string())
    }

    /// The name of a segment with such a path.
    pub fn parse_path(path: &Path) -> Option<SegmentName> {
        SegmentName::parse(path.strip_prefix(SEGMENTS).ok()?.to_str()?)
    }

    /// A segment that is whole as far as it was read.
    pub fn new(name: SegmentName, messages: Sequences, segment: Segment<SegmentFile>) -> Self {
        Self {
            name,
            messages,
            segment,
            is_damaged: AtomicBool::new(false),
            damage: OnceLock::new(),
            versions: OnceLock::new(),
            collectors: OnceLock::new(),
        }
    }

    /// Remembers the versions in it.
    pub fn set_versions(&self, versions: VersionTable) {
        // They are those of an immutable file.
        let _known = self.versions.set(versions);
    }

    /// The versions in it, if they are known.
    pub fn versions(&self) -> Option<&VersionTable> {
        self.versions.get()
    }

    /// Opens a segment. Its messages are those that the catalog knew of it, or are read.
    ///
    /// # Errors
    /// It cannot be read, or is damaged in a part that every question needs.
    pub fn open(
        directory: &Directory,
        name: SegmentName,
        known: Option<&SegmentEntry>,
    ) -> anyhow::Result<Self> {
        let path = directory.path().join(Self::path_of(&name));
        let segment = Segment::open(directory.disk().open(&path)?)?;
        let known = known.filter(|entry| entry.bytes == segment.file_bytes());
        let messages = match known {
            Some(entry) => entry.messages.clone(),
            None => read_messages(&segment)?,
        };
        Ok(Self::new(name, messages, segment))
    }

    /// The collectors in it; none if it is damaged, which a question finds.
    pub fn collectors(&self) -> &[CollectorSpan] {
        self.collectors.get_or_init(|| {
            let windows = self.segment.read_windows();
            windows.map_or_else(|_| Vec::new(), |windows| list_spans(&windows))
        })
    }

    /// Its entry in the catalog.
    pub fn entry(&self) -> SegmentEntry {
        SegmentEntry {
            bytes: self.segment.file_bytes(),
            messages: self.messages.clone(),
        }
    }

    /// Facts for plans.
    pub fn facts(&self) -> SegmentFacts {
        let summary = self.segment.summary();
        SegmentFacts {
            name: self.name,
            bytes: self.segment.file_bytes(),
            end_ms: summary.to_ms,
            resolution_ms: summary.resolution_ms,
            addresses: summary.addresses,
        }
    }

    /// Remembers that a part of it cannot be read, and leaves it out of merges if its bytes are wrong. Returns whether it is the first
    /// damage.
    pub fn note_damage(&self, damage: &Damage, metrics: &StoreMetrics) -> bool {
        if damage.is_lasting() {
            self.stop_merging();
        }
        self.note_reason(&damage.to_string(), metrics)
    }

    /// Remembers until the next start why it cannot be read. Returns whether it is the first reason.
    pub fn note_reason(&self, reason: &str, metrics: &StoreMetrics) -> bool {
        let is_first = self.damage.set(reason.to_owned()).is_ok();
        if is_first {
            metrics.count_damage();
        }
        is_first
    }

    /// Notes that something about all its windows is not known.
    pub(crate) fn log_unread(&self, reason: &str, log: &mut UnreadLog) {
        let reason = format!("segment {}: {reason}", self.name);
        let windows = self.segment.summary().messages;
        log.note_stretch(self.name.span.range(), windows, [0; 2], &reason);
    }

    /// The first damage that was noted.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Leaves it out of merges, since its bytes are wrong.
    pub fn stop_merging(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    /// Whether it is left out of merges.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }
}

/// The messages of windows.
pub fn read_messages(source: &dyn Source) -> Result<Sequences, segment::Damage> {
    let messages = source.read_messages()?.value;
    let messages = messages.iter();
    Ok(messages
        .map(|message| (message.instance, message.message.sequence))
        .collect())
}

/// A file whose windows cannot be read, or not all of them. It stays until it is too old.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The time of its windows.
    pub span: Span,
    /// Length of the file.
    pub bytes: u64,
    /// Windows that cannot be read, as far as it is known.
    pub windows: u64,
    /// Why.
    pub reason: String,
}

/// Content of the store. Writers replace it; a question keeps the one of its start.
#[derive(Clone, Default)]
pub struct Content {
    /// The segments.
    pub segments: BTreeMap<SegmentName, Arc<StoredSegment>>,
    /// Files that cannot be read, by their paths relative to the folder of profiles.
    pub unreadable: BTreeMap<PathBuf, Unreadable>,
    /// Messages in those of these files that the next start may be able to read: they are stored all the same.
    pub hidden: Sequences,
    /// Blocks that are no segments yet, the oldest first.
    pub blocks: Vec<Arc<Block>>,
    /// Files of earlier versions that are not converted yet.
    pub old: Vec<Arc<OldFile>>,
}

impl Content {
    /// Whether a message is stored.
    pub fn has_message(&self, instance: &[u8; 16], sequence: u64) -> bool {
        let has = |messages: &Sequences| messages.contains(instance, sequence);
        self.blocks
            .iter()
            .any(|block| block.has_message(instance, sequence))
            || self.segments.values().any(|segment| has(&segment.messages))
            || self.old.iter().any(|file| has(file.messages()))
            || has(&self.hidden)
    }

    /// The answer for a message that is stored: it is a repeat if it has the content of the stored one. None if it is not stored.
    pub fn find_repeat(
        &self,
        key: &WindowKey,
        digest: &Digest,
    ) -> Option<Result<Appended, StoreError>> {
        let WindowKey {
            start_ms: _,
            instance,
            sequence,
        } = key;
        let read = |source: &dyn Source| -> Option<Digest> {
            let messages = source.read_messages().ok()?.value;
            let mut messages = messages.iter();
            let found = messages
                .find(|found| found.instance == *instance && found.message.sequence == *sequence);
            found?.digest
        };
        let has = |messages: &Sequences| messages.contains(instance, *sequence);
        let blocks = self.blocks.iter();
        let blocks = blocks.filter(|block| block.has_message(instance, *sequence));
        let segments = self.segments.values();
        let segments = segments.filter(|found| has(&found.messages));
        // Of segments that were split from one, only the first has digests.
        let mut found = blocks
            .map(|block| read(&*block.read()))
            .chain(segments.map(|found| read(&found.segment)))
            .peekable();
        if found.peek().is_none() {
            self.old.iter().find(|file| has(file.messages()))?;
        }
        let stored = found.flatten().next();
        // Messages of earlier versions have no digest, and an unreadable digest is unknown.
        let is_repeat = stored.is_none_or(|stored| stored == *digest);
        Some(if is_repeat {
            Ok(Appended::Duplicate)
        } else {
            Err(StoreError::OtherContent {
                sequence: *sequence,
            })
        })
    }

    /// The segments that may have windows in a range.
    pub fn segments_in(&self, range: TimeRange) -> impl Iterator<Item = &Arc<StoredSegment>> {
        self.segments.values().filter(move |found| {
            let summary = found.segment.summary();
            found.name.span.touches(range) && summary.from_ms < range.to_ms
        })
    }

    /// Whether windows of a span are in no segment yet.
    pub fn is_open(&self, span: Span) -> bool {
        let range = span.range();
        self.blocks
            .iter()
            .any(|block| range.contains(block.hour_ms))
            || self.old.iter().any(|file| range.contains(file.hour_ms()))
    }

    /// Facts for plans of the segments that are whole.
    pub fn whole_facts(&self) -> Vec<SegmentFacts> {
        let whole = self.segments.values().filter(|found| !found.is_damaged());
        whole.map(|found| found.facts()).collect()
    }

    /// Files that can be evicted. The segments of one merge have the same windows, and go together.
    pub fn evictable(&self) -> Vec<Evictable> {
        let mut merges: BTreeMap<(Span, Ulid), Evictable> = BTreeMap::new();
        for (name, found) in &self.segments {
            let facts = found.facts();
            let merge = merges.entry((name.span, name.id)).or_insert(Evictable {
                end_ms: facts.end_ms,
                bytes: 0,
                paths: Vec::new(),
            });
            merge.end_ms = merge.end_ms.max(facts.end_ms);
            merge.bytes += facts.bytes;
            merge.paths.push(StoredSegment::path_of(name));
        }
        let unreadable = self.unreadable.iter().map(|(path, file)| Evictable {
            end_ms: file.span.end_ms(),
            bytes: file.bytes,
            paths: vec![path.clone()],
        });
        let old = self.old.iter().map(|file| Evictable {
            end_ms: file.end_ms(),
            bytes: file.bytes(),
            paths: vec![file.relative_path().to_owned()],
        });
        merges.into_values().chain(unreadable).chain(old).collect()
    }

    /// Bytes of the logs.
    pub fn log_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.log_bytes()).sum()
    }

    /// Start of the oldest segment's windows, or of the hour of the oldest block or file, in milliseconds since the Unix epoch.
    pub fn oldest_ms(&self) -> Option<i64> {
        let segments = self.segments.values();
        let segments = segments.map(|found| found.segment.summary().from_ms);
        let blocks = self.blocks.iter().map(|block| block.hour_ms);
        let old = self.old.iter().map(|file| file.hour_ms());
        segments.chain(blocks).chain(old).min()
    }

    /// Notes a file that cannot be read.
    pub fn note_unreadable(
        &mut self,
        directory: &Directory,
        path: PathBuf,
        span: Span,
        windows: u64,
        reason: &str,
    ) {
        let found = Unreadable {
            span,
            bytes: files::length(&**directory.disk(), &directory.path().join(&path)),
            windows,
            reason: format!("`{}`: {reason}", path.display()),
        };
        self.unreadable.insert(path, found);
    }

    /// All damage that is known, by time.
    pub fn damage(&self) -> Vec<Unread> {
        let mut log = UnreadLog::default();
        self.log_unreadable(&mut log);
        for found in self.segments.values() {
            if let Some(reason) = found.damage() {
                found.log_unread(reason, &mut log);
            }
        }
        log.entries()
    }

    /// Notes the files that cannot be opened.
    pub(crate) fn log_unreadable(&self, log: &mut UnreadLog) {
        for file in self.unreadable.values() {
            log.note_stretch(file.span.range(), file.windows, [0; 2], &file.reason);
        }
    }

    /// Sizes, for the metrics.
    pub fn numbers(&self) -> StoreNumbers {
        let segments = self.segments.values();
        let damaged = segments.clone().filter(|found| found.damage().is_some());
        StoreNumbers {
            segments: self.segments.len(),
            segment_bytes: segments.map(|found| found.segment.file_bytes()).sum(),
            blocks: self.blocks.len(),
            block_bytes: self.blocks.iter().map(|block| block.heap_bytes()).sum(),
            log_bytes: self.log_bytes(),
            old_files: self.old.len(),
            damaged_files: self.unreadable.len() + damaged.count(),
        }
    }
}
