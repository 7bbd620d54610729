//! Tables in which each entry occurs once.
//!
//! Entries are found by their whole value; the hash only says where to look, so that nothing is ever merged
//! by a collision.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::tables::{
    Function, FunctionId, Line, Location, LocationId, Mapping, MappingId, StackId, StackNode,
    StringId, Tables, Tag, TagSetId, Unnamed,
};

/// Tables and the indexes that find an entry by its value.
///
/// The hashes are seeded at random, since names come from untrusted programs.
#[derive(Default)]
pub struct Dictionary {
    tables: Tables,
    hasher: DefaultHashBuilder,
    strings: HashTable<u32>,
    mappings: HashTable<u32>,
    functions: HashTable<u32>,
    locations: HashTable<u32>,
    /// The last location at each address.
    places: HashTable<u32>,
    stacks: HashTable<u32>,
    tag_sets: HashTable<u32>,
}

/// Address of a location: mostly one location has it.
#[derive(Hash, PartialEq)]
pub(super) struct LocationAddress {
    mapping: Option<MappingId>,
    address: u64,
}

impl LocationAddress {
    pub(super) fn of(location: &Location) -> Self {
        Self {
            mapping: location.mapping,
            address: location.address,
        }
    }
}

/// Identity of a location: all fields, its lines by value.
#[derive(Hash, PartialEq)]
struct LocationValue<'a> {
    mapping: Option<MappingId>,
    address: u64,
    is_folded: bool,
    unnamed: Unnamed,
    lines: &'a [Line],
}

impl<'a> LocationValue<'a> {
    fn new(location: &Location, lines: &'a [Line]) -> Self {
        // Destructured, so that a new field is a compile error here.
        let Location {
            mapping,
            address,
            lines_start: _,
            lines_end: _,
            is_folded,
            unnamed,
        } = *location;
        Self {
            mapping,
            address,
            is_folded,
            unnamed,
            lines,
        }
    }
}

impl Dictionary {
    /// The tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The tables, without the indexes.
    pub fn into_tables(self) -> Tables {
        self.tables
    }

    /// Finds or adds a string.
    pub fn intern_string(&mut self, text: &str) -> StringId {
        if text.is_empty() {
            return StringId(0);
        }
        let Self {
            tables,
            hasher,
            strings,
            ..
        } = self;
        StringId(intern(tables, hasher, strings, text))
    }

    /// Finds or adds a mapping.
    pub fn intern_mapping(&mut self, mapping: Mapping) -> MappingId {
        let Self {
            tables,
            hasher,
            mappings,
            ..
        } = self;
        MappingId(intern(tables, hasher, mappings, &mapping))
    }

    /// Finds or adds a function.
    pub fn intern_function(&mut self, function: Function) -> FunctionId {
        let Self {
            tables,
            hasher,
            functions,
            ..
        } = self;
        FunctionId(intern(tables, hasher, functions, &function))
    }

    /// Finds or adds a location with its lines; the line positions in `location` are ignored.
    pub fn intern_location(&mut self, location: Location, lines: &[Line]) -> LocationId {
        let Self {
            tables,
            hasher,
            locations,
            ..
        } = self;
        let value = LocationValue::new(&location, lines);
        let hash = hasher.hash_one(&value);
        let same = |n: &u32| {
            LocationValue::new(
                &tables.locations[*n as usize],
                tables.own_lines_of(LocationId(*n)),
            ) == value
        };
        if let Some(found) = locations.find(hash, same) {
            return LocationId(*found);
        }
        let lines_start = tables.lines.len() as u32;
        tables.lines.extend_from_slice(lines);
        let lines_end = tables.lines.len() as u32;
        tables.locations.push(Location {
            lines_start,
            lines_end,
            ..location
        });
        let id = tables.locations.len() as u32 - 1;
        locations.insert_unique(hash, id, |&n| {
            hasher.hash_one(LocationValue::new(
                &tables.locations[n as usize],
                tables.own_lines_of(LocationId(n)),
            ))
        });
        self.note_place(LocationId(id));
        LocationId(id)
    }

