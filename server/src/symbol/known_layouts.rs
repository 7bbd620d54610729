//! Layouts by build id, from profiles and from files: in memory and in one append-only file.
//!
//! A file with debug information only does not have the load segments of its program. The collectors, which see the
//! program, send them, and the stripped file has them, in any order.
//!
//! A file's own layout wins over the collectors'. Any process can run a file that claims the build id of another, so layouts of
//! collectors count only as long as all are equal. Until there is a layout, the index of the file names nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Buf as _;
use elf::{BuildId, Layout};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Layouts at most. A Debian with everything has 2,500 programs and libraries; with 26 releases of all of them that
/// is 65,000. Four segments take 140 bytes, which makes 9 MB in the file and some 14 MB in memory.
const LAYOUTS_MAX: usize = 1 << 16;

/// Records at which the file is rewritten.
const RECORDS_MAX: usize = 2 * LAYOUTS_MAX;

const MAGIC: [u8; 8] = *b"PLLAYOU\x02";

/// Longest record: 64 segments of at most 30 bytes, the build id, and five bytes.
const RECORD_BYTES_MAX: usize = 2048;

/// Source of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LayoutSource {
    /// A collector, beside its profiles: any sender of profiles can claim anything.
    Profile,
    /// The file with this build id itself.
    File,
}

#[derive(Debug)]
struct Known {
    /// None if profiles differ.
    layout: Option<Layout>,
    source: LayoutSource,
    /// Grows with each learnt layout.
    number: u64,
}

/// The layouts.
#[derive(Debug)]
pub struct KnownLayouts {
    path: PathBuf,
    file: File,
    records: usize,
    known: HashMap<BuildId, Known>,
    next: u64,
}

impl KnownLayouts {
    /// Reads the file, or creates one. Damaged records and all after them are dropped.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(err),
        };
        let mut layouts = Self {
            path: path.to_owned(),
            file: OpenOptions::new().append(true).create(true).open(path)?,
            records: 0,
            known: HashMap::new(),
            next: 0,
        };
        let (records, is_whole) = decode(&bytes);
        layouts.records = records.len();
        for (build_id, layout, source) in records {
            layouts.note(build_id, layout, source);
        }
        if !is_whole && !bytes.is_empty() {
            warn!(path = %path.display(), kept = layouts.known.len(), "the file of layouts is damaged, kept the records before the damage");
        }
        if !is_whole {
            layouts.rewrite()?;
        }
        Ok(layouts)
    }

    /// Learns a layout. Returns whether that changed anything.
    ///
    /// The layout of a file has priority over those of profiles. Where two profiles differ, two files claim the build id, and
    /// neither layout counts: one of them would give wrong names to the frames of the other file.
    pub fn learn(&mut self, build_id: &BuildId, layout: &Layout, source: LayoutSource) -> bool {
        let mut learnt = Some(layout.clone());
        if let Some(known) = self.known.get(build_id) {
            if known.source > source || (known.source == source && known.layout == learnt) {
                return false;
            }
            if (known.source, source) == (LayoutSource::Profile, LayoutSource::Profile) {
                if known.layout.is_none() {
                    return false;
                }
                learnt = None;
            }
        }
        self.note(*build_id, learnt.clone(), source);
        let written = if self.records >= RECORDS_MAX || self.known.len() > LAYOUTS_MAX {
            self.evict_oldest();
            self.rewrite()
        } else {
            self.records += 1;
            self.file
                .write_all(&encode(build_id, learnt.as_ref(), source))
        };
        if let Err(err) = written {
            // It is in memory; the next profile after a restart has it again.
            warn!(path = %self.path.display(), %err, "failed to write a layout");
        }
        true
    }

    /// The layout of a file, unless profiles differ about it.
    pub fn get(&self, build_id: &BuildId) -> Option<&Layout> {
        self.known.get(build_id)?.layout.as_ref()
    }

    /// Number of layouts.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn note(&mut self, build_id: BuildId, layout: Option<Layout>, source: LayoutSource) {
        let number = self.next;
        self.next += 1;
        let known = Known {
            layout,
            source,
            number,
        };
        self.known.insert(build_id, known);
    }

    /// Evicts an eighth, so that this is rare: layouts from profiles first, and of those the oldest.
    fn evict_oldest(&mut self) {
        if self.known.len() <= LAYOUTS_MAX {
            return;
        }
        let mut order: Vec<_> = self
            .known
            .iter()
            .map(|(id, known)| (known.source, known.number, *id))
            .collect();
        order.sort();
        for (_, _, id) in order.into_iter().take(LAYOUTS_MAX / 8) {
            self.known.remove(&id);
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let unfinished = self.path.with_extension("unfinished");
        let mut out = BufWriter::new(File::create(&unfinished)?);
        out.write_all(&MAGIC)?;
        let mut order: Vec<_> = self.known.iter().collect();
        order.sort_by_key(|(_, known)| known.number);
        for (id, known) in order {
            out.write_all(&encode(id, known.layout.as_ref(), known.source))?;
        }
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.records = self.known.len();
        Ok(())
    }
}

