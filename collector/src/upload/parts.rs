//! Which parts of an ELF file names are made of.
//!
//! In: a file's size and a way to read its headers. Out: places in the file, and what can be named by them. Pure, bounded by
//! what it reads, and without a panic whatever the file says.
//!
//! What is left out is code, data and what only debuggers need: of a program with debug information two thirds to four fifths stay.
//! Everything stays at its place, so that what is sent is the same file with holes.
//!
//! Sources: System V ABI, chapters 4 and 5 (sections, program headers); DWARF 5, section 7 (names of sections).

use super::offers::Offer;
use crate::name::Segment;
use crate::process::{u16_at, u32_at, u64_at};

/// Parts of one file, the server's limit. Linkers write some 40 sections, of which at most 25 are for names.
pub const PARTS_MAX: usize = 1024;

/// Sections that are looked at. Kernel modules have 60, programs 30 to 45; one section a function, as in object files that
/// nobody maps, would be more.
const SECTIONS_MAX: usize = 4096;

/// Program headers that are looked at: linkers write about a dozen.
const SEGMENTS_MAX: usize = 64;

/// Bytes of the sections' names. 45 names take 500.
const NAMES_BYTES_MAX: u64 = 64 << 10;

/// Bytes of notes in one place: a build id takes 36. What is longer describes probes.
const NOTE_BYTES_MAX: u64 = 4096;

/// What lies as near to each other is one part: the padding between two sections.
const GAP_BYTES_MAX: u64 = 64;

/// Debug information that names, inlined calls, files and lines are made of, without `.debug_` or `.zdebug_`. Of GCC's and
/// LLVM's others `loc` and `loclists` say where variables are, and the rest are indexes for debuggers.
const DEBUG_SECTIONS: [&[u8]; 9] = [
    b"abbrev",
    b"addr",
    b"info",
    b"line",
    b"line_str",
    b"ranges",
    b"rnglists",
    b"str",
    b"str_offsets",
];

const HEADER_BYTES: usize = 64;

const SHT_SYMTAB: u32 = 2;
const SHT_HASH: u32 = 5;
const SHT_DYNAMIC: u32 = 6;
const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
const SHT_DYNSYM: u32 = 11;
const SHT_GNU_HASH: u32 = 0x6fff_fff6;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Bytes of a symbol: a table has one that means nothing.
const SYMBOL_BYTES: u64 = 24;

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePart {
    /// Where it begins.
    pub offset: u64,
    /// Its length, not 0.
    pub bytes: u64,
}

impl FilePart {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// What of a file is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileParts {
    /// What can be named by it.
    pub offer: Offer,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// The parts, in the order of their places, apart from each other; at most [`PARTS_MAX`].
    pub parts: Vec<FilePart>,
    /// Where the file is loaded.
    pub segments: Vec<Segment>,
    /// Where it says which file has its debug information (`.gnu_debuglink`).
    pub debug_link: Option<FilePart>,
}

impl FileParts {
    /// Bytes of all parts.
    pub fn total_bytes(&self) -> u64 {
        self.parts.iter().map(|it| it.bytes).sum()
    }

    /// The stretches of the file that `bytes` bytes from a position in all parts are.
    pub fn places(&self, position: u64, bytes: u64) -> impl Iterator<Item = FilePart> + '_ {
        let (mut skip, mut left) = (position, bytes);
        self.parts.iter().filter_map(move |part| {
            let skipped = skip.min(part.bytes);
            skip -= skipped;
            let taken = (part.bytes - skipped).min(left);
            left -= taken;
            (taken > 0).then_some(FilePart {
                offset: part.offset + skipped,
                bytes: taken,
            })
        })
    }
}

