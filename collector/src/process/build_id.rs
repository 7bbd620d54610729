//! Build ids, and where they lie in an ELF file.
//!
//! Format: the gABI's ELF header and program headers; a note of type
//! NT_GNU_BUILD_ID (3) and name `GNU\0` in a PT_NOTE segment.

use std::fmt;

/// The identity a linker gave a file: the contents of its GNU build-id note.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId {
    len: u8,
    bytes: [u8; BuildId::BYTES_MAX],
}

impl BuildId {
    /// The kernel's records carry at most 20 bytes (a SHA-1), and so do we.
    pub const BYTES_MAX: usize = 20;

    /// The build id of these bytes, or `None` if there are none or more than
    /// [`Self::BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let mut all = [0; Self::BYTES_MAX];
        all[..bytes.len()].copy_from_slice(bytes);
        Some(Self {
            len: u8::try_from(bytes.len()).ok()?,
            bytes: all,
        })
    }

    /// The build id that is written so, in hexadecimal; `None` if it is none.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Option<Vec<u32>> = text.chars().map(|it| it.to_digit(16)).collect();
        let digits = digits.filter(|it| it.len() % 2 == 0 && it.len() <= 2 * Self::BYTES_MAX)?;
        // Two digits are less than 256.
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|it| (it[0] * 16 + it[1]) as u8)
            .collect();
        Self::new(&bytes)
    }

    /// The bytes of the note.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "BuildId({self})")
    }
}

/// Program headers looked at: linkers write about a dozen.
const PROGRAM_HEADERS_MAX: usize = 64;

/// Bytes of a note segment looked at.
const NOTES_BYTES_MAX: usize = 4096;

/// Finds the build id of a 64-bit little-endian ELF file.
///
/// `read` fills the buffer from an offset of the file and says whether it could.
/// `None` when the file is no such file or has no build id. Never panics, and
/// reads at most 64 + 64 × 56 + 64 × 4,096 bytes, whatever the file says.
pub fn find_build_id(mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Option<BuildId> {
    let mut header = [0; 64];
    if !read(0, &mut header) || header[..6] != *b"\x7fELF\x02\x01" {
        return None;
    }
    let table = u64_at(&header, 32)?;
    let entry_bytes = u64::from(u16_at(&header, 54)?);
    let entries = usize::from(u16_at(&header, 56)?).min(PROGRAM_HEADERS_MAX);
    for index in 0..entries as u64 {
        let mut entry = [0; 56];
        let at = table.checked_add(index * entry_bytes)?;
        if !read(at, &mut entry) {
            return None;
        }
        const PT_NOTE: u32 = 4;
        if u32_at(&entry, 0)? != PT_NOTE {
            continue;
        }
        let bytes = usize::try_from(u64_at(&entry, 32)?).unwrap_or(usize::MAX);
        let mut notes = vec![0; bytes.min(NOTES_BYTES_MAX)];
        if read(u64_at(&entry, 8)?, &mut notes)
            && let Some(id) = find_in_notes(&notes)
        {
            return Some(id);
        }
    }
    None
}

/// Finds the build id in a note segment.
fn find_in_notes(mut notes: &[u8]) -> Option<BuildId> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let name_bytes = u32_at(notes, 0)? as usize;
        let id_bytes = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let name_end = 12_usize.checked_add(name_bytes)?;
        let id_start = name_end.checked_next_multiple_of(4)?;
        let id_end = id_start.checked_add(id_bytes)?;
        let name = notes.get(12..name_end)?;
        let id = notes.get(id_start..id_end)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return BuildId::new(id);
        }
        notes = notes.get(id_end.checked_next_multiple_of(4)?..)?;
    }
}

/// The little-endian number at a place, if the bytes reach so far.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a build id keeps its length, and that only the lengths the
    /// kernel gives are taken.
    #[test]
    fn build_id_keeps_its_bytes() {
        assert_eq!(BuildId::new(&[]), None);
        assert_eq!(BuildId::new(&[0; 21]), None);
        let short = BuildId::new(&[0xab, 0]).expect("two bytes are a build id");
        assert_eq!(short.as_bytes(), [0xab, 0]);
        assert_eq!(short.to_string(), "ab00");
        assert_ne!(Some(short), BuildId::new(&[0xab]));
        assert_eq!(BuildId::from_hex("AB00"), Some(short));
        let long = "ab".repeat(21);
        for text in ["", "a", "abc", "0x12", "g0", "é", &long] {
            assert_eq!(BuildId::from_hex(text), None, "{text}");
        }
    }

    fn find(file: &[u8]) -> Option<BuildId> {
        find_build_id(|at, buffer| {
            let Some(from) = usize::try_from(at).ok().and_then(|at| file.get(at..)) else {
                return false;
            };
            let Some(from) = from.get(..buffer.len()) else {
                return false;
            };
            buffer.copy_from_slice(from);
            true
        })
    }

    /// Check against what `readelf -n` says of a real file.
    #[test]
    fn real_file() {
        let file = std::fs::read("/bin/ls").unwrap();
        let notes = std::process::Command::new("readelf")
            .args(["-n", "/bin/ls"])
            .output()
            .unwrap();
        let notes = String::from_utf8(notes.stdout).unwrap();
        let (_, expected) = notes.split_once("Build ID: ").unwrap();
        let found = find(&file).unwrap().to_string();
        assert_eq!(found, expected.split_whitespace().next().unwrap());
    }

    /// Check that a file cut anywhere or with any byte of its headers changed gives
    /// an answer, and never a panic.
    #[test]
    fn odd_files() {
        let file = std::fs::read("/bin/ls").unwrap();
        for len in (0..2048).chain([4096, file.len() - 1]) {
            find(&file[..len]);
        }
        for at in 0..1024 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut odd = file[..16384].to_vec();
                odd[at] = value;
                find(&odd);
            }
        }
    }

    /// Check that notes with hostile lengths end.
    #[test]
    fn hostile_notes() {
        for word in [0, 1, u32::MAX, u32::MAX - 11] {
            let notes: Vec<u8> = [word; 64].iter().flat_map(|it| it.to_le_bytes()).collect();
            assert_eq!(find_in_notes(&notes), None);
        }
    }
}
