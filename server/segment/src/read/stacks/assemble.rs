//! Makes tables of stacks: reads from stacks to strings, and makes tables from strings to stacks.

use model::Tables;
use model::tables::{StackId, StringId};

use crate::chunk::dictionary::LocationChunk;
use crate::dictionary::{Function, Mapping, Tag, TagValue};
use crate::read::needed::Needed;
use crate::section::Section;

use super::StackTables;
use super::tables::{
    Node, push_functions, push_locations, push_mappings, push_nodes, push_tag_sets,
};

/// Positions of the entries of stacks. Numbers are sorted; an entry that is damaged is none.
pub(crate) trait EntrySource {
    /// Number of entries of a section.
    fn count(&self, section: Section) -> usize;

    /// The nodes of stacks and of their callers, parents first, number 0 the root; and the node of each stack.
    fn read_nodes(&mut self, stacks: &[u32]) -> (Vec<Node>, Vec<Option<u32>>);

    /// Locations, and whether each could be read.
    fn read_locations(&mut self, numbers: &[u32]) -> (LocationChunk, Vec<bool>);

    fn read_functions(&mut self, numbers: &[u32]) -> Vec<Option<Function>>;

    fn read_mappings(&mut self, numbers: &[u32]) -> Vec<Option<Mapping>>;

    fn read_tag_sets(&mut self, numbers: &[u32]) -> Vec<Option<Box<[Tag]>>>;

    /// Adds strings to the tables.
    fn read_strings(&mut self, numbers: &[u32], tables: &mut Tables) -> Vec<Option<StringId>>;
}

/// Makes tables of stacks and tag sets.
pub(crate) fn make_tables(
    source: &mut impl EntrySource,
    stacks: &[u32],
    tag_sets: &[u32],
) -> StackTables {
    let (nodes, found) = source.read_nodes(stacks);
    let mut needed_locations = Needed::new(source.count(Section::Locations), nodes.len());
    for node in &nodes[1..] {
        needed_locations.add(node.location);
    }
    needed_locations.sort();
    let (locations, has_location) = source.read_locations(needed_locations.numbers());

    let count = source.count(Section::Functions);
    let mut needed_functions = Needed::new(count, locations.lines.len());
    for line in &locations.lines {
        needed_functions.add(line.function);
    }
    needed_functions.sort();
    let functions = source.read_functions(needed_functions.numbers());
    let count = source.count(Section::Mappings);
    let mut needed_mappings = Needed::new(count, locations.locations.len());
    for location in &locations.locations {
        if let Some(mapping) = location.mapping.checked_sub(1) {
            needed_mappings.add(mapping);
        }
    }
    needed_mappings.sort();
    let mappings = source.read_mappings(needed_mappings.numbers());
    let tag_sets = source.read_tag_sets(tag_sets);

    let count = source.count(Section::Strings);
    let needed_strings = find_strings(count, &functions, &mappings, &tag_sets);
    let mut tables = Tables::new();
    let strings = source.read_strings(needed_strings.numbers(), &mut tables);
    let string = |number: u32| strings[needed_strings.position(number)];
    let functions = push_functions(&mut tables, &functions, string);
    let function = |number: u32| functions[needed_functions.position(number)];
    let mappings = push_mappings(&mut tables, &mappings, string);
    let mapping = |number: u32| mappings[needed_mappings.position(number)];
    let lines = locations.lines.len();
    let locations = locations
        .locations
        .iter()
        .zip(&has_location)
        .map(|(location, is_there)| is_there.then(|| (location, locations.lines_of(location))));
    tables.lines.reserve_exact(lines);
    let locations = push_locations(&mut tables, locations, function, mapping);
    let position = |number: u32| needed_locations.position(number);
    let pushed = push_nodes(&mut tables, nodes, &locations, position);
    let stack = |node: &Option<u32>| match &pushed {
        Some(pushed) => pushed[(*node)? as usize],
        None => node.map(StackId),
    };
    StackTables {
        stacks: found.iter().map(stack).collect(),
        tag_sets: push_tag_sets(&mut tables, &tag_sets, string),
        tables,
    }
}

/// The strings that these entries have, of `count`.
fn find_strings(
    count: usize,
    functions: &[Option<Function>],
    mappings: &[Option<Mapping>],
    tag_sets: &[Option<Box<[Tag]>>],
) -> Needed {
    let mut needed = Needed::new(count, functions.len() + mappings.len() + tag_sets.len());
    for function in functions.iter().flatten() {
        for text in [function.name, function.system_name, function.file] {
            needed.add(text);
        }
    }
    for mapping in mappings.iter().flatten() {
        for text in [mapping.file, mapping.build_id, mapping.file_id] {
            needed.add(text);
        }
    }
    for tag in tag_sets.iter().flatten().flatten() {
        needed.add(tag.key);
        needed.add(match tag.value {
            TagValue::Text(text) => text,
            TagValue::Number(_, unit) => unit,
        });
    }
    needed.sort();
    needed
}
