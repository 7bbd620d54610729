//! Bytes of a file's section, read where a search leads and not mapped: a file of some GB takes no more memory than a small
//! one, and truncating the file meanwhile kills nobody.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::rc::Rc;

use elf::{BlockCache, CachedFile, FileRange, ReadAt};
use gimli::{EndianSlice, Error, LittleEndian, Reader, ReaderOffsetId, Result, leb128};

use super::packed::PackedSection;

/// A file or a section that is read in blocks.
pub(super) type Blocks = CachedFile<Backing>;

const BLOCK_BYTES: usize = BlockCache::BLOCK_BYTES;

/// Bytes that are read at once. Most units of C and Rust have less; of one that has more, 4 KB are resident at a time.
const PIECE_BYTES_MAX: usize = 512 << 10;

/// The source of blocks.
pub(super) enum Backing {
    File(File),
    Packed(PackedSection),
}

impl ReadAt for Backing {
    fn pread(&self, offset: u64, buffer: &mut [u8]) -> usize {
        match self {
            Self::File(file) => file.pread(offset, buffer),
            Self::Packed(section) => section.pread(offset, buffer),
        }
    }
}

/// Part of a file, or of a compressed section.
#[derive(Clone)]
pub(super) struct Bytes {
    blocks: Rc<Blocks>,
    start: usize,
    end: usize,
    /// The bytes that were read last: a block, or a longer piece.
    piece: Option<Piece>,
}

#[derive(Clone)]
struct Piece {
    start: usize,
    bytes: Rc<[u8]>,
}

impl Piece {
    #[inline]
    fn from(&self, start: usize) -> &[u8] {
        let bytes = self.bytes.get(start.wrapping_sub(self.start)..);
        bytes.unwrap_or_default()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Bytes({}..{})", self.start, self.end)
    }
}

impl Bytes {
    /// Part of a file or section, which may be shorter.
    pub(super) fn new(blocks: &Rc<Blocks>, start: usize, len: usize) -> Self {
        Self {
            blocks: Rc::clone(blocks),
            start,
            end: start.saturating_add(len),
            piece: None,
        }
    }

    /// All of a compressed section.
    pub(super) fn of_packed(section: PackedSection, cache: &Rc<BlockCache>) -> Self {
        let len = section.len();
        let blocks = Rc::new(Blocks::new(Backing::Packed(section), cache));
        Self::new(&blocks, 0, len)
    }

    /// No bytes.
    pub(super) fn none() -> Self {
        Self::of_packed(PackedSection::default(), &Rc::new(BlockCache::new(0)))
    }

    /// Whether the bytes are in memory.
    pub(super) fn is_resident(&self) -> bool {
        matches!(self.blocks.file(), Backing::Packed(_))
    }

    /// The same bytes, which keep none of them resident.
    pub(super) fn detached(&self) -> Self {
        Self {
            blocks: Rc::clone(&self.blocks),
            piece: None,
            ..*self
        }
    }

    /// The same bytes, of which these are read at once, and stay resident. They are not if there are more than [`PIECE_BYTES_MAX`]:
    /// then they are read in blocks, as all others.
    pub(super) fn with_piece(&self, range: Range<usize>) -> Self {
        let start = self.start.saturating_add(range.start).min(self.end);
        let end = self.start.saturating_add(range.end).min(self.end);
        let len = end.saturating_sub(start);
        let mut bytes = self.detached();
        bytes.piece = self.plain_piece(start);
        let rest = bytes
            .piece
            .as_ref()
            .map_or(0, |piece| piece.from(start).len());
        if rest < len && len <= PIECE_BYTES_MAX {
            let piece = self.blocks.file().read_range(FileRange {
                offset: start as u64,
                bytes: len as u64,
            });
            bytes.piece = piece.map(|piece| Piece {
                start,
                bytes: piece.into(),
            });
        }
        bytes
    }

