//! What finds windows: series, postings, places of records, known messages. Kept by sled.
//!
//! Trees: `meta`; `series` (number to labels) and `numbers` (labels to number); `seen` (instance and sequence of
//! each message); `segments` (those that are sealed); and one tree a block, `block/<hours>`, with three kinds of
//! keys: `s` series, `p` label, value and series, `w` window. A block's tree can be dropped as a whole.
//!
//! A window's entry in `seen` is written last: what is in `seen` is in all other trees.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use sled::{Batch, Db, Tree};
use ulid::Ulid;

use super::block::Block;
use super::columns::{ColumnReader, ColumnWriter, Damaged};
use super::record::{put_label_set, take_label_set};
use super::{SeriesId, TimeRange};
use crate::profile::{LabelSet, WindowKey};

/// Version of the trees and keys that are described above.
const SCHEMA: u32 = 1;

/// Entries a batch: sled took 279 MB with small batches and 4 GB with batches of 5,000.
const BATCH_ENTRIES: usize = 256;

/// sled's default of 1 GB is more than the whole server should take; the hot part, one or two blocks' postings, is
/// a few MB.
const CACHE_BYTES: u64 = 64 << 20;

/// sled's own default: its flusher does the real fsync and the garbage collection.
const FLUSH_EVERY_MS: u64 = 500;

/// Label sets that are kept decoded: 100 nodes with 1,000 series each, some 300 bytes a set. When there are more,
/// the cache starts anew.
const LABELS_CACHED_MAX: usize = 100_000;

