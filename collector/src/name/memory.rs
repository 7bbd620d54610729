//! How much memory the child holds, and how much it may.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The child's resident memory, mapped files included, and its limit.
#[derive(Debug)]
pub(super) struct Memory {
    /// `/proc/self/statm`, opened while there was a path to it.
    statm: File,
    bytes_max: u64,
}

impl Memory {
    /// Must be made before the child is confined.
    pub(super) fn open(bytes_max: u64) -> io::Result<Self> {
        Ok(Self {
            statm: File::open("/proc/self/statm")?,
            bytes_max,
        })
    }

    /// Whether more is resident than may be.
    pub(super) fn is_over(&self) -> bool {
        let mut text = [0; 128];
        let read = self.statm.read_at(&mut text, 0).unwrap_or(0);
        parse_resident_bytes(&text[..read]).is_some_and(|bytes| bytes > self.bytes_max)
    }
}

/// Resident memory of a `statm` file, in bytes. Pure.
fn parse_resident_bytes(statm: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(statm).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the second number, and that nonsense is no number.
    #[test]
    fn resident_bytes_are_the_second_number() {
        let page = rustix::param::page_size() as u64;
        assert_eq!(parse_resident_bytes(b"9 3 2 1 0 1 0\n"), Some(3 * page));
        assert_eq!(parse_resident_bytes(b"9"), None);
        assert_eq!(parse_resident_bytes(b"9 18446744073709551615"), None);
        assert_eq!(parse_resident_bytes(b"\xff \xff"), None);
    }

    /// Check against this process, which has more than a byte and less than all memory.
    #[test]
    fn own_memory_is_read() {
        let is_over = |bytes_max| Memory::open(bytes_max).map(|memory| memory.is_over());
        assert!(is_over(1).expect("proc is there"));
        assert!(!is_over(u64::MAX).expect("proc is there"));
    }
}
