//! Selects the parts of an ELF file that contain symbols.
//!
//! In: a file's size and a way to read its headers. Out: places in the file, and what can be named by them. Pure, bounded by
//! what it reads, and without a panic whatever the file says.
//!
//! Code, data and sections for debuggers only are left out: of a program with debug information two thirds to four fifths stay.
//! Everything stays at its place, so that what is sent is the same file with holes.
//!
//! Sources: System V ABI, chapters 4 and 5 (sections, program headers); DWARF 5, section 7 (names of sections).

use elf::{
    DebugLink, FileRange, Headers, Layout, Limits, NOTES_BYTES_MAX, ReadAt, SectionHeader,
    slice_ranges,
};
use object::elf::{
    SHT_DYNAMIC, SHT_DYNSYM, SHT_GNU_HASH, SHT_HASH, SHT_NOBITS, SHT_NOTE, SHT_SYMTAB,
};

use super::offers::Offer;

/// Parts of one file, the server's limit. Linkers write some 40 sections, of which at most 25 are for names.
pub const PARTS_MAX: usize = 1024;

/// Parts as near to each other become one: the padding between two sections.
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

/// Bytes of a symbol: a table has one that means nothing.
const SYMBOL_BYTES: u64 = 24;

/// The parts of a file that are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileParts {
    /// The symbols in them.
    pub offer: Offer,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// The parts, in the order of their places, apart from each other; at most [`PARTS_MAX`].
    pub parts: Vec<FileRange>,
    /// The load segments of the file.
    pub layout: Layout,
    /// Name of the file with its debug information.
    pub debug_link: Option<String>,
}

impl FileParts {
    /// Bytes of all parts.
    pub fn total_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The stretches of the file that `bytes` bytes from a position in all parts are.
    pub fn places(&self, position: u64, bytes: u64) -> impl Iterator<Item = FileRange> + '_ {
        slice_ranges(&self.parts, position, bytes)
    }
}

/// Finds the parts of a 64-bit little-endian ELF file of `file_bytes` bytes.
///
/// `None` when it is no such file, is truncated, or has more headers than any real one. Reads the headers and the debug link.
pub fn find_parts(file_bytes: u64, file: &(impl ReadAt + ?Sized)) -> Option<FileParts> {
    let headers = Headers::read(file, Limits::MAPPED).ok()?;
    if !headers.is_64_bit_little_endian() {
        return None;
    }
    let mut finder = Finder::new(FileParts {
        offer: Offer::None,
        file_bytes,
        parts: Vec::new(),
        layout: headers.layout(),
        debug_link: DebugLink::read(&headers, file).map(|link| link.name),
    });
    for range in headers.ranges() {
        finder.add(*range)?;
    }
    for range in headers.note_ranges() {
        finder.add_notes(range)?;
    }
    for section in headers.sections() {
        finder.add_section(section, &headers)?;
    }
    finder.finish()
}

struct Finder {
    found: FileParts,
}

impl Finder {
    fn new(found: FileParts) -> Self {
        Self { found }
    }

    /// Adds a part; `None` if it goes beyond the file.
    fn add(&mut self, part: FileRange) -> Option<()> {
        let end = part.offset.checked_add(part.bytes)?;
        if end > self.found.file_bytes {
            return None;
        }
        if part.bytes > 0 {
            self.found.parts.push(part);
        }
        Some(())
    }

    fn add_notes(&mut self, range: FileRange) -> Option<()> {
        if range.bytes > NOTES_BYTES_MAX {
            return Some(());
        }
        self.add(range)
    }

    fn add_section(&mut self, section: &SectionHeader, headers: &Headers) -> Option<()> {
        let range = section.range;
        match section.kind {
            SHT_NOBITS => {}
            SHT_SYMTAB | SHT_DYNSYM => {
                self.add(range)?;
                self.add(headers.sections().get(section.link as usize)?.range)?;
                if range.bytes > SYMBOL_BYTES {
                    self.offer(Offer::SymbolTable);
                }
            }
            // These lead to the dynamic symbols.
            SHT_DYNAMIC | SHT_HASH | SHT_GNU_HASH => self.add(range)?,
            SHT_NOTE => self.add_notes(range)?,
            _ => match headers.name_of(section) {
                // A symbol table, packed.
                b".gnu_debugdata" if range.bytes > 0 => {
                    self.add(range)?;
                    self.offer(Offer::SymbolTable);
                }
                name if is_debug_section(name) => {
                    self.add(range)?;
                    if name.ends_with(b"debug_info") && range.bytes > 0 {
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
        let mut parts: Vec<FileRange> = Vec::new();
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
        find_parts(file.len() as u64, file)
    }

    /// Check this very program: it has debug information, most of what it has stays out, and each byte of the parts has its place.
    #[test]
    fn parts_of_this_program() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = find(&file).unwrap();
        assert_eq!(found.offer, Offer::DebugInfo);
        assert!(found.total_bytes() < found.file_bytes * 9 / 10);
        assert!(found.layout.segments().len() >= 2);
        let places: Vec<_> = found.places(0, u64::MAX).collect();
        assert_eq!(places, found.parts);
        let tail: u64 = found.places(100, u64::MAX).map(|part| part.bytes).sum();
        assert_eq!(tail, found.total_bytes() - 100);
        let pairs = found.parts.windows(2);
        assert!(pairs.clone().all(|pair| pair[0].end() < pair[1].offset));
    }

    /// Check that a file cut anywhere, or with any byte of its headers changed, gives parts within it or none.
    #[test]
    fn odd_files() {
        let file = std::fs::read("/bin/ls").unwrap();
        let check = |file: &[u8]| {
            if let Some(found) = find(file) {
                assert!(
                    found
                        .parts
                        .iter()
                        .all(|part| part.end() <= file.len() as u64)
                );
                assert!(found.parts.len() <= PARTS_MAX);
            }
        };
        assert_eq!(find(&file).unwrap().offer, Offer::SymbolTable);
        for len in (0..2048).chain([file.len() - 1]) {
            assert_eq!(find(&file[..len]), None, "its sections are at its end");
        }
        let sections_at = u64::from_le_bytes(*file[40..].first_chunk().unwrap()) as usize;
        for at in (0..1024).chain(sections_at..file.len()) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut odd = file.clone();
                odd[at] = value;
                check(&odd);
            }
        }
    }
}
