//! Build ids.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The linker's identity of a build: the contents of the GNU build-id note, 1 to 20 bytes, written in hexadecimal.
///
/// The text of a build id becomes a file name and a part of URLs. A value of this type is always safe there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildId {
    len: u8,
    bytes: [u8; BuildId::BYTES_MAX],
}

impl BuildId {
    /// Bytes of the longest build id. Linkers write 20 (SHA-1) or 16 (UUID, MD5), some toolchains 8. `--build-id=0x…` takes
    /// any number, but perf's records carry at most 20.
    pub const BYTES_MAX: usize = 20;

    /// Makes a build id from the contents of a note. `None` for no bytes, or more than [`Self::BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let mut padded = [0; Self::BYTES_MAX];
        padded[..bytes.len()].copy_from_slice(bytes);
        Some(Self {
            len: u8::try_from(bytes.len()).ok()?,
            bytes: padded,
        })
    }

    /// The bytes of the note.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The text is not a build id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseBuildIdError;

impl fmt::Display for ParseBuildIdError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a build id is 2 to 40 hexadecimal digits, two a byte")
    }
}

impl Error for ParseBuildIdError {}

impl FromStr for BuildId {
    type Err = ParseBuildIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(ParseBuildIdError);
        };
        let mut bytes = [0; Self::BYTES_MAX];
        for (place, pair) in pairs.iter().enumerate() {
            let digits = pair.map(|byte| char::from(byte).to_digit(16));
            let (Some(byte), [Some(high), Some(low)]) = (bytes.get_mut(place), digits) else {
                return Err(ParseBuildIdError);
            };
            // Two digits are at most 255.
            *byte = (high * 16 + low) as u8;
        }
        Self::new(&bytes[..pairs.len()]).ok_or(ParseBuildIdError)
    }
}

impl TryFrom<String> for BuildId {
    type Error = ParseBuildIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BuildId> for String {
    fn from(build_id: BuildId) -> Self {
        build_id.to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a build id keeps its length, and that other lengths than the kernel's are refused.
    #[test]
    fn build_id_keeps_its_bytes() {
        assert_eq!(BuildId::new(&[]), None);
        assert_eq!(BuildId::new(&[0; 21]), None);
        let short = BuildId::new(&[0xab, 0]).expect("two bytes are a build id");
        assert_eq!(short.as_bytes(), [0xab, 0]);
        assert_eq!(short.to_string(), "ab00");
        assert_ne!(Some(short), BuildId::new(&[0xab]));
    }

    /// Check that no text that could be a path is a build id, and that case does not matter.
    #[test]
    fn only_hexadecimal_digits_are_build_ids() {
        let read = |text: &str| text.parse::<BuildId>().ok().map(|id| id.to_string());
        assert_eq!(read("00FFab").as_deref(), Some("00ffab"));
        assert_eq!(read(&"a".repeat(40)), Some("a".repeat(40)));
        let long = "a".repeat(42);
        for text in [
            "", "a", "abc", "../..", "ab/cd", "ab.d", "éé", "é", "0x12", "g0", " ab ", &long,
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