/// The catalog failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// sled failed.
    #[error("the catalog failed: {0}")]
    Sled(#[from] sled::Error),
    /// An entry is not what was written.
    #[error("the catalog is damaged: {0}")]
    Damaged(#[from] Damaged),
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

/// Where a window's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// The segment.
    pub segment: Ulid,
    /// Offset in the file.
    pub offset: u64,
    /// Length.
    pub length: u32,
}

/// The catalog.
pub struct Catalog {
    db: Db,
    series: Tree,
    numbers: Tree,
    seen: Tree,
    segments: Tree,
    blocks: Mutex<BTreeMap<Block, Tree>>,
    failure: Mutex<Option<String>>,
    labels: Mutex<HashMap<SeriesId, Arc<LabelSet>>>,
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
        match meta.get("schema")? {
            None => drop(meta.insert("schema", &SCHEMA.to_be_bytes())?),
            Some(found) => {
                let found = u32::from_be_bytes(fixed(&found)?);
                if found > SCHEMA {
                    return Err(CatalogError::Newer { found });
                }
            }
        }
        let mut blocks = BTreeMap::new();
        for name in db.tree_names() {
            if let Some(block) = read_block_name(&name) {
                blocks.insert(block, db.open_tree(&name)?);
            }
        }
        Ok(Self {
            db: db.clone(),
            series: db.open_tree("series")?,
            numbers: db.open_tree("numbers")?,
            seen: db.open_tree("seen")?,
            segments: db.open_tree("segments")?,
            blocks: Mutex::new(blocks),
            labels: Mutex::default(),
            failure: Mutex::default(),
        })
    }

    /// Says whether a message is known.
    ///
    /// # Errors
    /// sled failed.
    pub fn is_seen(&self, key: &WindowKey) -> Result<bool, CatalogError> {
        Ok(self.seen.contains_key(seen_key(key))?)
    }

    /// The number that the next new series gets.
    ///
    /// # Errors
    /// sled failed.
    pub fn next_series(&self) -> Result<SeriesId, CatalogError> {
        match self.series.last()? {
            Some((last, _)) => Ok(SeriesId(u64::from_be_bytes(fixed(&last)?) + 1)),
            None => Ok(SeriesId(0)),
        }
    }

    /// The number of a label set.
    ///
    /// # Errors
    /// sled failed.
    pub fn find_number(&self, labels: &LabelSet) -> Result<Option<SeriesId>, CatalogError> {
        let found = self.numbers.get(encode_labels(labels))?;
        found
            .map(|number| Ok(SeriesId(u64::from_be_bytes(fixed(&number)?))))
            .transpose()
    }

    /// The label set of a number.
    ///
    /// # Errors
    /// sled failed, or the number is not known.
    pub fn labels(&self, id: SeriesId) -> Result<Arc<LabelSet>, CatalogError> {
        if let Some(known) = lock(&self.labels).get(&id) {
            return Ok(Arc::clone(known));
        }
        let labels = Arc::new(
            self.find_labels(id)?
                .ok_or(Damaged("a series has no labels"))?,
        );
        let mut known = lock(&self.labels);
        if known.len() >= LABELS_CACHED_MAX {
            known.clear();
        }
        known.insert(id, Arc::clone(&labels));
        Ok(labels)
    }

    /// The label set of a number that may not be known.
    ///
    /// # Errors
    /// sled failed.
    pub fn find_labels(&self, id: SeriesId) -> Result<Option<LabelSet>, CatalogError> {
        let found = self.series.get(id.0.to_be_bytes())?;
        found
            .map(|bytes| Ok(take_label_set(&mut ColumnReader::new(&bytes))?))
            .transpose()
    }

    /// How many series are known.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// How many segments are sealed.
    pub fn sealed_count(&self) -> usize {
        self.segments.len()
    }

    /// Adds series.
    ///
    /// # Errors
    /// sled failed.
    pub fn insert_series(&self, series: &[(SeriesId, &LabelSet)]) -> Result<(), CatalogError> {
        for chunk in series.chunks(BATCH_ENTRIES) {
            let mut by_number = Batch::default();
            let mut by_labels = Batch::default();
            for (id, labels) in chunk {
                let labels = encode_labels(labels);
                by_number.insert(&id.0.to_be_bytes(), labels.as_slice());
                by_labels.insert(labels, &id.0.to_be_bytes());
            }
            // Labels first: a number that is found by its labels always has them.
            self.series.apply_batch(by_number)?;
            self.numbers.apply_batch(by_labels)?;
        }
        Ok(())
    }

    /// Adds what finds series in a block.
    ///
    /// # Errors
    /// sled failed.
    pub fn insert_postings(
        &self,
        block: Block,
        series: &[(SeriesId, &LabelSet)],
    ) -> Result<(), CatalogError> {
        let tree = self.open_block(block)?;
        let mut batch = Batch::default();
        let mut entries = 0;
        for (id, labels) in series {
            for (name, value) in labels.iter() {
                batch.insert(posting_key(name, value, *id), &[]);
            }
            // Last, and in the same batch: a series that a block has is found by all its labels.
            batch.insert(series_key(*id), &[]);
            entries += labels.iter().len() + 1;
            if entries >= BATCH_ENTRIES {
                tree.apply_batch(std::mem::take(&mut batch))?;
                entries = 0;
            }
        }
        Ok(tree.apply_batch(batch)?)
    }

    /// Adds a window whose series and postings are there.
    ///
    /// # Errors
    /// sled failed.
    pub fn insert_window(&self, key: &WindowKey, place: RecordPlace) -> Result<(), CatalogError> {
        let tree = self.open_block(Block::of(key.start_ms))?;
        tree.insert(window_key(key), encode_place(place))?;
        self.seen.insert(seen_key(key), &[])?;
        Ok(())
    }

    /// The blocks that a range touches, by time.
    pub fn blocks(&self, range: TimeRange) -> Vec<Block> {
        lock(&self.blocks)
            .keys()
            .copied()
            .filter(|block| block.touches(range))
            .collect()
    }

    /// The windows of a block that start in the range, by time.
    ///
    /// # Errors
    /// sled failed.
    pub fn windows(
        &self,
        block: Block,
        range: TimeRange,
    ) -> Result<Vec<(WindowKey, RecordPlace)>, CatalogError> {
        let Some(tree) = self.find_block(block) else {
            return Ok(Vec::new());
        };
        let from = window_prefix(range.from_ms.max(block.start_ms()));
        let to = window_prefix(range.to_ms.min(block.end_ms()));
        let mut windows = Vec::new();
        if from < to {
            for entry in tree.range(from..to) {
                let (key, place) = entry?;
                windows.push((read_window_key(&key)?, read_place(&place)?));
            }
        }
        Ok(windows)
    }

    /// The series that a block has.
    ///
    /// # Errors
    /// sled failed.
    pub fn block_series(&self, block: Block) -> Result<HashSet<SeriesId>, CatalogError> {
        let tree = self.find_block(block);
        tree.map_or_else(|| Ok(HashSet::new()), |tree| collect_series(&tree, b"s"))
    }

    /// The series of a block that have a label with this value.
    ///
    /// # Errors
    /// sled failed.
    pub fn postings(
        &self,
        block: Block,
        name: &str,
        value: &str,
    ) -> Result<HashSet<SeriesId>, CatalogError> {
        let tree = self.find_block(block);
        tree.map_or_else(
            || Ok(HashSet::new()),
            |tree| collect_series(&tree, &posting_prefix(name, value)),
        )
    }

    /// Remembers that a segment is sealed and has this length, after all of its windows reached the disk.
    ///
    /// # Errors
    /// sled failed.
    pub fn insert_sealed(&self, segment: Ulid, length: u64) -> Result<(), CatalogError> {
        self.db.flush()?;
        self.segments
            .insert(segment.to_bytes(), &length.to_be_bytes())?;
        Ok(())
    }

    /// The length of a sealed segment.
    ///
    /// # Errors
    /// sled failed.
    pub fn sealed_length(&self, segment: Ulid) -> Result<Option<u64>, CatalogError> {
        let found = self.segments.get(segment.to_bytes())?;
        found
            .map(|length| Ok(u64::from_be_bytes(fixed(&length)?)))
            .transpose()
    }

    /// Remembers that a write failed. sled takes no more writes after that, until it is opened again.
    pub fn note_failure(&self, err: &CatalogError) {
        *lock(&self.failure) = Some(err.to_string());
    }

    /// The failure that was remembered.
    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    /// Writes what sled holds back.
    ///
    /// # Errors
    /// sled failed.
    pub fn flush(&self) -> Result<(), CatalogError> {
        self.db.flush()?;
        Ok(())
    }

    fn find_block(&self, block: Block) -> Option<Tree> {
        lock(&self.blocks).get(&block).cloned()
    }

    fn open_block(&self, block: Block) -> Result<Tree, CatalogError> {
        let mut blocks = lock(&self.blocks);
        if let Some(tree) = blocks.get(&block) {
            return Ok(tree.clone());
        }
        let tree = self.db.open_tree(format!("block/{}", block.0))?;
        blocks.insert(block, tree.clone());
        Ok(tree)
    }
}

