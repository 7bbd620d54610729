//! Links to other files with debug information.
//!
//! Sources: GDB manual, "Debugging Information in Separate Files" (`.gnu_debuglink`); the comment at the head of `dwz.c`
//! (`.gnu_debugaltlink`).

use serde::{Deserialize, Serialize};

use crate::build_id::BuildId;
use crate::headers::Headers;
use crate::read::ReadAt;

/// Bytes of a debug link's file name: NAME_MAX.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Bytes of the path in an alternative link: PATH_MAX.
pub const PATH_BYTES_MAX: usize = 4096;

/// The file with a file's debug information (`.gnu_debuglink`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugLink {
    /// Its name, which is no path.
    pub name: String,
    /// CRC-32 of its contents.
    pub checksum: u32,
}

impl DebugLink {
    /// Bytes of the longest section: name, zero, padding and checksum.
    pub const BYTES_MAX: u64 = FILE_NAME_BYTES_MAX as u64 + 8;

    /// Reads the link of a file.
    pub fn read(headers: &Headers, file: &(impl ReadAt + ?Sized)) -> Option<Self> {
        let section = headers.section(b".gnu_debuglink")?;
        if section.range.bytes > Self::BYTES_MAX {
            return None;
        }
        Self::parse(&file.read_range(section.range)?)
    }

    /// The name, a zero, padding to four bytes, the checksum.
    fn parse(section: &[u8]) -> Option<Self> {
        let end = section.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&section[..end]).ok()?;
        let checksum = section
            .get((end + 1).next_multiple_of(4)..)?
            .first_chunk()?;
        is_file_name(name).then(|| Self {
            name: name.to_owned(),
            checksum: u32::from_le_bytes(*checksum),
        })
    }
}

/// The file with debug information that several files share (`.gnu_debugaltlink`, written by `dwz -m`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlternativeLink {
    /// Its path, absolute or relative to the directory of the file with the link; at most [`PATH_BYTES_MAX`] bytes.
    pub path: String,
    /// Its build id.
    pub build_id: BuildId,
}

impl AlternativeLink {
    /// Reads the link of a file.
    pub fn read(headers: &Headers, file: &(impl ReadAt + ?Sized)) -> Option<Self> {
        let section = headers.section(b".gnu_debugaltlink")?;
        if section.range.bytes > (PATH_BYTES_MAX + 1 + BuildId::BYTES_MAX) as u64 {
            return None;
        }
        Self::parse(&file.read_range(section.range)?)
    }

    /// The path, a zero, the build id.
    fn parse(section: &[u8]) -> Option<Self> {
        let end = section.iter().position(|byte| *byte == 0)?;
        let path = std::str::from_utf8(&section[..end]).ok()?;
        let is_path = !path.is_empty() && path.len() <= PATH_BYTES_MAX;
        Some(Self {
            path: is_path.then(|| path.to_owned())?,
            build_id: BuildId::new(&section[end + 1..])?,
        })
    }
}

/// Whether a name is that of a file in a directory, and no path.
pub fn is_file_name(name: &str) -> bool {
    let is_special = name.is_empty() || name == "." || name == "..";
    !is_special && name.len() <= FILE_NAME_BYTES_MAX && !name.contains(['/', '\0'])
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
            let expected = name.map(|name| DebugLink {
                name: name.to_owned(),
                checksum: 0x0403_0201,
            });
            assert_eq!(DebugLink::parse(section), expected, "{section:?}");
        }
    }

    /// Check a link to an alternative file, and those without a path or with a build id that cannot be one.
    #[test]
    fn alternative_links() {
        let link = AlternativeLink::parse(b"../.dwz/a\0\x01\x02").unwrap();
        let build_id = BuildId::new(&[1, 2]).unwrap();
        assert_eq!((&*link.path, link.build_id), ("../.dwz/a", build_id));
        let long = [b'x'; PATH_BYTES_MAX + 1];
        for section in [
            &b""[..],
            b"a",
            b"a\0",
            b"\0\x01\x02",
            b"\xff\0\x01",
            &[&long[..], b"\0\x01"].concat(),
            &[b"a\0", &[1; BuildId::BYTES_MAX + 1][..]].concat(),
        ] {
            assert_eq!(AlternativeLink::parse(section), None, "{section:?}");
        }
    }
}
