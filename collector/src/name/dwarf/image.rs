//! A mapped ELF file and its sections.
//!
//! In: a file that nobody has checked. Out: the bytes of its sections, unpacked where they are compressed; none where
//! they are not there, cannot be read, or are larger than they may be. A file that is cut while it is mapped ends the
//! child, as it does with blazesym.

use std::cell::Cell;
use std::fs::File;

use object::elf::FileHeader64;
use object::read::elf::{ElfFile, FileHeader as _};
use object::{CompressionFormat, LittleEndian, Object as _, ObjectSection as _};
use symbolic_common::ByteView;

use super::bytes::Bytes;
use crate::process::BuildId;

/// Bytes that the compressed sections of a file may have unpacked: half of what the child may allocate. A compiler's
/// have 100 MB.
const UNPACKED_BYTES_MAX: u64 = 128 << 20;

/// Sections of a file; each look-up goes through all their names. Split files of C++ reach some thousands, one for each type.
const SECTIONS_MAX: usize = 1 << 16;

/// A mapped file.
pub(super) struct Image {
    view: ByteView<'static>,
    unpacked_left: Cell<u64>,
}

impl Image {
    /// Maps a file, if it is a 64-bit ELF file.
    pub(super) fn map(file: &File) -> Option<Self> {
        let view = ByteView::map_file_ref(file).ok()?;
        let image = Self {
            view,
            unpacked_left: Cell::new(UNPACKED_BYTES_MAX),
        };
        let header = FileHeader64::<LittleEndian>::parse(image.view.as_slice()).ok()?;
        let endian = header.endian().ok()?;
        let sections = header.sections(endian, image.view.as_slice()).ok()?;
        (sections.len() <= SECTIONS_MAX).then_some(image)
    }

    fn parse(&self) -> Option<ElfFile<'_, FileHeader64<LittleEndian>>> {
        ElfFile::parse(self.view.as_slice()).ok()
    }

    /// A section, unpacked.
    pub(super) fn section(&self, name: &str) -> Bytes {
        self.find_section(name).unwrap_or_else(Bytes::none)
    }

    fn find_section(&self, name: &str) -> Option<Bytes> {
        let file = self.parse()?;
        let section = file.section_by_name(name)?;
        let range = section.compressed_file_range().ok()?;
        if range.format == CompressionFormat::None {
            let start = usize::try_from(range.offset).ok()?;
            let len = usize::try_from(range.uncompressed_size).ok()?;
            return Some(Bytes::new(self.view.clone(), start, len));
        }
        let left = self.unpacked_left.get();
        self.unpacked_left
            .set(left.checked_sub(range.uncompressed_size)?);
        let unpacked = section.uncompressed_data().ok()?.into_owned();
        let len = unpacked.len();
        Some(Bytes::new(ByteView::from_vec(unpacked), 0, len))
    }

    /// Its build id, if it has one.
    pub(super) fn build_id(&self) -> Option<BuildId> {
        BuildId::new(self.parse()?.build_id().ok()??)
    }
}
