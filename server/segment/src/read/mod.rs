//! An open segment: its footer and the labels of its series. All else is read when it is asked for.

pub(crate) mod callees;
pub(crate) mod cursor;
pub(crate) mod groups;
pub(crate) mod needed;
pub(crate) mod parallel;
pub(crate) mod program_files;
pub(crate) mod questions;
pub(crate) mod selection;
pub(crate) mod source;
pub(crate) mod stacks;
pub(crate) mod sums;
mod verify;
pub(crate) mod window_sums;
pub(crate) mod windows;

use model::LabelSet;

use crate::chunk::dictionary::DictionaryLimits;
use crate::chunk::labels::{CHUNK_SETS, LabelChunk};
use crate::chunk::rows::RowLimits;
use crate::chunk::tree::{TreeChunkHead, TreeReader};
use crate::codec::column::Unpacker;
use crate::error::{Cause, Damage, Error, Malformed};
use crate::file::footer::{self, Chunk, ChunkTable, Footer, HEADER, Summary, TRAILER_BYTES};
use crate::read_at::ReadAt;
use crate::section::Section;

/// Bytes that are read from the end of a file at first: a footer of 29 million rows has 10 KB.
const TAIL_BYTES: u64 = 64 << 10;

/// An open segment.
pub struct Segment<R> {
    source: R,
    footer: Footer,
    file_bytes: u64,
    series: Vec<LabelChunk>,
    /// The number of the first node of each chunk of the tree.
    first_nodes: Vec<u32>,
}

/// Buffers of a thread that reads chunks.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    unpacker: Unpacker,
}

impl<R: ReadAt> Segment<R> {
    /// Opens a segment.
    ///
    /// # Errors
    /// It cannot be read, is no segment of this version, or its footer or labels are damaged.
    pub fn open(source: R) -> Result<Self, Error> {
        let file_bytes = source.size().map_err(Error::Read)?;
        let mut header = [0; HEADER.len()];
        let least = (HEADER.len() + TRAILER_BYTES) as u64;
        if file_bytes < least {
            return Err(Error::NotASegment("it is too short"));
        }
        source.read_exact_at(&mut header, 0).map_err(Error::Read)?;
        if header != HEADER {
            return Err(Error::NotASegment("it does not begin like one"));
        }
        let footer = read_footer(&source, file_bytes)?;
        let mut segment = Self {
            source,
            file_bytes,
            series: Vec::new(),
            first_nodes: first_nodes(footer.table(Section::Tree)),
            footer,
        };
        segment.series = segment.read_label_chunks(Section::Series)?;
        Ok(segment)
    }

