//! The parts of a Go program, and which file offset is which address.
//!
//! Format: System V ABI, chapters 4 and 5. Section names only help: they may be stripped, and the system's linker puts the table of a
//! position-independent program among other data.

use elf::{CachedFile, FileRange, Headers, Limits, ProgramHeader, ReadAt};
use object::elf::{DT_NULL, DT_RELA, DT_RELASZ, DynamicTag, NoteType, PT_DYNAMIC};

/// Entries of the dynamic section that are read: linkers write 20 to 40.
const DYNAMIC_MAX: u64 = 256;
/// Kind of the note with Go's own build id, whose owner is `Go`.
const GO_BUILD_ID: NoteType = NoteType(4);

#[derive(Debug, Default)]
pub(super) struct Program {
    /// Load segments.
    pub(super) segments: Vec<ProgramHeader>,
    /// Section with nothing but the module's record (since Go 1.26).
    pub(super) module: Option<FileRange>,
    /// Relocations with addends.
    pub(super) relocations: Option<FileRange>,
    /// Section with the table.
    pub(super) table: Option<FileRange>,
    pub(super) has_sections: bool,
    pub(super) is_go: bool,
}

impl Program {
    /// Reads the headers of a 64-bit little-endian file.
    pub(super) fn read(file: &CachedFile<impl ReadAt>) -> Option<Self> {
        let uncached = file.file();
        // A damaged section table is treated as none.
        let headers = Headers::read(uncached, Limits::MAPPED)
            .or_else(|_| Headers::read_program_headers(uncached, Limits::MAPPED))
            .ok()?;
        if !headers.is_64_bit_little_endian() {
            return None;
        }
        let is_possible = |header: &&ProgramHeader| header.segment().is_possible();
        let build_id = headers.find_note(uncached, b"Go", GO_BUILD_ID, |_| Some(()));
        let mut program = Self {
            segments: headers.loads().filter(is_possible).copied().collect(),
            is_go: build_id.is_some(),
            ..Self::default()
        };
        let mut program_headers = headers.program_headers().iter();
        let dynamic = program_headers.find(|header| header.kind == PT_DYNAMIC);
        program.relocations =
            dynamic.and_then(|header| program.find_relocations(file, header.range));
        program.note_sections(&headers);
        Some(program)
    }

    fn note_sections(&mut self, headers: &Headers) {
        for section in headers.sections() {
            let Some(range) = section.file_range() else {
                continue;
            };
            let name = headers.name_of(section);
            self.has_sections |= !name.is_empty();
            match name {
                b".gopclntab" | b".data.rel.ro.gopclntab" => self.table = Some(range),
                b".go.module" => self.module = Some(range),
                b".go.buildinfo" | b".note.go.buildid" => self.is_go = true,
                _ => {}
            }
        }
    }

    fn find_relocations(&self, file: &impl ReadAt, dynamic: FileRange) -> Option<FileRange> {
        let (mut address, mut bytes) = (None, None);
        for index in 0..(dynamic.bytes / 16).min(DYNAMIC_MAX) {
            let at = dynamic.offset.checked_add(index * 16)?;
            let value = file.read_u64(at.checked_add(8)?)?;
            match DynamicTag(file.read_u64(at)? as i64) {
                DT_NULL => break,
                DT_RELA => address = Some(value),
                DT_RELASZ => bytes = Some(value),
                _ => {}
            }
        }
        Some(FileRange {
            offset: self.offset_of(address?)?,
            bytes: bytes?,
        })
    }

    /// The file offset of an address.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        let mut segments = self.segments.iter();
        segments.find_map(|header| header.segment().offset_of(address))
    }

    /// The address of a file offset as code; a page may be mapped twice, as code and as data.
    pub(super) fn address_of_code(&self, offset: u64) -> Option<u64> {
        self.address_of(offset, ProgramHeader::is_code)
    }

    /// The address of a file offset as data, or else as code.
    pub(super) fn address_of_data(&self, offset: u64) -> Option<u64> {
        self.address_of(offset, |segment| !segment.is_code())
            .or_else(|| self.address_of_code(offset))
    }

    fn address_of(&self, offset: u64, is_wanted: impl Fn(&ProgramHeader) -> bool) -> Option<u64> {
        let mut segments = self.segments.iter().filter(|segment| is_wanted(segment));
        segments.find_map(|segment| segment.segment().address_of(offset))
    }
}
