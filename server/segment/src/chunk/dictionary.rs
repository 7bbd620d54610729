//! Chunks of locations, functions, files, tag sets and strings.
//!
//! In a file, locations are in the order of their file and address, functions and strings in the order in which locations need them.
//! So what one program needs lies together, and a question reads a part of each section.

use crate::codec::column::{ChunkReader, Packer, Texts, Unpacker, check_below};
use crate::codec::varint::{unzigzag, zigzag};
use crate::dictionary::{Function, Line, Location, Mapping, Tag, TagValue};
use crate::error::Malformed;

/// Locations of a chunk.
pub(crate) const CHUNK_LOCATIONS: usize = 4096;

/// Functions of a chunk.
pub(crate) const CHUNK_FUNCTIONS: usize = 2048;

/// Files of a chunk, and tag sets of one.
pub(crate) const CHUNK_ENTRIES: usize = 4096;

/// Bytes of text at which a chunk of strings is full: unpacked in 0.5 ms. With half of it, the strings of a real machine take 5 % more.
pub(crate) const CHUNK_TEXT: usize = 512 << 10;

/// The same for names of symbol tables, which few questions need.
pub(crate) const CHUNK_SYSTEM_NAMES: usize = 1 << 20;

/// Strings of a chunk.
pub(crate) const CHUNK_STRINGS: usize = 16 << 10;

/// Lines of a location, and tags of a sample: the receiver takes 1,024 and 32, older servers took more.
pub(crate) const LIST_MAX: usize = 1 << 20;

/// Lines of a chunk of locations, and tags of one of tag sets: it is full with the entry that reaches this number.
pub(crate) const CHUNK_LISTED: usize = 1 << 16;

const CHUNK_LISTED_MAX: usize = CHUNK_LISTED + LIST_MAX;

/// How many entries of each kind there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DictionaryLimits {
    pub(crate) strings: usize,
    pub(crate) functions: usize,
    pub(crate) mappings: usize,
}

/// A chunk of locations; their ranges are positions in its lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LocationChunk {
    pub(crate) locations: Vec<Location>,
    pub(crate) lines: Vec<Line>,
}

impl LocationChunk {
    pub(crate) fn push(&mut self, location: &Location, lines: impl Iterator<Item = Line>) {
        let start = self.lines.len() as u32;
        self.lines.extend(lines);
        self.locations.push(Location {
            lines: start..self.lines.len() as u32,
            ..location.clone()
        });
    }

    pub(crate) fn is_full(&self) -> bool {
        self.locations.len() >= CHUNK_LOCATIONS || self.lines.len() >= CHUNK_LISTED
    }

    pub(crate) fn lines_of(&self, location: &Location) -> &[Line] {
        location.lines_in(&self.lines)
    }

    pub(crate) fn clear(&mut self) {
        self.locations.clear();
        self.lines.clear();
    }

    pub(crate) fn encode(&self, packer: &mut Packer) -> Vec<u8> {
        let Self { locations, lines } = self;
        let mut out = Vec::new();
        let mappings = locations.iter().map(|location| location.mapping.into());
        packer.put_deltas(&mut out, mappings);
        let mut before = &Location::default();
        let addresses = locations.iter().map(|location| {
            let base = if before.mapping == location.mapping {
                before.address
            } else {
                0
            };
            before = location;
            location.address.wrapping_sub(base)
        });
        packer.put_numbers(&mut out, addresses);
        packer.put_numbers(
            &mut out,
            locations.iter().map(|location| location.flags.into()),
        );
        let unnamed = locations.iter().map(|location| location.unnamed.into());
        packer.put_numbers(&mut out, unnamed);
        let counts = locations.iter().map(|location| location.lines.len() as u64);
        packer.put_numbers(&mut out, counts);
        packer.put_deltas(&mut out, lines.iter().map(|line| line.function.into()));
        packer.put_deltas(&mut out, lines.iter().map(|line| line.line as u64));
        packer.put_numbers(&mut out, lines.iter().map(|line| line.flags.into()));
        out
    }

