//! The entries of a builder's dictionary that a record has: those from one number on.

use model::LabelSet;

use crate::build::Builder;
use crate::chunk::dictionary::LIST_MAX;
use crate::codec::varint::{self, Bytes, zigzag};
use crate::dictionary::{Function, Interned, Line, Location, Mapping, Strings, Tag, TagValue};
use crate::error::Malformed;
use crate::tree::Tree;

use super::callees::{Callees, caller_of};
use super::columns::{
    Deltas, FirstUses, check_below, finish, put_columns, put_signed, take_columns, take_signed,
    take_u32,
};

/// Number of entries of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    strings: u32,
    functions: u32,
    mappings: u32,
    locations: u32,
    tag_sets: u32,
    nodes: u32,
    series: u32,
    containers: u32,
}

impl Counts {
    /// Of a new builder: the empty string, tag set and stack.
    pub(crate) const NEW: Self = Self {
        strings: 1,
        functions: 0,
        mappings: 0,
        locations: 0,
        tag_sets: 1,
        nodes: 1,
        series: 0,
        containers: 0,
    };

    pub(crate) fn of(builder: &Builder) -> Self {
        let names = &builder.names;
        Self {
            strings: names.strings.len() as u32,
            functions: names.functions.entries().len() as u32,
            mappings: names.mappings.len() as u32,
            locations: builder.locations.len() as u32,
            tag_sets: names.tag_sets.entries().len() as u32,
            nodes: builder.tree.len() as u32,
            series: builder.series.entries().len() as u32,
            containers: builder.containers.entries().len() as u32,
        }
    }

    fn to_array(self) -> [u32; 8] {
        let Self {
            strings,
            functions,
            mappings,
            locations,
            tag_sets,
            nodes,
            series,
            containers,
        } = self;
        [
            strings, functions, mappings, locations, tag_sets, nodes, series, containers,
        ]
    }

    fn from_array(
        [
            strings,
            functions,
            mappings,
            locations,
            tag_sets,
            nodes,
            series,
            containers,
        ]: [u32; 8],
    ) -> Self {
        Self {
            strings,
            functions,
            mappings,
            locations,
            tag_sets,
            nodes,
            series,
            containers,
        }
    }
}

/// Number of a dictionary's entries that records have.
#[derive(Clone, Debug)]
pub(crate) struct LoggedEntries {
    counts: Counts,
    /// As they were: what else is said of a file may change.
    mappings: Vec<Mapping>,
}

impl LoggedEntries {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        counts: Counts::NEW,
        mappings: Vec::new(),
    };

    /// All.
    pub(crate) fn all(builder: &Builder) -> Self {
        Self {
            counts: Counts::of(builder),
            mappings: builder.names.mappings.clone(),
        }
    }

    /// All that a builder has now.
    pub(crate) fn update(&mut self, builder: &Builder) {
        self.counts = Counts::of(builder);
        self.mappings.clone_from(&builder.names.mappings);
    }

    /// The mappings that are new or changed, with their numbers.
    fn changed_mappings<'a>(
        &'a self,
        builder: &'a Builder,
    ) -> impl Iterator<Item = (u32, &'a Mapping)> {
        let mappings = (0..).zip(&builder.names.mappings);
        mappings.filter(|(number, mapping)| {
            self.mappings
                .get(*number as usize)
                .is_none_or(|known| known != *mapping)
        })
    }
}

/// Writes the entries that are not logged. `callees` are those of the records before, or of no record.
pub(crate) fn encode_entries(
    builder: &Builder,
    logged: &LoggedEntries,
    callees: &mut Callees,
    out: &mut Vec<u8>,
) {
    let from = logged.counts;
    let to = Counts::of(builder);
    for (from, to) in from.to_array().into_iter().zip(to.to_array()) {
        varint::put(out, u64::from(from));
        varint::put(out, u64::from(to - from));
    }
    let names = &builder.names;
    encode_strings(&names.strings, from.strings..to.strings, out);
    let functions = &names.functions.entries()[from.functions as usize..];
    encode_functions(functions, from.strings, out);
    encode_mappings(logged.changed_mappings(builder), from.strings, out);
    encode_locations(builder, from.functions, from.locations..to.locations, out);
    let tag_sets = &names.tag_sets.entries()[from.tag_sets as usize..];
    encode_tag_sets(tag_sets, from.strings, out);
    callees.catch_up(&builder.tree, from.nodes);
    encode_nodes(
        &builder.tree,
        from.locations,
        from.nodes..to.nodes,
        callees,
        out,
    );
    for (sets, from_set) in [
        (&builder.series, from.series),
        (&builder.containers, from.containers),
    ] {
        encode_label_sets(sets, from_set, &names.strings, from.strings, out);
    }
}

