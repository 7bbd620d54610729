//! Searches through large parts of a file, in pieces and past the cache.

use elf::{FileRange, ReadAt};

/// Bytes read at once: a multiple of a word (8) and of a relocation (24).
const PIECE_BYTES: u64 = 96 << 10;
/// Places that look like the one searched for, in one file. Honest files have one or two.
pub(super) const CANDIDATES_MAX: usize = 16;

/// Calls `visit` with the pieces of a range, whole words of 8 bytes, and the offset of each, until it returns `false`.
pub(super) fn scan(
    file: &impl ReadAt,
    range: FileRange,
    mut visit: impl FnMut(u64, &[u8]) -> bool,
) {
    let mut buffer = vec![0; PIECE_BYTES as usize];
    let mut at = range.offset;
    while at < range.end() {
        let wanted = (range.end() - at).min(PIECE_BYTES) as usize;
        let read = file.pread(at, &mut buffer[..wanted]);
        let whole = read - read % 8;
        if whole == 0 || !visit(at, &buffer[..whole]) {
            return;
        }
        at += whole as u64;
    }
}

/// The offsets of wanted words in a range, at most [`CANDIDATES_MAX`].
pub(super) fn find_words(
    file: &impl ReadAt,
    range: FileRange,
    is_wanted: impl Fn(&[u8; 8]) -> bool,
) -> Vec<u64> {
    let mut found = Vec::new();
    scan(file, range, |at, piece| {
        let (words, _) = piece.as_chunks();
        let wanted = words.iter().enumerate().filter(|(_, word)| is_wanted(word));
        found.extend(wanted.map(|(index, _)| at + 8 * index as u64));
        found.len() < CANDIDATES_MAX
    });
    found.truncate(CANDIDATES_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a scan sees each word once, and stops when it is told to or where the file ends.
    #[test]
    fn scans_see_all_words() {
        let bytes: Vec<u8> = (0..40_000_u64).flat_map(u64::to_le_bytes).collect();
        let range = FileRange {
            offset: 16,
            bytes: u64::MAX,
        };
        let mut seen = Vec::new();
        scan(&&*bytes, range, |at, piece| {
            assert_eq!(u64::from_le_bytes(*piece.first_chunk().unwrap()) * 8, at);
            let (words, _) = piece.as_chunks();
            seen.extend(words.iter().copied().map(u64::from_le_bytes));
            seen.len() < 30_000
        });
        assert!(seen.len() >= 30_000 && seen.len() < 40_000);
        assert!(seen.iter().copied().eq(2..seen.len() as u64 + 2));
        let found = find_words(&&*bytes, range, |word| word[0] == 7);
        assert!(found.into_iter().eq((0..16).map(|n| 8 * (7 + 256 * n))));
    }
}
