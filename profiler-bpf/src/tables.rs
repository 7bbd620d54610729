//! The layout of the unwind tables in the kernel's maps.
//!
//! Two look-ups lead from an address to a rule. `MAPPINGS` has, for each process, its code
//! mappings in order: they give a file and an offset in it. `BLOCKS` has, for each 64 KiB of a
//! file, where its rows lie in the pages of `ROWS`, and a row names a rule in `RULES`. Files are
//! shared by all processes that map them.

use crate::unwind::Row;

/// Mappings in one value of `MAPPINGS`: a power of two, for the search.
pub const MAPPINGS_PER_CHUNK: usize = 32;

/// Rows in one page: as many as a block can have at most, one for each of its bytes.
pub const ROWS_PER_PAGE: usize = 1 << 16;

/// One value of the inner maps of `ROWS`: 256 KiB.
pub type RowPage = [Row; ROWS_PER_PAGE];

/// Key of `MAPPINGS`: a process, and which of its chunks.
pub const fn chunk_key(process: u32, chunk: u32) -> u64 {
    (process as u64) << 32 | chunk as u64
}

/// Key of `BLOCKS`: a file by its number, and file offset over
/// [`BLOCK_BYTES`](crate::unwind::BLOCK_BYTES).
pub const fn block_key(file: u32, block: u32) -> u64 {
    (file as u64) << 32 | block as u64
}

/// Up to [`MAPPINGS_PER_CHUNK`] mappings of a process in the order of their addresses: 656 bytes.
///
/// A process with more has a tree of two levels: its chunk 0 then says from which address on which
/// chunk holds, for at most 31 × 32 mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MappingChunk {
    /// Number of this state of the process's mappings; no other state of any process has it.
    pub version: u32,
    /// Not 0: this is the upper level, and `files` are numbers of chunks.
    pub is_index: u32,
    /// First addresses; `u64::MAX` in the places that are not used.
    pub starts: [u64; MAPPINGS_PER_CHUNK],
    /// Added to an address (wrapping), it gives the offset in the file.
    pub biases: [u64; MAPPINGS_PER_CHUNK],
    /// Numbers of the files; 0 where there is no code.
    pub files: [u32; MAPPINGS_PER_CHUNK],
}

/// Value of `BLOCKS`: where the rows of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BlockPlace {
    /// Index in `ROWS`.
    pub page: u32,
    /// The first row in the page.
    pub first: u16,
    /// The last row in the page.
    pub last: u16,
}

/// A rule that was looked up before, for the return addresses that come again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CachedRule {
    /// The address.
    pub address: u64,
    /// [`MappingChunk::version`]: with it the address stands for one place in one file.
    pub version: u32,
    /// The rule's number.
    pub rule: u32,
}

/// Rules cached per processor: 1,024 × 16 bytes. A power of two.
pub const RULE_CACHE_PLACES: usize = 1024;

/// Rules of all files: what 16 bits can number, 1 MiB.
pub const RULES_MAX: u32 = 1 << 16;

/// The place of `address` in the cache. Code addresses differ in their low bits; the multiplier
/// (2^64 over the golden ratio) spreads them over the high ones.
#[inline(always)]
pub const fn cache_place(address: u64) -> usize {
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize & (RULE_CACHE_PLACES - 1)
}

const _: () = assert!(size_of::<MappingChunk>() == 8 + 20 * MAPPINGS_PER_CHUNK);
const _: () = assert!(size_of::<BlockPlace>() == 8);
const _: () = assert!(size_of::<CachedRule>() == 16);
const _: () = assert!(RULE_CACHE_PLACES == 1 << 10);
