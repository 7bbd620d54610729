//! Adds entries of a segment to tables. An entry that refers to something that is missing is left out.

use model::tables::{FunctionId, LocationId, MappingId, StackId, StringId, TagSetId};
use model::{MappingFlags, StackNode, Tables, Unnamed};

use crate::dictionary::{Function, LOCATION_FOLDED, Line, Location, Mapping, Tag, TagValue};

/// A node, with the source's number of its location.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Node {
    pub(crate) parent: u32,
    pub(crate) location: u32,
}

pub(super) fn push_functions(
    tables: &mut Tables,
    functions: &[Option<Function>],
    string: impl Fn(u32) -> Option<StringId>,
) -> Vec<Option<FunctionId>> {
    tables.functions.reserve_exact(functions.len());
    let push = |function: &Option<Function>| {
        let Function {
            name,
            system_name,
            file,
            start_line,
            language: _,
        } = (*function)?;
        tables.functions.push(model::Function {
            name: string(name)?,
            system_name: string(system_name)?,
            file: string(file)?,
            start_line,
        });
        Some(FunctionId(tables.functions.len() as u32 - 1))
    };
    functions.iter().map(push).collect()
}

pub(super) fn push_mappings(
    tables: &mut Tables,
    mappings: &[Option<Mapping>],
    string: impl Fn(u32) -> Option<StringId>,
) -> Vec<Option<MappingId>> {
    let push = |mapping: &Option<Mapping>| {
        let Mapping {
            file,
            build_id,
            start,
            limit,
            offset,
            flags,
            file_id,
        } = (*mapping)?;
        tables.mappings.push(model::Mapping {
            file: string(file)?,
            build_id: string(build_id)?,
            start,
            limit,
            offset,
            flags: MappingFlags(flags),
            file_id: string(file_id)?,
        });
        Some(MappingId(tables.mappings.len() as u32 - 1))
    };
    mappings.iter().map(push).collect()
}

pub(super) fn push_locations<'a>(
    tables: &mut Tables,
    locations: impl ExactSizeIterator<Item = Option<(&'a Location, &'a [Line])>>,
    function: impl Fn(u32) -> Option<FunctionId>,
    mapping: impl Fn(u32) -> Option<MappingId>,
) -> Vec<Option<LocationId>> {
    tables.locations.reserve_exact(locations.len());
    let push = |location: Option<(&Location, &[Line])>| {
        let (location, lines) = location?;
        let start = tables.lines.len();
        let mapping = match location.mapping.checked_sub(1) {
            None => None,
            Some(number) => Some(mapping(number)?),
        };
        for line in lines {
            let Some(function) = function(line.function) else {
                tables.lines.truncate(start);
                return None;
            };
            let line = line.line;
            tables.lines.push(model::Line { function, line });
        }
        tables.locations.push(model::Location {
            mapping,
            address: location.address,
            lines_start: start as u32,
            lines_end: tables.lines.len() as u32,
            is_folded: location.flags & LOCATION_FOLDED != 0,
            unnamed: Unnamed::from_bits(location.unnamed),
        });
        Some(LocationId(tables.locations.len() as u32 - 1))
    };
    locations.map(push).collect()
}

/// Makes stacks of nodes. Returns the stack of each, or none if all of them have the number of their node.
pub(super) fn push_nodes(
    tables: &mut Tables,
    nodes: Vec<Node>,
    locations: &[Option<LocationId>],
    position: impl Fn(u32) -> usize,
) -> Option<Vec<Option<StackId>>> {
    if locations.iter().all(Option::is_some) {
        // All locations were added, in their order. The millions of nodes stay where they are.
        let stack = |(number, node): (usize, Node)| StackNode {
            parent: StackId(node.parent),
            location: match number {
                0 => LocationId(0),
                _ => LocationId(position(node.location) as u32),
            },
        };
        tables.stacks = nodes.into_iter().enumerate().map(stack).collect();
        return None;
    }
    Some(push_readable_nodes(tables, &nodes, |location| {
        locations[position(location)]
    }))
}

/// Adds the nodes whose locations, and those of their callers, are there.
fn push_readable_nodes(
    tables: &mut Tables,
    nodes: &[Node],
    location: impl Fn(u32) -> Option<LocationId>,
) -> Vec<Option<StackId>> {
    let mut pushed = vec![Some(StackId(0))];
    for node in &nodes[1..] {
        let parent = pushed[node.parent as usize];
        let stack = parent
            .zip(location(node.location))
            .map(|(parent, location)| {
                tables.stacks.push(StackNode { parent, location });
                StackId(tables.stacks.len() as u32 - 1)
            });
        pushed.push(stack);
    }
    pushed
}

pub(super) fn push_tag_sets(
    tables: &mut Tables,
    sets: &[Option<Box<[Tag]>>],
    string: impl Fn(u32) -> Option<StringId>,
) -> Vec<Option<TagSetId>> {
    let tag = |tag: &Tag| {
        let value = match tag.value {
            TagValue::Text(text) => model::TagValue::Text(string(text)?),
            TagValue::Number(number, unit) => model::TagValue::Number(number, string(unit)?),
        };
        let key = string(tag.key)?;
        Some(model::Tag { key, value })
    };
    let push = |set: &Option<Box<[Tag]>>| {
        let tags: Option<Vec<model::Tag>> = set.as_ref()?.iter().map(tag).collect();
        Some(match &tags?[..] {
            [] => TagSetId(0),
            tags => tables.push_tag_set(tags),
        })
    };
    sets.iter().map(push).collect()
}
