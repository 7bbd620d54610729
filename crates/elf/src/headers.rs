//! Program headers, section headers and section names.

use std::error::Error;
use std::fmt;

use object::elf::{
    FileHeader32, FileHeader64, Machine, PF_X, PT_LOAD, ProgramFlags, ProgramType, SHF_EXECINSTR,
    SHT_NOBITS, SectionFlags, SectionType,
};
use object::read::elf::{FileHeader, ProgramHeader as _, SectionHeader as _};
use object::read::{ReadCache, ReadCacheOps, ReadRef as _};
use object::{Endianness, SectionIndex};

use crate::layout::{Layout, Segment};
use crate::limits::{Limits, SEGMENTS_MAX};
use crate::read::{FileRange, ReadAt};

/// Why a file has no headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadersError {
    /// It is not an ELF file, or ends within its headers.
    NotElf,
    /// It has more headers than [`Limits`] allow.
    TooLarge,
}

impl fmt::Display for HeadersError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotElf => "not an ELF file, or truncated within its headers",
            Self::TooLarge => "more headers than any linker writes",
        })
    }
}

impl Error for HeadersError {}

impl From<object::read::Error> for HeadersError {
    fn from(_: object::read::Error) -> Self {
        Self::NotElf
    }
}

/// The class (32 or 64 bits) and the byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) is_64: bool,
    pub(crate) endian: Endianness,
}

/// A program header.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramHeader {
    /// `PT_…`
    pub kind: ProgramType,
    /// `PF_…`
    pub flags: ProgramFlags,
    /// The range in the file.
    pub range: FileRange,
    /// Address as linked.
    pub address: u64,
    /// Bytes in memory; those beyond the range are zeros.
    pub memory_bytes: u64,
    /// Alignment in memory.
    pub align: u64,
}

impl ProgramHeader {
    /// The file range and where it is loaded.
    pub fn segment(&self) -> Segment {
        Segment {
            file_offset: self.range.offset,
            address: self.address,
            bytes: self.range.bytes,
        }
    }

    /// Whether its memory is executable.
    pub fn is_code(&self) -> bool {
        self.flags.contains(PF_X)
    }
}

/// A section header.
#[derive(Clone, Copy, Debug, Default)]
pub struct SectionHeader {
    /// Offset of its name in the section names: see [`Headers::name_of`].
    pub name: u32,
    /// `SHT_…`
    pub kind: SectionType,
    /// `SHF_…`
    pub flags: SectionFlags,
    /// Address as linked.
    pub address: u64,
    /// The range in the file; [`SHT_NOBITS`] has none in truth.
    pub range: FileRange,
    /// Index of a section that belongs to this one.
    pub link: u32,
    /// Alignment.
    pub align: u64,
    /// Bytes of an entry, for sections that are tables.
    pub entry_bytes: u64,
}

impl SectionHeader {
    /// The range in the file, for a section that has bytes there.
    pub fn file_range(&self) -> Option<FileRange> {
        (self.kind != SHT_NOBITS).then_some(self.range)
    }

    /// Whether its memory is executable.
    pub fn is_code(&self) -> bool {
        self.flags.contains(SHF_EXECINSTR)
    }

    /// Whether an address is in the section.
    pub fn contains(&self, address: u64) -> bool {
        let end = self.address.saturating_add(self.range.bytes);
        (self.address..end).contains(&address)
    }
}

/// The headers of a file.
#[derive(Clone, Debug)]
pub struct Headers {
    pub(crate) format: Format,
    machine: Machine,
    ranges: [FileRange; 4],
    program_headers: Vec<ProgramHeader>,
    sections: Vec<SectionHeader>,
    names: Vec<u8>,
}

impl Headers {
    /// Reads the headers of a file of any class and byte order, in at most six reads whose sizes `limits` bound.
    ///
    /// # Errors
    /// The file is not ELF, ends within its headers, or has more of them than `limits` allow.
    pub fn read(file: &(impl ReadAt + ?Sized), limits: Limits) -> Result<Self, HeadersError> {
        let data = &ReadCache::new(Cursor { file, position: 0 });
        if let Ok(header) = FileHeader64::parse(data) {
            Self::of_segments(header, data, limits)?.with_sections(header, data, limits)
        } else {
            let header = FileHeader32::parse(data)?;
            Self::of_segments(header, data, limits)?.with_sections(header, data, limits)
        }
    }

