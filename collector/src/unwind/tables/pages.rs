//! The pages of rows, as they are in the kernel: the collector's only copy of them.

use std::collections::BTreeSet;

use profiler_bpf::{
    tables::{Block, PAGE_ROWS, PAGE_WORDS, PAGES_MAX, index_of},
    unwind::Row,
};

use super::{epochs::Epoch, intervals::Intervals};

/// Bytes of a page.
pub const PAGE_BYTES: u64 = (PAGE_WORDS * 8) as u64;

/// Pages of rows, each shared by the blocks of several files.
#[derive(Debug)]
pub(super) struct Pages {
    pages: Vec<Option<Page>>,
    /// Pages that changed since they were written.
    dirty: BTreeSet<u16>,
    pages_max: usize,
}

#[derive(Debug)]
struct Page {
    /// Rows, and indexes, whose words stand here as rows.
    rows: Box<[Row]>,
    places: Intervals,
}

impl Pages {
    /// No page yet; at most `bytes_max` bytes of them, but at least one page.
    pub(super) fn new(bytes_max: u64) -> Self {
        let pages_max = (bytes_max / PAGE_BYTES).clamp(1, PAGES_MAX.into());
        Self {
            pages: Vec::new(),
            dirty: BTreeSet::new(),
            pages_max: pages_max as usize,
        }
    }

    /// Puts the rows of a block (1 to [`PAGE_ROWS`]) into the first page that has room, or into a new
    /// one; `None` when there is no room.
    pub(super) fn place(&mut self, rows: impl ExactSizeIterator<Item = Row>) -> Option<Block> {
        let count = u16::try_from(rows.len()).ok()?;
        let mut block = Block {
            count,
            ..Block::default()
        };
        let words = Block::words_for(count) as u32;
        let found = self
            .pages
            .iter_mut()
            .zip(0u16..)
            .find_map(|(page, number)| {
                let page = page.as_mut()?;
                Some((number, page.places.allocate(words)?))
            });
        let (number, first) = match found {
            Some(found) => found,
            None => {
                let number = self.open_page()?;
                let page = self.pages[usize::from(number)].as_mut()?;
                (number, page.places.allocate(words)?)
            }
        };
        let page = self.pages[usize::from(number)].as_mut()?;
        let (index, placed) =
            page.rows[first as usize..].split_at_mut(block.words() - usize::from(count));
        for (place, row) in placed.iter_mut().zip(rows) {
            *place = row;
        }
        if block.is_indexed() {
            let words = index_of(&placed[..usize::from(count)]);
            for (place, word) in index.iter_mut().zip(words) {
                *place = Row::from_bits(word);
            }
        }
        self.dirty.insert(number);
        block.page = number;
        block.first = first as u16 + index.len() as u16;
        Some(block)
    }

    /// A page that is not there yet.
    fn open_page(&mut self) -> Option<u16> {
        let place = match self.pages.iter().position(Option::is_none) {
            Some(place) => place,
            None if self.pages.len() < self.pages_max => {
                self.pages.push(None);
                self.pages.len() - 1
            }
            None => return None,
        };
        self.pages[place] = Some(Page {
            rows: vec![Row::new(0, 0); PAGE_ROWS].into(),
            places: Intervals::new(PAGE_ROWS as u32),
        });
        Some(place as u16)
    }

    /// Retires the rows of a block.
    pub(super) fn retire(&mut self, block: Block, epoch: Epoch) {
        if let Some(Some(page)) = self.pages.get_mut(usize::from(block.page)) {
            let end = u32::from(block.first) + u32::from(block.count);
            page.places.retire(end - block.words() as u32..end, epoch);
        }
    }

    /// Frees the rows that were retired up to `epoch`. Returns the pages that are empty now, which are closed.
    pub(super) fn release(&mut self, epoch: Epoch) -> Vec<u16> {
        let mut closed = Vec::new();
        for (place, number) in self.pages.iter_mut().zip(0u16..) {
            let Some(page) = place else { continue };
            page.places.release(epoch);
            if page.places.is_unused() {
                *place = None;
                self.dirty.remove(&number);
                closed.push(number);
            }
        }
        closed
    }

