//! What an ELF file says about itself beside its names: where its parts are mapped, and where its debug
//! information is.
//!
//! In: a file that nobody has checked. Out: facts, as far as they are there; a damaged file has none.
//!
//! Sources: System V ABI, chapter 5 (program headers); GDB manual, "Debugging Information in Separate Files"
//! (`.gnu_debuglink`); the comment at the head of `dwz.c` (`.gnu_debugaltlink`).

use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{ElfFile, ProgramHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _, ReadRef};

use crate::process::BuildId;

/// Segments kept of a file. Linkers make 2 to 6.
pub(super) const SEGMENTS_MAX: usize = 16;

/// Bytes of a debug link's file name: what a file system allows.
pub(super) const DEBUG_LINK_BYTES_MAX: usize = 255;

/// Bytes of the path in an alternative link: what the system calls take.
pub(super) const ALTERNATIVE_PATH_BYTES_MAX: usize = 4096;

/// A part of a file that is mapped as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Its address as linked.
    pub address: u64,
    /// Its bytes in the file.
    pub bytes: u64,
}

impl Segment {
    /// Whether it ends within 64 bits. No linker makes another one, but who maps a file may have written anything into it.
    pub(super) fn is_possible(&self) -> bool {
        let ends = [self.file_offset, self.address].map(|it| it.checked_add(self.bytes));
        ends.iter().all(Option::is_some)
    }
}

/// Which file has the debug information that several files share (`dwz -m` moves it there).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlternativeLink {
    /// Its path, absolute or from the directory of the file with the link; at most 4096 bytes.
    pub path: String,
    /// Its build id.
    pub build_id: BuildId,
}

/// What a file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Its segments, at most [`SEGMENTS_MAX`]; none goes beyond 2^64.
    pub segments: Vec<Segment>,
    /// Whether it has debug information itself.
    pub has_debug_info: bool,
    /// Name of the file with its debug information: no path, at most [`DEBUG_LINK_BYTES_MAX`] bytes.
    pub debug_link: Option<String>,
    /// Where the rest of its debug information is, or of its debug file's.
    pub alternative: Option<AlternativeLink>,
    /// Whether parts of its debug information are in files of their own, or in a package of those.
    pub is_split: bool,
}

impl FileFacts {
    /// Bytes that it takes beside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        let Self {
            segments,
            has_debug_info: _,
            debug_link,
            alternative,
            is_split: _,
        } = self;
        segments.capacity() * size_of::<Segment>()
            + debug_link.as_ref().map_or(0, String::capacity)
            + alternative.as_ref().map_or(0, |it| it.path.capacity())
    }

    /// The address as linked of an offset in the file.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|it| {
            let within = offset.checked_sub(it.file_offset)?;
            (within < it.bytes).then(|| it.address.wrapping_add(within))
        })
    }

    /// The offset in the file of an address as linked.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|it| {
            let within = address.checked_sub(it.address)?;
            (within < it.bytes).then(|| it.file_offset.wrapping_add(within))
        })
    }
}

/// A file's facts, and the checksum that its debug link demands.
pub fn read_facts<'data, R: ReadRef<'data>>(
    file: &ElfFile<'data, FileHeader64<LittleEndian>, R>,
) -> (FileFacts, Option<u32>) {
    let endian = file.endian();
    let segments = file
        .elf_program_headers()
        .iter()
        .filter(|it| it.p_type(endian) == PT_LOAD)
        .map(|it| Segment {
            file_offset: it.p_offset(endian),
            address: it.p_vaddr(endian),
            bytes: it.p_filesz(endian),
        })
        .filter(Segment::is_possible)
        .take(SEGMENTS_MAX)
        .collect();
    let debug_info = file.section_by_name(".debug_info");
    let has_debug_info = debug_info.is_some_and(|it| it.size() > 0);
    let link = file
        .section_by_name(".gnu_debuglink")
        // A name, its end, padding and a checksum.
        .filter(|it| it.size() <= DEBUG_LINK_BYTES_MAX as u64 + 8)
        .and_then(|it| parse_debug_link(it.data().ok()?));
    let alternative = file
        .section_by_name(".gnu_debugaltlink")
        .filter(|it| it.size() <= (ALTERNATIVE_PATH_BYTES_MAX + 1 + BuildId::BYTES_MAX) as u64)
        .and_then(|it| parse_alternative_link(it.data().ok()?));
    let facts = FileFacts {
        segments,
        has_debug_info,
        debug_link: link.map(|(name, _)| name.to_owned()),
        alternative,
        is_split: false,
    };
    (facts, link.map(|(_, checksum)| checksum))
}

