//! Doors for the fuzz target to what lies behind the checksums.

use crate::chunk::accounts::decode_accounts;
use crate::chunk::callees::{Callees, Calls};
use crate::chunk::cells::{Cell, CellReader, UsageCell};
use crate::chunk::dictionary::{
    DictionaryLimits, LocationChunk, decode_functions, decode_mappings, decode_strings,
    decode_tag_sets,
};
use crate::chunk::digests::decode_digests;
use crate::chunk::labels::LabelChunk;
use crate::chunk::rows::{DetailReader, PairRows, RowLimits, TotalsReader};
use crate::chunk::tree::{TreeChunkHead, TreeReader};
use crate::chunk::windows::{Span, WindowInfo, decode_windows};
use crate::codec::column::Unpacker;
use crate::error::Malformed;
use crate::file::footer::{self, Chunk, TRAILER_BYTES};
use crate::log::frame::{FrameKind, FramePacker, FrameUnpacker, find_frame};
use crate::read::Segment;
use crate::section::Section;

/// Entries of each section that chunks may refer to.
const ENTRIES: usize = 40;

/// Decodes a chunk, as one of a segment with few entries; of rows, the sums and the detail one after the other.
pub fn decode_chunk(section: Section, items: usize, bytes: &[u8]) -> bool {
    decode(section, items, bytes).is_ok()
}

fn decode(section: Section, items: usize, bytes: &[u8]) -> Result<(), Malformed> {
    let mut unpacker = Unpacker::default();
    let unpacker = &mut unpacker;
    let limits = DictionaryLimits {
        strings: ENTRIES,
        functions: ENTRIES,
        mappings: ENTRIES,
    };
    match section {
        Section::Locations => LocationChunk::decode(bytes, items, limits, unpacker).map(drop),
        Section::Functions => decode_functions(bytes, items, limits, unpacker).map(drop),
        Section::Mappings => decode_mappings(bytes, items, limits, unpacker).map(drop),
        Section::TagSets => decode_tag_sets(bytes, items, limits, unpacker).map(drop),
        Section::Strings => decode_strings(bytes, items, unpacker).map(drop),
        Section::Tree => {
            let head = TreeChunkHead {
                number: 0,
                first_node: 3,
                first_stack: 2,
                end_stack: ENTRIES as u32,
                items: items as u32,
            };
            let mut reader = TreeReader::new(bytes, head, ENTRIES, unpacker)?;
            let mut calls = Calls::default();
            (0..ENTRIES as u32).for_each(|location| calls.add(location, location));
            let callees = calls.into_callees(ENTRIES);
            while let Ok(Some(_)) = reader.next(&mut &callees) {}
            Ok(())
        }
        Section::Detail | Section::Totals => decode_rows(items, bytes, unpacker),
        Section::Callees => Callees::decode(bytes, 5, items, (ENTRIES, 1000), unpacker).map(drop),
        Section::Cells => {
            let mut reader = CellReader::new::<Cell>(bytes, items, ENTRIES, unpacker)?;
            let mut cells: Vec<Cell> = Vec::new();
            while reader.next(&mut cells)? {}
            Ok(())
        }
        Section::Usage => {
            let mut reader = CellReader::new::<UsageCell>(bytes, items, ENTRIES, unpacker)?;
            let mut cells: Vec<UsageCell> = Vec::new();
            while reader.next(&mut cells)? {}
            Ok(())
        }
        Section::Windows | Section::Accounts => {
            let (windows, accounts) = split(bytes);
            let windows = decode_windows(windows, items, unpacker)?;
            let spans: Vec<Span> = windows.iter().map(WindowInfo::span).collect();
            decode_accounts(accounts, &spans, unpacker).map(drop)
        }
        Section::Digests => decode_digests(bytes, items, unpacker).map(drop),
        Section::Containers | Section::Series => {
            LabelChunk::decode(bytes, items, unpacker).map(drop)
        }
    }
}

/// Two chunks: the length of the first in two bytes, then both.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return (bytes, &[]);
    };
    rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*length))))
}

fn decode_rows(items: usize, bytes: &[u8], unpacker: &mut Unpacker) -> Result<(), Malformed> {
    let limits = RowLimits {
        stacks: ENTRIES,
        tag_sets: ENTRIES,
        windows: ENTRIES,
    };
    let (totals, detail) = split(bytes);
    let totals = TotalsReader::new(totals, items, limits, unpacker)?;
    let mut detail = DetailReader::new(detail, unpacker)?;
    let mut rows = PairRows::default();
    totals.read(|_, head, pair| {
        detail.next_pair(head, pair, &mut rows)?;
        let samples = rows
            .samples
            .iter()
            .fold(0_u64, |sum, samples| sum.wrapping_add(*samples));
        let ns = rows.ns.iter().fold(0_u64, |sum, ns| sum.wrapping_add(*ns));
        assert_eq!((samples, ns), (pair.samples, pair.ns));
        assert!(rows.ranks.is_sorted_by(|a, b| a < b) && rows.ranks.len() == pair.rows as usize);
        Ok(())
    })?;
    detail.finish()
}

/// The bytes of each chunk of a segment in memory.
pub fn chunks(segment: &Segment<Vec<u8>>, bytes: &[u8]) -> Vec<(Section, usize, Vec<u8>)> {
    let mut chunks = Vec::new();
    for section in Section::ALL {
        for chunk in segment.chunks(section) {
            let start = chunk.offset as usize;
            let bytes = bytes[start..start + chunk.length as usize].to_vec();
            chunks.push((section, chunk.items as usize, bytes));
        }
    }
    chunks
}

/// Sets the checksums of a file right, as far as its footer can be read.
pub fn mend_checksums(bytes: &[u8]) -> Option<Vec<u8>> {
    let trailer = footer::read_trailer(bytes.last_chunk::<TRAILER_BYTES>()?).ok()?;
    let end = bytes
        .len()
        .checked_sub(usize::try_from(trailer.length).ok()?)?;
    let footer = footer::decode_checked(
        &bytes[end..bytes.len() - TRAILER_BYTES],
        end as u64,
        trailer.version,
    )
    .ok()?;
    let mut sections: Vec<(Section, Vec<Chunk>)> = Vec::new();
    for section in Section::ALL {
        let mut chunks = footer.table(section).chunks.clone();
        for chunk in &mut chunks {
            let start = usize::try_from(chunk.offset).ok()?;
            chunk.crc =
                crc32c::crc32c(bytes.get(start..start.checked_add(chunk.length as usize)?)?);
        }
        if !chunks.is_empty() {
            sections.push((section, chunks));
        }
    }
    sections.sort_by_key(|(_, chunks)| chunks[0].offset);
    let mended = footer::encode(&footer.summary, &sections);
    Some([&bytes[..end], &mended].concat())
}

/// A record of a log as a frame, with its checksum.
pub fn put_record(is_checkpoint: bool, record: &[u8]) -> Vec<u8> {
    let kind = if is_checkpoint {
        FrameKind::Checkpoint
    } else {
        FrameKind::Windows
    };
    let mut out = Vec::new();
    FramePacker::default().put(&mut out, kind, record);
    out
}

/// The records of a log that is whole, unpacked, and whether each is a checkpoint.
pub fn records(log: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let mut unpacker = FrameUnpacker::default();
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(frame) = find_frame(log, at) {
        let is_checkpoint = frame.kind == FrameKind::Checkpoint;
        let record = unpacker.unpack(&frame).unwrap_or_default();
        records.push((is_checkpoint, record.to_vec()));
        at = frame.end;
    }
    records
}
