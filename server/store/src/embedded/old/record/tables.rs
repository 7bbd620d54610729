//! The section of tables that samples refer to.

#[cfg(any(test, feature = "test-support"))]
use model::tables::TagSetId;
use model::tables::{FunctionId, LocationId, MappingId, StackId, StringId};
use model::{
    Function, Line, Location, Mapping, MappingFlags, StackNode, Tables, Tag, TagValue, Unnamed,
};

use super::super::columns::{ColumnReader, Damaged};
#[cfg(any(test, feature = "test-support"))]
use super::super::columns::{ColumnWriter, put_strings};

#[cfg(any(test, feature = "test-support"))]
pub(super) fn encode_tables(tables: &Tables) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    put_strings(&mut out, tables);

    let mappings = &tables.mappings;
    out.put(mappings.len() as u64);
    out.put_column(mappings.iter().map(|m| u64::from(m.file.0)));
    out.put_column(mappings.iter().map(|m| u64::from(m.build_id.0)));
    out.put_column(mappings.iter().map(|m| m.start));
    out.put_column(mappings.iter().map(|m| m.limit));
    out.put_column(mappings.iter().map(|m| m.offset));
    out.put_column(mappings.iter().map(|m| u64::from(m.flags.0)));

    let functions = &tables.functions;
    out.put(functions.len() as u64);
    out.put_deltas(functions.iter().map(|f| u64::from(f.name.0)));
    out.put_deltas(functions.iter().map(|f| u64::from(f.system_name.0)));
    out.put_deltas(functions.iter().map(|f| u64::from(f.file.0)));
    functions.iter().for_each(|f| out.put_signed(f.start_line));

    out.put(tables.lines.len() as u64);
    out.put_deltas(tables.lines.iter().map(|l| u64::from(l.function.0)));
    tables.lines.iter().for_each(|l| out.put_signed(l.line));

    let locations = &tables.locations;
    out.put(locations.len() as u64);
    out.put_column(
        locations
            .iter()
            .map(|l| l.mapping.map_or(0, |m| u64::from(m.0) + 1)),
    );
    out.put_deltas(locations.iter().map(|l| l.address));
    out.put_column(locations.iter().map(|l| l.lines().len() as u64));
    out.put_column(
        locations
            .iter()
            .map(|l| u64::from(l.unnamed.bits()) << 1 | u64::from(l.is_folded)),
    );

    // Number 0 is the empty stack, which is not written.
    let stacks = &tables.stacks[1..];
    out.put(stacks.len() as u64);
    out.put_column(
        stacks
            .iter()
            .enumerate()
            .map(|(i, s)| i as u64 + 1 - u64::from(s.parent.0)),
    );
    out.put_deltas(stacks.iter().map(|s| u64::from(s.location.0)));

    encode_tag_sets(&mut out, tables);
    let file_ids = mappings.iter().map(|mapping| mapping.file_id.0);
    out.put_column(file_ids.map(u64::from));
    out.into_bytes()
}

#[cfg(any(test, feature = "test-support"))]
fn encode_tag_sets(out: &mut ColumnWriter, tables: &Tables) {
    out.put(tables.tag_set_count() as u64 - 1);
    for set in 1..tables.tag_set_count() as u32 {
        let tags = tables.tag_set(TagSetId(set));
        out.put(tags.len() as u64);
        for tag in tags {
            match tag.value {
                TagValue::Text(text) => {
                    out.put(u64::from(tag.key.0) << 1);
                    out.put(u64::from(text.0));
                }
                TagValue::Number(number, unit) => {
                    out.put(u64::from(tag.key.0) << 1 | 1);
                    out.put_signed(number);
                    out.put(u64::from(unit.0));
                }
            }
        }
    }
}

