//! An ELF file and its sections.
//!
//! In: a file that nobody has checked. Out: the bytes of its sections, unpacked where they are compressed; none where
//! they are not there, cannot be read, or are larger than they may be.

use std::cell::Cell;
use std::fs::File;
use std::ops::Range;
use std::rc::Rc;

use object::elf::FileHeader64;
use object::read::elf::{ElfFile, FileHeader as _};
use object::{CompressionFormat, LittleEndian, Object as _, ObjectSection as _, ReadCache};
use rustc_hash::FxHashMap;

use super::bytes::{BlockCache, Blocks, Bytes};
use crate::process::BuildId;

/// Bytes that the compressed sections of a file may have unpacked: half of what the child may allocate. A compiler's
/// have 100 MB.
const UNPACKED_BYTES_MAX: u64 = 128 << 20;

/// Sections of a file. Split files of C++ reach some thousands, one for each type.
const SECTIONS_MAX: usize = 1 << 16;

/// A file whose sections are known.
pub(super) struct Image {
    blocks: Rc<Blocks>,
    sections: Sections,
    build_id: Option<BuildId>,
    unpacked_left: Cell<u64>,
}

/// Where a section is.
enum Place {
    File(Range<usize>),
    /// Compressed, and of this size.
    Packed(u64),
}

impl Image {
    /// Reads the section headers, if it is a 64-bit ELF file.
    pub(super) fn open(file: &File, cache: &Rc<BlockCache>) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let (sections, build_id) = read_headers(&file)?;
        Some(Self {
            blocks: Rc::new(Blocks::new(file, cache)),
            sections,
            build_id,
            unpacked_left: Cell::new(UNPACKED_BYTES_MAX),
        })
    }

    /// A section, unpacked.
    pub(super) fn section(&self, name: &str) -> Bytes {
        let bytes = match self.sections.get(name) {
            Some(Place::File(range)) => {
                Some(Bytes::of_file(&self.blocks, range.start, range.len()))
            }
            Some(Place::Packed(bytes)) => self.unpack(name, *bytes),
            None => None,
        };
        bytes.unwrap_or_else(Bytes::none)
    }

    /// Whether there is something in a section.
    pub(super) fn has(&self, name: &str) -> bool {
        match self.sections.get(name) {
            Some(Place::File(range)) => !range.is_empty(),
            Some(Place::Packed(bytes)) => *bytes > 0,
            None => false,
        }
    }

    /// Bytes of a section that is not compressed.
    pub(super) fn plain_bytes(&self, name: &str) -> usize {
        match self.sections.get(name) {
            Some(Place::File(range)) => range.len(),
            Some(Place::Packed(_)) | None => 0,
        }
    }

    fn unpack(&self, name: &str, bytes: u64) -> Option<Bytes> {
        let left = self.unpacked_left.get();
        self.unpacked_left.set(left.checked_sub(bytes)?);
        let read = ReadCache::new(self.blocks.file());
        let parsed = parse(&read)?;
        let section = parsed.section_by_name(name)?;
        let unpacked = section.uncompressed_data().ok()?.into_owned();
        Some(Bytes::of_memory(unpacked))
    }

    /// Its build id, if it has one.
    pub(super) fn build_id(&self) -> Option<BuildId> {
        self.build_id
    }
}

type Sections = FxHashMap<String, Place>;

fn read_headers(file: &File) -> Option<(Sections, Option<BuildId>)> {
    let read = ReadCache::new(file);
    let parsed = parse(&read)?;
    let mut sections = FxHashMap::default();
    for section in parsed.sections() {
        let name = section.name().unwrap_or_default();
        // As compressed sections were called once.
        let name = name.strip_prefix(".z").or(name.strip_prefix('.'));
        let Some(name) = name.filter(|it| it.starts_with("debug_")) else {
            continue;
        };
        let Ok(range) = section.compressed_file_range() else {
            continue;
        };
        let place = match range.format {
            CompressionFormat::None => {
                let start = usize::try_from(range.offset).ok()?;
                let len = usize::try_from(range.uncompressed_size).ok()?;
                Place::File(start..start.saturating_add(len))
            }
            _ => Place::Packed(range.uncompressed_size),
        };
        // The first of a name counts.
        sections.entry(format!(".{name}")).or_insert(place);
    }
    let build_id = parsed.build_id().ok().flatten().and_then(BuildId::new);
    Some((sections, build_id))
}

fn parse<'a>(
    read: &'a ReadCache<&'a File>,
) -> Option<ElfFile<'a, FileHeader64<LittleEndian>, &'a ReadCache<&'a File>>> {
    let header = FileHeader64::<LittleEndian>::parse(read).ok()?;
    let sections = header.sections(header.endian().ok()?, read).ok()?;
    if sections.len() > SECTIONS_MAX {
        return None;
    }
    ElfFile::parse(read).ok()
}
