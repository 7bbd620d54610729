//! A file's bytes, read in blocks when they are needed: of a table of 30 MB an address takes about 30 reads of
//! some bytes each, and the child may not hold 30 MB of each Go program of the node.

use super::super::protocol::STRING_BYTES_MAX;

/// What the kernel's page cache has as one piece.
const BLOCK_BYTES: u64 = 4096;
/// Blocks kept: 256 KiB for a file. The first steps of all searches are the same 6 to 10 blocks.
const BLOCKS: usize = 64;

struct Block {
    number: u64,
    /// Shorter at the end of the file.
    bytes: Vec<u8>,
}

pub(super) struct Blocks<R> {
    read: R,
    /// Each block has one place, which it shares with others.
    places: [Option<Block>; BLOCKS],
}

impl<R: Fn(u64, &mut [u8]) -> usize> Blocks<R> {
    pub(super) fn new(read: R) -> Self {
        Self {
            read,
            places: [const { None }; BLOCKS],
        }
    }

    /// The bytes from `at` to the end of its block, or of the file; `None` at the end of the file.
    fn rest_of_block(&mut self, at: u64) -> Option<&[u8]> {
        let number = at / BLOCK_BYTES;
        let place = &mut self.places[(number % BLOCKS as u64) as usize];
        if place.as_ref().is_none_or(|it| it.number != number) {
            let mut bytes = place.take().map_or_else(Vec::new, |it| it.bytes);
            bytes.resize(BLOCK_BYTES as usize, 0);
            let read = (self.read)(number * BLOCK_BYTES, &mut bytes);
            bytes.truncate(read);
            *place = Some(Block { number, bytes });
        }
        let rest = place.as_ref()?.bytes.get((at % BLOCK_BYTES) as usize..)?;
        (!rest.is_empty()).then_some(rest)
    }

    pub(super) fn u8(&mut self, at: u64) -> Option<u8> {
        self.rest_of_block(at)?.first().copied()
    }

    /// Fills `out` from `at`.
    pub(super) fn fill(&mut self, at: u64, out: &mut [u8]) -> Option<()> {
        let mut done = 0;
        while done < out.len() {
            let rest = self.rest_of_block(at.checked_add(done as u64)?)?;
            let len = rest.len().min(out.len() - done);
            out[done..done + len].copy_from_slice(&rest[..len]);
            done += len;
        }
        Some(())
    }

    pub(super) fn array<const N: usize>(&mut self, at: u64) -> Option<[u8; N]> {
        let mut out = [0; N];
        self.fill(at, &mut out)?;
        Some(out)
    }

    pub(super) fn u32(&mut self, at: u64) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, at: u64) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// The string at `at`, up to its zero; one that is too long is cut (and one byte longer than may be,
    /// so that it is marked as cut).
    pub(super) fn string(&mut self, at: u64) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            let rest = self.rest_of_block(at.checked_add(bytes.len() as u64)?)?;
            let end = rest.iter().position(|byte| *byte == 0);
            bytes.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            if end.is_some() || bytes.len() > STRING_BYTES_MAX {
                break;
            }
        }
        bytes.truncate(STRING_BYTES_MAX + 1);
        Some(match String::from_utf8(bytes) {
            Ok(string) => string,
            Err(err) => String::from_utf8_lossy(err.as_bytes()).into_owned(),
        })
    }

    /// Gives what lies in `at..end` to `take`, in pieces of whole words of 8 bytes with the place of each, until
    /// it says to stop. Does not go through the blocks, which are kept.
    pub(super) fn scan(&self, at: u64, end: u64, mut take: impl FnMut(u64, &[u8]) -> bool) {
        let mut buffer = vec![0; SCAN_BYTES];
        let mut at = at;
        while at < end {
            let len = usize::try_from(end - at).map_or(SCAN_BYTES, |left| left.min(SCAN_BYTES));
            let read = (self.read)(at, &mut buffer[..len]).min(len);
            let whole = read - read % 8;
            if whole == 0 || !take(at, &buffer[..whole]) {
                return;
            }
            at += whole as u64;
        }
    }
}

/// Bytes read at once in a scan: a multiple of a word (8) and of a relocation (24).
const SCAN_BYTES: usize = 96 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(bytes: &[u8]) -> Blocks<impl Fn(u64, &mut [u8]) -> usize> {
        Blocks::new(move |at, out: &mut [u8]| {
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
            let rest = rest.unwrap_or_default();
            let len = rest.len().min(out.len());
            out[..len].copy_from_slice(&rest[..len]);
            len
        })
    }

    /// Check numbers and strings across the blocks' boundaries, in blocks that share a place, and at the end.
    #[test]
    fn bytes_are_found_wherever_they_lie() {
        let mut bytes: Vec<u8> = (0..BLOCK_BYTES * 130)
            .map(|at| (at / 7) as u8 | 1)
            .collect();
        bytes.push(0);
        bytes.extend(b"end");
        let mut blocks = blocks(&bytes);
        for at in [0, 4093, 4096 * 64 - 3, 4096 * 128 - 1, 5, bytes.len() - 8] {
            let expected = u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
            assert_eq!(blocks.u64(at as u64), Some(expected), "{at}");
        }
        assert_eq!(blocks.u64(bytes.len() as u64 - 7), None);
        assert_eq!(blocks.u64(u64::MAX - 3), None);
        let string = blocks.string(4096 * 130 - 5).unwrap();
        assert_eq!(
            string.as_bytes(),
            String::from_utf8_lossy(&bytes[4096 * 130 - 5..][..5]).as_bytes()
        );
        // Without an end there is no string.
        assert_eq!(blocks.string(4096 * 130 + 1), None);
    }

    /// Check that a string without an end within its limit is cut.
    #[test]
    fn long_strings_are_cut() {
        let bytes = vec![b'a'; 100_000];
        assert_eq!(
            blocks(&bytes).string(50).map(|it| it.len()),
            Some(STRING_BYTES_MAX + 1)
        );
    }

    /// Check that a scan sees each word once, and stops when it is told to or where the file ends.
    #[test]
    fn scans_see_all_words() {
        let bytes: Vec<u8> = (0..40_000_u64).flat_map(u64::to_le_bytes).collect();
        let mut seen = Vec::new();
        blocks(&bytes).scan(16, u64::MAX, |at, piece| {
            assert_eq!(u64::from_le_bytes(*piece.first_chunk().unwrap()) * 8, at);
            seen.extend(
                piece
                    .chunks(8)
                    .map(|it| u64::from_le_bytes(it.try_into().unwrap())),
            );
            seen.len() < 30_000
        });
        assert!(seen.len() >= 30_000 && seen.len() < 40_000);
        assert!(seen.iter().copied().eq(2..seen.len() as u64 + 2));
    }
}
