//! What an ELF file's headers say, for the process that opens files and parses none.
//!
//! In: a way to read from a file that nobody has checked. Out: the same facts as the child's [`super::facts`], as far as
//! a few reads of bounded length show them: where it is mapped, and whether its debug information is in it or by which link
//! it is found. Pure.
//!
//! Format: System V ABI, chapter 4 (ELF header, section headers) and 5 (program headers), of 64 bits, little-endian.

use object::elf::PT_LOAD;

use super::facts::{DEBUG_LINK_BYTES_MAX, FileFacts, SEGMENTS_MAX, Segment, parse_debug_link};
use crate::process::{u16_at, u32_at, u64_at};

/// Headers of either kind that are looked at: linkers write a dozen segments and some 40 sections.
const HEADERS_MAX: usize = 128;
/// Bytes of sections' names that are looked at: a name takes some 12.
const NAMES_BYTES_MAX: usize = 4096;

const FILE_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;

/// Reads the facts; `None` when it is no such file.
///
/// `read` fills the buffer from an offset of the file and says whether it could. It is called five times at most, for some
/// 8 KB at most, whatever the file says.
pub fn read_headers(mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Option<FileFacts> {
    let mut header = [0; FILE_HEADER_BYTES];
    if !read(0, &mut header) || header[..6] != *b"\x7fELF\x02\x01" {
        return None;
    }
    let mut facts = FileFacts {
        segments: read_segments(&header, &mut read).unwrap_or_default(),
        ..FileFacts::default()
    };
    // Files without sections, or with odd ones, are as good as those without debug information.
    let _ = read_sections(&header, &mut read, &mut facts);
    Some(facts)
}

/// Where a table of headers lies in the file, and what it takes.
struct TableAt {
    offset: u64,
    entry_bytes: u16,
    entries: u16,
}

fn read_table(
    table: &TableAt,
    entry_bytes: usize,
    read: &mut impl FnMut(u64, &mut [u8]) -> bool,
) -> Option<Vec<u8>> {
    if usize::from(table.entry_bytes) != entry_bytes {
        return None;
    }
    let entries = usize::from(table.entries).min(HEADERS_MAX);
    let mut bytes = vec![0; entries * entry_bytes];
    read(table.offset, &mut bytes).then_some(bytes)
}

fn read_segments(
    header: &[u8],
    read: &mut impl FnMut(u64, &mut [u8]) -> bool,
) -> Option<Vec<Segment>> {
    let table = TableAt {
        offset: u64_at(header, 32)?,
        entry_bytes: u16_at(header, 54)?,
        entries: u16_at(header, 56)?,
    };
    let table = read_table(&table, PROGRAM_HEADER_BYTES, read)?;
    let headers = table.chunks_exact(PROGRAM_HEADER_BYTES);
    let loads = headers.filter(|it| u32_at(it, 0) == Some(PT_LOAD.0));
    let segments = loads.take(SEGMENTS_MAX).map(|it| {
        Some(Segment {
            file_offset: u64_at(it, 8)?,
            address: u64_at(it, 16)?,
            bytes: u64_at(it, 32)?,
        })
    });
    segments.collect()
}

/// Looks for debug information among the sections, and for the link to a file that has it.
fn read_sections(
    header: &[u8],
    read: &mut impl FnMut(u64, &mut [u8]) -> bool,
    facts: &mut FileFacts,
) -> Option<()> {
    let table = TableAt {
        offset: u64_at(header, 40)?,
        entry_bytes: u16_at(header, 58)?,
        entries: u16_at(header, 60)?,
    };
    let table = read_table(&table, SECTION_HEADER_BYTES, read)?;
    let mut sections = table.chunks_exact(SECTION_HEADER_BYTES);
    let names_at = usize::from(u16_at(header, 62)?);
    let (offset, bytes) = range_of(sections.clone().nth(names_at)?)?;
    let mut names = vec![0; usize::try_from(bytes).ok()?.min(NAMES_BYTES_MAX)];
    if !read(offset, &mut names) {
        return None;
    }
    let is_named = |section: &[u8], name: &[u8]| {
        let at = u32_at(section, 0).and_then(|at| names.get(at as usize..));
        at.is_some_and(|at| at.starts_with(name) && at.get(name.len()) == Some(&0))
    };
    facts.has_debug_info = sections.clone().any(|it| {
        let is_it = is_named(it, b".debug_info") || is_named(it, b".zdebug_info");
        is_it && range_of(it).is_some_and(|(_, bytes)| bytes > 0)
    });
    let (offset, bytes) = range_of(sections.find(|it| is_named(it, b".gnu_debuglink"))?)?;
    // A name, its end, padding and a checksum.
    if bytes > DEBUG_LINK_BYTES_MAX as u64 + 8 {
        return None;
    }
    let mut link = vec![0; bytes as usize];
    if read(offset, &mut link) {
        facts.debug_link = parse_debug_link(&link).map(|(name, _)| name.to_owned());
    }
    Some(())
}

/// Where a section lies in the file, and its length.
fn range_of(section: &[u8]) -> Option<(u64, u64)> {
    Some((u64_at(section, 24)?, u64_at(section, 32)?))
}

#[cfg(test)]
mod tests {
    use object::LittleEndian;
    use object::elf::FileHeader64;
    use object::read::elf::ElfFile;

    use super::*;
    use crate::name::facts::read_facts;

    fn read(file: &[u8]) -> Option<FileFacts> {
        read_headers(|at, buffer| {
            let from = usize::try_from(at).ok().and_then(|at| file.get(at..));
            let Some(from) = from.and_then(|from| from.get(..buffer.len())) else {
                return false;
            };
            buffer.copy_from_slice(from);
            true
        })
    }

    /// Check that the facts are the child's, of programs with debug information, with a link to it, and of every library
    /// that is mapped here.
    #[test]
    fn facts_are_those_of_the_child() {
        let own = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libraries = maps
            .lines()
            .filter_map(|line| line.find('/').map(|at| &line[at..]));
        let mut links = 0;
        let files = ["/bin/ls", "/bin/sh"].into_iter().chain(libraries);
        for path in files.map(std::path::Path::new).chain([own.as_path()]) {
            let bytes = std::fs::read(path).unwrap();
            let parsed = ElfFile::<FileHeader64<LittleEndian>>::parse(&*bytes).unwrap();
            let (mut expected, _) = read_facts(&parsed);
            // Where debug information is shared is for the child to read.
            expected.alternative = None;
            links += usize::from(expected.debug_link.is_some());
            assert_eq!(read(&bytes), Some(expected), "{}", path.display());
        }
        assert!(links > 0, "no file has a debug link");
    }

    /// Check that a file cut anywhere, or with any byte of its headers changed, gives facts or none, and never a panic.
    #[test]
    fn odd_files() {
        let file = std::fs::read("/bin/ls").unwrap();
        for len in (0..512).chain(file.len() - 3000..file.len()) {
            read(&file[..len]);
        }
        let sections = file.len() - 3000;
        for at in (0..512).chain(sections..file.len()) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut odd = file.clone();
                odd[at] = value;
                if let Some(facts) = read(&odd) {
                    assert!(facts.segments.len() <= SEGMENTS_MAX);
                }
            }
        }
        assert_eq!(read(b"\x7fELF"), None);
    }
}