fn encode_strings(strings: &Strings, range: std::ops::Range<u32>, out: &mut Vec<u8>) {
    let mut lengths = Vec::new();
    for number in range.clone() {
        varint::put(&mut lengths, strings.get(number).len() as u64);
    }
    put_columns(out, [lengths]);
    for number in range {
        out.extend_from_slice(strings.get(number).as_bytes());
    }
}

fn encode_functions(functions: &[Function], first_string: u32, out: &mut Vec<u8>) {
    let mut columns: [Vec<u8>; 5] = Default::default();
    let [names, system_names, files, start_lines, languages] = &mut columns;
    let mut strings = FirstUses::new(first_string);
    let mut lines = Deltas::default();
    let mut last_file = 0;
    for function in functions {
        let Function {
            name,
            system_name,
            file,
            start_line,
            language,
        } = *function;
        strings.put(names, name);
        put_unless(system_names, system_name, name, &mut strings);
        put_unless(files, file, last_file, &mut strings);
        last_file = file;
        lines.put(start_lines, start_line as u64);
        varint::put(languages, u64::from(language));
    }
    put_columns(out, columns);
}

/// Writes 0 for an expected number.
fn put_unless(column: &mut Vec<u8>, number: u32, expected: u32, uses: &mut FirstUses) {
    let code = if number == expected {
        0
    } else {
        uses.code(number) + 1
    };
    varint::put(column, code);
}

fn take_unless(
    column: &mut Bytes<'_>,
    expected: u32,
    uses: &mut FirstUses,
    bound: u32,
) -> Result<u32, Malformed> {
    match column.take()?.checked_sub(1) {
        None => Ok(expected),
        Some(code) => uses.number(code, bound),
    }
}

fn encode_mappings<'a>(
    mappings: impl Iterator<Item = (u32, &'a Mapping)>,
    first_string: u32,
    out: &mut Vec<u8>,
) {
    let mut columns: [Vec<u8>; 8] = Default::default();
    let [
        numbers,
        files,
        build_ids,
        starts,
        limits,
        offsets,
        all_flags,
        file_ids,
    ] = &mut columns;
    let mut strings = FirstUses::new(first_string);
    let mut deltas = Deltas::default();
    for (number, mapping) in mappings {
        let Mapping {
            file,
            build_id,
            start,
            limit,
            offset,
            flags,
            file_id,
        } = *mapping;
        deltas.put(numbers, u64::from(number));
        strings.put(files, file);
        strings.put(build_ids, build_id);
        varint::put(starts, start);
        varint::put(limits, limit);
        varint::put(offsets, offset);
        varint::put(all_flags, u64::from(flags));
        strings.put(file_ids, file_id);
    }
    put_columns(out, columns);
}

fn encode_locations(
    builder: &Builder,
    first_function: u32,
    range: std::ops::Range<u32>,
    out: &mut Vec<u8>,
) {
    let mut columns: [Vec<u8>; 8] = Default::default();
    let [
        mappings,
        addresses,
        all_flags,
        unnamed,
        counts,
        functions,
        line_numbers,
        line_flags,
    ] = &mut columns;
    let mut first_uses = FirstUses::new(first_function);
    let mut mapping_deltas = Deltas::default();
    let mut places = vec![Deltas::default(); builder.names.mappings.len() + 1];
    for number in range {
        let (location, lines) = builder.locations.get(number);
        let Location {
            mapping,
            address,
            flags,
            unnamed: reason,
            lines: _,
        } = *location;
        mapping_deltas.put(mappings, u64::from(mapping));
        places[mapping as usize].put(addresses, address);
        varint::put(all_flags, u64::from(flags));
        varint::put(unnamed, u64::from(reason));
        varint::put(counts, lines.len() as u64);
        for line in lines {
            let Line {
                function,
                line,
                flags,
            } = *line;
            first_uses.put(functions, function);
            let start = builder.names.functions.entries()[function as usize].start_line;
            put_signed(line_numbers, line.wrapping_sub(start));
            varint::put(line_flags, u64::from(flags));
        }
    }
    put_columns(out, columns);
}

