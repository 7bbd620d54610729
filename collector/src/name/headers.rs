//! What an ELF file's headers say, for the process that opens files and parses none.
//!
//! In: a way to read from a file that nobody has checked. Out: the same facts as the child's [`super::facts`], as far as
//! a few reads of bounded length show them: where it is mapped, and whether its debug information is in it or by which link
//! it is found. Pure.
//!
//! Format: System V ABI, chapter 4 (ELF header, section headers) and 5 (program headers), of 64 bits, little-endian.

use object::elf::PT_LOAD;

use super::facts::{DEBUG_LINK_BYTES_MAX, FileFacts, SEGMENTS_MAX, Segment, parse_debug_link};
use crate::process::{ElfHeaders, SectionHeader};

/// Reads the facts, but for those that lead to further files than the one with the debug information; `None` when it is no
/// such file.
///
/// `read` fills the buffer from an offset of the file and says whether it could. It is called for what
/// [`ElfHeaders::read`] wants, and for the debug link.
pub fn read_headers(mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Option<FileFacts> {
    let headers = ElfHeaders::read(&mut read)?;
    let find = |name: &[u8]| {
        headers
            .sections
            .iter()
            .find(|it| headers.name_of(it) == name)
    };
    let has_bytes = |it: &SectionHeader| it.place.bytes > 0;
    Some(FileFacts {
        segments: read_segments(&headers),
        has_debug_info: find(b".debug_info").is_some_and(has_bytes)
            || find(b".zdebug_info").is_some_and(has_bytes),
        debug_link: find(b".gnu_debuglink").and_then(|it| read_link(it, &mut read)),
        ..FileFacts::default()
    })
}

fn read_segments(headers: &ElfHeaders) -> Vec<Segment> {
    let loads = headers.segments.iter().filter(|it| it.kind == PT_LOAD.0);
    let segments = loads.map(|it| Segment {
        file_offset: it.place.offset,
        address: it.address,
        bytes: it.place.bytes,
    });
    let possible = segments.filter(Segment::is_possible);
    possible.take(SEGMENTS_MAX).collect()
}

fn read_link(
    section: &SectionHeader,
    read: &mut impl FnMut(u64, &mut [u8]) -> bool,
) -> Option<String> {
    // A name, its end, padding and a checksum.
    if section.place.bytes > DEBUG_LINK_BYTES_MAX as u64 + 8 {
        return None;
    }
    let mut link = vec![0; section.place.bytes as usize];
    let is_read = read(section.place.offset, &mut link);
    let (name, _) = parse_debug_link(&link).filter(|_| is_read)?;
    Some(name.to_owned())
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
            // What leads to further files is for the child to read.
            let expected = FileFacts {
                alternative: None,
                is_split: false,
                ..read_facts(&parsed).0
            };
            links += usize::from(expected.debug_link.is_some());
            assert_eq!(read(&bytes), Some(expected), "{}", path.display());
        }
        assert!(links > 0, "no file has a debug link");
    }

    /// Check that a load segment that goes beyond 2^64, by its address or by its place in the file, is left out, and the others
    /// stay.
    #[test]
    fn segments_that_cannot_be() {
        let file = std::fs::read("/bin/ls").unwrap();
        let whole = read(&file).unwrap().segments;
        let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
        let (table, count) = (word(0x20) as usize, usize::from(file[0x38]));
        let mut headers = (0..count).map(|number| table + number * 56);
        let load = headers.find(|at| file[*at..at + 4] == PT_LOAD.0.to_le_bytes());
        let load = load.unwrap();
        // p_offset and p_vaddr.
        for field in [8, 16] {
            let mut odd = file.clone();
            odd[load + field..load + field + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            assert_eq!(read(&odd).unwrap().segments, whole[1..]);
            let parsed = ElfFile::<FileHeader64<LittleEndian>>::parse(&*odd).unwrap();
            assert_eq!(read_facts(&parsed).0.segments, whole[1..]);
        }
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
