//! Small ELF files for tests and fuzz targets.

use object::elf::SHT_STRTAB;

use crate::headers::{ProgramHeader, SectionHeader};
use crate::read::FileRange;

const FILE_HEADER_BYTES: usize = 64;

/// Builds an executable file: 64-bit, little-endian, x86-64.
pub struct ElfBuilder {
    bytes: Vec<u8>,
    program_headers: Vec<u8>,
    section_headers: Vec<u8>,
    names: Vec<u8>,
}

impl ElfBuilder {
    /// A file with these bytes behind the first 64, which become the file header.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        bytes.resize(bytes.len().max(FILE_HEADER_BYTES), 0);
        Self {
            bytes,
            program_headers: Vec::new(),
            section_headers: Vec::new(),
            names: vec![0],
        }
    }

    /// Appends bytes, aligned to 8.
    pub fn place(&mut self, bytes: &[u8]) -> FileRange {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let offset = self.bytes.len() as u64;
        self.bytes.extend(bytes);
        let bytes = bytes.len() as u64;
        FileRange { offset, bytes }
    }

    /// Adds a program header. Its memory is as large as its range.
    pub fn segment(&mut self, header: ProgramHeader) {
        let FileRange { offset, bytes } = header.range;
        let kind = u64::from(header.kind.0) | u64::from(header.flags.0) << 32;
        let address = header.address;
        let words = [kind, offset, address, address, bytes, bytes, header.align];
        self.program_headers
            .extend(words.map(u64::to_le_bytes).concat());
    }

    /// Adds a section header, the first one as number 1.
    pub fn section(&mut self, name: &str, header: SectionHeader) {
        if self.section_headers.is_empty() {
            self.section_headers.resize(64, 0);
        }
        let FileRange { offset, bytes } = header.range;
        let kind = self.names.len() as u64 | u64::from(header.kind.0) << 32;
        self.names.extend(name.bytes().chain([0]));
        let (flags, link) = (header.flags.0, u64::from(header.link));
        let (address, align, entry) = (header.address, header.align, header.entry_bytes);
        let words = [kind, flags, address, offset, bytes, link, align, entry];
        self.section_headers
            .extend(words.map(u64::to_le_bytes).concat());
    }

    /// The file. The section names are the last section, if there are any sections.
    pub fn build(mut self) -> Vec<u8> {
        if !self.section_headers.is_empty() {
            let range = self.place(&[&*self.names, b".shstrtab\0"].concat());
            let header = SectionHeader {
                kind: SHT_STRTAB,
                range,
                ..SectionHeader::default()
            };
            self.section(".shstrtab", header);
        }
        let headers = std::mem::take(&mut self.program_headers);
        let program_headers = self.place(&headers);
        let headers = std::mem::take(&mut self.section_headers);
        let section_headers = self.place(&headers);
        let (segments, sections) = (program_headers.bytes / 56, section_headers.bytes / 64);
        let words = [
            0x0001_0102_464c_457f,
            0,
            // Type, machine and version.
            2 | 62 << 16 | 1 << 32,
            0,
            program_headers.offset,
            if sections == 0 {
                0
            } else {
                section_headers.offset
            },
            // Sizes of the file header and of a program header.
            64 << 32 | 56 << 48,
            segments | 64 << 16 | sections << 32 | sections.saturating_sub(1) << 48,
        ];
        self.bytes[..FILE_HEADER_BYTES].copy_from_slice(&words.map(u64::to_le_bytes).concat());
        self.bytes
    }
}

impl Default for ElfBuilder {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}
