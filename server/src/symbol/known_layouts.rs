//! Layouts by build id, from profiles and from files: kept in memory and in one file that is appended to.
//!
//! A file with debug information only does not say where its program is loaded. The collectors, which see the program, do;
//! and so does the stripped file, whatever order they come in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use tracing::warn;

use super::build_id::{BUILD_ID_BYTES_MAX, BuildId};
use super::bytes::Reader;
use super::layout::Layout;

/// Layouts that are kept. A Debian with everything has 2,500 programs and libraries; with 26 releases of all of them that is
/// 65,000. Four segments take 140 bytes, so that these are 9 MB in the file and some 14 MB in memory.
const LAYOUTS_MAX: usize = 1 << 16;

/// Records in the file, after which it is written anew.
const RECORDS_MAX: usize = 2 * LAYOUTS_MAX;

const MAGIC: [u8; 8] = *b"PLLAYOU\x01";

/// Longest record: 64 segments of 24 bytes, the build id, and five bytes.
const RECORD_BYTES_MAX: usize = 2048;

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayoutSource {
    /// A collector, beside its profiles. Anybody who can send profiles can say anything.
    Profile,
    /// The file with this build id itself.
    File,
}

#[derive(Debug)]
struct Known {
    layout: Layout,
    source: LayoutSource,
    /// Grows with each that is learnt.
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
    /// Reads the file, or makes one. What is damaged in it, and what comes after that, is forgotten.
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
            warn!(path = %path.display(), kept = layouts.known.len(), "the file of layouts is damaged, kept what is before");
        }
        if !is_whole {
            layouts.rewrite()?;
        }
        Ok(layouts)
    }

    /// Learns a layout; says whether that changed anything.
    ///
    /// What a file says stands against what profiles say. Of two profiles the later one counts, so that a wrong one is not
    /// kept for ever.
    pub fn learn(&mut self, build_id: &BuildId, layout: &Layout, source: LayoutSource) -> bool {
        if let Some(known) = self.known.get(build_id)
            && (known.source > source || (known.source == source && known.layout == *layout))
        {
            return false;
        }
        self.note(build_id.clone(), layout.clone(), source);
        let written = if self.records >= RECORDS_MAX || self.known.len() > LAYOUTS_MAX {
            self.forget_oldest();
            self.rewrite()
        } else {
            self.records += 1;
            self.file.write_all(&encode(build_id, layout, source))
        };
        if let Err(err) = written {
            // It is in memory; after a restart the next profile brings it again.
            warn!(path = %self.path.display(), %err, "failed to write a layout");
        }
        true
    }

    /// The layout of a file.
    pub fn get(&self, build_id: &BuildId) -> Option<&Layout> {
        self.known.get(build_id).map(|known| &known.layout)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Says whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn note(&mut self, build_id: BuildId, layout: Layout, source: LayoutSource) {
        let number = self.next;
        self.next += 1;
        let known = Known {
            layout,
            source,
            number,
        };
        self.known.insert(build_id, known);
    }

    /// Forgets an eighth, so that this is not done for each: first what profiles said, then the oldest.
    fn forget_oldest(&mut self) {
        if self.known.len() <= LAYOUTS_MAX {
            return;
        }
        let mut order: Vec<_> = self
            .known
            .iter()
            .map(|(id, known)| (known.source, known.number, id.clone()))
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
            out.write_all(&encode(id, &known.layout, known.source))?;
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

fn encode(build_id: &BuildId, layout: &Layout, source: LayoutSource) -> Vec<u8> {
    let mut record = vec![source as u8 + 1, build_id.as_str().len() as u8];
    record.extend(build_id.as_str().as_bytes());
    layout.encode(&mut record);
    let mut out = Vec::with_capacity(record.len() + 8);
    out.extend((record.len() as u32).to_le_bytes());
    out.extend(crc32c::crc32c(&record).to_le_bytes());
    out.extend(record);
    out
}

type Record = (BuildId, Layout, LayoutSource);

/// Reads records up to the first that is damaged; says whether there was none.
pub fn decode(bytes: &[u8]) -> (Vec<Record>, bool) {
    let mut records = Vec::new();
    let Some(rest) = bytes.strip_prefix(&MAGIC) else {
        return (records, false);
    };
    let mut reader = Reader::new(rest);
    while reader.remaining() > 0 {
        match decode_record(&mut reader) {
            Some(record) => records.push(record),
            None => return (records, false),
        }
    }
    (records, true)
}

fn decode_record(reader: &mut Reader<'_>) -> Option<Record> {
    let length = reader.u32()? as usize;
    let crc = reader.u32()?;
    if length > RECORD_BYTES_MAX {
        return None;
    }
    let record = reader.take(length)?;
    if crc32c::crc32c(record) != crc {
        return None;
    }
    let mut reader = Reader::new(record);
    let source = match reader.u8()? {
        1 => LayoutSource::Profile,
        2 => LayoutSource::File,
        _ => return None,
    };
    let length = usize::from(reader.u8()?);
    if length > 2 * BUILD_ID_BYTES_MAX {
        return None;
    }
    let build_id = std::str::from_utf8(reader.take(length)?)
        .ok()?
        .parse()
        .ok()?;
    Some((build_id, Layout::decode(&mut reader)??, source))
}

#[cfg(test)]
mod tests {
    use super::super::layout::Segment;
    use super::*;

    fn id(number: u32) -> BuildId {
        BuildId::from_bytes(&number.to_be_bytes()).unwrap()
    }

    fn layout(address: u64) -> Layout {
        let segment = Segment {
            file_offset: 0,
            address,
            bytes: 0x1000,
        };
        Layout::new(vec![segment]).unwrap()
    }

    /// Check that a file's own word stands, that the later of two profiles counts, and that a restart forgets nothing.
    #[test]
    fn a_file_is_believed_before_a_profile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layouts");
        let mut known = KnownLayouts::open(&path).unwrap();
        assert!(known.learn(&id(1), &layout(1), LayoutSource::Profile));
        assert!(!known.learn(&id(1), &layout(1), LayoutSource::Profile));
        assert!(known.learn(&id(1), &layout(2), LayoutSource::Profile));
        assert!(known.learn(&id(1), &layout(3), LayoutSource::File));
        assert!(!known.learn(&id(1), &layout(4), LayoutSource::Profile));
        assert!(known.learn(&id(2), &layout(5), LayoutSource::Profile));
        drop(known);
        let known = KnownLayouts::open(&path).unwrap();
        assert_eq!(known.get(&id(1)), Some(&layout(3)));
        assert_eq!(known.get(&id(2)), Some(&layout(5)));
        assert_eq!(known.len(), 2);
    }

    /// Check that a record that was cut off or changed costs itself and what comes after it, and that the file is whole
    /// again then.
    #[test]
    fn what_is_damaged_is_forgotten() {
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
    fn the_oldest_of_too_many_are_forgotten() {
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
