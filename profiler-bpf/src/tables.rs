//! The tables that user space fills and the walk searches: the mappings of processes, which
//! rows belong to a piece of a file, the rows, and the rules.
//!
//! ```text
//! PROCESSES  process id -> Process: identity, version, its part of MAPPINGS
//! MAPPINGS   sorted by address within a process: Mapping -> its part of BLOCKS
//! BLOCKS     for each 64 KiB of a file's code: Block -> page, first row, number of rows
//! ROWS       pages of rows, sorted within a block: Row -> number of a rule; before the rows of a
//!            large block an index of its parts
//! RULES      Rule
//! ```
//! Several processes share the blocks of a file, several files share a page. Every value is made
//! of whole words, so that user space writes them without `unsafe`.
//!
//! Entries that the program may be reading are changed in this order only: new blocks, rows and
//! mappings go to places that nothing points to; then [`Process`] is replaced as one value; the places
//! that it pointed to before are used again only after programs that began earlier have ended.
//!
//! Arrays and not hash maps: a look-up in an array is a few instructions, and kernels before 6.1
//! let a perf event's program use no map that allocates. A block of more than 64 rows has an index
//! of its 64 parts before them (4 % more memory): a search touches one cache line of it and one to
//! five of rows. Pages are made when they are needed, up to `--unwind-bytes`; the least recently
//! used file is evicted. Each state of a process's mappings has a `version` of its own, under which
//! the program remembers the rules that it found, so that most frames cost one load. A process is
//! known by its id, its start time and the number of its execs (`identity`): after an exec the old
//! tables are not its own, before anybody in user space knows.

use crate::unwind::{BLOCK_BYTES, Row};

/// Processes in the map `PROCESSES`. 8,192 x about 100 bytes (an element of a hash map, with its
/// value of 32 bytes) are 0.8 MB; 5,000 processes of a node fit, of which only those that are
/// sampled need to be there.
pub const PROCESSES_MAX: u32 = 8_192;

/// Mappings of all processes: 131,072 x 32 bytes = 4 MiB.
pub const MAPPINGS_MAX: u32 = 131_072;

/// Steps of the search through a process's mappings: 2^14 = 16,384 of them.
pub const MAPPING_SEARCH_STEPS: u32 = 14;

/// Blocks of 64 KiB of code: 131,072 x 8 bytes = 1 MiB, for 8 GiB of code.
pub const BLOCKS_MAX: u32 = 131_072;

/// Rows of a page. A page is a map of its own of 64 KiB, so that kernel memory grows with the
/// rows that are needed; writing one again takes some 15 us.
pub const PAGE_ROWS: usize = 16_384;

/// Words of a page as the map's value.
pub const PAGE_WORDS: usize = PAGE_ROWS * size_of::<Row>() / 8;

/// Steps of the search through a block's rows: 2^14 = [`PAGE_ROWS`].
pub const ROW_SEARCH_STEPS: u32 = 14;

/// Steps of the search through the rows of a small block, or of a part of a large one: 2^6 = 64,
/// which lie in 5 cache lines at most.
pub const SHORT_ROW_SEARCH_STEPS: u32 = 6;

/// Blocks with more rows than this have an index. The 20.4 million rows of that Debian are 836 a
/// block, 13 a part; an index is 4 % of them.
pub const INDEXED_ROWS_MIN: usize = 1 << SHORT_ROW_SEARCH_STEPS;

/// Parts of a block in its index, of 1 KiB of code each.
pub const INDEX_PARTS: usize = 64;

/// Words of 32 bits (as a row has) of an index: the number of rows that lie before each part, and of
/// all rows, 16 bits each. It is 132 bytes, of which a search needs one cache line, most often.
pub const INDEX_WORDS: usize = INDEX_PARTS / 2 + 1;

/// Pages that there can be: 1,024 x 64 KiB = 64 MiB. How many there are is the collector's choice.
pub const PAGES_MAX: u32 = 1_024;

