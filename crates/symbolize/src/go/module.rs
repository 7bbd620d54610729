//! The addresses that Go's table is relative to: the start of the code, and that of the trees of inlined calls. Since Go 1.18 only
//! the module's record (`runtime.firstmoduledata`) has them. The linker makes it, and stripping leaves it.
//!
//! The record is found by its first fields: the addresses of the table and its parts, which are known.

use elf::{CachedFile, FileRange, ReadAt};
use object::elf::PF_W;

use super::program::Program;
use super::scan::{CANDIDATES_MAX, find_words, scan};
use super::table::{Module, Table, Version};

/// Bytes of data in which the record is searched. It lies in the first sections with data; the largest known programs have 20 MB.
const SCAN_BYTES_MAX: u64 = 64 << 20;
/// Bytes of relocations: 24 for each pointer in the data of a position-independent program. Kubernetes has 10 MB.
const RELOCATIONS_BYTES_MAX: u64 = 64 << 20;
/// Words of the record that are read.
const WORDS: usize = 41;

// Fields of the record, in words; a slice takes three.
const FTAB_LEN: usize = 17;
const TEXT: usize = 22;
const GOFUNC_118: usize = 38;
const GOFUNC_120: usize = 40;

type Words = [u64; WORDS];

impl Module {
    pub(super) fn find(
        file: &CachedFile<impl ReadAt>,
        program: &Program,
        table: &Table,
    ) -> Option<Self> {
        let (text, gofunc) = (0, Some(0));
        let gofunc_at = match table.version {
            Version::Go12 | Version::Go116 => return Some(Self { text, gofunc }),
            Version::Go118 => GOFUNC_118,
            Version::Go120 => GOFUNC_120,
        };
        let address = program.address_of_data(table.at)?;
        let found = find_in_data(file, program, table, address)
            .or_else(|| find_by_relocations(file, program, table, address));
        if let Some(words) = found {
            let gofunc = words[gofunc_at];
            return Some(Self {
                text: words[TEXT],
                gofunc: program.offset_of(gofunc).map(|_| gofunc),
            });
        }
        // Up to Go 1.25 the table's header also has the start, unless it is relocated.
        (table.text_start != 0).then_some(Self {
            text: table.text_start,
            gofunc: None,
        })
    }
}

/// Whether a record belongs to the table at `address`.
fn is_record(words: &Words, table: &Table, address: u64) -> bool {
    let [start, parts @ ..] = [0, 1, 4, 7, 10, 13].map(|field| words[field]);
    start == address
        && parts.map(|part| part.wrapping_sub(address)) == table.part_offsets()
        && words[FTAB_LEN] == table.functions.wrapping_add(1)
}

/// Finds the record in files that have its pointers in place: programs at fixed addresses, and those that Go's linker made.
fn find_in_data(
    file: &CachedFile<impl ReadAt>,
    program: &Program,
    table: &Table,
    address: u64,
) -> Option<Words> {
    let segments = program.segments.iter();
    let writable = segments.filter(|header| header.flags.contains(PF_W));
    let ranges = program.module.into_iter();
    let mut bytes_left = SCAN_BYTES_MAX;
    ranges
        .chain(writable.map(|header| header.range))
        .find_map(|range| {
            let bytes = range.bytes.min(bytes_left);
            bytes_left -= bytes;
            // Segments start where their first section does, at any address; pointers are aligned.
            let padding = range.offset.wrapping_neg() % 8;
            let aligned = FileRange {
                offset: range.offset.saturating_add(padding),
                bytes: bytes.saturating_sub(padding),
            };
            let starts = find_words(file.file(), aligned, |word| *word == address.to_le_bytes());
            let mut records = starts.into_iter().filter_map(|at| read_words(file, at));
            records.find(|words| is_record(words, table, address))
        })
}

fn read_words(file: &impl ReadAt, at: u64) -> Option<Words> {
    let mut words = [0; WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        *word = file.read_u64(at.checked_add(8 * index as u64)?)?;
    }
    Some(words)
}

/// Finds the record in files that have its pointers in relocations: position-independent programs of the system's linker.
fn find_by_relocations(
    file: &CachedFile<impl ReadAt>,
    program: &Program,
    table: &Table,
    address: u64,
) -> Option<Words> {
    let FileRange { offset, bytes } = program.relocations?;
    let bytes = bytes.min(RELOCATIONS_BYTES_MAX);
    let relocations = FileRange { offset, bytes };
    let mut starts = Vec::new();
    scan(file.file(), relocations, |_, piece| {
        let found = relative_relocations(piece).filter(|(_, addend)| *addend == address);
        starts.extend(found.map(|(start, _)| start));
        starts.len() < CANDIDATES_MAX
    });
    // Fields that are not pointers are in the data.
    let mut records: Vec<(u64, Words)> = starts
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter_map(|start| Some((start, read_words(file, program.offset_of(start)?)?)))
        .collect();
    scan(file.file(), relocations, |_, piece| {
        for (place, addend) in relative_relocations(piece) {
            for (start, words) in &mut records {
                let index = usize::try_from(place.wrapping_sub(*start) / 8);
                if let Some(word) = index.ok().and_then(|index| words.get_mut(index)) {
                    *word = addend;
                }
            }
        }
        true
    });
    let mut records = records.into_iter().map(|(_, words)| words);
    records.find(|words| is_record(words, table, address))
}

/// Place and addend of the relocations that only add the program's base address.
fn relative_relocations(piece: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    const R_X86_64_RELATIVE: u64 = 8;
    const R_AARCH64_RELATIVE: u64 = 1027;
    let (relocations, _) = piece.as_chunks::<24>();
    relocations.iter().filter_map(|relocation| {
        let (words, _) = relocation.as_chunks();
        let [place, kind, addend] = std::array::from_fn(|at| u64::from_le_bytes(words[at]));
        matches!(kind, R_X86_64_RELATIVE | R_AARCH64_RELATIVE).then_some((place, addend))
    })
}
