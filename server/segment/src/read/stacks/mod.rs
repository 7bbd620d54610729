//! Stacks of a segment with all that they refer to, as tables of their own.
//!
//! Only chunks with something that is needed are read: of the tree, then of locations, functions and strings.

pub(crate) mod assemble;
pub(crate) mod tables;
mod tree;

use model::tables::{StackId, StringId, TagSetId};
use model::{Charge, FunctionNames, Tables};

use crate::chunk::dictionary::{
    LocationChunk, decode_functions, decode_mappings, decode_strings, decode_tag_sets,
};
use crate::codec::column::Unpacker;
use crate::dictionary::{Function, Line, Location, Mapping, Tag};
use crate::error::{Damage, Malformed, Partial};
use crate::file::footer::Chunk;
use crate::read::Segment;
use crate::read::parallel::Effort;
use crate::read_at::ReadAt;
use crate::section::Section;

use self::assemble::{EntrySource, make_tables};
use self::tables::Node;
use self::tree::{Nodes, read_tree};

/// Stacks and tag sets as tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StackTables {
    /// The tables; they have nothing else.
    pub tables: Tables,
    /// The stack in the tables for each that was asked for; none if it, or something that it needs, is damaged.
    pub stacks: Vec<Option<StackId>>,
    /// The same for tag sets.
    pub tag_sets: Vec<Option<TagSetId>>,
}

/// A function with the names that are read.
pub(crate) fn choose_names(names: FunctionNames, function: &Function) -> Function {
    let has_all = names == FunctionNames::All || function.name == 0;
    Function {
        system_name: if has_all { function.system_name } else { 0 },
        ..*function
    }
}

/// Chunks that are decoded before what is needed of them is copied: of strings, 16 MiB.
const CHUNKS_AT_ONCE: usize = 16;

/// Bytes of a node while tables are made: twice as it is read, its numbers in two lists, and a stack of the tables.
const NODE_BYTES: usize = 2 * size_of::<Node>() + 4 + 8 + size_of::<model::StackNode>();

/// The same of a location with one line.
const LOCATION_BYTES: usize = size_of::<Location>()
    + size_of::<Line>()
    + 12
    + size_of::<model::Location>()
    + size_of::<model::Line>();

/// The same of a function.
const FUNCTION_BYTES: usize = size_of::<Function>() + 12 + size_of::<model::Function>();

impl<R: ReadAt> Segment<R> {
    /// Reads stacks and tag sets. Each list is sorted, and has each number once.
    pub fn read_stacks(
        &self,
        stacks: &[u32],
        tag_sets: &[u32],
        names: FunctionNames,
        effort: Effort<'_>,
    ) -> Partial<StackTables> {
        let mut reading = Reading {
            segment: self,
            names,
            effort,
            charge: effort.charge(0),
            damage: Vec::new(),
        };
        let value = make_tables(&mut reading, stacks, tag_sets);
        Partial {
            value,
            damage: reading.damage,
        }
    }
}

struct Reading<'a, R> {
    segment: &'a Segment<R>,
    names: FunctionNames,
    effort: Effort<'a>,
    charge: Charge,
    damage: Vec<Damage>,
}

impl<R> Reading<'_, R> {
    /// Takes memory for entries of the tables. If there is none, the question is stopped, and nothing more is read.
    fn note_entries(&mut self, count: usize, bytes: usize) {
        let _stopped = self.charge.add(count * bytes);
    }
}

impl<R: ReadAt> Reading<'_, R> {
    /// Shows entries by number, in their order; each chunk that has one of them is read once. What is damaged is none.
    fn read_entries<C: Send>(
        &mut self,
        section: Section,
        mut needed: &[u32],
        decode: impl Fn(&[u8], &Chunk, &mut Unpacker) -> Result<C, Malformed> + Sync,
        mut visit: impl FnMut(Option<(&C, usize)>),
    ) {
        let segment = self.segment;
        let mut tasks = Vec::new();
        for (number, chunk) in segment.chunks(section).iter().enumerate() {
            let count = needed.partition_point(|entry| *entry < chunk.first + chunk.items);
            let (own, after) = needed.split_at(count);
            needed = after;
            if !own.is_empty() {
                tasks.push((number, chunk.first, own));
            }
        }
        for tasks in tasks.chunks(CHUNKS_AT_ONCE) {
            let read = self.effort.map(
                tasks,
                || (),
                |(), scratch, (number, ..)| segment.read(section, *number, scratch, &decode),
            );
            for ((_, first, own), read) in tasks.iter().zip(read) {
                let read = match read {
                    Some(Ok(read)) => Some(read),
                    Some(Err(damage)) => {
                        self.damage.push(damage);
                        None
                    }
                    // The question was stopped.
                    None => None,
                };
                for entry in *own {
                    visit(read.as_ref().map(|read| (read, (entry - first) as usize)));
                }
            }
        }
    }
}

