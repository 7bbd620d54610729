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
use crate::process::{ElfHeaders, FilePart, SectionHeader, SegmentHeader};

/// Parts of one file, the server's limit. Linkers write some 40 sections, of which at most 25 are for names.
pub const PARTS_MAX: usize = 1024;

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
/// or has more headers than any real one. Reads what [`ElfHeaders::read`] reads.
pub fn find_parts(file_bytes: u64, read: impl FnMut(u64, &mut [u8]) -> bool) -> Option<FileParts> {
    let headers = ElfHeaders::read(read)?;
    let mut finder = Finder::new(file_bytes);
    for place in headers.places {
        finder.add(place)?;
    }
    for segment in &headers.segments {
        finder.add_segment(segment)?;
    }
    for section in &headers.sections {
        finder.add_section(section, &headers)?;
    }
    finder.finish()
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
    fn add(&mut self, part: FilePart) -> Option<()> {
        let end = part.offset.checked_add(part.bytes)?;
        if end > self.found.file_bytes {
            return None;
        }
        if part.bytes > 0 {
            self.found.parts.push(part);
        }
        Some(())
    }

    fn add_segment(&mut self, segment: &SegmentHeader) -> Option<()> {
        let place = segment.place;
        match segment.kind {
            PT_LOAD => self.found.segments.push(Segment {
                file_offset: place.offset,
                address: segment.address,
                bytes: place.bytes,
            }),
            PT_NOTE if place.bytes <= NOTE_BYTES_MAX => self.add(place)?,
            _ => {}
        }
        Some(())
    }

    fn add_section(&mut self, section: &SectionHeader, headers: &ElfHeaders) -> Option<()> {
        let place = section.place;
        match section.kind {
            SHT_NOBITS => {}
            SHT_SYMTAB | SHT_DYNSYM => {
                self.add(place)?;
                self.add(headers.sections.get(section.link as usize)?.place)?;
                if place.bytes > SYMBOL_BYTES {
                    self.offer(Offer::SymbolTable);
                }
            }
            // What leads to the dynamic symbols.
            SHT_DYNAMIC | SHT_HASH | SHT_GNU_HASH => self.add(place)?,
            SHT_NOTE if place.bytes <= NOTE_BYTES_MAX => self.add(place)?,
            _ => match headers.name_of(section) {
                // A symbol table, packed.
                b".gnu_debugdata" if place.bytes > 0 => {
                    self.add(place)?;
                    self.offer(Offer::SymbolTable);
                }
                b".gnu_debuglink" => self.found.debug_link = Some(section.place),
                name if is_debug_section(name) => {
                    self.add(place)?;
                    if name.ends_with(b"debug_info") && place.bytes > 0 {
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
    use crate::process::u64_at;

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