    /// Reads all but the sections, which may be damaged or missing.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_program_headers(
        file: &(impl ReadAt + ?Sized),
        limits: Limits,
    ) -> Result<Self, HeadersError> {
        let data = &ReadCache::new(Cursor { file, position: 0 });
        match FileHeader64::parse(data) {
            Ok(header) => Self::of_segments(header, data, limits),
            Err(_) => Self::of_segments(FileHeader32::parse(data)?, data, limits),
        }
    }

    fn of_segments<H: FileHeader<Endian = Endianness>, R: ReadCacheOps>(
        header: &H,
        data: &ReadCache<R>,
        limits: Limits,
    ) -> Result<Self, HeadersError> {
        let endian = header.endian()?;
        check_count(header.phnum(endian, data)?, limits.program_headers)?;
        let headers = header.program_headers(endian, data)?;
        let program_headers = headers.iter().map(|header| ProgramHeader {
            kind: header.p_type(endian),
            flags: header.p_flags(endian),
            range: FileRange {
                offset: header.p_offset(endian).into(),
                bytes: header.p_filesz(endian).into(),
            },
            address: header.p_vaddr(endian).into(),
            memory_bytes: header.p_memsz(endian).into(),
            align: header.p_align(endian).into(),
        });
        let own = FileRange {
            offset: 0,
            bytes: size_of::<H>() as u64,
        };
        let table = range_of(header.e_phoff(endian).into(), headers);
        Ok(Self {
            format: Format {
                is_64: header.is_type_64(),
                endian,
            },
            machine: header.e_machine(endian),
            ranges: [own, table, FileRange::default(), FileRange::default()],
            program_headers: program_headers.collect(),
            sections: Vec::new(),
            names: Vec::new(),
        })
    }

    fn with_sections<H: FileHeader<Endian = Endianness>, R: ReadCacheOps>(
        mut self,
        header: &H,
        data: &ReadCache<R>,
        limits: Limits,
    ) -> Result<Self, HeadersError> {
        let endian = self.format.endian;
        check_count(header.shnum(endian, data)?, limits.sections)?;
        let headers = header.section_headers(endian, data)?;
        let sections = headers.iter().map(|header| SectionHeader {
            name: header.sh_name(endian),
            kind: header.sh_type(endian),
            flags: header.sh_flags(endian),
            address: header.sh_addr(endian).into(),
            range: FileRange {
                offset: header.sh_offset(endian).into(),
                bytes: header.sh_size(endian).into(),
            },
            link: header.sh_link(endian),
            align: header.sh_addralign(endian).into(),
            entry_bytes: header.sh_entsize(endian).into(),
        });
        self.sections = sections.collect();
        // Sections may have no names.
        let names = header.section_strings_index(endian, data).ok();
        let names = names.and_then(|SectionIndex(index)| self.sections.get(index)?.file_range());
        let names = names.unwrap_or_default();
        if names.bytes > limits.name_bytes {
            return Err(HeadersError::TooLarge);
        }
        let bytes = data.read_bytes_at(names.offset, names.bytes);
        self.names = bytes.map_err(|()| HeadersError::NotElf)?.to_vec();
        self.ranges[2] = range_of(header.e_shoff(endian).into(), headers);
        self.ranges[3] = names;
        Ok(self)
    }

    /// Whether the file is of the 64-bit class and little-endian.
    pub fn is_64_bit_little_endian(&self) -> bool {
        self.format.is_64 && self.format.endian == Endianness::Little
    }

    /// The processor that the file is for.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Ranges of the headers themselves: the file header, program headers, section headers, and section names.
    pub fn ranges(&self) -> &[FileRange] {
        &self.ranges
    }

    /// The program headers, in the order of the file.
    pub fn program_headers(&self) -> &[ProgramHeader] {
        &self.program_headers
    }

    /// The load segments, in the order of the file, possible or not.
    pub fn loads(&self) -> impl Iterator<Item = &ProgramHeader> {
        let headers = self.program_headers.iter();
        headers.filter(|header| header.kind == PT_LOAD)
    }

    /// The load segments that are [possible](Segment::is_possible); none if there are more than [`SEGMENTS_MAX`].
    pub fn layout(&self) -> Layout {
        let segments = self.loads().map(ProgramHeader::segment);
        let possible: Vec<Segment> = segments.filter(Segment::is_possible).collect();
        debug_assert!(self.program_headers.len() > SEGMENTS_MAX || possible.len() <= SEGMENTS_MAX);
        Layout::new(possible).unwrap_or_default()
    }

    /// The section headers; none where they were stripped.
    pub fn sections(&self) -> &[SectionHeader] {
        &self.sections
    }

    /// The name of a section, empty if it has none.
    pub fn name_of(&self, section: &SectionHeader) -> &[u8] {
        let name = self.names.get(section.name as usize..).unwrap_or_default();
        name.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The first section with a name.
    pub fn section(&self, name: &[u8]) -> Option<&SectionHeader> {
        let mut sections = self.sections.iter();
        sections.find(|section| self.name_of(section) == name)
    }
}