fn encode_tag_sets(sets: &[Box<[Tag]>], first_string: u32, out: &mut Vec<u8>) {
    let mut columns: [Vec<u8>; 4] = Default::default();
    let [counts, keys, values, units] = &mut columns;
    let mut strings = FirstUses::new(first_string);
    for set in sets {
        varint::put(counts, set.len() as u64);
        for tag in set {
            let is_number = matches!(tag.value, TagValue::Number(..));
            varint::put(keys, strings.code(tag.key) << 1 | u64::from(is_number));
            match tag.value {
                TagValue::Text(text) => strings.put(values, text),
                TagValue::Number(number, unit) => {
                    varint::put(values, zigzag(number));
                    strings.put(units, unit);
                }
            }
        }
    }
    put_columns(out, columns);
}

/// A node's parent is coded as 0 if it is the node before, else as one plus the difference to the last parent that was not. Its location
/// is 0 if it is new among the callees of its parent's and follows in another column, else one plus its position among them.
fn encode_nodes(
    tree: &Tree,
    first_location: u32,
    range: std::ops::Range<u32>,
    callees: &mut Callees,
    out: &mut Vec<u8>,
) {
    let mut columns: [Vec<u8>; 3] = Default::default();
    let [parents, positions, locations] = &mut columns;
    let mut first_uses = FirstUses::new(first_location);
    let mut last_parent = 0;
    for node in range {
        let parent = tree.parent(node);
        let code = if parent + 1 == node {
            0
        } else {
            zigzag(i64::from(parent) - i64::from(last_parent)) + 1
        };
        if code != 0 {
            last_parent = parent;
        }
        varint::put(parents, code);
        let location = tree.location(node);
        let caller = caller_of(parent, |parent| tree.location(parent));
        match callees.add(caller, location) {
            Some(position) => varint::put(positions, u64::from(position) + 1),
            None => {
                varint::put(positions, 0);
                first_uses.put(locations, location);
            }
        }
    }
    put_columns(out, columns);
}

fn encode_label_sets(
    sets: &Interned<LabelSet>,
    from: u32,
    strings: &Strings,
    first_string: u32,
    out: &mut Vec<u8>,
) {
    let mut columns: [Vec<u8>; 3] = Default::default();
    let [counts, names, values] = &mut columns;
    let mut first_uses = FirstUses::new(first_string);
    // SANITY: the builder has all texts of its label sets.
    let number = |text| strings.find(text).unwrap_or_default();
    for set in &sets.entries()[from as usize..] {
        varint::put(counts, set.iter().len() as u64);
        for (name, value) in set.iter() {
            first_uses.put(names, number(name));
            first_uses.put(values, number(value));
        }
    }
    put_columns(out, columns);
}

/// Entries that were read, and checked as far as they can be without a look-up of each.
#[derive(Debug)]
pub(crate) struct NewEntries<'a> {
    /// Entries that the record expects.
    pub(crate) from: Counts,
    /// Entries with those that it adds.
    pub(crate) to: Counts,
    strings: Vec<&'a str>,
    functions: Vec<Function>,
    mappings: Vec<(u32, Mapping)>,
    locations: Vec<Location>,
    lines: Vec<Line>,
    tag_sets: Vec<Box<[Tag]>>,
    nodes: Vec<Node>,
    /// The texts of series, then of containers, as numbers of strings.
    label_sets: [Vec<Vec<(u32, u32)>>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    location: u32,
}

