//! A cache of file blocks, for parsers that read a few bytes here and there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::read::ReadAt;

/// Resident blocks of several files, evicted in the order they were read. LRU would gain little: each [`CachedFile`] keeps its last
/// block for repeated reads.
pub struct BlockCache {
    blocks_max: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    blocks: FxHashMap<(u64, u64), Rc<[u8]>>,
    /// The keys of `blocks`, oldest first.
    order: VecDeque<(u64, u64)>,
    /// Files so far; each has a number.
    files: u64,
}

impl BlockCache {
    /// Bytes of a block: a page of the kernel's page cache.
    pub const BLOCK_BYTES: usize = 4096;

    /// An empty cache of `blocks_max` blocks.
    pub fn new(blocks_max: usize) -> Self {
        Self {
            blocks_max,
            state: RefCell::default(),
        }
    }

    /// Evicts all blocks.
    pub fn clear(&self) {
        let state = &mut *self.state.borrow_mut();
        state.blocks = FxHashMap::default();
        state.order = VecDeque::new();
    }
}

impl Default for BlockCache {
    /// 4 MB.
    fn default() -> Self {
        Self::new(1024)
    }
}

/// A file that is read through a [`BlockCache`].
pub struct CachedFile<R> {
    file: R,
    number: u64,
    cache: Rc<BlockCache>,
    /// Index and bytes of the last block. Most reads are in it and need no look-up.
    last: RefCell<Option<(u64, Rc<[u8]>)>>,
}

impl<R: ReadAt> CachedFile<R> {
    /// Reads `file` through `cache`.
    pub fn new(file: R, cache: &Rc<BlockCache>) -> Self {
        let mut state = cache.state.borrow_mut();
        state.files += 1;
        Self {
            file,
            number: state.files,
            cache: Rc::clone(cache),
            last: RefCell::default(),
        }
    }

    /// The file itself, for reads of many blocks.
    pub fn file(&self) -> &R {
        &self.file
    }

    /// The block at an index: shorter at the end of the file, and empty beyond it.
    pub fn block(&self, index: u64) -> Rc<[u8]> {
        let mut last = self.last.borrow_mut();
        if let Some((number, block)) = &*last
            && *number == index
        {
            return Rc::clone(block);
        }
        let block = self.find_block(index);
        *last = Some((index, Rc::clone(&block)));
        block
    }

    fn find_block(&self, index: u64) -> Rc<[u8]> {
        let key = (self.number, index);
        let mut state = self.cache.state.borrow_mut();
        if let Some(block) = state.blocks.get(&key) {
            return Rc::clone(block);
        }
        let mut buffer = [0; BlockCache::BLOCK_BYTES];
        let offset = index.saturating_mul(BlockCache::BLOCK_BYTES as u64);
        let read = self.file.pread(offset, &mut buffer);
        let block: Rc<[u8]> = buffer[..read].into();
        // An error is a short read: the next one may succeed.
        if block.is_empty() {
            return block;
        }
        if state.order.len() >= self.cache.blocks_max
            && let Some(oldest) = state.order.pop_front()
        {
            state.blocks.remove(&oldest);
        }
        state.order.push_back(key);
        state.blocks.insert(key, Rc::clone(&block));
        block
    }
}

impl<R: ReadAt> ReadAt for CachedFile<R> {
    fn pread(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(at) = offset.checked_add(filled as u64) else {
                break;
            };
            let block = self.block(at / BlockCache::BLOCK_BYTES as u64);
            let rest = block.get(at as usize % BlockCache::BLOCK_BYTES..);
            let rest = rest.unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let length = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + length].copy_from_slice(&rest[..length]);
            filled += length;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check reads within a block, across blocks, at the end and beyond it.
    #[test]
    fn bytes_are_those_of_the_file() {
        let bytes: Vec<u8> = (0..BlockCache::BLOCK_BYTES * 130 + 5)
            .map(|at| (at / 7) as u8)
            .collect();
        let cache = Rc::new(BlockCache::new(64));
        let file = CachedFile::new(&*bytes, &cache);
        let other = CachedFile::new(&bytes[1..], &cache);
        for at in [0, 4093, 4096 * 64 - 3, 4096 * 128 - 1, 5, bytes.len() - 8] {
            let mut buffer = [0; 8];
            assert!(file.pread_exact(at as u64, &mut buffer), "{at}");
            assert_eq!(buffer, bytes[at..at + 8]);
            let read = other.pread(at as u64, &mut buffer);
            assert_eq!(buffer[..read], bytes[at + 1..][..read]);
            assert_eq!(read, 8.min(bytes.len() - at - 1));
        }
        let mut buffer = [0; 8];
        assert_eq!(file.pread(bytes.len() as u64 - 7, &mut buffer), 7);
        for at in [bytes.len() as u64, u64::MAX - 3, u64::MAX] {
            assert_eq!(file.pread(at, &mut buffer), 0);
        }
    }

    /// Check that the limit on resident blocks holds.
    #[test]
    fn the_oldest_blocks_are_evicted() {
        let bytes = vec![1; BlockCache::BLOCK_BYTES * 200];
        let cache = Rc::new(BlockCache::new(64));
        let file = CachedFile::new(&*bytes, &cache);
        for index in (0..200).chain(0..200) {
            assert_eq!(file.block(index).len(), BlockCache::BLOCK_BYTES);
            assert!((1..=64).contains(&cache.state.borrow().blocks.len()));
        }
        assert_eq!(cache.state.borrow().blocks.len(), 64);
        cache.clear();
        assert_eq!(file.block(7).len(), BlockCache::BLOCK_BYTES);
        assert_eq!(cache.state.borrow().blocks.len(), 1);
    }
}
