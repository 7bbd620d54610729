//! The end of a segment: where each chunk is, and what the segment has in all.
//!
//! FORMAT.md describes the bytes. Sections follow each other without a gap, so that each byte of a file belongs to the header, to
//! one chunk or to the footer, and has a checksum.

use std::collections::HashSet;

use crate::chunk::callees::CHUNK_CALLERS;
use crate::chunk::dictionary::{CHUNK_ENTRIES, CHUNK_FUNCTIONS, CHUNK_LOCATIONS, CHUNK_STRINGS};
use crate::chunk::labels::CHUNK_SETS;
use crate::chunk::rows::CHUNK_SERIES;
use crate::chunk::tree::CHUNK_NODES;
use crate::chunk::windows::{CHUNK_WINDOWS, WindowInfo};
use crate::codec::varint::{self, Bytes, unzigzag, zigzag};
use crate::error::{Error, Malformed};
use crate::section::Section;

/// Version of the format. Segments of which no address was dropped are of version 1, which servers of before can read.
pub(crate) const VERSION: u32 = 2;

/// A segment begins with these bytes.
pub(crate) const HEADER: [u8; 8] = *b"PLCOLSEG";

const END: [u8; 8] = *b"PLCOLEND";

/// Length of the footer u32, version u32, CRC32C of the footer and of these two numbers u32, [`END`].
pub(crate) const TRAILER_BYTES: usize = 20;

/// Whether locations have their addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// All have.
    #[default]
    Kept,
    /// Some whose functions and lines are known have none: segments with and without addresses were merged.
    PartlyDropped,
    /// None has whose functions and lines are known.
    Dropped,
}

impl Addresses {
    const ALL: [Self; 3] = [Self::Kept, Self::PartlyDropped, Self::Dropped];

    /// The version of a segment's format.
    fn version(self) -> u32 {
        match self {
            Self::Kept => 1,
            Self::PartlyDropped | Self::Dropped => VERSION,
        }
    }
}

/// Sums of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Start of the first window, milliseconds since the Unix epoch.
    pub from_ms: i64,
    /// End of the last window.
    pub to_ms: i64,
    /// Length to which windows were rolled up, in milliseconds; 0 if windows are as they were received.
    pub resolution_ms: u64,
    /// Whether locations have their addresses.
    pub addresses: Addresses,
    /// The caller's mark of how far it is merged ([`WriteOptions`](crate::WriteOptions::level)).
    pub level: u32,
    /// Position among the segments that one merge wrote, from 0.
    pub part: u32,
    /// Number of these segments: each has all windows, and some of the series.
    pub parts: u32,
    /// Nodes that have a window.
    pub nodes: u64,
    /// Received windows.
    pub messages: u64,
    /// Combinations of series, stack and tag set.
    pub pairs: u64,
    /// Rows.
    pub rows: u64,
    /// Samples.
    pub samples: u64,
    /// CPU time of the samples, in nanoseconds.
    pub ns: u64,
    /// Stacks, including the empty one.
    pub stacks: u64,
}

impl Summary {
    /// Sets what it says of windows.
    pub(crate) fn count_windows<'a>(
        &mut self,
        windows: impl Iterator<Item = &'a WindowInfo> + Clone,
    ) {
        let end_ms = |info: &WindowInfo| info.start_ms().saturating_add(info.window_ms());
        self.from_ms = windows.clone().map(WindowInfo::start_ms).min().unwrap_or(0);
        self.to_ms = windows.clone().map(end_ms).max().unwrap_or(0);
        let messages = windows.clone().map(|info| info.messages.len() as u64);
        self.messages = messages.sum();
        let nodes: HashSet<&str> = windows.map(|info| info.node.as_str()).collect();
        self.nodes = nodes.len() as u64;
    }
}

/// A chunk's place and contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) crc: u32,
    /// Number of its first entry; of the tree, of its first stack.
    pub(crate) first: u32,
    /// Number of its entries.
    pub(crate) items: u32,
}

/// The chunks of a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChunkTable {
    pub(crate) chunks: Vec<Chunk>,
    /// Entries of all chunks. A series that several chunks have is one.
    pub(crate) entries: usize,
}

impl ChunkTable {
    /// Bytes of all chunks.
    pub(crate) fn bytes(&self) -> u64 {
        let length = |chunk: &Chunk| u64::from(chunk.length);
        self.chunks.iter().map(length).sum()
    }

    /// Position of the chunk that has an entry, where each has one.
    pub(crate) fn find(&self, entry: u32) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk.first <= entry);
        after.checked_sub(1)
    }
}

/// The footer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) summary: Summary,
    tables: [ChunkTable; Section::ALL.len()],
}

impl Footer {
    pub(crate) fn table(&self, section: Section) -> &ChunkTable {
        &self.tables[section as usize]
    }
}