impl NewEntries<'_> {
    /// Bounds of what rows and windows may refer to.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            strings: self.to.strings,
            stacks: self.to.nodes,
            tag_sets: self.to.tag_sets,
            series: self.to.series,
            containers: self.to.containers,
        }
    }
}

/// Number of entries that rows and windows can refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) strings: u32,
    pub(crate) stacks: u32,
    pub(crate) tag_sets: u32,
    pub(crate) series: u32,
    pub(crate) containers: u32,
}

/// A record needs what was lost before it.
const ENTRIES_LOST: Malformed = Malformed("a record needs entries of a damaged one");

/// Reads entries, of a record that expects those of this builder, or none.
pub(crate) fn decode_entries<'a>(
    from: &mut Bytes<'a>,
    builder: &Builder,
    callees: &mut Callees,
) -> Result<NewEntries<'a>, Malformed> {
    let (mut first, mut end) = ([0; 8], [0; 8]);
    for (first, end) in first.iter_mut().zip(&mut end) {
        *first = take_u32(from)?;
        // At least a byte each.
        let count = from.take_count()? as u32;
        *end = first
            .checked_add(count)
            .filter(|end| *end < u32::MAX)
            .ok_or(Malformed("too many entries"))?;
    }
    let (first, end) = (Counts::from_array(first), Counts::from_array(end));
    if first != Counts::NEW && first != Counts::of(builder) {
        return Err(ENTRIES_LOST);
    }
    let strings = decode_strings(from, (end.strings - first.strings) as usize)?;
    let functions = decode_functions(from, first, end)?;
    let mappings = decode_mappings(from, first, end)?;
    let (locations, lines) = decode_locations(from, first, end, &functions, builder)?;
    Ok(NewEntries {
        from: first,
        to: end,
        strings,
        functions,
        mappings,
        locations,
        lines,
        tag_sets: decode_tag_sets(from, first, end)?,
        nodes: decode_nodes(from, first, end, &builder.tree, callees)?,
        label_sets: [
            decode_label_sets(from, end.series - first.series, first, end)?,
            decode_label_sets(from, end.containers - first.containers, first, end)?,
        ],
    })
}

fn decode_strings<'a>(from: &mut Bytes<'a>, count: usize) -> Result<Vec<&'a str>, Malformed> {
    let [mut lengths] = take_columns(from)?;
    let mut strings = Vec::new();
    for _ in 0..count {
        let length = lengths.take_at_most(from.len())?;
        let text = std::str::from_utf8(from.take_raw(length)?);
        strings.push(text.map_err(|_| Malformed("a text is not UTF-8"))?);
    }
    lengths.finish()?;
    Ok(strings)
}

fn decode_functions(
    from: &mut Bytes<'_>,
    first: Counts,
    end: Counts,
) -> Result<Vec<Function>, Malformed> {
    let mut columns = take_columns(from)?;
    let [names, system_names, files, start_lines, languages] = &mut columns;
    let mut strings = FirstUses::new(first.strings);
    let mut lines = Deltas::default();
    let mut last_file = 0;
    let mut functions = Vec::new();
    for _ in first.functions..end.functions {
        let name = strings.take(names, end.strings)?;
        let system_name = take_unless(system_names, name, &mut strings, end.strings)?;
        last_file = take_unless(files, last_file, &mut strings, end.strings)?;
        functions.push(Function {
            name,
            system_name,
            file: last_file,
            start_line: lines.take(start_lines)? as i64,
            language: take_u32(languages)?,
        });
    }
    finish(columns)?;
    Ok(functions)
}