    /// Sums of the segment.
    pub fn summary(&self) -> &Summary {
        &self.footer.summary
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Number of entries of a section, and its bytes in the file.
    pub fn section(&self, section: Section) -> (usize, u64) {
        let table = self.footer.table(section);
        (table.entries, table.bytes())
    }

    /// Number of series.
    pub fn series_count(&self) -> usize {
        self.series.iter().map(LabelChunk::len).sum()
    }

    /// The labels of a series.
    pub fn series_labels(&self, series: u32) -> impl Iterator<Item = (&str, &str)> {
        let (chunk, position) = (series as usize / CHUNK_SETS, series as usize % CHUNK_SETS);
        self.series[chunk].get(position)
    }

    /// The label set of a series.
    pub fn series_label_set(&self, series: u32) -> LabelSet {
        // SANITY: the labels were checked when they were read.
        LabelSet::from_sorted(self.series_labels(series)).unwrap_or_default()
    }

    /// The label sets of all series.
    pub(crate) fn series_label_sets(&self) -> Vec<LabelSet> {
        let all = 0..self.series_count() as u32;
        all.map(|series| self.series_label_set(series)).collect()
    }

    /// The series that pass a test.
    pub fn find_series(&self, mut is_wanted: impl FnMut(&LabelSet) -> bool) -> Vec<u32> {
        let all = 0..self.series_count() as u32;
        all.filter(|series| is_wanted(&self.series_label_set(*series)))
            .collect()
    }

    /// The label sets of the containers that have accounts.
    ///
    /// # Errors
    /// They are damaged.
    pub fn read_containers(&self) -> Result<Vec<LabelSet>, Damage> {
        let chunks = self.read_label_chunks(Section::Containers)?;
        let sets = chunks.iter().flat_map(|chunk| {
            let set = |position| LabelSet::from_sorted(chunk.get(position)).unwrap_or_default();
            (0..chunk.len()).map(set)
        });
        Ok(sets.collect())
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let chunks = Section::ALL.map(|section| self.footer.table(section).chunks.len());
        size_of::<Chunk>() * chunks.iter().sum::<usize>()
            + self
                .series
                .iter()
                .map(LabelChunk::heap_bytes)
                .sum::<usize>()
    }

    fn read_label_chunks(&self, section: Section) -> Result<Vec<LabelChunk>, Damage> {
        let mut scratch = Scratch::default();
        let last = self.chunks(section).len().saturating_sub(1);
        let read = |number: usize| {
            self.read(section, number, &mut scratch, |bytes, chunk, unpacker| {
                // So that a set's chunk can be computed.
                if number < last && chunk.items as usize != CHUNK_SETS {
                    return Err(Malformed("a chunk of label sets is not full"));
                }
                LabelChunk::decode(bytes, chunk.items as usize, unpacker)
            })
        };
        (0..self.chunks(section).len()).map(read).collect()
    }

    pub(crate) fn table(&self, section: Section) -> &ChunkTable {
        self.footer.table(section)
    }

    pub(crate) fn count(&self, section: Section) -> usize {
        self.footer.table(section).entries
    }

    /// Begins to read a chunk of the tree.
    pub(crate) fn open_tree(
        &self,
        number: usize,
        scratch: &mut Scratch,
    ) -> Result<TreeReader, Damage> {
        let next = self.chunks(Section::Tree).get(number + 1);
        let end_stack = next.map_or(self.stack_count() as u32, |next| next.first);
        let locations = self.count(Section::Locations);
        self.read(Section::Tree, number, scratch, |bytes, chunk, unpacker| {
            let head = TreeChunkHead {
                number: number as u32,
                first_node: self.first_nodes[number],
                first_stack: chunk.first,
                end_stack,
                items: chunk.items,
            };
            TreeReader::new(bytes, head, locations, unpacker)
        })
    }

    pub(crate) fn row_limits(&self) -> RowLimits {
        RowLimits {
            stacks: self.stack_count(),
            tag_sets: self.count(Section::TagSets),
            windows: self.count(Section::Windows),
        }
    }

    pub(crate) fn dictionary_limits(&self) -> DictionaryLimits {
        DictionaryLimits {
            strings: self.count(Section::Strings),
            functions: self.count(Section::Functions),
            mappings: self.count(Section::Mappings),
        }
    }

    /// Number of tag sets, with the empty one.
    pub fn tag_set_count(&self) -> usize {
        self.count(Section::TagSets)
    }

    /// Number of stacks, with the empty one.
    pub fn stack_count(&self) -> usize {
        usize::try_from(self.footer.summary.stacks).unwrap_or(usize::MAX)
    }

    /// Reads a chunk, checks its sum, and decodes it.
    pub(crate) fn read<T>(
        &self,
        section: Section,
        number: usize,
        scratch: &mut Scratch,
        decode: impl FnOnce(&[u8], &Chunk, &mut Unpacker) -> Result<T, Malformed>,
    ) -> Result<T, Damage> {
        let damage = |cause| Damage {
            section,
            chunk: number as u32,
            cause,
        };
        let chunk = &self.chunks(section)[number];
        let Scratch { bytes, unpacker } = scratch;
        bytes.resize(chunk.length as usize, 0);
        self.source
            .read_exact_at(bytes, chunk.offset)
            .map_err(|error| damage(Cause::Read(error.to_string())))?;
        if crc32c::crc32c(bytes) != chunk.crc {
            return Err(damage(Cause::Checksum));
        }
        decode(bytes, chunk, unpacker).map_err(|Malformed(what)| damage(Cause::Malformed(what)))
    }
}

impl<R> Segment<R> {
    pub(crate) fn chunks(&self, section: Section) -> &[Chunk] {
        &self.footer.table(section).chunks
    }

    /// The damage of a chunk that was read as far as its contents made sense.
    pub(crate) fn malformed(&self, section: Section, number: usize, what: Malformed) -> Damage {
        Damage {
            section,
            chunk: number as u32,
            cause: Cause::Malformed(what.0),
        }
    }
}

fn read_footer(source: &impl ReadAt, file_bytes: u64) -> Result<Footer, Error> {
    let mut tail = vec![0; file_bytes.min(TAIL_BYTES) as usize];
    let read = |buffer: &mut [u8]| source.read_exact_at(buffer, file_bytes - buffer.len() as u64);
    read(&mut tail).map_err(Error::Read)?;
    let trailer = tail
        .last_chunk::<TRAILER_BYTES>()
        .ok_or(Error::NotASegment("it is too short"))?;
    let trailer = footer::read_trailer(trailer)?;
    if trailer.length > file_bytes - HEADER.len() as u64 {
        return Err(Error::NotASegment("the footer is longer than the file"));
    }
    let length = trailer.length as usize;
    if length > tail.len() {
        tail.resize(length, 0);
        read(&mut tail).map_err(Error::Read)?;
    }
    footer::decode(&trailer, &tail[tail.len() - length..], file_bytes)
}

fn first_nodes(tree: &ChunkTable) -> Vec<u32> {
    let mut first_nodes = Vec::new();
    let mut first = 0;
    for chunk in &tree.chunks {
        first_nodes.push(first);
        first += chunk.items;
    }
    first_nodes
}
