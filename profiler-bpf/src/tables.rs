//! The tables that user space fills and the walk searches: which process maps what where, which
//! rows belong to a piece of a file, the rows, and the rules.
//!
//! ```text
//! PROCESSES  process id -> Process: identity, version, its part of MAPPINGS
//! MAPPINGS   sorted by address within a process: Mapping -> its part of BLOCKS
//! BLOCKS     for each 64 KiB of a file's code: Block -> page, first row, number of rows
//! ROWS       pages of rows, sorted within a block: Row -> number of a rule
//! RULES      Rule
//! ```
//! Several processes share the blocks of a file, several files share a page. Every value is made
//! of whole words, so that user space writes them without `unsafe`.
//!
//! What the program may be reading is never changed but in this order: new blocks, rows and
//! mappings go where nothing points to; then [`Process`] is replaced as one value; what it
//! pointed to before is used again only after programs that began earlier have ended.

use crate::unwind::Row;

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
/// rows that are needed; writing one anew takes some 15 us.
pub const PAGE_ROWS: usize = 16_384;

/// Words of a page as the map's value.
pub const PAGE_WORDS: usize = PAGE_ROWS * size_of::<Row>() / 8;

/// Steps of the search through a block's rows: 2^14 = [`PAGE_ROWS`].
pub const ROW_SEARCH_STEPS: u32 = 14;

/// Pages that there can be: 1,024 x 64 KiB = 64 MiB. How many there are is the collector's choice.
pub const PAGES_MAX: u32 = 1_024;

/// Rules that a row's 16 bits can name: 65,536 x 16 bytes = 1 MiB.
pub const RULES_MAX: u32 = 65_536;

/// A process and its part of the mappings, 4 words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// What tells this address space from an earlier one with the same process id; never 0.
    pub identity: u64,
    /// Place of its first mapping in `MAPPINGS`.
    pub first: u32,
    /// Number of its mappings, at most 2^[`MAPPING_SEARCH_STEPS`] - 1.
    pub count: u32,
    /// Number of this state of its mappings, different for each state of each process: what the
    /// program remembers under it stays true. Never 0.
    pub version: u32,
    /// Bits `PROCESS_…`.
    pub flags: u32,
}

/// [`Process::flags`]: an address in none of its mappings is in no code that user space knows, so
/// that there is no use in copying the stack where only a guess led there.
pub const PROCESS_SETTLED: u32 = 1;

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

    /// What these words say; `None` when they are of two values.
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

/// What the program does at an address in a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MappingKind {
    /// Takes the rule from the rows.
    Rows = 0,
    /// Takes the frame-pointer rule: code made at run time, or a file without any rows.
    FramePointer = 1,
    /// Copies the stack: the rows are not in the kernel.
    NotLoaded = 2,
}

/// An executable mapping, 4 words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
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
    /// What to do there.
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

/// Where the rows of 64 KiB of a file lie, one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Number of the page.
    pub page: u16,
    /// Its first row there.
    pub first: u16,
    /// Number of its rows, at most [`PAGE_ROWS`]; without any, the frame-pointer rule holds.
    pub count: u16,
}

impl Block {
    /// The word of the map's value.
    pub const fn to_word(self) -> u64 {
        self.page as u64 | (self.first as u64) << 16 | (self.count as u64) << 32
    }

    /// What a word says.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            page: word as u16,
            first: (word >> 16) as u16,
            count: (word >> 32) as u16,
        }
    }
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
            flags: PROCESS_SETTLED,
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
}