/// Encodes the footer and what follows it, for sections in their order in the file.
pub(crate) fn encode(summary: &Summary, sections: &[(Section, Vec<Chunk>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let Summary {
        from_ms,
        to_ms,
        resolution_ms,
        addresses,
        level,
        part,
        parts,
        nodes,
        messages,
        pairs,
        rows,
        samples,
        ns,
        stacks,
    } = *summary;
    let from_to = [from_ms, to_ms].map(zigzag);
    let merge = [level, part, parts].map(u64::from);
    let counts = [nodes, messages, pairs, rows, samples, ns, stacks];
    let numbers = from_to.into_iter().chain([resolution_ms]).chain(merge);
    for number in numbers.chain(counts) {
        varint::put(&mut out, number);
    }
    if addresses != Addresses::Kept {
        varint::put(&mut out, addresses as u64);
    }
    varint::put(&mut out, sections.len() as u64);
    for (section, chunks) in sections {
        varint::put(&mut out, *section as u64);
        varint::put(&mut out, chunks.len() as u64);
        let mut first = 0;
        for chunk in chunks {
            varint::put(&mut out, u64::from(chunk.length));
            varint::put(&mut out, u64::from(chunk.first - first));
            varint::put(&mut out, u64::from(chunk.items));
            out.extend_from_slice(&chunk.crc.to_le_bytes());
            first = chunk.first;
        }
    }
    out.extend_from_slice(&(out.len() as u32).to_le_bytes());
    out.extend_from_slice(&addresses.version().to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out.extend_from_slice(&END);
    out
}

/// The last bytes of a segment.
pub(crate) struct Trailer {
    /// Length of the footer and the trailer.
    pub(crate) length: u64,
    /// Version of the format.
    pub(crate) version: u32,
    crc: u32,
}

/// Reads the trailer.
///
/// # Errors
/// It is not the end of a segment of this version.
pub(crate) fn read_trailer(bytes: &[u8; TRAILER_BYTES]) -> Result<Trailer, Error> {
    let (numbers, end) = bytes.split_at(12);
    if end != END {
        return Err(Error::NotASegment("its end is missing"));
    }
    let number = |at: usize| {
        u32::from_le_bytes([
            numbers[at],
            numbers[at + 1],
            numbers[at + 2],
            numbers[at + 3],
        ])
    };
    match number(4) {
        version @ 1..=VERSION => Ok(Trailer {
            length: u64::from(number(0)) + TRAILER_BYTES as u64,
            version,
            crc: number(8),
        }),
        found => Err(Error::Version {
            found,
            known: VERSION,
        }),
    }
}

/// Checks and reads the footer of a file of `file_bytes`, from the footer's first byte to the end of the file.
///
/// # Errors
/// The bytes are damaged.
pub(crate) fn decode(trailer: &Trailer, bytes: &[u8], file_bytes: u64) -> Result<Footer, Error> {
    let checked = &bytes[..bytes.len().saturating_sub(12)];
    if crc32c::crc32c(checked) != trailer.crc {
        return Err(Error::NotASegment("the footer has a wrong checksum"));
    }
    let footer = &bytes[..bytes.len() - TRAILER_BYTES];
    let end = file_bytes - bytes.len() as u64;
    decode_checked(footer, end, trailer.version).map_err(|Malformed(what)| Error::NotASegment(what))
}

/// Reads a footer of a version, whose checksum is right, of chunks that end at `end`.
pub(crate) fn decode_checked(bytes: &[u8], end: u64, version: u32) -> Result<Footer, Malformed> {
    let mut from = Bytes::new(bytes);
    let mut summary = Summary {
        from_ms: unzigzag(from.take()?),
        to_ms: unzigzag(from.take()?),
        resolution_ms: from.take()?,
        addresses: Addresses::Kept,
        level: take_u32(&mut from)?,
        part: take_u32(&mut from)?,
        parts: take_u32(&mut from)?,
        nodes: from.take()?,
        messages: from.take()?,
        pairs: from.take()?,
        rows: from.take()?,
        samples: from.take()?,
        ns: from.take()?,
        stacks: from.take()?,
    };
    if version > Addresses::Kept.version() {
        let addresses = Addresses::ALL.get(from.take_at_most(usize::MAX)?);
        let unknown = Malformed("addresses are dropped in an unknown way");
        summary.addresses = *addresses.ok_or(unknown)?;
    }
    let mut footer = Footer {
        summary,
        ..Footer::default()
    };
    let mut offset = HEADER.len() as u64;
    for _ in 0..from.take_count()? {
        let number = from.take_at_most(usize::MAX)?;
        let chunks = decode_chunks(&mut from, &mut offset)?;
        // A later version may have more sections, which say nothing about those that are known.
        if let Some(section) = Section::from_number(number) {
            let table = &mut footer.tables[section as usize];
            if !table.chunks.is_empty() {
                return Err(Malformed("a section comes twice"));
            }
            table.chunks = chunks;
        }
    }
    if offset != end {
        return Err(Malformed("the chunks end elsewhere than the footer begins"));
    }
    count_entries(&mut footer)?;
    check_entries(&footer)?;
    from.finish()?;
    Ok(footer)
}

fn take_u32(from: &mut Bytes<'_>) -> Result<u32, Malformed> {
    Ok(from.take_at_most(u32::MAX as usize)? as u32)
}

fn decode_chunks(from: &mut Bytes<'_>, offset: &mut u64) -> Result<Vec<Chunk>, Malformed> {
    let count = from.take_count()?;
    let mut chunks = Vec::with_capacity(count);
    let mut first = 0_usize;
    for _ in 0..count {
        let length = from.take_at_most(u32::MAX as usize)?;
        first += from.take_at_most(u32::MAX as usize - first)?;
        let items = from.take_at_most(u32::MAX as usize)?;
        chunks.push(Chunk {
            offset: *offset,
            length: length as u32,
            crc: u32::from_le_bytes(from.take_array()?),
            first: first as u32,
            items: items as u32,
        });
        *offset += length as u64;
    }
    Ok(chunks)
}

/// Counts the entries of each section, and checks that they are numbered from 0.
fn count_entries(footer: &mut Footer) -> Result<(), Malformed> {
    for section in Section::ALL {
        let table = &mut footer.tables[section as usize];
        let mut end = 0_u64;
        let mut items = 0_u64;
        for chunk in &table.chunks {
            let first = u64::from(chunk.first);
            let is_next = match section {
                // Its first entry is the number of a stack: there are less of them than of nodes.
                Section::Tree => true,
                // A large series has several chunks.
                Section::Detail | Section::Totals | Section::Cells | Section::Usage => {
                    first == end || first + 1 == end
                }
                _ => first == end,
            };
            if !is_next || chunk.items == 0 || chunk.items as usize > items_max(section) {
                return Err(Malformed("a chunk has entries that it cannot have"));
            }
            end = first + u64::from(chunk.items);
            items += u64::from(chunk.items);
        }
        let entries = if section == Section::Tree { items } else { end };
        table.entries = match u32::try_from(entries) {
            Ok(entries) if entries < u32::MAX => entries as usize,
            _ => {
                return Err(Malformed(
                    "a section has more entries than 32 bits can number",
                ));
            }
        };
    }
    Ok(())
}

/// Checks that sections which belong together have the same entries.
fn check_entries(footer: &Footer) -> Result<(), Malformed> {
    let entries = |section| footer.table(section).entries;
    let nodes = entries(Section::Tree) as u64;
    if !(1..=nodes + 1).contains(&footer.summary.stacks) {
        return Err(Malformed("there are more stacks than nodes"));
    }
    if footer.summary.part >= footer.summary.parts {
        return Err(Malformed("it is no part of its merge"));
    }
    let last = footer.table(Section::Tree).chunks.last();
    if last.is_some_and(|last| u64::from(last.first) > footer.summary.stacks) {
        return Err(Malformed("the tree has more stacks than there are"));
    }
    let chunks = |section| {
        let chunks = footer.table(section).chunks.iter();
        chunks.map(|chunk| (chunk.first, chunk.items))
    };
    let has = |section| entries(section) > 0;
    let is_same = chunks(Section::Detail).eq(chunks(Section::Totals))
        && (!has(Section::Accounts) || chunks(Section::Accounts).eq(chunks(Section::Windows)))
        && (!has(Section::Digests) || chunks(Section::Digests).eq(chunks(Section::Windows)))
        && entries(Section::Totals) == entries(Section::Series)
        && entries(Section::Cells) == entries(Section::Series)
        && entries(Section::Usage) == entries(Section::Containers)
        && entries(Section::Callees) == entries(Section::Locations) + 1;
    if is_same {
        Ok(())
    } else {
        Err(Malformed(
            "sections that belong together have other entries",
        ))
    }
}

/// Entries of a chunk.
fn items_max(section: Section) -> usize {
    match section {
        Section::Locations => CHUNK_LOCATIONS,
        Section::Functions => CHUNK_FUNCTIONS,
        Section::Mappings | Section::TagSets => CHUNK_ENTRIES,
        Section::Strings => CHUNK_STRINGS,
        Section::Tree => CHUNK_NODES,
        Section::Callees => CHUNK_CALLERS,
        Section::Detail | Section::Totals | Section::Cells | Section::Usage => CHUNK_SERIES,
        Section::Windows | Section::Accounts | Section::Digests => CHUNK_WINDOWS,
        Section::Containers | Section::Series => CHUNK_SETS,
    }
}
