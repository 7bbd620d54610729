//! Zero-terminated strings of files.

use elf::{FileRange, ReadAt};

use crate::frame::STRING_BYTES_MAX;

/// Reads the string at the start of a range, up to its zero or the end of the range. `None` if the file ends within it.
///
/// A string is cut one byte beyond [`STRING_BYTES_MAX`], so that a cut one can be told from others.
pub(crate) fn read_string(file: &(impl ReadAt + ?Sized), range: FileRange) -> Option<String> {
    let mut string = Vec::new();
    // Most strings are short.
    for bytes_max in [128, STRING_BYTES_MAX as u64 + 1] {
        string.resize(range.bytes.min(bytes_max) as usize, 0);
        let read = file.pread(range.offset, &mut string);
        if let Some(end) = string[..read].iter().position(|byte| *byte == 0) {
            string.truncate(end);
            break;
        }
        if read < string.len() {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&string).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check strings that end, that reach the end of their range or of the file, and that are too long.
    #[test]
    fn strings_end_at_their_zero() {
        let mut file = vec![b'a'; 100_000];
        (file[100], file[2000]) = (0, 0);
        file.extend(b"\xffend");
        let read = |offset, bytes| read_string(&*file, FileRange { offset, bytes });
        for (offset, bytes, length) in [
            (90, u64::MAX, Some(10)),
            (100, 1, Some(0)),
            (101, u64::MAX, Some(1899)),
            (50, 7, Some(7)),
            (2001, u64::MAX, Some(STRING_BYTES_MAX + 1)),
            (99_999, u64::MAX, None),
            (u64::MAX, u64::MAX, None),
        ] {
            let string = read(offset, bytes);
            assert_eq!(string.map(|string| string.len()), length, "{offset}");
        }
        assert_eq!(read(100_000, 4).as_deref(), Some("\u{fffd}end"));
    }
}