/// Reads [`Section::Stacks`](super::Section::Stacks).
///
/// # Errors
/// The bytes are damaged, or an entry refers to a missing one.
pub fn decode_tables(bytes: &[u8]) -> Result<Tables, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let mut tables = Tables::new();
    from.take_strings(&mut tables)?;
    tables.mappings = decode_mappings(&mut from, tables.string_count())?;
    tables.functions = decode_functions(&mut from, tables.string_count())?;
    let count = from.take_count()?;
    let functions = from.take_delta_references(count, tables.functions.len())?;
    for function in functions {
        tables.lines.push(Line {
            function: FunctionId(function),
            line: from.take_signed()?,
        });
    }
    tables.locations = decode_locations(&mut from, tables.mappings.len(), tables.lines.len())?;
    let count = from.take_count()?;
    let distances = from.take_column(count)?;
    let locations = from.take_delta_references(count, tables.locations.len())?;
    for (i, (distance, location)) in distances.into_iter().zip(locations).enumerate() {
        let number = i as u64 + 1;
        if distance == 0 || distance > number {
            return Err(Damaged("a stack's parent does not come before it"));
        }
        tables.stacks.push(StackNode {
            parent: StackId((number - distance) as u32),
            location: LocationId(location),
        });
    }
    decode_tag_sets(&mut from, &mut tables)?;
    // Records of earlier versions end here.
    if !from.is_empty() {
        let file_ids = from.take_references(tables.mappings.len(), tables.string_count())?;
        for (mapping, file_id) in tables.mappings.iter_mut().zip(file_ids) {
            mapping.file_id = StringId(file_id);
        }
    }
    from.finish()?;
    Ok(tables)
}

fn decode_mappings(from: &mut ColumnReader<'_>, strings: usize) -> Result<Vec<Mapping>, Damaged> {
    let count = from.take_count()?;
    let files = from.take_references(count, strings)?;
    let build_ids = from.take_references(count, strings)?;
    let starts = from.take_column(count)?;
    let limits = from.take_column(count)?;
    let offsets = from.take_column(count)?;
    let flags = from.take_references(count, usize::from(MappingFlags::ALL) + 1)?;
    let mapping = |i: usize| Mapping {
        file: StringId(files[i]),
        build_id: StringId(build_ids[i]),
        start: starts[i],
        limit: limits[i],
        offset: offsets[i],
        flags: MappingFlags(flags[i] as u8),
        file_id: StringId::default(),
    };
    Ok((0..count).map(mapping).collect())
}

fn decode_functions(from: &mut ColumnReader<'_>, strings: usize) -> Result<Vec<Function>, Damaged> {
    let count = from.take_count()?;
    let names = from.take_delta_references(count, strings)?;
    let system_names = from.take_delta_references(count, strings)?;
    let files = from.take_delta_references(count, strings)?;
    let mut functions = Vec::with_capacity(count);
    for i in 0..count {
        functions.push(Function {
            name: StringId(names[i]),
            system_name: StringId(system_names[i]),
            file: StringId(files[i]),
            start_line: from.take_signed()?,
        });
    }
    Ok(functions)
}

fn decode_locations(
    from: &mut ColumnReader<'_>,
    mappings: usize,
    lines: usize,
) -> Result<Vec<Location>, Damaged> {
    let count = from.take_count()?;
    let mapping_numbers = from.take_references(count, mappings + 1)?;
    let addresses = from.take_deltas(count)?;
    let line_counts = from.take_column(count)?;
    let mut locations = Vec::with_capacity(count);
    let mut lines_start = 0_u64;
    for i in 0..count {
        let lines_end = lines_start.saturating_add(line_counts[i]);
        let bits = from.take()?;
        let unnamed = u32::try_from(bits >> 1).map_err(|_| Damaged("a reason is not one"))?;
        if lines_end > lines as u64 {
            return Err(Damaged("a location has more lines than there are"));
        }
        locations.push(Location {
            mapping: mapping_numbers[i].checked_sub(1).map(MappingId),
            address: addresses[i],
            lines_start: lines_start as u32,
            lines_end: lines_end as u32,
            is_folded: bits & 1 == 1,
            unnamed: Unnamed::from_bits(unnamed),
        });
        lines_start = lines_end;
    }
    if lines_start != lines as u64 {
        return Err(Damaged("lines belong to no location"));
    }
    Ok(locations)
}

fn decode_tag_sets(from: &mut ColumnReader<'_>, tables: &mut Tables) -> Result<(), Damaged> {
    let strings = tables.string_count();
    let string = |number: u64| match u32::try_from(number) {
        Ok(small) if (small as usize) < strings => Ok(StringId(small)),
        _ => Err(Damaged("a tag refers to no string")),
    };
    let sets = from.take_count()?;
    let mut tags = Vec::new();
    for _ in 0..sets {
        tags.clear();
        for _ in 0..from.take_count()? {
            let key = from.take()?;
            let value = match key & 1 {
                0 => TagValue::Text(string(from.take()?)?),
                _ => TagValue::Number(from.take_signed()?, string(from.take()?)?),
            };
            tags.push(Tag {
                key: string(key >> 1)?,
                value,
            });
        }
        tables.push_tag_set(&tags);
    }
    Ok(())
}