/// The name and the checksum in a `.gnu_debuglink` section: the name, a zero, padding to four bytes,
/// and the CRC-32 of the file. Pure.
pub(crate) fn parse_debug_link(section: &[u8]) -> Option<(&str, u32)> {
    let end = section.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&section[..end]).ok()?;
    let checksum = section
        .get((end + 1).next_multiple_of(4)..)?
        .first_chunk()?;
    is_file_name(name).then(|| (name, u32::from_le_bytes(*checksum)))
}

/// The path and the build id in a `.gnu_debugaltlink` section, with a zero between them. Pure.
fn parse_alternative_link(section: &[u8]) -> Option<AlternativeLink> {
    let end = section.iter().position(|byte| *byte == 0)?;
    let path = std::str::from_utf8(&section[..end]).ok()?;
    let is_path = !path.is_empty() && path.len() <= ALTERNATIVE_PATH_BYTES_MAX;
    Some(AlternativeLink {
        path: is_path.then(|| path.to_owned())?,
        build_id: BuildId::new(&section[end + 1..])?,
    })
}

/// Whether this names a file in a directory, and leads nowhere else.
pub(super) fn is_file_name(name: &str) -> bool {
    let is_special = name.is_empty() || name == "." || name == "..";
    !is_special && name.len() <= DEBUG_LINK_BYTES_MAX && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check a debug link, with each length of padding, and that none leads out of a directory.
    #[test]
    fn debug_links() {
        for (section, name) in [
            (&b"abc\0\x01\x02\x03\x04"[..], Some("abc")),
            (b"abcd\0\0\0\0\x01\x02\x03\x04", Some("abcd")),
            (b"ab\0\0\x01\x02\x03\x04", Some("ab")),
            (b"abc\0\x01\x02\x03", None),
            (b"abc", None),
            (b"", None),
            (b"\0\0\0\0\x01\x02\x03\x04", None),
            (b"..\0\0\x01\x02\x03\x04", None),
            (b"../x\0\0\0\0\x01\x02\x03\x04", None),
            (b"\xff\0\0\0\x01\x02\x03\x04", None),
        ] {
            let expected = name.map(|it| (it, 0x0403_0201));
            assert_eq!(parse_debug_link(section), expected, "{section:?}");
        }
    }

    /// Check a link to an alternative file, and those without a path or with a build id that cannot be one.
    #[test]
    fn alternative_links() {
        let link = parse_alternative_link(b"../.dwz/a\0\x01\x02").unwrap();
        let build_id = BuildId::new(&[1, 2]).unwrap();
        assert_eq!((&*link.path, link.build_id), ("../.dwz/a", build_id));
        let long = [b'x'; ALTERNATIVE_PATH_BYTES_MAX + 1];
        for section in [
            &b""[..],
            b"a",
            b"a\0",
            b"\0\x01\x02",
            b"\xff\0\x01",
            &[&long[..], b"\0\x01"].concat(),
            &[b"a\0", &[1; BuildId::BYTES_MAX + 1][..]].concat(),
        ] {
            assert_eq!(parse_alternative_link(section), None, "{section:?}");
        }
    }

    /// Check this very program's facts, and that nonsense is no file to have any.
    #[test]
    fn facts_of_this_program() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let (facts, checksum) = read_facts(&ElfFile::parse(&*bytes).unwrap());
        assert!(facts.segments.len() >= 2 && facts.has_debug_info);
        assert_eq!((facts.debug_link.as_ref(), checksum), (None, None));
        let last = facts.segments.last().unwrap();
        assert_eq!(facts.address_of(last.file_offset), Some(last.address));
        assert_eq!(facts.offset_of(last.address), Some(last.file_offset));
        assert_eq!(facts.address_of(u64::MAX), None);
        assert_eq!(facts.offset_of(u64::MAX), None);
        type File<'data> = ElfFile<'data, FileHeader64<LittleEndian>>;
        assert!(File::parse(&b"\x7fELF"[..]).is_err());
    }
}