    /// Bytes at an offset that are resident, and need no copy.
    fn plain_piece(&self, offset: usize) -> Option<Piece> {
        let Backing::Packed(section) = self.blocks.file() else {
            return None;
        };
        let (start, bytes) = section.plain_piece(offset)?;
        let bytes = Rc::clone(bytes);
        Some(Piece { start, bytes })
    }

    /// All bytes, if they are in one piece.
    pub(super) fn as_slice(&self) -> Option<EndianSlice<'_, LittleEndian>> {
        let bytes = self.bytes_in_piece();
        (bytes.len() == self.len()).then(|| EndianSlice::new(bytes, LittleEndian))
    }

    fn too_short(&self) -> Error {
        Error::UnexpectedEof(self.offset_id())
    }

    /// The next bytes, as many as the piece has.
    #[inline]
    fn bytes_in_piece(&self) -> &[u8] {
        let piece = self.piece.as_ref();
        let bytes = piece.map_or(&[][..], |piece| piece.from(self.start));
        &bytes[..bytes.len().min(self.end - self.start)]
    }

    /// The next bytes, at least one.
    fn next_bytes(&mut self) -> Result<&[u8]> {
        if self.bytes_in_piece().is_empty() {
            self.read_block()?;
        }
        match self.bytes_in_piece() {
            [] => Err(self.too_short()),
            bytes => Ok(bytes),
        }
    }

    #[cold]
    fn read_block(&mut self) -> Result<()> {
        if self.start >= self.end {
            return Err(self.too_short());
        }
        self.piece = self.plain_piece(self.start).or_else(|| {
            let index = self.start / BLOCK_BYTES;
            Some(Piece {
                start: index * BLOCK_BYTES,
                bytes: self.blocks.block(index as u64),
            })
        });
        Ok(())
    }

    fn to_vec(&self) -> Result<Vec<u8>> {
        let mut rest = self.clone();
        let mut bytes = Vec::new();
        while !rest.is_empty() {
            let next = rest.next_bytes()?;
            bytes.extend_from_slice(next);
            let read = next.len();
            rest.start += read;
        }
        Ok(bytes)
    }
}

impl Reader for Bytes {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    #[inline]
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn empty(&mut self) {
        self.end = self.start;
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len() {
            return Err(self.too_short());
        }
        self.end = self.start + len;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.start.saturating_sub(base.start)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.start as u64)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        let offset = usize::try_from(id.0).ok()?.checked_sub(self.start)?;
        (offset <= self.len()).then_some(offset)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let mut rest = self.clone();
        loop {
            let next = rest.next_bytes()?;
            if let Some(found) = next.iter().position(|next| *next == byte) {
                return Ok(rest.start - self.start + found);
            }
            let read = next.len();
            rest.start += read;
        }
    }

    #[inline]
    fn skip(&mut self, len: usize) -> Result<()> {
        if len > self.len() {
            return Err(self.too_short());
        }
        self.start += len;
        Ok(())
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        let mut head = self.clone();
        head.truncate(len)?;
        self.start += len;
        Ok(head)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.to_vec().map(Cow::Owned)
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        let text = String::from_utf8(self.to_vec()?);
        text.map(Cow::Owned).map_err(|_| Error::BadUtf8)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        let bytes = self.to_vec()?;
        Ok(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
    }

    #[inline]
    fn read_u8(&mut self) -> Result<u8> {
        let byte = match self.bytes_in_piece() {
            [byte, ..] => *byte,
            [] => self.next_bytes()?[0],
        };
        self.start += 1;
        Ok(byte)
    }

    #[inline]
    fn read_uleb128(&mut self) -> Result<u64> {
        match self.bytes_in_piece() {
            // Most numbers have one byte.
            [byte @ ..0x80, ..] => {
                let number = u64::from(*byte);
                self.start += 1;
                Ok(number)
            }
            _ => leb128::read::unsigned(self),
        }
    }

    #[inline]
    fn read_slice(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.bytes_in_piece().get(..buffer.len()) {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => return self.read_across_blocks(buffer),
        }
        self.start += buffer.len();
        Ok(())
    }
}

