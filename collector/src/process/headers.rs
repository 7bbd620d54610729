//! The headers of an ELF file, for the process that opens files and leaves the rest of them to its child.
//!
//! In: a way to read from a file that nobody has checked. Out: its segments and sections, of bounded number. Pure, and
//! without a panic whatever the file says.
//!
//! Format: System V ABI, chapter 4 (ELF header, section headers) and 5 (program headers), of 64 bits, little-endian.

use super::{u16_at, u32_at, u64_at};

/// Program headers of a file that is taken: linkers write about a dozen.
pub(crate) const SEGMENTS_MAX: usize = 64;
/// Sections of a file that is taken. Kernel modules have 60, programs 30 to 45; one section a function, as in object files
/// that nobody maps, would be more.
pub(crate) const SECTIONS_MAX: usize = 4096;
/// Bytes of the sections' names. 45 names take 500.
pub(crate) const NAMES_BYTES_MAX: u64 = 64 << 10;

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const SECTION_BYTES: usize = 64;

/// A part of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePart {
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

impl FilePart {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// What counts of a program header.
#[derive(Clone, Copy, Debug)]
pub struct SegmentHeader {
    /// Its kind (`PT_…`).
    pub kind: u32,
    /// Where it lies in the file.
    pub place: FilePart,
    /// Its address as linked.
    pub address: u64,
}

/// What counts of a section header.
#[derive(Clone, Copy, Debug)]
pub struct SectionHeader {
    name: u32,
    /// Its kind (`SHT_…`).
    pub kind: u32,
    /// Where it lies in the file.
    pub place: FilePart,
    /// The number of a section that belongs to it.
    pub link: u32,
}

/// The headers of a file.
#[derive(Clone, Debug, Default)]
pub struct ElfHeaders {
    /// Where the headers themselves are: the file's, the segments', the sections', and the sections' names.
    pub places: [FilePart; 4],
    /// The segments.
    pub segments: Vec<SegmentHeader>,
    /// The sections; none where they were stripped.
    pub sections: Vec<SectionHeader>,
    names: Vec<u8>,
}

impl ElfHeaders {
    /// Reads them; `None` when it is no 64-bit little-endian ELF file, is cut off in its headers, or has more of them than any
    /// real one.
    ///
    /// `read` fills the buffer from an offset of the file and says whether it could. It is called four times at most, for 64
    /// bytes, 64 program headers, 4,096 section headers and 64 KiB of names, whatever the file says.
    pub fn read(mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Option<Self> {
        let mut header = [0; HEADER_BYTES];
        if !read(0, &mut header) || header[..6] != *b"\x7fELF\x02\x01" {
            return None;
        }
        let mut read = |place: FilePart| {
            // Bounded by the callers.
            let mut bytes = vec![0; place.bytes as usize];
            (bytes.is_empty() || read(place.offset, &mut bytes)).then_some(bytes)
        };
        let segments_at = table_place(&header, [32, 54, 56], SEGMENT_BYTES, SEGMENTS_MAX)?;
        let segments = read(segments_at)?;
        let segments = segments.chunks_exact(SEGMENT_BYTES);
        let sections_at = table_place(&header, [40, 58, 60], SECTION_BYTES, SECTIONS_MAX)?;
        let sections = read(sections_at)?;
        let sections = sections.chunks_exact(SECTION_BYTES);
        let sections: Vec<_> = sections.filter_map(SectionHeader::read).collect();
        let names_in = sections.get(usize::from(u16_at(&header, 62)?));
        let names_at = names_in.map(|it| it.place).unwrap_or_default();
        if names_at.bytes > NAMES_BYTES_MAX {
            return None;
        }
        let own = FilePart {
            offset: 0,
            bytes: HEADER_BYTES as u64,
        };
        Some(Self {
            places: [own, segments_at, sections_at, names_at],
            segments: segments.filter_map(SegmentHeader::read).collect(),
            names: read(names_at)?,
            sections,
        })
    }

    /// A section's name, empty if it has none.
    pub fn name_of(&self, section: &SectionHeader) -> &[u8] {
        let name = self.names.get(section.name as usize..).unwrap_or_default();
        name.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// Where a table of headers is, by the fields of the file's header for its offset, the bytes of an entry, and their number.
fn table_place(
    header: &[u8; HEADER_BYTES],
    [offset_at, entry_at, count_at]: [usize; 3],
    entry_bytes: usize,
    count_max: usize,
) -> Option<FilePart> {
    let count = usize::from(u16_at(header, count_at)?);
    let is_known = count == 0 || usize::from(u16_at(header, entry_at)?) == entry_bytes;
    (is_known && count <= count_max).then_some(FilePart {
        offset: u64_at(header, offset_at)?,
        bytes: (count * entry_bytes) as u64,
    })
}

impl SegmentHeader {
    fn read(header: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(header, 0)?,
            place: FilePart {
                offset: u64_at(header, 8)?,
                bytes: u64_at(header, 32)?,
            },
            address: u64_at(header, 16)?,
        })
    }
}

impl SectionHeader {
    fn read(header: &[u8]) -> Option<Self> {
        Some(Self {
            name: u32_at(header, 0)?,
            kind: u32_at(header, 4)?,
            place: FilePart {
                offset: u64_at(header, 24)?,
                bytes: u64_at(header, 32)?,
            },
            link: u32_at(header, 40)?,
        })
    }
}
