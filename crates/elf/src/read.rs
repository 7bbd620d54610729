//! Positioned reads.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;

/// A range of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileRange {
    /// File offset of the first byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl FileRange {
    /// File offset after the last byte.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// Concatenates `ranges`, and returns the file ranges of `bytes` bytes from a position in the concatenation, up to its end.
pub fn slice_ranges(
    ranges: &[FileRange],
    position: u64,
    bytes: u64,
) -> impl Iterator<Item = FileRange> {
    let (mut skip, mut left) = (position, bytes);
    ranges.iter().filter_map(move |range| {
        let skipped = skip.min(range.bytes);
        skip -= skipped;
        let taken = (range.bytes - skipped).min(left);
        left -= taken;
        (taken > 0).then_some(FileRange {
            offset: range.offset + skipped,
            bytes: taken,
        })
    })
}

/// A source of bytes that can be read at any offset.
///
/// An error is a short read: parsers treat an unreadable part of a file as its end.
pub trait ReadAt {
    /// Reads from `offset` into `buffer`, and returns how many bytes were read.
    fn pread(&self, offset: u64, buffer: &mut [u8]) -> usize;

    /// Fills `buffer` from `offset`. Returns whether all of it could be read.
    fn pread_exact(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.pread(offset, buffer) == buffer.len()
    }

    /// Reads a range whose length the caller has bounded. `None` if not all of it could be read.
    fn read_range(&self, range: FileRange) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(range.bytes).ok()?];
        self.pread_exact(range.offset, &mut bytes).then_some(bytes)
    }

    /// Reads `N` bytes.
    fn read_array<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.pread_exact(offset, &mut bytes).then_some(bytes)
    }

    /// Reads a little-endian number of four bytes.
    fn read_u32(&self, offset: u64) -> Option<u32> {
        self.read_array(offset).map(u32::from_le_bytes)
    }

    /// Reads a little-endian number of eight bytes.
    fn read_u64(&self, offset: u64) -> Option<u64> {
        self.read_array(offset).map(u64::from_le_bytes)
    }
}

impl ReadAt for [u8] {
    fn pread(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..));
        let rest = rest.unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        length
    }
}

impl ReadAt for File {
    fn pread(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(at) = offset.checked_add(filled as u64) else {
                break;
            };
            match self.read_at(&mut buffer[filled..], at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        filled
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn pread(&self, offset: u64, buffer: &mut [u8]) -> usize {
        (**self).pread(offset, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Check pieces within a range, across ranges, and up to the end.
    #[test]
    fn ranges_are_sliced_as_one_sequence() {
        let range = |(offset, bytes): &(u64, u64)| FileRange {
            offset: *offset,
            bytes: *bytes,
        };
        let ranges: Vec<FileRange> = [(10, 4), (20, 2), (30, 5)].iter().map(range).collect();
        for (position, bytes, expected) in [
            (0, 4, &[(10, 4)][..]),
            (1, 2, &[(11, 2)]),
            (3, 4, &[(13, 1), (20, 2), (30, 1)]),
            (6, u64::MAX, &[(30, 5)]),
            (10, 9, &[(34, 1)]),
            (11, 9, &[]),
            (2, 0, &[]),
        ] {
            let sliced: Vec<FileRange> = slice_ranges(&ranges, position, bytes).collect();
            let expected: Vec<FileRange> = expected.iter().map(range).collect();
            assert_eq!(sliced, expected, "{position} {bytes}");
        }
    }

    fn check_reads(source: &(impl ReadAt + ?Sized)) {
        for (offset, expected) in [
            (0, &b"abcd"[..]),
            (4, b"ef"),
            (6, b""),
            (7, b""),
            (u64::MAX, b""),
        ] {
            let mut buffer = [0; 4];
            let read = source.pread(offset, &mut buffer);
            assert_eq!(&buffer[..read], expected, "{offset}");
            assert_eq!(source.pread_exact(offset, &mut buffer), read == 4);
            assert_eq!(source.read_u32(offset).is_some(), read == 4);
        }
        let range = |offset, bytes| FileRange { offset, bytes };
        assert_eq!(source.read_range(range(1, 5)).unwrap(), b"bcdef");
        assert_eq!(source.read_range(range(1, 6)), None);
        assert_eq!(source.read_u32(2), Some(u32::from_le_bytes(*b"cdef")));
    }

    /// Check bytes and a file at their start, across their end, and beyond it.
    #[test]
    fn reads_end_where_the_file_ends() {
        let bytes = b"abcdef";
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        check_reads(bytes.as_slice());
        check_reads(&file);
    }
}