    /// The rows of a block.
    pub(super) fn rows_of(&self, block: Block) -> &[Row] {
        let Some(Some(page)) = self.pages.get(usize::from(block.page)) else {
            return &[];
        };
        let rows = page.rows.get(usize::from(block.first)..);
        rows.and_then(|rows| rows.get(..usize::from(block.count)))
            .unwrap_or_default()
    }

    /// Numbers of pages that there are not.
    pub(super) fn closed(&self) -> Vec<u16> {
        let pages = self.pages.iter().zip(0u16..);
        pages
            .filter_map(|(page, number)| page.is_none().then_some(number))
            .collect()
    }

    /// The pages that changed since this was called last.
    pub(super) fn take_dirty(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// Writes a page's rows as the words of the kernel's map. Returns whether there is such a page.
    pub(super) fn copy_words(&self, number: u16, words: &mut [u64; PAGE_WORDS]) -> bool {
        let Some(Some(page)) = self.pages.get(usize::from(number)) else {
            return false;
        };
        let bits = |row: Row| u64::from(row.to_bits());
        for (word, pair) in words.iter_mut().zip(page.rows.as_chunks::<2>().0) {
            // Two rows of 4 bytes, the first at the lower address.
            *word = bits(pair[0]) | bits(pair[1]) << 32;
        }
        true
    }

    /// Pages that there are.
    pub(super) fn count(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    /// Rows that are used in them, those of indexes counted in.
    pub(super) fn rows(&self) -> u64 {
        let used = |page: &Page| u64::from(page.places.used());
        self.pages.iter().flatten().map(used).sum()
    }

    /// Rows that will be free in a moment.
    pub(super) fn retired(&self) -> u64 {
        let retired = |page: &Page| u64::from(page.places.retired());
        self.pages.iter().flatten().map(retired).sum()
    }

    /// Rows that there may be.
    pub(super) fn rows_max(&self) -> u64 {
        (self.pages_max * PAGE_ROWS) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u64, rule: u16) -> impl ExactSizeIterator<Item = Row> {
        (0..count as usize).map(move |at| Row::new(at as u64, rule))
    }

    /// Check that blocks share pages, that the limit holds, and that words are rows in pairs.
    #[test]
    fn blocks_share_pages() {
        let mut pages = Pages::new(2 * PAGE_BYTES);
        let all = pages.place(rows(PAGE_ROWS as u64, 9)).unwrap();
        assert_eq!((all.page, all.first, all.count), (0, 0, 16_384));
        let small = pages.place(rows(3, 5)).unwrap();
        let second = pages.place(rows(2, 7)).unwrap();
        assert_eq!((small.page, second.page, second.first), (1, 1, 3));
        assert_eq!(pages.place(rows(PAGE_ROWS as u64, 1)), None);
        assert_eq!(pages.rows_of(second), rows(2, 7).collect::<Vec<_>>());
        assert_eq!(pages.take_dirty(), [0, 1]);
        assert!(pages.take_dirty().is_empty());
        let mut words = vec![0; PAGE_WORDS].into_boxed_slice();
        let words: &mut [u64; PAGE_WORDS] = (&mut *words).try_into().unwrap();
        assert!(pages.copy_words(1, words));
        assert_eq!(
            words[..3],
            [0x0001_0005_0000_0005, 0x0000_0007_0002_0005, 0x0001_0007]
        );
        assert!(!pages.copy_words(2, words));
        assert_eq!((pages.count(), pages.rows()), (2, 16_389));
    }

    /// Check that a page goes when its last block does, and that its number is used again.
    #[test]
    fn empty_pages_go() {
        let mut pages = Pages::new(0);
        let block = pages.place(rows(5, 1)).unwrap();
        let epoch = Epoch::default();
        pages.retire(block, epoch);
        assert_eq!(pages.count(), 1);
        assert_eq!(pages.release(epoch), [0]);
        assert_eq!((pages.count(), pages.take_dirty().len()), (0, 0));
        assert_eq!(pages.rows_of(block), []);
        assert_eq!(pages.place(rows(1, 1)).map(|place| place.page), Some(0));
    }
}