impl<R: ReadAt> EntrySource for Reading<'_, R> {
    fn count(&self, section: Section) -> usize {
        self.segment.count(section)
    }

    fn read_nodes(&mut self, stacks: &[u32]) -> (Vec<Node>, Vec<Option<u32>>) {
        let Nodes { nodes, found, .. } =
            read_tree(self.segment, stacks, self.effort, &mut self.damage);
        self.note_entries(nodes.len(), NODE_BYTES);
        (nodes, found)
    }

    fn read_locations(&mut self, needed: &[u32]) -> (LocationChunk, Vec<bool>) {
        let limits = self.segment.dictionary_limits();
        let mut locations = LocationChunk::default();
        let mut is_there = Vec::with_capacity(needed.len());
        self.read_entries(
            Section::Locations,
            needed,
            |bytes, chunk, unpacker| {
                LocationChunk::decode(bytes, chunk.items as usize, limits, unpacker)
            },
            |entry: Option<(&LocationChunk, usize)>| {
                is_there.push(entry.is_some());
                match entry {
                    Some((chunk, position)) => {
                        let location = &chunk.locations[position];
                        locations.push(location, chunk.lines_of(location).iter().copied());
                    }
                    None => locations.push(&Location::default(), std::iter::empty()),
                }
            },
        );
        self.note_entries(needed.len(), LOCATION_BYTES);
        (locations, is_there)
    }

    fn read_functions(&mut self, needed: &[u32]) -> Vec<Option<Function>> {
        let limits = self.segment.dictionary_limits();
        let names = self.names;
        let mut functions = Vec::with_capacity(needed.len());
        self.read_entries(
            Section::Functions,
            needed,
            |bytes, chunk, unpacker| {
                decode_functions(bytes, chunk.items as usize, limits, unpacker)
            },
            |entry: Option<(&Vec<Function>, usize)>| {
                let function = entry.map(|(functions, position)| functions[position]);
                functions.push(function.map(|function| choose_names(names, &function)));
            },
        );
        self.note_entries(needed.len(), FUNCTION_BYTES);
        functions
    }

    fn read_mappings(&mut self, needed: &[u32]) -> Vec<Option<Mapping>> {
        let limits = self.segment.dictionary_limits();
        let mut mappings = Vec::new();
        self.read_entries(
            Section::Mappings,
            needed,
            |bytes, chunk, unpacker| decode_mappings(bytes, chunk.items as usize, limits, unpacker),
            |entry: Option<(&Vec<Mapping>, usize)>| {
                mappings.push(entry.map(|(mappings, position)| mappings[position]));
            },
        );
        mappings
    }

    fn read_tag_sets(&mut self, needed: &[u32]) -> Vec<Option<Box<[Tag]>>> {
        let limits = self.segment.dictionary_limits();
        let mut tag_sets = Vec::new();
        self.read_entries(
            Section::TagSets,
            needed,
            |bytes, chunk, unpacker| decode_tag_sets(bytes, chunk.items as usize, limits, unpacker),
            |entry: Option<(&Vec<Box<[Tag]>>, usize)>| {
                tag_sets.push(entry.map(|(sets, position)| sets[position].clone()));
            },
        );
        tag_sets
    }

    fn read_strings(&mut self, needed: &[u32], tables: &mut Tables) -> Vec<Option<StringId>> {
        let mut strings = Vec::with_capacity(needed.len());
        self.read_entries(
            Section::Strings,
            needed,
            |bytes, chunk, unpacker| decode_strings(bytes, chunk.items as usize, unpacker),
            |entry| {
                let text = entry.map(|(texts, position)| texts.get(position));
                strings.push(text.map(|text| match text {
                    "" => StringId(0),
                    text => tables.push_string(text),
                }));
            },
        );
        self.note_entries(1, tables.heap_bytes());
        strings
    }
}