/// Finds the parts of a 64-bit little-endian ELF file of `file_bytes` bytes.
///
/// `read` fills the buffer from an offset of the file and says whether it could. `None` when it is no such file, is cut off,
/// or has more headers than any real one. Reads at most 64 bytes, 64 program headers, 4,096 section headers and 64 KiB of names.
pub fn find_parts(
    file_bytes: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> bool,
) -> Option<FileParts> {
    let mut header = [0; HEADER_BYTES];
    if !read(0, &mut header) || header[..6] != *b"\x7fELF\x02\x01" {
        return None;
    }
    let mut finder = Finder::new(file_bytes);
    finder.add(0, HEADER_BYTES as u64)?;
    let place = finder.add_table(&header, &PROGRAM_HEADERS)?;
    let segments = read_place(place, &mut read)?;
    for segment in segments.chunks_exact(PROGRAM_HEADERS.entry_bytes) {
        finder.add_segment(segment)?;
    }
    let place = finder.add_table(&header, &SECTION_HEADERS)?;
    let sections = read_place(place, &mut read)?;
    let sections: Vec<Section> = sections
        .chunks_exact(SECTION_HEADERS.entry_bytes)
        .filter_map(Section::read)
        .collect();
    let names = match sections.get(usize::from(u16_at(&header, 62)?)) {
        Some(names) if names.place.bytes <= NAMES_BYTES_MAX => {
            finder.add(names.place.offset, names.place.bytes)?;
            read_place(names.place, &mut read)?
        }
        Some(_) => return None,
        None => Vec::new(),
    };
    for section in &sections {
        finder.add_section(section, section.name_in(&names), &sections)?;
    }
    finder.finish()
}

/// Where a file's header says that a table of headers is, and what it may have.
struct TableFields {
    offset_at: usize,
    count_at: usize,
    entry_bytes: usize,
    count_max: usize,
}

const PROGRAM_HEADERS: TableFields = TableFields {
    offset_at: 32,
    count_at: 56,
    entry_bytes: 56,
    count_max: SEGMENTS_MAX,
};

const SECTION_HEADERS: TableFields = TableFields {
    offset_at: 40,
    count_at: 60,
    entry_bytes: 64,
    count_max: SECTIONS_MAX,
};

fn read_place(place: FilePart, read: &mut impl FnMut(u64, &mut [u8]) -> bool) -> Option<Vec<u8>> {
    // Bounded by the callers.
    let mut bytes = vec![0; place.bytes as usize];
    (bytes.is_empty() || read(place.offset, &mut bytes)).then_some(bytes)
}

struct Section {
    name: u32,
    kind: u32,
    place: FilePart,
    link: u32,
}

impl Section {
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

    fn name_in<'a>(&self, names: &'a [u8]) -> &'a [u8] {
        let name = names.get(self.name as usize..).unwrap_or_default();
        name.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

struct Finder {
    found: FileParts,
}

impl Finder {
    fn new(file_bytes: u64) -> Self {
        Self {
            found: FileParts {
                offer: Offer::None,
                file_bytes,
                parts: Vec::new(),
                segments: Vec::new(),
                debug_link: None,
            },
        }
    }

    /// Adds a part; `None` if it goes beyond the file.
    fn add(&mut self, offset: u64, bytes: u64) -> Option<()> {
        let end = offset.checked_add(bytes)?;
        if end > self.found.file_bytes {
            return None;
        }
        if bytes > 0 {
            self.found.parts.push(FilePart { offset, bytes });
        }
        Some(())
    }

    fn add_table(&mut self, header: &[u8], fields: &TableFields) -> Option<FilePart> {
        let count = usize::from(u16_at(header, fields.count_at)?);
        let entry_bytes = usize::from(u16_at(header, fields.count_at - 2)?);
        if count > fields.count_max || (count > 0 && entry_bytes != fields.entry_bytes) {
            return None;
        }
        let place = FilePart {
            offset: u64_at(header, fields.offset_at)?,
            bytes: (count * fields.entry_bytes) as u64,
        };
        self.add(place.offset, place.bytes)?;
        Some(place)
    }

    fn add_segment(&mut self, header: &[u8]) -> Option<()> {
        let (offset, bytes) = (u64_at(header, 8)?, u64_at(header, 32)?);
        match u32_at(header, 0)? {
            PT_LOAD => self.found.segments.push(Segment {
                file_offset: offset,
                address: u64_at(header, 16)?,
                bytes,
            }),
            PT_NOTE if bytes <= NOTE_BYTES_MAX => self.add(offset, bytes)?,
            _ => {}
        }
        Some(())
    }