fn check_count(count: u32, max: usize) -> Result<(), HeadersError> {
    if count as usize > max {
        return Err(HeadersError::TooLarge);
    }
    Ok(())
}

fn range_of<T>(offset: u64, table: &[T]) -> FileRange {
    FileRange {
        offset,
        bytes: size_of_val(table) as u64,
    }
}

/// A file as `object` reads it, for the few tables that are read of each.
struct Cursor<'a, R: ?Sized> {
    file: &'a R,
    position: u64,
}

impl<R: ReadAt + ?Sized> ReadCacheOps for Cursor<'_, R> {
    fn len(&mut self) -> Result<u64, ()> {
        // A read beyond the end fails by itself.
        Ok(u64::MAX)
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.position = position;
        Ok(position)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let read = self.file.pread(self.position, buffer);
        self.position += read as u64;
        Ok(read)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        let is_read = self.read(buffer)? == buffer.len();
        is_read.then_some(()).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use object::elf::{EM_X86_64, PT_NOTE};
    use object::read::elf::ElfFile64;
    use object::{LittleEndian, Object as _, ObjectSection as _};

    use super::*;
    use crate::test_support::ElfBuilder;

    fn read(file: &[u8]) -> Result<Headers, HeadersError> {
        Headers::read(file, Limits::MAPPED)
    }

    /// Check headers and contents against those that `object` parses: of programs, and of the libraries that are mapped here.
    #[test]
    fn headers_are_those_of_object() {
        let own = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let lines = maps.lines();
        let paths = lines.filter_map(|line| Some(&line[line.find('/')?..]));
        for path in paths.chain(["/bin/ls", "/bin/sh"]).chain(own.to_str()) {
            let bytes = std::fs::read(path).unwrap();
            let parsed = ElfFile64::<LittleEndian, _>::parse(&*bytes).unwrap();
            let headers = read(&bytes).unwrap();
            assert!(headers.is_64_bit_little_endian() && headers.machine() == EM_X86_64);
            let endian = LittleEndian;
            let expected = parsed.elf_program_headers().iter().map(|header| {
                let (address, bytes) = (header.p_vaddr(endian), header.p_filesz(endian));
                (header.p_type(endian), address, bytes)
            });
            let found = headers.program_headers().iter();
            let found = found.map(|header| (header.kind, header.address, header.range.bytes));
            assert!(found.eq(expected), "{path}");
            for section in parsed.sections() {
                let name = section.name_bytes().unwrap();
                let found = headers.section(name).unwrap();
                assert_eq!(
                    (found.address, found.range.bytes),
                    (section.address(), section.size())
                );
                let data = headers.data_of(&*bytes, found);
                let data = data.map_or(Vec::new(), |data| data.read(&*bytes).unwrap());
                assert_eq!(data, &*section.uncompressed_data().unwrap());
            }
            let build_id = headers.build_id(&*bytes);
            let build_id = build_id.as_ref().map(|id| id.as_bytes());
            assert_eq!(build_id, parsed.build_id().unwrap());
        }
    }

    /// The position of the first program header of a kind.
    fn find_header(file: &[u8], kind: ProgramType) -> usize {
        let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
        let (table, count) = (word(0x20) as usize, usize::from(file[0x38]));
        let mut headers = (0..count).map(|number| table + number * 56);
        let is_it = |at: &usize| file[*at..*at + 4] == kind.0.to_le_bytes();
        headers.find(is_it).unwrap()
    }

    /// Check that a load segment that goes beyond 2^64, by its address or by its place in the file, is left out, and the
    /// others stay.
    #[test]
    fn segments_that_cannot_be() {
        let file = std::fs::read("/bin/ls").unwrap();
        let whole = read(&file).unwrap().layout();
        let load = find_header(&file, PT_LOAD);
        // p_offset and p_vaddr.
        for field in [8, 16] {
            let mut odd = file.clone();
            odd[load + field..load + field + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            let layout = read(&odd).unwrap().layout();
            assert_eq!(layout.segments(), &whole.segments()[1..]);
        }
    }

    /// A file with so many load segments of a page each.
    fn make_segments(count: u64) -> Vec<u8> {
        let mut elf = ElfBuilder::default();
        for number in 0..count {
            let (offset, bytes) = (number * 4096, 4096);
            elf.segment(ProgramHeader {
                kind: PT_LOAD,
                range: FileRange { offset, bytes },
                address: number * 8192,
                ..ProgramHeader::default()
            });
        }
        elf.build()
    }

    /// Check that a file has a layout of all its segments up to the limit, and none beyond it.
    #[test]
    fn layouts_have_all_segments_or_none() {
        for count in [1, 16, 17, 40, 64] {
            let layout = read(&make_segments(count)).unwrap().layout();
            assert_eq!(layout.segments().len() as u64, count);
            let last = count - 1;
            assert_eq!(layout.address_of(last * 4096), Some(last * 8192));
        }
        let many = make_segments(65);
        assert_eq!(read(&many).unwrap_err(), HeadersError::TooLarge);
        let headers = Headers::read(&*many, Limits::OBJECTS).unwrap();
        assert_eq!(headers.layout(), Layout::default());
    }

    /// Check files of the 32-bit class and of the other byte order, which people upload.
    #[test]
    fn other_classes_and_byte_orders() {
        let mut file = vec![0; 52];
        file[..7].copy_from_slice(b"\x7fELF\x01\x02\x01");
        file[31] = 52;
        file[43] = 32;
        file[45] = 1;
        let mut header = [0; 32];
        (header[3], header[6], header[10], header[19]) = (1, 0x10, 0x20, 0x30);
        file.extend(header);
        let headers = read(&file).unwrap();
        assert!(!headers.is_64_bit_little_endian());
        let segment = Segment {
            file_offset: 0x1000,
            address: 0x2000,
            bytes: 0x30,
        };
        assert_eq!(headers.layout().segments(), [segment]);
        assert_eq!(read(&file[..51]).unwrap_err(), HeadersError::NotElf);
    }

    /// Check that a file that is truncated anywhere, or with any byte of its headers changed, causes no panic.
    #[test]
    fn odd_files() {
        let file = std::fs::read("/bin/ls").unwrap();
        for len in (0..512).chain(file.len() - 3000..file.len()) {
            assert!(read(&file[..len]).is_err());
        }
        let sections = file.len() - 3000;
        for at in (0..512).chain(sections..file.len()) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut odd = file.clone();
                odd[at] = value;
                if let Ok(headers) = read(&odd) {
                    assert!(headers.layout().segments().len() <= SEGMENTS_MAX);
                    headers.build_id(&*odd);
                    for section in headers.sections() {
                        headers.data_of(&*odd, section);
                    }
                }
            }
        }
        let notes = find_header(&file, PT_NOTE);
        let mut odd = file;
        odd[notes + 32..notes + 40].fill(0xff);
        assert!(read(&odd).unwrap().build_id(&*odd).is_some());
    }
}
