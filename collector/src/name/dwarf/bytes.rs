//! Bytes of a file's section, read where a search leads and not mapped: a file of some GB takes no more memory than a small
//! one, and one that is cut meanwhile ends nothing.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use gimli::{Error, LittleEndian, Reader, ReaderOffsetId, Result};
use rustc_hash::FxHashMap;

/// Bytes that are read at once: debug information is read in stretches of some KB, or a few bytes here and there.
const BLOCK_BYTES: usize = 4096;

/// Blocks kept, of all files together: 4 MB.
const BLOCKS_MAX: usize = 1024;

/// The blocks that were read last, of all files.
#[derive(Default)]
pub struct BlockCache {
    state: RefCell<CacheState>,
}

#[derive(Default)]
struct CacheState {
    blocks: FxHashMap<(u64, u64), Rc<[u8]>>,
    /// The oldest first.
    order: VecDeque<(u64, u64)>,
    /// Number of the next file.
    files: u64,
}

/// A file that is read in blocks.
pub(super) struct Blocks {
    file: File,
    number: u64,
    cache: Rc<BlockCache>,
}

impl Blocks {
    /// Reads a file through a cache.
    pub(super) fn new(file: File, cache: &Rc<BlockCache>) -> Self {
        let mut state = cache.state.borrow_mut();
        state.files += 1;
        Self {
            file,
            number: state.files,
            cache: Rc::clone(cache),
        }
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The bytes from `index` blocks on; fewer at the end of the file.
    fn read(&self, index: u64) -> Result<Rc<[u8]>> {
        let key = (self.number, index);
        let mut state = self.cache.state.borrow_mut();
        if let Some(block) = state.blocks.get(&key) {
            return Ok(Rc::clone(block));
        }
        let mut buffer = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let at = index * BLOCK_BYTES as u64 + filled as u64;
            match self.file.read_at(&mut buffer[filled..], at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Error::Io),
            }
        }
        let block: Rc<[u8]> = buffer[..filled].into();
        if state.order.len() >= BLOCKS_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            state.blocks.remove(&oldest);
        }
        state.order.push_back(key);
        state.blocks.insert(key, Rc::clone(&block));
        Ok(block)
    }
}

/// Bytes that stand in the place of those in the file.
#[derive(Debug)]
pub(super) struct Patch {
    /// Where, from the start of the section.
    pub(super) at: usize,
    /// What.
    pub(super) bytes: Vec<u8>,
}

/// Where bytes come from.
#[derive(Clone)]
enum Source {
    File(Rc<Blocks>),
    Patched(Rc<Blocks>, Rc<[Patch]>),
    Memory(Rc<[u8]>),
}

/// Part of a file, or of an unpacked section.
pub(super) struct Bytes {
    source: Source,
    start: usize,
    end: usize,
    /// The block that was read last. Copies do not have it: debug information as it is kept has a thousand of them.
    block: Option<Block>,
}

struct Block {
    start: usize,
    bytes: Rc<[u8]>,
}

impl Clone for Bytes {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            block: None,
            ..*self
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Bytes({}..{})", self.start, self.end)
    }
}

impl Bytes {
    /// A part of a file, whether there is so much of it or not.
    pub(super) fn of_file(blocks: &Rc<Blocks>, start: usize, len: usize) -> Self {
        Self {
            source: Source::File(Rc::clone(blocks)),
            start,
            end: start.saturating_add(len),
            block: None,
        }
    }

    /// Bytes in memory.
    pub(super) fn of_memory(bytes: Vec<u8>) -> Self {
        Self {
            start: 0,
            end: bytes.len(),
            source: Source::Memory(bytes.into()),
            block: None,
        }
    }

    /// No bytes.
    pub(super) fn none() -> Self {
        Self::of_memory(Vec::new())
    }

    /// The same section with something else in some places. Those in memory stay as they are.
    pub(super) fn patch(&self, mut patches: Vec<Patch>) -> Self {
        patches.iter_mut().for_each(|it| it.at += self.start);
        let source = match &self.source {
            Source::File(blocks) => Source::Patched(Rc::clone(blocks), patches.into()),
            other => other.clone(),
        };
        Self {
            source,
            block: None,
            ..*self
        }
    }

    fn too_short(&self) -> Error {
        Error::UnexpectedEof(self.offset_id())
    }

    /// The next bytes, as many as are there without reading; if none are, they are read.
    #[inline]
    fn next_bytes(&mut self) -> Result<&[u8]> {
        let is_read = self.block.as_ref().is_some_and(|block| {
            self.start >= block.start && self.start < block.start + block.bytes.len()
        });
        if !is_read {
            self.read_block()?;
        }
        let left = self.end - self.start;
        let block = self.block.as_ref();
        let bytes = block.and_then(|block| block.bytes.get(self.start - block.start..));
        let bytes = bytes.filter(|it| !it.is_empty() && left > 0);
        match bytes {
            Some(bytes) => Ok(&bytes[..bytes.len().min(left)]),
            None => Err(Error::UnexpectedEof(ReaderOffsetId(self.start as u64))),
        }
    }