    fn add_section(&mut self, section: &Section, name: &[u8], all: &[Section]) -> Option<()> {
        let FilePart { offset, bytes } = section.place;
        match section.kind {
            SHT_NOBITS => {}
            SHT_SYMTAB | SHT_DYNSYM => {
                self.add(offset, bytes)?;
                let strings = all.get(section.link as usize)?.place;
                self.add(strings.offset, strings.bytes)?;
                if bytes > SYMBOL_BYTES {
                    self.offer(Offer::SymbolTable);
                }
            }
            // What leads to the dynamic symbols.
            SHT_DYNAMIC | SHT_HASH | SHT_GNU_HASH => self.add(offset, bytes)?,
            SHT_NOTE if bytes <= NOTE_BYTES_MAX => self.add(offset, bytes)?,
            _ => match name {
                // A symbol table, packed.
                b".gnu_debugdata" if bytes > 0 => {
                    self.add(offset, bytes)?;
                    self.offer(Offer::SymbolTable);
                }
                b".gnu_debuglink" => self.found.debug_link = Some(section.place),
                name if is_debug_section(name) => {
                    self.add(offset, bytes)?;
                    if name.ends_with(b"debug_info") && bytes > 0 {
                        self.offer(Offer::DebugInfo);
                    }
                }
                _ => {}
            },
        }
        Some(())
    }

    fn offer(&mut self, offer: Offer) {
        self.found.offer = self.found.offer.max(offer);
    }

    /// Puts the parts into order, and those that touch together.
    fn finish(mut self) -> Option<FileParts> {
        self.found.parts.sort_unstable();
        let mut parts: Vec<FilePart> = Vec::new();
        for part in &self.found.parts {
            match parts.last_mut() {
                Some(last) if part.offset <= last.end().saturating_add(GAP_BYTES_MAX) => {
                    last.bytes = last.end().max(part.end()) - last.offset;
                }
                _ => parts.push(*part),
            }
        }
        self.found.parts = parts;
        (self.found.parts.len() <= PARTS_MAX).then_some(self.found)
    }
}

fn is_debug_section(name: &[u8]) -> bool {
    let rest = name
        .strip_prefix(b".debug_")
        .or_else(|| name.strip_prefix(b".zdebug_"));
    rest.is_some_and(|rest| DEBUG_SECTIONS.contains(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(file: &[u8]) -> Option<FileParts> {
        find_parts(file.len() as u64, |at, buffer| {
            let from = usize::try_from(at).ok().and_then(|at| file.get(at..));
            let Some(from) = from.and_then(|it| it.get(..buffer.len())) else {
                return false;
            };
            buffer.copy_from_slice(from);
            true
        })
    }

    /// Check this very program: it has debug information, most of what it has stays out, and each byte of the parts has its place.
    #[test]
    fn parts_of_this_program() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = find(&file).unwrap();
        assert_eq!(found.offer, Offer::DebugInfo);
        assert!(found.total_bytes() < found.file_bytes * 9 / 10);
        assert!(found.segments.len() >= 2);
        let places: Vec<_> = found.places(0, u64::MAX).collect();
        assert_eq!(places, found.parts);
        let tail: u64 = found.places(100, u64::MAX).map(|it| it.bytes).sum();
        assert_eq!(tail, found.total_bytes() - 100);
        let pairs = found.parts.windows(2);
        assert!(pairs.clone().all(|it| it[0].end() < it[1].offset));
    }

    /// Check that a file cut anywhere, or with any byte of its headers changed, gives parts within it or none.
    #[test]
    fn odd_files() {
        let file = std::fs::read("/bin/ls").unwrap();
        let check = |file: &[u8]| {
            if let Some(found) = find(file) {
                assert!(found.parts.iter().all(|it| it.end() <= file.len() as u64));
                assert!(found.parts.len() <= PARTS_MAX);
            }
        };
        assert_eq!(find(&file).unwrap().offer, Offer::SymbolTable);
        for len in (0..2048).chain([file.len() - 1]) {
            assert_eq!(find(&file[..len]), None, "its sections are at its end");
        }
        let sections_at = u64_at(&file, 40).unwrap() as usize;
        for at in (0..1024).chain(sections_at..file.len()) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut odd = file.clone();
                odd[at] = value;
                check(&odd);
            }
        }
    }
}
