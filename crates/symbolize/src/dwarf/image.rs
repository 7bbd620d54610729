//! An ELF file and its sections.
//!
//! In: a file that nobody has checked. Out: the bytes of its sections, none for sections
//! that are absent, unreadable or over the limit.

use std::cell::Cell;
use std::fs::File;
use std::rc::Rc;

use elf::{BlockCache, BuildId, Headers, Limits, SectionData};
use rustc_hash::FxHashMap;

use super::bytes::{Backing, Blocks, Bytes};
use super::packed::PackedSection;

/// Decompressed bytes of a file's compressed sections. They take half of it: a quarter of what the child may allocate. A compiler
/// has 100 MB.
const UNPACKED_BYTES_MAX: u64 = 128 << 20;

/// An open file and its section headers.
pub(super) struct Image {
    file: File,
    blocks: Rc<Blocks>,
    cache: Rc<BlockCache>,
    sections: Sections,
    build_id: Option<BuildId>,
    unpacked_left: Cell<u64>,
}

impl Image {
    /// Reads the section headers, if it is a 64-bit ELF file.
    pub(super) fn open(file: &File, cache: &Rc<BlockCache>) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let headers = Headers::read(&file, Limits::OBJECTS).ok()?;
        if !headers.is_64_bit_little_endian() {
            return None;
        }
        Some(Self {
            sections: read_sections(&headers, &file),
            build_id: headers.build_id(&file),
            blocks: Rc::new(Blocks::new(Backing::File(file.try_clone().ok()?), cache)),
            cache: Rc::clone(cache),
            file,
            unpacked_left: Cell::new(UNPACKED_BYTES_MAX),
        })
    }

    /// A section, unpacked.
    pub(super) fn section(&self, name: &str) -> Bytes {
        let data = self.sections.get(name);
        let bytes = data.and_then(|data| self.read(data));
        bytes.unwrap_or_else(Bytes::none)
    }

    fn read(&self, data: &SectionData) -> Option<Bytes> {
        if !data.is_compressed() {
            let [start, len] = [data.range.offset, data.bytes].map(usize::try_from);
            return Some(Bytes::new(&self.blocks, start.ok()?, len.ok()?));
        }
        let left = self.unpacked_left.get();
        self.unpacked_left.set(left.checked_sub(data.bytes)?);
        let section = PackedSection::read(data, &self.file)?;
        Some(Bytes::of_packed(section, &self.cache))
    }

    /// Bytes of a section, unpacked; 0 when there is none.
    pub(super) fn bytes_of(&self, name: &str) -> u64 {
        self.sections.get(name).map_or(0, |data| data.bytes)
    }

    pub(super) fn build_id(&self) -> Option<BuildId> {
        self.build_id
    }
}

/// Sections with debug information by name, `.zdebug_…` as `.debug_…`. Of several with one name the first counts.
type Sections = FxHashMap<String, SectionData>;

fn read_sections(headers: &Headers, file: &File) -> Sections {
    let mut sections = Sections::default();
    for section in headers.sections() {
        let name = String::from_utf8_lossy(headers.name_of(section));
        // The old name of a compressed section begins with `.z`.
        let name = name.strip_prefix(".z").or(name.strip_prefix('.'));
        let name = name.filter(|name| name.starts_with("debug_"));
        if let (Some(name), Some(data)) = (name, headers.data_of(file, section)) {
            sections.entry(format!(".{name}")).or_insert(data);
        }
    }
    sections
}