/// The maps behind these locks are whole after each statement, so that a panic elsewhere leaves them usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_block_name(name: &[u8]) -> Option<Block> {
    std::str::from_utf8(name)
        .ok()?
        .strip_prefix("block/")?
        .parse()
        .ok()
        .map(Block)
}

fn collect_series(tree: &Tree, prefix: &[u8]) -> Result<HashSet<SeriesId>, CatalogError> {
    let mut found = HashSet::new();
    for key in tree.scan_prefix(prefix).keys() {
        let key = key?;
        let number = key
            .split_last_chunk::<8>()
            .ok_or(Damaged("a posting has no series"))?
            .1;
        found.insert(SeriesId(u64::from_be_bytes(*number)));
    }
    Ok(found)
}

fn encode_labels(labels: &LabelSet) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    put_label_set(&mut out, labels);
    out.into_bytes()
}

fn seen_key(key: &WindowKey) -> Vec<u8> {
    let WindowKey {
        start_ms: _,
        instance,
        sequence,
    } = key;
    [instance.as_slice(), &sequence.to_be_bytes()].concat()
}

fn series_key(id: SeriesId) -> Vec<u8> {
    [b"s".as_slice(), &id.0.to_be_bytes()].concat()
}

fn posting_prefix(name: &str, value: &str) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    out.put_raw(b"p");
    // With their lengths, so that no value can run into what follows it.
    out.put_text(name);
    out.put_text(value);
    out.into_bytes()
}

