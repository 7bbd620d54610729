//! Stacks of an open block, as tables.

use model::tables::StringId;
use model::{FunctionNames, Tables};

use crate::chunk::dictionary::LocationChunk;
use crate::dictionary::{Function, Mapping, Tag};
use crate::read::needed::Needed;
use crate::read::stacks::assemble::{EntrySource, make_tables};
use crate::read::stacks::tables::Node;
use crate::read::stacks::{StackTables, choose_names};
use crate::section::Section;

use super::Builder;
use crate::tree::ROOT;

/// Nodes that a stack has of its own, about: it decides only how they are found.
const NODES_A_STACK: usize = 4;

pub(super) fn read_stacks(
    builder: &Builder,
    stacks: &[u32],
    tag_sets: &[u32],
    names: FunctionNames,
) -> StackTables {
    make_tables(&mut Reading { builder, names }, stacks, tag_sets)
}

struct Reading<'a> {
    builder: &'a Builder,
    names: FunctionNames,
}

impl EntrySource for Reading<'_> {
    fn count(&self, section: Section) -> usize {
        let Builder {
            names, locations, ..
        } = self.builder;
        match section {
            Section::Locations => locations.len(),
            Section::Functions => names.functions.entries().len(),
            Section::Mappings => names.mappings.len(),
            Section::Strings => names.strings.len(),
            _ => 0,
        }
    }

    fn read_nodes(&mut self, stacks: &[u32]) -> (Vec<Node>, Vec<Option<u32>>) {
        let tree = &self.builder.tree;
        let mut needed = Needed::new(tree.len(), NODES_A_STACK * stacks.len());
        needed.add(ROOT);
        for stack in stacks {
            let mut node = *stack;
            while needed.add(node) {
                node = tree.parent(node);
            }
        }
        // A node's parent has a smaller number.
        needed.sort();
        let nodes = needed.numbers().iter().map(|node| Node {
            parent: needed.position(tree.parent(*node)) as u32,
            location: tree.location(*node),
        });
        let found = stacks.iter();
        let found = found.map(|stack| Some(needed.position(*stack) as u32));
        (nodes.collect(), found.collect())
    }

    fn read_locations(&mut self, numbers: &[u32]) -> (LocationChunk, Vec<bool>) {
        let mut locations = LocationChunk::default();
        for number in numbers {
            let (location, lines) = self.builder.locations.get(*number);
            locations.push(location, lines.iter().copied());
        }
        (locations, vec![true; numbers.len()])
    }

    fn read_functions(&mut self, numbers: &[u32]) -> Vec<Option<Function>> {
        let functions = self.builder.names.functions.entries();
        let function = |number: &u32| Some(choose_names(self.names, &functions[*number as usize]));
        numbers.iter().map(function).collect()
    }

    fn read_mappings(&mut self, numbers: &[u32]) -> Vec<Option<Mapping>> {
        let mappings = &self.builder.names.mappings;
        let numbers = numbers.iter();
        numbers
            .map(|number| mappings.get(*number as usize).copied())
            .collect()
    }

    fn read_tag_sets(&mut self, numbers: &[u32]) -> Vec<Option<Box<[Tag]>>> {
        let tag_sets = self.builder.names.tag_sets.entries();
        let numbers = numbers.iter();
        numbers
            .map(|number| tag_sets.get(*number as usize).cloned())
            .collect()
    }

    fn read_strings(&mut self, numbers: &[u32], tables: &mut Tables) -> Vec<Option<StringId>> {
        let strings = &self.builder.names.strings;
        let string = |number: &u32| match strings.get(*number) {
            "" => StringId(0),
            text => tables.push_string(text),
        };
        numbers.iter().map(string).map(Some).collect()
    }
}