    pub(crate) fn decode(
        bytes: &[u8],
        items: usize,
        limits: DictionaryLimits,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        if items > CHUNK_LOCATIONS {
            return Err(Malformed("a chunk has too many locations"));
        }
        let mut from = ChunkReader::new(bytes, unpacker);
        let mut mappings = from.take_numbers(items)?;
        let mut addresses = from.take_numbers(items)?;
        let mut flags = from.take_numbers(items)?;
        let mut unnamed = from.take_numbers(items)?;
        let mut counts = from.take_numbers(items)?;
        let mut chunk = Self::default();
        let mut before = Location::default();
        for _ in 0..items {
            let mapping = mappings.next_delta_below(before.mapping, limits.mappings + 1)?;
            let base = if before.mapping == mapping {
                before.address
            } else {
                0
            };
            let start = before.lines.end;
            let count = counts.next_below(CHUNK_LISTED_MAX + 1 - start as usize)?;
            before = Location {
                mapping,
                address: base.wrapping_add(addresses.next()?),
                flags: flags.next_u32()?,
                unnamed: unnamed.next_u32()?,
                lines: start..start + count,
            };
            chunk.locations.push(before.clone());
        }
        let line_count = before.lines.end as usize;
        let mut functions = from.take_numbers(line_count)?;
        let mut lines = from.take_numbers(line_count)?;
        let mut line_flags = from.take_numbers(line_count)?;
        let mut before = Line::default();
        for _ in 0..line_count {
            before = Line {
                function: functions.next_delta_below(before.function, limits.functions)?,
                line: before.line.wrapping_add(lines.next_signed()?),
                flags: line_flags.next_u32()?,
            };
            chunk.lines.push(before);
        }
        for column in [
            mappings, addresses, flags, unnamed, counts, functions, lines, line_flags,
        ] {
            column.finish()?;
        }
        from.finish()?;
        Ok(chunk)
    }
}

pub(crate) fn encode_functions(functions: &[Function], packer: &mut Packer) -> Vec<u8> {
    let mut out = Vec::new();
    packer.put_deltas(
        &mut out,
        functions.iter().map(|function| function.name.into()),
    );
    // Most are the function's name, or the next one of the names that are not.
    let mut before = 0;
    let system_names = functions.iter().map(|function| {
        if function.system_name == function.name {
            return 0;
        }
        let last = std::mem::replace(&mut before, function.system_name);
        1 + zigzag(i64::from(function.system_name) - i64::from(last))
    });
    packer.put_numbers(&mut out, system_names);
    packer.put_deltas(
        &mut out,
        functions.iter().map(|function| function.file.into()),
    );
    let start_lines = functions.iter().map(|function| function.start_line as u64);
    packer.put_deltas(&mut out, start_lines);
    let languages = functions.iter().map(|function| function.language.into());
    packer.put_numbers(&mut out, languages);
    out
}

pub(crate) fn decode_functions(
    bytes: &[u8],
    items: usize,
    limits: DictionaryLimits,
    unpacker: &mut Unpacker,
) -> Result<Vec<Function>, Malformed> {
    if items > CHUNK_FUNCTIONS {
        return Err(Malformed("a chunk has too many functions"));
    }
    let mut from = ChunkReader::new(bytes, unpacker);
    let mut names = from.take_numbers(items)?;
    let mut system_names = from.take_numbers(items)?;
    let mut files = from.take_numbers(items)?;
    let mut start_lines = from.take_numbers(items)?;
    let mut languages = from.take_numbers(items)?;
    let mut functions = Vec::new();
    let mut before = Function::default();
    let mut last_system_name = 0;
    for _ in 0..items {
        let name = names.next_delta_below(before.name, limits.strings)?;
        let system_name = match system_names.next()?.checked_sub(1) {
            None => name,
            Some(delta) => {
                let number = i64::from(last_system_name).wrapping_add(unzigzag(delta));
                last_system_name = check_below(number as u64, limits.strings)?;
                last_system_name
            }
        };
        before = Function {
            name,
            system_name,
            file: files.next_delta_below(before.file, limits.strings)?,
            start_line: before.start_line.wrapping_add(start_lines.next_signed()?),
            language: languages.next_u32()?,
        };
        functions.push(before);
    }
    for column in [names, system_names, files, start_lines, languages] {
        column.finish()?;
    }
    from.finish()?;
    Ok(functions)
}

pub(crate) fn encode_mappings(mappings: &[Mapping], packer: &mut Packer) -> Vec<u8> {
    let mut out = Vec::new();
    packer.put_deltas(&mut out, mappings.iter().map(|mapping| mapping.file.into()));
    packer.put_deltas(
        &mut out,
        mappings.iter().map(|mapping| mapping.build_id.into()),
    );
    packer.put_numbers(&mut out, mappings.iter().map(|mapping| mapping.start));
    packer.put_numbers(&mut out, mappings.iter().map(|mapping| mapping.limit));
    packer.put_numbers(&mut out, mappings.iter().map(|mapping| mapping.offset));
    packer.put_numbers(
        &mut out,
        mappings.iter().map(|mapping| mapping.flags.into()),
    );
    packer.put_deltas(
        &mut out,
        mappings.iter().map(|mapping| mapping.file_id.into()),
    );
    out
}