fn decode_mappings(
    from: &mut Bytes<'_>,
    first: Counts,
    end: Counts,
) -> Result<Vec<(u32, Mapping)>, Malformed> {
    let mut columns = take_columns(from)?;
    let [
        numbers,
        files,
        build_ids,
        starts,
        limits,
        offsets,
        all_flags,
        file_ids,
    ] = &mut columns;
    let mut strings = FirstUses::new(first.strings);
    let mut deltas = Deltas::default();
    let mut mappings = Vec::new();
    let mut next = first.mappings;
    while numbers.len() > 0 {
        let number = deltas.take_below(numbers, end.mappings)?;
        if number == next {
            next += 1;
        }
        if number >= next {
            return Err(Malformed("a mapping is missing"));
        }
        let flags = all_flags.take()?;
        let mapping = Mapping {
            file: strings.take(files, end.strings)?,
            build_id: strings.take(build_ids, end.strings)?,
            start: starts.take()?,
            limit: limits.take()?,
            offset: offsets.take()?,
            flags: u8::try_from(flags).map_err(|_| Malformed("a mapping has unknown flags"))?,
            file_id: strings.take(file_ids, end.strings)?,
        };
        mappings.push((number, mapping));
    }
    if next != end.mappings {
        return Err(Malformed("a mapping is missing"));
    }
    finish(columns)?;
    Ok(mappings)
}

fn decode_locations(
    from: &mut Bytes<'_>,
    first: Counts,
    end: Counts,
    new_functions: &[Function],
    builder: &Builder,
) -> Result<(Vec<Location>, Vec<Line>), Malformed> {
    let mut columns = take_columns(from)?;
    let [
        mappings,
        addresses,
        all_flags,
        unnamed,
        counts,
        functions,
        line_numbers,
        line_flags,
    ] = &mut columns;
    let mut first_uses = FirstUses::new(first.functions);
    let mut mapping_deltas = Deltas::default();
    // The builder has those that the record expects.
    let known = builder.names.functions.entries();
    let start_line = |function: u32| match function.checked_sub(first.functions) {
        Some(new) => new_functions[new as usize].start_line,
        None => known
            .get(function as usize)
            .map_or(0, |known| known.start_line),
    };
    let mut places = std::collections::HashMap::<u32, Deltas>::new();
    let (mut locations, mut lines) = (Vec::new(), Vec::new());
    for _ in first.locations..end.locations {
        let mapping = mapping_deltas.take_below(mappings, end.mappings + 1)?;
        let address = places.entry(mapping).or_default().take(addresses)?;
        let start = lines.len() as u32;
        for _ in 0..counts.take_at_most(LIST_MAX)? {
            let function = first_uses.take(functions, end.functions)?;
            let line = take_signed(line_numbers)?;
            lines.push(Line {
                function,
                line: line.wrapping_add(start_line(function)),
                flags: take_u32(line_flags)?,
            });
        }
        locations.push(Location {
            mapping,
            address,
            flags: take_u32(all_flags)?,
            unnamed: take_u32(unnamed)?,
            lines: start..lines.len() as u32,
        });
    }
    finish(columns)?;
    Ok((locations, lines))
}

fn decode_tag_sets(
    from: &mut Bytes<'_>,
    first: Counts,
    end: Counts,
) -> Result<Vec<Box<[Tag]>>, Malformed> {
    let mut columns = take_columns(from)?;
    let [counts, keys, values, units] = &mut columns;
    let mut strings = FirstUses::new(first.strings);
    let mut sets = Vec::new();
    for _ in first.tag_sets..end.tag_sets {
        let mut tags = Vec::new();
        for _ in 0..counts.take_at_most(LIST_MAX)? {
            let code = keys.take()?;
            let key = strings.number(code >> 1, end.strings)?;
            let value = match code & 1 {
                0 => TagValue::Text(strings.take(values, end.strings)?),
                _ => {
                    let number = take_signed(values)?;
                    TagValue::Number(number, strings.take(units, end.strings)?)
                }
            };
            tags.push(Tag { key, value });
        }
        sets.push(tags.into());
    }
    finish(columns)?;
    Ok(sets)
}

