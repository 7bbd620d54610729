//! Resident memory of a child, which frees memory itself over a limit: the kernel has no such limit for a single process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// This process's resident memory, mapped files included, and its limit.
#[derive(Debug)]
pub struct ResidentMemory {
    /// `/proc/self/statm`. A confined child has no path to it.
    statm: File,
    bytes_max: u64,
}

impl ResidentMemory {
    /// Opens the kernel's account. The child must do this before it enters its confinement.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn open(bytes_max: u64) -> io::Result<Self> {
        Ok(Self {
            statm: File::open("/proc/self/statm")?,
            bytes_max,
        })
    }

    /// Whether resident memory is over the limit.
    pub fn is_over(&self) -> bool {
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

    /// Check the second number, and nonsense.
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
        let is_over = |bytes_max| ResidentMemory::open(bytes_max).map(|memory| memory.is_over());
        assert!(is_over(1).expect("proc is there"));
        assert!(!is_over(u64::MAX).expect("proc is there"));
    }
}