pub(crate) fn decode_mappings(
    bytes: &[u8],
    items: usize,
    limits: DictionaryLimits,
    unpacker: &mut Unpacker,
) -> Result<Vec<Mapping>, Malformed> {
    if items > CHUNK_ENTRIES {
        return Err(Malformed("a chunk has too many files"));
    }
    let mut from = ChunkReader::new(bytes, unpacker);
    let mut files = from.take_numbers(items)?;
    let mut build_ids = from.take_numbers(items)?;
    let mut starts = from.take_numbers(items)?;
    let mut limit_column = from.take_numbers(items)?;
    let mut offsets = from.take_numbers(items)?;
    let mut flags = from.take_numbers(items)?;
    let mut file_ids = from.take_numbers(items)?;
    let mut mappings = Vec::new();
    let mut before = Mapping::default();
    for _ in 0..items {
        before = Mapping {
            file: files.next_delta_below(before.file, limits.strings)?,
            build_id: build_ids.next_delta_below(before.build_id, limits.strings)?,
            start: starts.next()?,
            limit: limit_column.next()?,
            offset: offsets.next()?,
            flags: flags.next_below(usize::from(u8::MAX) + 1)? as u8,
            file_id: file_ids.next_delta_below(before.file_id, limits.strings)?,
        };
        mappings.push(before);
    }
    for column in [
        files,
        build_ids,
        starts,
        limit_column,
        offsets,
        flags,
        file_ids,
    ] {
        column.finish()?;
    }
    from.finish()?;
    Ok(mappings)
}

pub(crate) fn encode_tag_sets(sets: &[Box<[Tag]>], packer: &mut Packer) -> Vec<u8> {
    let mut out = Vec::new();
    packer.put_numbers(&mut out, sets.iter().map(|set| set.len() as u64));
    let tags = || sets.iter().flatten();
    // A text's unit is no unit: 0. The kind is in the lowest bit of the key.
    let keys = tags().map(|tag| match tag.value {
        TagValue::Text(_) => u64::from(tag.key) << 1,
        TagValue::Number(..) => u64::from(tag.key) << 1 | 1,
    });
    packer.put_numbers(&mut out, keys);
    let values = tags().map(|tag| match tag.value {
        TagValue::Text(text) => text.into(),
        TagValue::Number(number, _) => zigzag(number),
    });
    packer.put_numbers(&mut out, values);
    let units = tags().map(|tag| match tag.value {
        TagValue::Text(_) => 0,
        TagValue::Number(_, unit) => unit.into(),
    });
    packer.put_numbers(&mut out, units);
    out
}

pub(crate) fn decode_tag_sets(
    bytes: &[u8],
    items: usize,
    limits: DictionaryLimits,
    unpacker: &mut Unpacker,
) -> Result<Vec<Box<[Tag]>>, Malformed> {
    if items > CHUNK_ENTRIES {
        return Err(Malformed("a chunk has too many tag sets"));
    }
    let mut from = ChunkReader::new(bytes, unpacker);
    let mut count_column = from.take_numbers(items)?;
    let mut counts = Vec::new();
    let mut all = 0;
    for _ in 0..items {
        let count = count_column.next_below(CHUNK_LISTED_MAX + 1 - all)?;
        all += count as usize;
        counts.push(count);
    }
    let mut keys = from.take_numbers(all)?;
    let mut values = from.take_numbers(all)?;
    let mut units = from.take_numbers(all)?;
    let mut next_tag = || {
        let key = keys.next_below(2 * limits.strings)?;
        let value = match key & 1 {
            0 => TagValue::Text(values.next_below(limits.strings)?),
            _ => TagValue::Number(values.next_signed()?, units.next_below(limits.strings)?),
        };
        if key & 1 == 0 && units.next()? != 0 {
            return Err(Malformed("a text has a unit"));
        }
        Ok(Tag {
            key: key >> 1,
            value,
        })
    };
    let mut sets = Vec::new();
    for count in counts {
        let tags: Result<Box<[Tag]>, Malformed> = (0..count).map(|_| next_tag()).collect();
        sets.push(tags?);
    }
    for column in [count_column, keys, values, units] {
        column.finish()?;
    }
    from.finish()?;
    Ok(sets)
}

pub(crate) fn encode_strings<'a>(
    texts: impl Iterator<Item = &'a str> + Clone,
    packer: &mut Packer,
) -> Vec<u8> {
    let mut out = Vec::new();
    packer.put_texts(&mut out, texts);
    out
}

pub(crate) fn decode_strings(
    bytes: &[u8],
    items: usize,
    unpacker: &mut Unpacker,
) -> Result<Texts, Malformed> {
    if items > CHUNK_STRINGS {
        return Err(Malformed("a chunk has too many strings"));
    }
    let mut from = ChunkReader::new(bytes, unpacker);
    let texts = from.take_texts(items)?;
    from.finish()?;
    Ok(texts)
}