fn decode_nodes(
    from: &mut Bytes<'_>,
    first: Counts,
    end: Counts,
    tree: &Tree,
    callees: &mut Callees,
) -> Result<Vec<Node>, Malformed> {
    let mut columns = take_columns(from)?;
    let [parents, positions, locations] = &mut columns;
    callees.catch_up(tree, first.nodes);
    let mut first_uses = FirstUses::new(first.locations);
    let mut last_parent = 0_u32;
    let mut nodes: Vec<Node> = Vec::new();
    for node in first.nodes..end.nodes {
        let parent = match parents.take()?.checked_sub(1) {
            None => node.wrapping_sub(1),
            Some(code) => {
                let parent = i64::from(last_parent).wrapping_add(varint::unzigzag(code));
                last_parent = check_below(parent as u64, node)?;
                last_parent
            }
        };
        let parent = check_below(u64::from(parent), node)?;
        let caller = caller_of(parent, |parent| match parent.checked_sub(first.nodes) {
            Some(new) => nodes[new as usize].location,
            None => tree.location(parent),
        });
        let location = match positions.take()?.checked_sub(1) {
            None => first_uses.take(locations, end.locations)?,
            Some(position) => callees
                .get(caller, position)
                .ok_or(Malformed("a node's callee is none of its caller's"))?,
        };
        callees.add(caller, location);
        nodes.push(Node { parent, location });
    }
    finish(columns)?;
    Ok(nodes)
}

fn decode_label_sets(
    from: &mut Bytes<'_>,
    count: u32,
    first: Counts,
    end: Counts,
) -> Result<Vec<Vec<(u32, u32)>>, Malformed> {
    let mut columns = take_columns(from)?;
    let [counts, names, values] = &mut columns;
    let mut first_uses = FirstUses::new(first.strings);
    let mut sets = Vec::new();
    for _ in 0..count {
        let mut labels = Vec::new();
        for _ in 0..counts.take_at_most(LIST_MAX)? {
            let name = first_uses.take(names, end.strings)?;
            labels.push((name, first_uses.take(values, end.strings)?));
        }
        sets.push(labels);
    }
    finish(columns)?;
    Ok(sets)
}

/// Adds entries to a builder. Those that it has already must be the same.
///
/// # Errors
/// An entry is another one than the builder's, or comes twice; the builder may have some entries then that it needs not.
pub(crate) fn apply_entries(
    entries: NewEntries<'_>,
    builder: &mut Builder,
) -> Result<(), Malformed> {
    let first = entries.from;
    let names = &mut builder.names;
    check_all(first.strings, entries.strings, |text| {
        names.strings.intern(text)
    })?;
    check_all(first.functions, entries.functions, |function| {
        names.functions.intern(function)
    })?;
    for (number, mapping) in entries.mappings {
        check_number(number, names.intern_mapping(&mapping))?;
    }
    let lines = entries.lines;
    check_all(first.locations, entries.locations, |location| {
        let lines = location.lines_in(&lines);
        builder.locations.intern(location.clone(), lines)
    })?;
    check_all(first.tag_sets, entries.tag_sets, |set| {
        names.tag_sets.intern(set)
    })?;
    check_all(first.nodes, entries.nodes, |node| {
        builder.tree.child(node.parent, node.location)
    })?;
    let [series, containers] = entries.label_sets;
    for (number, labels) in (first.series..).zip(series) {
        let labels = label_set(&labels, &builder.names.strings)?;
        check_number(number, builder.series_number(&labels))?;
    }
    for (number, labels) in (first.containers..).zip(containers) {
        let labels = label_set(&labels, &builder.names.strings)?;
        check_number(number, builder.container_number(&labels))?;
    }
    Ok(())
}

fn label_set(labels: &[(u32, u32)], strings: &Strings) -> Result<LabelSet, Malformed> {
    let labels = labels.iter();
    let labels = labels.map(|(name, value)| (strings.get(*name), strings.get(*value)));
    LabelSet::from_sorted(labels).map_err(|_| Malformed("a label set is not valid"))
}

fn check_all<T>(
    first: u32,
    entries: Vec<T>,
    mut intern: impl FnMut(T) -> u32,
) -> Result<(), Malformed> {
    for (number, entry) in (first..).zip(entries) {
        check_number(number, intern(entry))?;
    }
    Ok(())
}

fn check_number(expected: u32, found: u32) -> Result<(), Malformed> {
    if expected == found {
        Ok(())
    } else {
        Err(Malformed(
            "an entry is another one than before, or comes twice",
        ))
    }
}