/// Rules that a row's 16 bits can name: 65,536 x 16 bytes = 1 MiB.
pub const RULES_MAX: u32 = 65_536;

/// A process and its part of the mappings, 4 words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Identity of this address space: an earlier one with the same process id had another. Never 0.
    pub identity: u64,
    /// Place of its first mapping in `MAPPINGS`.
    pub first: u32,
    /// Number of its mappings, at most 2^[`MAPPING_SEARCH_STEPS`] - 1.
    pub count: u32,
    /// Number of this state of its mappings, different for each state of each process: rules that the
    /// program caches under it stay valid. Never 0.
    pub version: u32,
    /// Bits `PROCESS_…`.
    pub flags: u32,
}

/// [`Process::flags`]: user space knows no code beside the process's mappings. A stack is not copied for an
/// address outside of them to which only a guess led.
pub const PROCESS_MAPPINGS_COMPLETE: u32 = 1;

impl Process {
    /// The words of the map's value. The identity comes last once more, so that a reader sees
    /// when the value was replaced under its hands.
    pub const fn to_words(self) -> [u64; 4] {
        [
            self.identity,
            self.first as u64 | (self.count as u64) << 32,
            self.version as u64 | (self.flags as u64) << 32,
            self.identity,
        ]
    }

    /// The process in these words; `None` when they are of two values.
    #[inline(always)]
    pub const fn from_words(words: [u64; 4]) -> Option<Self> {
        if words[0] != words[3] {
            return None;
        }
        Some(Self {
            identity: words[0],
            first: words[1] as u32,
            count: (words[1] >> 32) as u32,
            version: words[2] as u32,
            flags: (words[2] >> 32) as u32,
        })
    }
}

/// Kinds of mappings, by the way to the rule of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MappingKind {
    /// Takes the rule from the rows.
    Rows = 0,
    /// Takes the frame-pointer rule: code made at run time, or a file that is no ELF file or could not be read.
    FramePointer = 1,
    /// Copies the stack: the rows are not in the kernel.
    NotLoaded = 2,
    /// Takes the rule for unsupported code: the file's call frame information is too large.
    Unsupported = 3,
}

/// An executable mapping, 4 words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address. Below 2^63, as the search compares.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Added to an address it gives the offset in the file (wrapping).
    pub bias: u64,
    /// Added to the number of a block of the file (offset / [`BLOCK_BYTES`]) it gives the place in
    /// `BLOCKS` (wrapping). All blocks that the mapping touches are there.
    ///
    /// [`BLOCK_BYTES`]: crate::unwind::BLOCK_BYTES
    pub block_bias: u32,
    /// The way to the rule of an address in it.
    pub kind: MappingKind,
}

impl Mapping {
    /// The words of the map's value: start, end, bias, and `block_bias` below the kind.
    pub const fn to_words(self) -> [u64; 4] {
        [
            self.start,
            self.end,
            self.bias,
            self.block_bias as u64 | (self.kind as u64) << 32,
        ]
    }
}

/// The place of the rows of 64 KiB of a file, one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Number of the page.
    pub page: u16,
    /// Its first row there. The index, if there is one, lies before it.
    pub first: u16,
    /// Number of its rows, at most [`PAGE_ROWS`]; without any, none are known.
    pub count: u16,
}

impl Block {
    /// The word of the map's value.
    pub const fn to_word(self) -> u64 {
        self.page as u64 | (self.first as u64) << 16 | (self.count as u64) << 32
    }