fn posting_key(name: &str, value: &str, id: SeriesId) -> Vec<u8> {
    let mut key = posting_prefix(name, value);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// `w` and the time, biased so that bytes sort like signed numbers.
fn window_prefix(start_ms: i64) -> Vec<u8> {
    [
        b"w".as_slice(),
        &((start_ms as u64) ^ (1 << 63)).to_be_bytes(),
    ]
    .concat()
}

fn window_key(key: &WindowKey) -> Vec<u8> {
    let mut bytes = window_prefix(key.start_ms);
    bytes.extend_from_slice(&key.instance);
    bytes.extend_from_slice(&key.sequence.to_be_bytes());
    bytes
}

fn read_window_key(bytes: &[u8]) -> Result<WindowKey, Damaged> {
    let bytes: [u8; 33] = fixed(bytes)?;
    let start_ms = (u64::from_be_bytes(fixed(&bytes[1..9])?) ^ (1 << 63)) as i64;
    Ok(WindowKey {
        start_ms,
        instance: fixed(&bytes[9..25])?,
        sequence: u64::from_be_bytes(fixed(&bytes[25..])?),
    })
}

fn encode_place(place: RecordPlace) -> Vec<u8> {
    [
        place.segment.to_bytes().as_slice(),
        &place.offset.to_be_bytes(),
        &place.length.to_be_bytes(),
    ]
    .concat()
}

fn read_place(bytes: &[u8]) -> Result<RecordPlace, Damaged> {
    let bytes: [u8; 28] = fixed(bytes)?;
    Ok(RecordPlace {
        segment: Ulid::from_bytes(fixed(&bytes[..16])?),
        offset: u64::from_be_bytes(fixed(&bytes[16..24])?),
        length: u32::from_be_bytes(fixed(&bytes[24..])?),
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Damaged> {
    bytes
        .try_into()
        .map_err(|_| Damaged("an entry has the wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(start_ms: i64, sequence: u64) -> WindowKey {
        WindowKey {
            start_ms,
            instance: [3; 16],
            sequence,
        }
    }

    #[test]
    fn windows_come_back_by_time_and_range() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog")).unwrap();
        let place = RecordPlace {
            segment: Ulid::new(),
            offset: 28,
            length: 5,
        };
        for (start_ms, sequence) in [(20_000, 2), (10_000, 1), (-10_000, 4), (30_000, 3)] {
            catalog
                .insert_window(&key(start_ms, sequence), place)
                .unwrap();
        }
        let range = TimeRange {
            from_ms: 10_000,
            to_ms: 30_000,
        };
        assert_eq!(catalog.blocks(range), [Block(0)]);
        assert_eq!(
            catalog.windows(Block(0), range).unwrap(),
            [(key(10_000, 1), place), (key(20_000, 2), place)]
        );
        let all = TimeRange {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
        };
        assert_eq!(catalog.blocks(all), [Block(-1), Block(0)]);
        assert_eq!(
            catalog.windows(Block(-1), all).unwrap(),
            [(key(-10_000, 4), place)]
        );
        assert!(catalog.is_seen(&key(0, 4)).unwrap());
        assert!(!catalog.is_seen(&key(0, 5)).unwrap());
    }

    #[test]
    fn postings_do_not_run_into_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog")).unwrap();
        let label = |value: &str| LabelSet::from_sorted([("comm", value)]).unwrap();
        let (short, long) = (label("a"), label("ab"));
        let series = [(SeriesId(1), &short), (SeriesId(2), &long)];
        catalog.insert_series(&series).unwrap();
        catalog.insert_postings(Block(0), &series).unwrap();
        assert_eq!(
            catalog.postings(Block(0), "comm", "a").unwrap(),
            HashSet::from([SeriesId(1)])
        );
        assert_eq!(
            catalog.postings(Block(0), "comm", "ab").unwrap(),
            HashSet::from([SeriesId(2)])
        );
        assert!(catalog.postings(Block(0), "com", "m").unwrap().is_empty());
        assert!(catalog.postings(Block(1), "comm", "a").unwrap().is_empty());
        assert_eq!(catalog.block_series(Block(0)).unwrap().len(), 2);
        assert_eq!(catalog.find_number(&long).unwrap(), Some(SeriesId(2)));
        assert_eq!(*catalog.labels(SeriesId(1)).unwrap(), short);
        assert_eq!(catalog.next_series().unwrap(), SeriesId(3));
    }
}