/// The length and the checksum of a record, and the record in postcard's form.
fn encode(build_id: &BuildId, layout: Option<&Layout>, source: LayoutSource) -> Vec<u8> {
    // SANITY: only types with an encoding of their own can fail.
    let record = postcard::to_allocvec(&(build_id, layout, source)).expect("a record has a form");
    let mut out = Vec::with_capacity(record.len() + 8);
    out.extend((record.len() as u32).to_le_bytes());
    out.extend(crc32c::crc32c(&record).to_le_bytes());
    out.extend(record);
    out
}

type Record = (BuildId, Option<Layout>, LayoutSource);

/// Reads records up to the first damaged one. Returns whether there was none.
pub fn decode(bytes: &[u8]) -> (Vec<Record>, bool) {
    let mut records = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else {
        return (records, false);
    };
    while !rest.is_empty() {
        match decode_record(&mut rest) {
            Some(record) => records.push(record),
            None => return (records, false),
        }
    }
    (records, true)
}

fn decode_record(bytes: &mut &[u8]) -> Option<Record> {
    let length = bytes.try_get_u32_le().ok()? as usize;
    let crc = bytes.try_get_u32_le().ok()?;
    if length > RECORD_BYTES_MAX {
        return None;
    }
    let record = bytes.split_off(..length)?;
    if crc32c::crc32c(record) != crc {
        return None;
    }
    postcard::from_bytes(record).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use elf::Segment;

    fn id(number: u32) -> BuildId {
        BuildId::new(&number.to_be_bytes()).unwrap()
    }

    fn layout(address: u64) -> Layout {
        let segment = Segment {
            file_offset: 0,
            address,
            bytes: 0x1000,
        };
        Layout::new(vec![segment]).unwrap()
    }

    /// Check that a file's own layout has priority, that neither of two different profiles counts, and that a restart keeps all.
    #[test]
    fn a_file_has_priority_over_a_profile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layouts");
        let mut known = KnownLayouts::open(&path).unwrap();
        assert!(known.learn(&id(1), &layout(1), LayoutSource::Profile));
        assert!(!known.learn(&id(1), &layout(1), LayoutSource::Profile));
        assert_eq!(known.get(&id(1)), Some(&layout(1)));
        for number in [1, 3] {
            known.learn(&id(number), &layout(1), LayoutSource::Profile);
            assert!(known.learn(&id(number), &layout(2), LayoutSource::Profile));
            assert!(!known.learn(&id(number), &layout(1), LayoutSource::Profile));
            assert_eq!(known.get(&id(number)), None);
        }
        assert!(known.learn(&id(1), &layout(3), LayoutSource::File));
        assert!(!known.learn(&id(1), &layout(4), LayoutSource::Profile));
        assert!(known.learn(&id(2), &layout(5), LayoutSource::Profile));
        drop(known);
        let known = KnownLayouts::open(&path).unwrap();
        assert_eq!(known.get(&id(1)), Some(&layout(3)));
        assert_eq!(known.get(&id(2)), Some(&layout(5)));
        assert_eq!((known.get(&id(3)), known.len()), (None, 3));
    }

    /// Check that a truncated or changed record is dropped with all after it, and that the file is valid again then.
    #[test]
    fn damaged_records_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layouts");
        let mut known = KnownLayouts::open(&path).unwrap();
        for number in 0..4 {
            known.learn(
                &id(number),
                &layout(u64::from(number)),
                LayoutSource::Profile,
            );
        }
        drop(known);
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        for bytes in [&whole[..whole.len() - 1], &changed] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(KnownLayouts::open(&path).unwrap().len(), 3);
            assert_eq!(KnownLayouts::open(&path).unwrap().len(), 3);
        }
        fs::write(&path, b"something else").unwrap();
        assert!(KnownLayouts::open(&path).unwrap().is_empty());
    }

    #[test]
    fn the_oldest_of_too_many_are_evicted() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = KnownLayouts::open(&folder.path().join("layouts")).unwrap();
        known.learn(&id(u32::MAX), &layout(7), LayoutSource::File);
        for number in 0..=LAYOUTS_MAX as u32 {
            known.learn(&id(number), &layout(1), LayoutSource::Profile);
        }
        assert!(known.len() <= LAYOUTS_MAX);
        assert_eq!(known.get(&id(0)), None);
        assert_eq!(known.get(&id(LAYOUTS_MAX as u32)), Some(&layout(1)));
        assert_eq!(known.get(&id(u32::MAX)), Some(&layout(7)));
    }
}