    /// The block in a word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            page: word as u16,
            first: (word >> 16) as u16,
            count: (word >> 32) as u16,
        }
    }

    /// Whether there is an index before the rows: where they are many, and it finds room.
    #[inline(always)]
    pub const fn is_indexed(self) -> bool {
        let count = self.count as usize;
        count > INDEXED_ROWS_MIN && count <= PAGE_ROWS - INDEX_WORDS
    }

    /// Words of a page that the block takes.
    pub const fn words(self) -> usize {
        self.count as usize + if self.is_indexed() { INDEX_WORDS } else { 0 }
    }

    /// [`words`](Self::words) of a block of so many rows, wherever it will lie.
    pub const fn words_for(count: u16) -> usize {
        let block = Self {
            page: 0,
            first: 0,
            count,
        };
        block.words()
    }
}

/// The index of a block's rows, which are in ascending order.
pub fn index_of(rows: &[Row]) -> [u32; INDEX_WORDS] {
    let mut words = [0; INDEX_WORDS];
    for part in 0..=INDEX_PARTS {
        let begin = part * PART_BYTES;
        let before = rows.partition_point(|row| usize::from(row.offset()) < begin);
        words[part / 2] |= (before as u32) << (16 * (part % 2));
    }
    words
}

/// Bytes of code of a part.
const PART_BYTES: usize = BLOCK_BYTES as usize / INDEX_PARTS;

/// The index word with the number of rows before the part of an offset.
#[inline(always)]
pub const fn index_place(offset: u64) -> u64 {
    part(offset) / 2
}

/// Numbers of rows before the part of an offset, and before the next one, from the word at
/// [`index_place`] and the one behind it.
#[inline(always)]
pub const fn index_range(words: [u32; 2], offset: u64) -> (u64, u64) {
    let both = words[0] as u64 | (words[1] as u64) << 32;
    let from = both >> (16 * (part(offset) & 1));
    (from & 0xffff, from >> 16 & 0xffff)
}

#[inline(always)]
const fn part(offset: u64) -> u64 {
    offset % BLOCK_BYTES / PART_BYTES as u64
}

const _: () = assert!(1 << ROW_SEARCH_STEPS == PAGE_ROWS);
const _: () = assert!(PAGES_MAX <= u16::MAX as u32);

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that values come back from their words, and that torn ones do not.
    #[test]
    fn words() {
        let process = Process {
            identity: u64::MAX - 5,
            first: 7,
            count: 300,
            version: u32::MAX,
            flags: PROCESS_MAPPINGS_COMPLETE,
        };
        let mut words = process.to_words();
        assert_eq!(Process::from_words(words), Some(process));
        words[0] = 1;
        assert_eq!(Process::from_words(words), None);
        let block = Block {
            page: 1023,
            first: 16_383,
            count: 16_384,
        };
        assert_eq!(Block::from_word(block.to_word()), block);
    }

    /// Check which blocks have an index.
    #[test]
    fn indexed_blocks() {
        let of = |count| Block {
            count,
            ..Block::default()
        };
        let indexed = [0, 64, 65, 16_351, 16_352, 16_384].map(|count| of(count).is_indexed());
        assert_eq!(indexed, [false, false, true, true, false, false]);
        assert_eq!((of(64).words(), of(65).words()), (64, 98));
    }

    /// Check that the index bounds what a search through all rows finds, at each place.
    #[test]
    fn index_bounds_rows() {
        let offsets = [3, 4, 1023, 1024, 1025, 5000, 5001, 5002, 65_534, 65_535];
        let rows = offsets.map(|offset| Row::new(offset, 7));
        let index = index_of(&rows);
        for offset in 0..BLOCK_BYTES {
            let place = index_place(offset) as usize;
            let (before, end) = index_range([index[place], index[place + 1]], offset);
            let expected = rows.partition_point(|row| *row <= Row::last_at(offset)) as u64;
            assert!(before <= expected && expected <= end, "{offset}");
            let part = rows[before as usize..end as usize].iter();
            assert!(
                part.copied()
                    .all(|row| u64::from(row.offset()) / 1024 == offset / 1024)
            );
        }
        assert_eq!(index[INDEX_WORDS - 1], 10);
    }
}
