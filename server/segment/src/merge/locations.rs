//! The locations of all inputs, in their order.

use std::cmp::Ordering;

use crate::chunk::dictionary::LocationChunk;
use crate::dictionary::{Line, Location, compare_locations};
use crate::error::Error;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

use super::in_input;
use super::names::MergedNames;

/// The locations of an input from front to back.
struct LocationStream<'a, R> {
    input: usize,
    segment: &'a Segment<R>,
    scratch: Scratch,
    next_chunk: usize,
    chunk: LocationChunk,
    /// Position of the head in the chunk.
    position: usize,
    /// Number of the head.
    number: u32,
}

impl<R: ReadAt> LocationStream<'_, R> {
    /// The first location that was not taken, with the numbers of files and functions that all inputs have in common.
    fn head(&self) -> Option<(&Location, &[Line])> {
        let location = self.chunk.locations.get(self.position)?;
        Some((location, self.chunk.lines_of(location)))
    }

    fn advance(&mut self, names: &MergedNames) -> Result<(), Error> {
        self.position += 1;
        self.number += 1;
        self.fill(names)
    }

    /// Reads the next chunk when all of this one was taken.
    fn fill(&mut self, names: &MergedNames) -> Result<(), Error> {
        while self.position == self.chunk.locations.len()
            && self.next_chunk < self.segment.chunks(Section::Locations).len()
        {
            let limits = self.segment.dictionary_limits();
            let read = self.segment.read(
                Section::Locations,
                self.next_chunk,
                &mut self.scratch,
                |bytes, chunk, unpacker| {
                    LocationChunk::decode(bytes, chunk.items as usize, limits, unpacker)
                },
            );
            self.chunk = read.map_err(in_input(self.input))?;
            self.next_chunk += 1;
            self.position = 0;
            let mappings = &names.mapping_numbers[self.input];
            for location in &mut self.chunk.locations {
                location.mapping = mappings[location.mapping as usize];
            }
            let functions = &names.functions[self.input];
            for line in &mut self.chunk.lines {
                line.function = functions[line.function as usize];
            }
        }
        Ok(())
    }
}

/// Merges the locations of all inputs: each comes once.
pub(super) struct LocationMerge<'a, R> {
    streams: Vec<LocationStream<'a, R>>,
    names: &'a MergedNames,
}

impl<'a, R: ReadAt> LocationMerge<'a, R> {
    pub(super) fn new(inputs: &'a [&'a Segment<R>], names: &'a MergedNames) -> Result<Self, Error> {
        let mut streams = Vec::new();
        for (input, segment) in inputs.iter().enumerate() {
            let mut stream = LocationStream {
                input,
                segment,
                scratch: Scratch::default(),
                next_chunk: 0,
                chunk: LocationChunk::default(),
                position: 0,
                number: 0,
            };
            stream.fill(names)?;
            streams.push(stream);
        }
        Ok(Self { streams, names })
    }

    /// The next location and its lines. Shows each input that has it, and its number there.
    pub(super) fn next(
        &mut self,
        mut visit: impl FnMut(usize, u32),
    ) -> Result<Option<(Location, Vec<Line>)>, Error> {
        let heads = self.streams.iter().filter_map(LocationStream::head);
        let first = heads.min_by(|a, b| compare_locations(&self.names.names, *a, *b));
        let Some((location, lines)) =
            first.map(|(location, lines)| (location.clone(), lines.to_vec()))
        else {
            return Ok(None);
        };
        for stream in &mut self.streams {
            let is_same = |head| {
                compare_locations(&self.names.names, head, (&location, &lines)) == Ordering::Equal
            };
            if stream.head().is_some_and(is_same) {
                visit(stream.input, stream.number);
                stream.advance(self.names)?;
            }
        }
        Ok(Some((location, lines)))
    }
}

/// Numbers the locations of all inputs in their order. Returns the numbers of each input's.
pub(super) fn number_locations<R: ReadAt>(
    inputs: &[&Segment<R>],
    names: &MergedNames,
) -> Result<Vec<Vec<u32>>, Error> {
    let numbers = inputs
        .iter()
        .map(|segment| vec![0; segment.count(Section::Locations)]);
    let mut numbers: Vec<Vec<u32>> = numbers.collect();
    let mut merge = LocationMerge::new(inputs, names)?;
    let mut next = 0;
    while merge
        .next(|input, number| numbers[input][number as usize] = next)?
        .is_some()
    {
        next += 1;
    }
    Ok(numbers)
}
