//! The parts of a Go program, and which file offset is which address.
//!
//! Format: System V ABI, chapters 4 and 5. Section names only help: they may be stripped, and the system's linker puts the table of a
//! position-independent program among other data.

use elf::{CachedFile, FileRange, Headers, Limits, ProgramHeader, ReadAt};
use object::elf::{DT_NULL, DT_RELA, DT_RELASZ, DynamicTag, NoteType, PT_DYNAMIC};

use super::module::Module;
use super::scan::find_words;
use super::table::{Table, Version};

/// Entries of the dynamic section that are read: linkers write 20 to 40.
const DYNAMIC_MAX: u64 = 256;
/// Bytes in which the table is searched by its first bytes if no section has it: about 0.1 s, once for a file. The largest Go
/// programs (Kubernetes, Prometheus) have 50 to 150 MB.
const SCAN_BYTES_MAX: u64 = 256 << 20;

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
    table: Option<FileRange>,
    has_sections: bool,
    is_go: bool,
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

    /// Finds the table and its base addresses.
    pub(super) fn find_table(&self, file: &CachedFile<impl ReadAt>) -> Option<(Table, Module)> {
        if let Some(range) = self.table {
            return self.read_table(file, range);
        }
        // A file with sections that Go did not make has no table.
        if self.has_sections && !self.is_go {
            return None;
        }
        let mut bytes_left = SCAN_BYTES_MAX;
        let (code, data): (Vec<&ProgramHeader>, Vec<_>) =
            self.segments.iter().partition(|segment| segment.is_code());
        data.into_iter().chain(code).find_map(|segment| {
            let FileRange { offset, bytes } = segment.range;
            let bytes = bytes.min(bytes_left);
            bytes_left -= bytes;
            let is_head = |word: &[u8; 8]| Version::of_head(*word).is_some();
            let heads = find_words(file.file(), FileRange { offset, bytes }, is_head);
            heads.into_iter().find_map(|offset| {
                let bytes = segment.range.end() - offset;
                self.read_table(file, FileRange { offset, bytes })
            })
        })
    }

    fn read_table(
        &self,
        file: &CachedFile<impl ReadAt>,
        range: FileRange,
    ) -> Option<(Table, Module)> {
        let table = Table::read(file, range)?;
        let module = Module::find(file, self, &table)?;
        Some((table, module))
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
