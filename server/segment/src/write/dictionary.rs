//! Writes the dictionary of a segment: locations as they come, then what they need.

use std::io::Write;

use crate::chunk::EncodedChunk;
use crate::chunk::dictionary::{
    CHUNK_ENTRIES, CHUNK_FUNCTIONS, CHUNK_STRINGS, CHUNK_SYSTEM_NAMES, CHUNK_TEXT, LocationChunk,
    encode_functions, encode_mappings, encode_strings, encode_tag_sets,
};
use crate::codec::column::Packer;
use crate::dictionary::{Function, Line, Location, Mapping, Names, Tag, TagValue, shown_name};
use crate::error::Error;
use crate::file::output::Output;
use crate::section::Section;

/// Numbers of entries in the order of their first use.
struct FirstUse {
    /// The number of each entry in the file, or [`NEW`].
    numbers: Vec<u32>,
    order: Vec<u32>,
}

const NEW: u32 = u32::MAX;

impl FirstUse {
    fn new(count: usize) -> Self {
        Self {
            numbers: vec![NEW; count],
            order: Vec::new(),
        }
    }

    fn number(&mut self, entry: u32) -> u32 {
        let number = &mut self.numbers[entry as usize];
        if *number == NEW {
            *number = self.order.len() as u32;
            self.order.push(entry);
        }
        *number
    }
}

/// Writes locations in the order of the file, and everything that they refer to.
pub(crate) struct DictionaryWriter<'a> {
    names: &'a Names,
    functions: FirstUse,
    chunk: LocationChunk,
    locations: u32,
}

impl<'a> DictionaryWriter<'a> {
    pub(crate) fn new(names: &'a Names) -> Self {
        Self {
            names,
            functions: FirstUse::new(names.functions.entries().len()),
            chunk: LocationChunk::default(),
            locations: 0,
        }
    }

    /// Adds a location, whose file has its number in the file. Returns its number.
    pub(crate) fn push_location<W: Write>(
        &mut self,
        location: &Location,
        lines: &[Line],
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<u32, Error> {
        if self.chunk.is_full() {
            self.finish_chunk(packer, out)?;
        }
        let functions = &mut self.functions;
        let lines = lines.iter().map(|line| Line {
            function: functions.number(line.function),
            ..*line
        });
        self.chunk.push(location, lines);
        self.locations += 1;
        Ok(self.locations - 1)
    }

    fn finish_chunk<W: Write>(
        &mut self,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        let items = self.chunk.locations.len() as u32;
        if items > 0 {
            let chunk = EncodedChunk {
                bytes: self.chunk.encode(packer),
                first: self.locations - items,
                items,
            };
            out.put(Section::Locations, &chunk)?;
            self.chunk.clear();
        }
        Ok(())
    }

    /// Writes the last locations, and the sections that they refer to. `mappings` and `tag_sets` are in the order of the file.
    pub(crate) fn finish<W: Write>(
        mut self,
        mappings: &[u32],
        tag_sets: &[u32],
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        self.finish_chunk(packer, out)?;
        let names = self.names;
        let functions = names.functions.entries();
        let functions = || {
            self.functions
                .order
                .iter()
                .map(|number| &functions[*number as usize])
        };
        let mappings = mappings
            .iter()
            .map(|number| names.mappings[*number as usize]);
        let sets = names.tag_sets.entries();
        let sets = tag_sets.iter().map(|number| &sets[*number as usize]);

        // Shown names come first. Names of symbol tables are as long as all else together, and few questions need them.
        let mut strings = FirstUse::new(names.strings.len());
        strings.number(0);
        for function in functions() {
            strings.number(shown_name(function));
            strings.number(function.file);
        }
        let mappings = mappings.map(|mapping| Mapping {
            file: strings.number(mapping.file),
            build_id: strings.number(mapping.build_id),
            file_id: strings.number(mapping.file_id),
            ..mapping
        });
        let mappings: Vec<Mapping> = mappings.collect();
        let mut tag = |tag: &Tag| Tag {
            key: strings.number(tag.key),
            value: match tag.value {
                TagValue::Text(text) => TagValue::Text(strings.number(text)),
                TagValue::Number(number, unit) => TagValue::Number(number, strings.number(unit)),
            },
        };
        let sets: Vec<Box<[Tag]>> = sets.map(|set| set.iter().map(&mut tag).collect()).collect();
        let shown = strings.order.len();
        let functions = functions().map(|function| Function {
            name: strings.number(function.name),
            system_name: strings.number(function.system_name),
            file: strings.number(function.file),
            ..*function
        });
        let functions: Vec<Function> = functions.collect();

        put_chunks(
            out,
            Section::Functions,
            &functions,
            CHUNK_FUNCTIONS,
            |chunk| encode_functions(chunk, packer),
        )?;
        put_chunks(out, Section::Mappings, &mappings, CHUNK_ENTRIES, |chunk| {
            encode_mappings(chunk, packer)
        })?;
        put_chunks(out, Section::TagSets, &sets, CHUNK_ENTRIES, |chunk| {
            encode_tag_sets(chunk, packer)
        })?;
        let (shown, others) = strings.order.split_at(shown);
        write_strings(names, 0, shown, CHUNK_TEXT, packer, out)?;
        write_strings(names, shown.len(), others, CHUNK_SYSTEM_NAMES, packer, out)
    }
}

/// Writes a section in chunks of `count` entries.
pub(crate) fn put_chunks<T, W: Write>(
    out: &mut Output<W>,
    section: Section,
    entries: &[T],
    count: usize,
    mut encode: impl FnMut(&[T]) -> Vec<u8>,
) -> Result<(), Error> {
    let mut first = 0;
    for chunk in entries.chunks(count) {
        let items = chunk.len() as u32;
        let bytes = encode(chunk);
        out.put(
            section,
            &EncodedChunk {
                bytes,
                first,
                items,
            },
        )?;
        first += items;
    }
    Ok(())
}

/// Writes strings from number `first` on, in chunks that are full with `chunk_bytes` bytes of text.
fn write_strings<W: Write>(
    names: &Names,
    first: usize,
    mut order: &[u32],
    chunk_bytes: usize,
    packer: &mut Packer,
    out: &mut Output<W>,
) -> Result<(), Error> {
    let text = |number: &u32| names.strings.get(*number);
    let mut first = first as u32;
    while !order.is_empty() {
        let mut bytes = 0;
        let is_within = |number: &&u32| {
            let is_within = bytes < chunk_bytes;
            bytes += text(number).len();
            is_within
        };
        let count = order
            .iter()
            .take(CHUNK_STRINGS)
            .take_while(is_within)
            .count();
        let (own, rest) = order.split_at(count);
        let chunk = EncodedChunk {
            bytes: encode_strings(own.iter().map(text), packer),
            first,
            items: count as u32,
        };
        out.put(Section::Strings, &chunk)?;
        first += count as u32;
        order = rest;
    }
    Ok(())
}