    #[cold]
    fn read_block(&mut self) -> Result<()> {
        if self.start >= self.end {
            return Err(self.too_short());
        }
        self.block = Some(match &self.source {
            Source::Memory(bytes) => Block {
                start: 0,
                bytes: Rc::clone(bytes),
            },
            Source::File(blocks) => read_block(blocks, self.start)?,
            Source::Patched(blocks, patches) => {
                let block = read_block(blocks, self.start)?;
                patch_block(block, patches)
            }
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

fn read_block(blocks: &Blocks, at: usize) -> Result<Block> {
    let index = at / BLOCK_BYTES;
    Ok(Block {
        start: index * BLOCK_BYTES,
        bytes: blocks.read(index as u64)?,
    })
}

fn patch_block(block: Block, patches: &[Patch]) -> Block {
    let Block { start, bytes } = block;
    let end = start + bytes.len();
    let within = |it: &&Patch| it.at < end && it.at + it.bytes.len() > start;
    let mut within = patches.iter().filter(within).peekable();
    if within.peek().is_none() {
        return Block { start, bytes };
    }
    let mut patched = bytes.to_vec();
    for patch in within {
        for (at, byte) in (patch.at..).zip(&patch.bytes) {
            let place = at.checked_sub(start).and_then(|it| patched.get_mut(it));
            if let Some(place) = place {
                *place = *byte;
            }
        }
    }
    Block {
        start,
        bytes: patched.into(),
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
            if let Some(found) = next.iter().position(|it| *it == byte) {
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
        let byte = self.next_bytes()?[0];
        self.start += 1;
        Ok(byte)
    }

    fn read_slice(&mut self, mut buffer: &mut [u8]) -> Result<()> {
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
        let mut of_memory = Bytes::of_memory(b"\x01\x02\x03ab\0cd".to_vec());
        of_memory.skip(1).unwrap();
        of_memory.truncate(5).unwrap();
        check(&of_memory);
        let none = Bytes::none();
        assert!(none.is_empty() && none.clone().read_u8().is_err());
    }

    /// Check a section over the edge of two blocks, and one that is longer than its file.
    #[test]
    fn files_are_read_in_blocks() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![9; BLOCK_BYTES - 1]).unwrap();
        file.write_all(b"\x02\x03ab\0cd").unwrap();
        let cache = Rc::default();
        let blocks = Rc::new(Blocks::new(file, &cache));
        check(&Bytes::of_file(&blocks, BLOCK_BYTES - 1, 5));
        let mut long = Bytes::of_file(&blocks, BLOCK_BYTES - 1, 100);
        assert!(long.to_vec().is_err() && long.find(7).is_err());
        assert!(long.read_u8_array::<[u8; 8]>().is_err());
        let mut far = Bytes::of_file(&blocks, usize::MAX, usize::MAX);
        assert!(far.read_u8().is_err());
    }

    /// Check bytes that stand in the place of others, over the edge of two blocks.
    #[test]
    fn patches_stand_in_the_place_of_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 3 * BLOCK_BYTES]).unwrap();
        let cache = Rc::default();
        let blocks = Rc::new(Blocks::new(file, &cache));
        let section = Bytes::of_file(&blocks, 10, 3 * BLOCK_BYTES - 10);
        let patched = section.patch(vec![Patch {
            at: BLOCK_BYTES - 12,
            bytes: vec![2, 3, 4],
        }]);
        let mut expected = vec![1; 3 * BLOCK_BYTES - 10];
        expected[BLOCK_BYTES - 12..BLOCK_BYTES - 9].copy_from_slice(&[2, 3, 4]);
        assert_eq!(patched.to_vec().unwrap(), expected);
        assert_eq!(section.to_vec().unwrap(), vec![1; expected.len()]);
    }

    /// Check that only so many blocks are kept.
    #[test]
    fn the_oldest_blocks_go() {
        let file = tempfile::tempfile().unwrap();
        file.set_len((4 * BLOCKS_MAX * BLOCK_BYTES) as u64).unwrap();
        let cache: Rc<BlockCache> = Rc::default();
        let blocks = Rc::new(Blocks::new(file, &cache));
        let whole = Bytes::of_file(&blocks, 0, 4 * BLOCKS_MAX * BLOCK_BYTES);
        assert!(whole.find(1).is_err());
        let state = cache.state.borrow();
        assert_eq!(
            (state.blocks.len(), state.order.len()),
            (BLOCKS_MAX, BLOCKS_MAX)
        );
    }
}
