//! Build ids: which build of a file something is about.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Bytes of the longest build id. Linkers write 20 (SHA-1) or 16 (UUID, MD5), some toolchains 8; `--build-id=0x…` takes
/// any number, and perf's records carry at most 20.
pub const BUILD_ID_BYTES_MAX: usize = 20;

/// A GNU build id: 1 to 20 bytes, written in hexadecimal.
///
/// It becomes a file's name and a part of URLs, so that only what was checked here is one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(Box<str>);

impl BuildId {
    /// The build id with these bytes; `None` if there are none or too many.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        use fmt::Write;
        if bytes.is_empty() || bytes.len() > BUILD_ID_BYTES_MAX {
            return None;
        }
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Some(Self(text.into()))
    }

    /// As it is written: lower case, two digits a byte.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BuildId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_one = (2..=2 * BUILD_ID_BYTES_MAX).contains(&text.len())
            && text.len().is_multiple_of(2)
            && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_one {
            return Err("a build id is 2 to 40 hexadecimal digits, two a byte");
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for BuildId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that nothing that could be a path passes, and that case does not matter.
    #[test]
    fn only_hexadecimal_digits_are_build_ids() {
        let read = |text: &str| text.parse::<BuildId>().ok().map(|id| id.to_string());
        assert_eq!(read("00FFab").as_deref(), Some("00ffab"));
        assert_eq!(read(&"a".repeat(40)), Some("a".repeat(40)));
        let long = "a".repeat(42);
        for text in [
            "", "a", "abc", "../..", "ab/cd", "ab.d", "éé", "0x12", " ab ", &long,
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(BuildId::from_bytes(&[0, 255]).unwrap().as_str(), "00ff");
        assert_eq!(BuildId::from_bytes(&[]), None);
        assert_eq!(BuildId::from_bytes(&[1; 21]), None);
    }
}
