//! What Go's table is relative to: where the code starts, and where the trees of inlined calls lie. Since Go 1.18 only
//! the module's record (`runtime.firstmoduledata`) says it, which the linker makes and stripping leaves.
//!
//! The record is found by what stands in it: it begins with the addresses of the table and of its parts, which are known.

use super::blocks::Blocks;
use super::headers::Headers;
use super::table::{Table, Version};

/// Bytes of data in which the record is looked for. It lies in the first sections with data; the largest known programs
/// have 20 MB of it.
const SCAN_BYTES_MAX: u64 = 64 << 20;
/// Bytes of relocations, 24 for each pointer in the data of a position-independent program: of Kubernetes' 10 MB.
const RELOCATIONS_BYTES_MAX: u64 = 64 << 20;
/// Pointers to the table that may be the record's first field: honest files have one or two.
const CANDIDATES_MAX: usize = 16;
/// Words of the record that are read.
const WORDS: usize = 41;

/// Where the fields stand, in words, and with what parts of the table each begins; slices are three words.
const FTAB_LEN: usize = 17;
const TEXT: usize = 22;
const GOFUNC_118: usize = 38;
const GOFUNC_120: usize = 40;

/// What the table is relative to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Module {
    /// Address of the first function; 0 for versions whose table has addresses.
    pub(super) text: u64,
    /// Address that the trees of inlined calls are relative to; 0 for versions whose table has addresses,
    /// `None` when it is not known.
    pub(super) gofunc: Option<u64>,
}

type Words = [u64; WORDS];

impl Module {
    pub(super) fn find<R: Fn(u64, &mut [u8]) -> usize>(
        blocks: &mut Blocks<R>,
        headers: &Headers,
        table: &Table,
    ) -> Option<Self> {
        let gofunc_at = match table.version {
            Version::Go12 | Version::Go116 => {
                return Some(Self {
                    text: 0,
                    gofunc: Some(0),
                });
            }
            Version::Go118 => GOFUNC_118,
            Version::Go120 => GOFUNC_120,
        };
        let address = headers.address_of_data(table.at)?;
        let found = find_in_data(blocks, headers, table, address)
            .or_else(|| find_by_relocations(blocks, headers, table, address));
        match found {
            Some(words) => {
                let gofunc = words[gofunc_at];
                Some(Self {
                    text: words[TEXT],
                    gofunc: headers.offset_of(gofunc).is_some().then_some(gofunc),
                })
            }
            // Up to Go 1.25 the table's header has the start as well, unless it is relocated.
            None if table.text_start != 0 => Some(Self {
                text: table.text_start,
                gofunc: None,
            }),
            None => None,
        }
    }
}

/// Whether these are the first words of the record that belongs to the table at `address`.
fn is_record(words: &Words, table: &Table, address: u64) -> bool {
    let starts = [0, 1, 4, 7, 10, 13].map(|place| words[place]);
    let parts = table.part_offsets();
    starts[0] == address
        && starts[1..]
            .iter()
            .zip(parts)
            .all(|(start, part)| *start == address.wrapping_add(part))
        && words[FTAB_LEN] == table.functions.wrapping_add(1)
}

/// Where the pointers are in the file as they are in memory: programs at fixed addresses, and those that Go
/// linked itself.
fn find_in_data<R: Fn(u64, &mut [u8]) -> usize>(
    blocks: &mut Blocks<R>,
    headers: &Headers,
    table: &Table,
    address: u64,
) -> Option<Words> {
    let mut ranges: Vec<(u64, u64)> = headers
        .module
        .iter()
        .map(|range| (range.offset, range.bytes))
        .collect();
    let writable = headers.segments.iter().filter(|it| it.is_writable());
    ranges.extend(writable.map(|it| (it.offset, it.bytes)));
    let mut bytes_left = SCAN_BYTES_MAX;
    let mut places = Vec::new();
    for (offset, bytes) in ranges {
        let bytes = bytes.min(bytes_left);
        bytes_left -= bytes;
        // Segments start where their first section does, at any address; pointers are aligned.
        let start = offset.saturating_add((8 - offset % 8) % 8);
        blocks.scan(start, offset.saturating_add(bytes), |at, piece| {
            let words = piece.chunks_exact(8).enumerate();
            let found = words.filter(|(_, word)| **word == address.to_le_bytes());
            places.extend(found.map(|(index, _)| at + 8 * index as u64));
            places.len() < CANDIDATES_MAX
        });
        // The first section that has it, has it.
        let found = places
            .drain(..)
            .take(CANDIDATES_MAX)
            .filter_map(|place| read_words(blocks, place))
            .find(|words| is_record(words, table, address));
        if found.is_some() {
            return found;
        }
    }
    None
}

fn read_words<R: Fn(u64, &mut [u8]) -> usize>(blocks: &mut Blocks<R>, at: u64) -> Option<Words> {
    let mut words = [0; WORDS];
    for (place, word) in words.iter_mut().enumerate() {
        *word = blocks.u64(at.checked_add(8 * place as u64)?)?;
    }
    Some(words)
}

/// Where the pointers stand in the relocations: position-independent programs of the system's linker.
fn find_by_relocations<R: Fn(u64, &mut [u8]) -> usize>(
    blocks: &mut Blocks<R>,
    headers: &Headers,
    table: &Table,
    address: u64,
) -> Option<Words> {
    let range = headers.relocations?;
    let end = range
        .offset
        .saturating_add(range.bytes.min(RELOCATIONS_BYTES_MAX));
    let mut candidates: Vec<u64> = Vec::new();
    blocks.scan(range.offset, end, |_, piece| {
        let relocations = piece.chunks_exact(24).filter_map(read_relative);
        let found = relocations.filter(|(_, addend)| *addend == address);
        candidates.extend(found.map(|(place, _)| place));
        candidates.len() < CANDIDATES_MAX
    });
    candidates.truncate(CANDIDATES_MAX);
    // What is no pointer stands in the data.
    let mut records: Vec<(u64, Words)> = candidates
        .iter()
        .filter_map(|place| Some((*place, read_words(blocks, headers.offset_of(*place)?)?)))
        .collect();
    blocks.scan(range.offset, end, |_, piece| {
        for (place, addend) in piece.chunks_exact(24).filter_map(read_relative) {
            for (start, words) in &mut records {
                let into = place.wrapping_sub(*start) / 8;
                if let Some(word) = usize::try_from(into).ok().and_then(|it| words.get_mut(it)) {
                    *word = addend;
                }
            }
        }
        true
    });
    let mut records = records.into_iter().map(|(_, words)| words);
    records.find(|words| is_record(words, table, address))
}

/// Place and value of a relocation that adds nothing but the program's start.
fn read_relative(relocation: &[u8]) -> Option<(u64, u64)> {
    const R_X86_64_RELATIVE: u64 = 8;
    const R_AARCH64_RELATIVE: u64 = 1027;
    let word = |at: usize| Some(u64::from_le_bytes(*relocation.get(at..)?.first_chunk()?));
    matches!(word(8)?, R_X86_64_RELATIVE | R_AARCH64_RELATIVE).then_some((word(0)?, word(16)?))
}