impl Bytes {
    #[cold]
    fn read_across_blocks(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        if buffer.len() > self.len() {
            return Err(self.too_short());
        }
        while !buffer.is_empty() {
            let next = self.next_bytes()?;
            let read = next.len().min(buffer.len());
            buffer[..read].copy_from_slice(&next[..read]);
            self.start += read;
            buffer = &mut buffer[read..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn of_memory(bytes: &[u8]) -> Bytes {
        let section = PackedSection::pack(bytes, bytes.len() as u64).unwrap();
        Bytes::of_packed(section, &Rc::default())
    }

    fn of_file(file: File) -> Rc<Blocks> {
        Rc::new(Blocks::new(Backing::File(file), &Rc::default()))
    }

    /// Checks that what lies outside is never given, and that reading goes on where it stopped.
    fn check(section: &Bytes) {
        let mut rest = section.clone();
        assert_eq!(rest.read_u16(), Ok(0x0302));
        assert_eq!(rest.offset_from(section), 2);
        assert_eq!(rest.lookup_offset_id(rest.offset_id()), Some(0));
        let end = rest.find(0).unwrap();
        let text = rest.split(end).unwrap();
        assert_eq!(text.to_string().unwrap(), "ab");
        assert_eq!((rest.len(), rest.read_u8()), (1, Ok(0)));
        assert!(rest.read_u8().is_err() && rest.skip(1).is_err());
        assert!(rest.truncate(1).is_err() && rest.find(0).is_err());
        rest.empty();
        assert!(rest.is_empty());
    }

    #[test]
    fn nothing_outside_is_read() {
        let mut section = of_memory(b"\x01\x02\x03ab\0cd");
        section.skip(1).unwrap();
        section.truncate(5).unwrap();
        check(&section);
        let none = Bytes::none();
        assert!(none.is_empty() && none.clone().read_u8().is_err());
    }

    /// Check a section over the edge of two blocks, and one that is longer than its file.
    #[test]
    fn files_are_read_in_blocks() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![9; BLOCK_BYTES - 1]).unwrap();
        file.write_all(b"\x02\x03ab\0cd").unwrap();
        let blocks = of_file(file);
        check(&Bytes::new(&blocks, BLOCK_BYTES - 1, 5));
        let mut long = Bytes::new(&blocks, BLOCK_BYTES - 1, 100);
        assert!(long.to_vec().is_err() && long.find(7).is_err());
        assert!(long.read_u8_array::<[u8; 8]>().is_err());
        let mut far = Bytes::new(&blocks, usize::MAX, usize::MAX);
        assert!(far.read_u8().is_err());
    }

    /// Check a piece over the edge of two blocks, reads before and behind it, and one that is longer than its file.
    #[test]
    fn pieces_are_read_at_once() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES).map(|at| (at / 7) as u8).collect();
        file.write_all(&bytes).unwrap();
        let blocks = of_file(file);
        let section = Bytes::new(&blocks, 10, 3 * BLOCK_BYTES - 20);
        let expected = &bytes[10..3 * BLOCK_BYTES - 10];
        for piece in [5..BLOCK_BYTES + 5, 0..usize::MAX, 7..7] {
            assert_eq!(section.with_piece(piece).to_vec().unwrap(), expected);
        }
        let mut rest = section.with_piece(100..BLOCK_BYTES + 100);
        rest.skip(BLOCK_BYTES + 96).unwrap();
        let across = rest.read_u8_array::<[u8; 8]>().unwrap();
        assert_eq!(across, expected[BLOCK_BYTES + 96..][..8]);
        let long = Bytes::new(&blocks, 10, 4 * BLOCK_BYTES);
        assert!(long.with_piece(0..usize::MAX).to_vec().is_err());
    }
}