    fn note_place(&mut self, id: LocationId) {
        let (locations, hasher) = (&self.tables.locations, &self.hasher);
        let place = |n: u32| LocationAddress::of(&locations[n as usize]);
        let entry = self.places.entry(
            hasher.hash_one(place(id.0)),
            |&n| place(n) == place(id.0),
            |&n| hasher.hash_one(place(n)),
        );
        entry.insert(id.0);
    }

    /// The last location at an address. Only one, so that many at the same address cannot make it slow.
    pub(super) fn find_by_address(&self, address: &LocationAddress) -> Option<LocationId> {
        let is_there =
            |n: &u32| LocationAddress::of(&self.tables.locations[*n as usize]) == *address;
        let found = self.places.find(self.hasher.hash_one(address), is_there);
        found.map(|n| LocationId(*n))
    }

    /// Adds a line to a location without lines. Look-ups by value no longer find the location.
    pub fn set_line(&mut self, id: LocationId, line: Line) {
        let lines_start = self.tables.lines.len() as u32;
        self.tables.lines.push(line);
        let location = &mut self.tables.locations[id.position()];
        (location.lines_start, location.lines_end) = (lines_start, lines_start + 1);
    }

    /// Finds or adds a stack: one more frame on top of a known stack.
    pub fn intern_stack(&mut self, node: StackNode) -> StackId {
        // Nodes of one stack are adjacent, so most of a known stack is found without the index, which costs a cache
        // miss a frame.
        let next = StackId(node.parent.0 + 1);
        if self.tables.stacks.get(next.position()) == Some(&node) {
            return next;
        }
        let Self {
            tables,
            hasher,
            stacks,
            ..
        } = self;
        StackId(intern(tables, hasher, stacks, &node))
    }

    /// Finds or adds a tag set. The order of tags counts; a sender keeps it the same.
    pub fn intern_tag_set(&mut self, tags: &[Tag]) -> TagSetId {
        if tags.is_empty() {
            return TagSetId(0);
        }
        let Self {
            tables,
            hasher,
            tag_sets,
            ..
        } = self;
        TagSetId(intern(tables, hasher, tag_sets, tags))
    }

    /// Bytes on the heap, for bounded caches.
    pub fn heap_bytes(&self) -> usize {
        let indexes = [
            &self.strings,
            &self.mappings,
            &self.functions,
            &self.locations,
            &self.places,
            &self.stacks,
            &self.tag_sets,
        ];
        // An index has a number of four bytes and one control byte a place.
        self.tables.heap_bytes()
            + indexes
                .iter()
                .map(|index| 5 * index.capacity())
                .sum::<usize>()
    }
}

/// An entry that is found by its whole value.
trait Entry: Hash + PartialEq {
    /// The entry with a number.
    fn get(tables: &Tables, number: u32) -> &Self;

    /// Adds a copy, and returns its number.
    fn push(&self, tables: &mut Tables) -> u32;
}

impl Entry for str {
    fn get(tables: &Tables, number: u32) -> &Self {
        tables.string(StringId(number))
    }

    fn push(&self, tables: &mut Tables) -> u32 {
        tables.push_string(self).0
    }
}

impl Entry for [Tag] {
    fn get(tables: &Tables, number: u32) -> &Self {
        tables.tag_set(TagSetId(number))
    }

    fn push(&self, tables: &mut Tables) -> u32 {
        tables.push_tag_set(self).0
    }
}

/// Implements [`Entry`] for entries in a vector.
macro_rules! entry_in_vector {
    ($($entry:ty: $field:ident;)*) => {$(
        impl Entry for $entry {
            fn get(tables: &Tables, number: u32) -> &Self {
                &tables.$field[number as usize]
            }

            fn push(&self, tables: &mut Tables) -> u32 {
                tables.$field.push(*self);
                tables.$field.len() as u32 - 1
            }
        }
    )*};
}

entry_in_vector! {
    Mapping: mappings;
    Function: functions;
    StackNode: stacks;
}

fn intern<E: Entry + ?Sized>(
    tables: &mut Tables,
    hasher: &DefaultHashBuilder,
    index: &mut HashTable<u32>,
    entry: &E,
) -> u32 {
    let hash = hasher.hash_one(entry);
    if let Some(found) = index.find(hash, |&n| E::get(tables, n) == entry) {
        return *found;
    }
    let id = entry.push(tables);
    index.insert_unique(hash, id, |&n| hasher.hash_one(E::get(tables, n)));
    id
}
