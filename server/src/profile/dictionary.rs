//! Tables in which each entry occurs once.
//!
//! Entries are found by their whole value; the hash only says where to look, so that nothing is ever merged
//! by a collision.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::tables::{
    Function, FunctionId, Line, Location, LocationId, Mapping, MappingId, StackId, StackNode,
    StringId, Tables, Tag, TagSetId, TagValue, Unnamed,
};

/// Tables and the indexes that find an entry by its value.
///
/// The hashes are seeded at random, since names come from programs that nobody has checked.
#[derive(Default)]
pub struct Dictionary {
    tables: Tables,
    hasher: DefaultHashBuilder,
    strings: HashTable<u32>,
    mappings: HashTable<u32>,
    functions: HashTable<u32>,
    locations: HashTable<u32>,
    /// The location that came last at each place.
    places: HashTable<u32>,
    stacks: HashTable<u32>,
    tag_sets: HashTable<u32>,
}

/// Where a location is: there is mostly one with the same names.
#[derive(Hash, PartialEq)]
struct Place {
    mapping: Option<MappingId>,
    address: u64,
}

impl Place {
    fn of(location: &Location) -> Self {
        Self {
            mapping: location.mapping,
            address: location.address,
        }
    }
}

/// What tells a location from another: all of it, its lines by value.
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
        // Named one by one, so that a new field does not compile before somebody decides about it.
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

    /// The tables alone, when nothing more is to be added.
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

    /// Finds or adds a location with its lines; the positions of lines in `location` do not count.
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
        let place = |n: u32| Place::of(&locations[n as usize]);
        let entry = self.places.entry(
            hasher.hash_one(place(id.0)),
            |&n| place(n) == place(id.0),
            |&n| hasher.hash_one(place(n)),
        );
        entry.insert(id.0);
    }

    /// The location that came last at a place. One alone, so that many at the same place cannot make it slow.
    fn find_place(&self, place: &Place) -> Option<LocationId> {
        let is_there = |n: &u32| Place::of(&self.tables.locations[*n as usize]) == *place;
        let found = self.places.find(self.hasher.hash_one(place), is_there);
        found.map(|n| LocationId(*n))
    }

    /// Gives a location that has no lines one. It is not found by its value any more.
    pub fn set_line(&mut self, id: LocationId, line: Line) {
        let lines_start = self.tables.lines.len() as u32;
        self.tables.lines.push(line);
        let location = &mut self.tables.locations[id.position()];
        (location.lines_start, location.lines_end) = (lines_start, lines_start + 1);
    }

    /// Gives a location that names no source file other lines, without making it another location. Locations come in rising order.
    pub fn join_lines(&mut self, id: LocationId, lines: &[Line]) {
        self.tables.join_lines(id, lines);
    }

    /// Forgets all lines that were joined. Names that only they had stay.
    pub fn clear_joined(&mut self) {
        self.tables.clear_joined();
    }

    /// Finds or adds a stack: one more frame on top of a stack that is there.
    pub fn intern_stack(&mut self, node: StackNode) -> StackId {
        // Frames that came together stand in a row, so that most of a known stack is found without the index, which
        // costs a cache miss a frame.
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

/// An entry that is found by the whole of itself.
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

/// Implements [`Entry`] for entries that lie in a vector.
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

/// Copies entries of foreign tables into a dictionary, each at its first use, and remembers their new numbers.
pub struct Import<'a> {
    from: &'a Tables,
    lines_of: fn(&'a Tables, LocationId) -> &'a [Line],
    strings: Vec<u32>,
    mappings: Vec<u32>,
    functions: Vec<u32>,
    locations: Vec<u32>,
    stacks: Vec<u32>,
    tag_sets: Vec<u32>,
    lines: Vec<Line>,
    pending: Vec<StackId>,
}

/// Not copied yet. A table cannot have so many entries: each takes several bytes of a bounded message.
const NEW: u32 = u32::MAX;

impl<'a> Import<'a> {
    /// Starts an import; nothing is copied yet. Lines that were joined are left out.
    pub fn new(from: &'a Tables) -> Self {
        Self::with_lines(from, Tables::own_lines_of)
    }

    /// Starts an import that makes lines that were joined the locations' own.
    pub fn joined(from: &'a Tables) -> Self {
        Self::with_lines(from, Tables::lines_of)
    }

    fn with_lines(from: &'a Tables, lines_of: fn(&'a Tables, LocationId) -> &'a [Line]) -> Self {
        Self {
            from,
            lines_of,
            strings: vec![NEW; from.string_count()],
            mappings: vec![NEW; from.mappings.len()],
            functions: vec![NEW; from.functions.len()],
            locations: vec![NEW; from.locations.len()],
            stacks: vec![NEW; from.stacks.len()],
            tag_sets: vec![NEW; from.tag_set_count()],
            lines: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Copies a string.
    pub fn string(&mut self, into: &mut Dictionary, id: StringId) -> StringId {
        let known = &mut self.strings[id.position()];
        if *known == NEW {
            *known = into.intern_string(self.from.string(id)).0;
        }
        StringId(*known)
    }

    /// Copies a mapping.
    pub fn mapping(&mut self, into: &mut Dictionary, id: MappingId) -> MappingId {
        if self.mappings[id.position()] == NEW {
            let Mapping {
                file,
                build_id,
                start,
                limit,
                offset,
                flags,
            } = self.from.mappings[id.position()];
            let file = self.string(into, file);
            let build_id = self.string(into, build_id);
            let copy = Mapping {
                file,
                build_id,
                start,
                limit,
                offset,
                flags,
            };
            self.mappings[id.position()] = into.intern_mapping(copy).0;
        }
        MappingId(self.mappings[id.position()])
    }

    /// Copies a function.
    pub fn function(&mut self, into: &mut Dictionary, id: FunctionId) -> FunctionId {
        if self.functions[id.position()] == NEW {
            let Function {
                name,
                system_name,
                file,
                start_line,
            } = self.from.functions[id.position()];
            let name = self.string(into, name);
            let system_name = self.string(into, system_name);
            let file = self.string(into, file);
            self.functions[id.position()] = into
                .intern_function(Function {
                    name,
                    system_name,
                    file,
                    start_line,
                })
                .0;
        }
        FunctionId(self.functions[id.position()])
    }

    /// Copies a location with its lines.
    pub fn location(&mut self, into: &mut Dictionary, id: LocationId) -> LocationId {
        if self.locations[id.position()] == NEW {
            let location = self.from.locations[id.position()];
            let mapping = location.mapping.map(|mapping| self.mapping(into, mapping));
            let unnamed = match (self.lines_of)(self.from, id) {
                [] => location.unnamed,
                _ => Unnamed::default(),
            };
            let location = Location {
                mapping,
                unnamed,
                ..location
            };
            let known = into
                .find_place(&Place::of(&location))
                .filter(|known| self.is_location(into.tables(), id, &location, *known));
            let copy = known.unwrap_or_else(|| self.copy_location(into, id, location));
            self.locations[id.position()] = copy.0;
        }
        LocationId(self.locations[id.position()])
    }

    fn copy_location(
        &mut self,
        into: &mut Dictionary,
        id: LocationId,
        location: Location,
    ) -> LocationId {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for line in (self.lines_of)(self.from, id) {
            lines.push(Line {
                function: self.function(into, line.function),
                line: line.line,
            });
        }
        let copy = into.intern_location(location, &lines);
        self.lines = lines;
        copy
    }

    /// Says whether a location with the same mapping and address is what `id` becomes. To compare its names takes a
    /// third of the time that it takes to look each of them up.
    fn is_location(
        &mut self,
        into: &Tables,
        id: LocationId,
        a: &Location,
        known: LocationId,
    ) -> bool {
        let b = into.locations[known.position()];
        let (from, known) = ((self.lines_of)(self.from, id), into.own_lines_of(known));
        (a.is_folded, a.unnamed, from.len()) == (b.is_folded, b.unnamed, known.len())
            && from
                .iter()
                .zip(known)
                .all(|(a, b)| a.line == b.line && self.is_function(into, a.function, b.function))
    }

    fn is_function(&mut self, into: &Tables, id: FunctionId, known: FunctionId) -> bool {
        let copy = self.functions[id.position()];
        if copy != NEW {
            return copy == known.0;
        }
        let (a, b) = (
            self.from.functions[id.position()],
            into.functions[known.position()],
        );
        let is_same = a.start_line == b.start_line
            && self.is_string(into, a.name, b.name)
            && self.is_string(into, a.system_name, b.system_name)
            && self.is_string(into, a.file, b.file);
        if is_same {
            self.functions[id.position()] = known.0;
        }
        is_same
    }

    fn is_string(&mut self, into: &Tables, id: StringId, known: StringId) -> bool {
        let copy = &mut self.strings[id.position()];
        if *copy == NEW && self.from.string(id) == into.string(known) {
            *copy = known.0;
        }
        *copy == known.0
    }

    /// Copies a stack and all stacks below it.
    pub fn stack(&mut self, into: &mut Dictionary, id: StackId) -> StackId {
        self.stacks[0] = 0;
        let mut missing = id;
        while self.stacks[missing.position()] == NEW {
            self.pending.push(missing);
            missing = self.from.stacks[missing.position()].parent;
        }
        while let Some(next) = self.pending.pop() {
            let StackNode { parent, location } = self.from.stacks[next.position()];
            let parent = StackId(self.stacks[parent.position()]);
            let location = self.location(into, location);
            self.stacks[next.position()] = into.intern_stack(StackNode { parent, location }).0;
        }
        StackId(self.stacks[id.position()])
    }

    /// Copies all locations, stacks and tag sets, in their order: half of the time of copying each at its first use,
    /// since the tables are read from front to back.
    pub fn copy_all(&mut self, into: &mut Dictionary) {
        for location in 0..self.locations.len() as u32 {
            self.location(into, LocationId(location));
        }
        self.stacks[0] = 0;
        for (number, node) in self.from.stacks.iter().enumerate().skip(1) {
            let parent = StackId(self.stacks[node.parent.position()]);
            let location = LocationId(self.locations[node.location.position()]);
            self.stacks[number] = into.intern_stack(StackNode { parent, location }).0;
        }
        for set in 0..self.tag_sets.len() as u32 {
            self.tag_set(into, TagSetId(set));
        }
    }

    /// Copies a tag set.
    pub fn tag_set(&mut self, into: &mut Dictionary, id: TagSetId) -> TagSetId {
        if self.tag_sets[id.position()] == NEW {
            let mut tags = Vec::new();
            for tag in self.from.tag_set(id) {
                let key = self.string(into, tag.key);
                let value = match tag.value {
                    TagValue::Text(text) => TagValue::Text(self.string(into, text)),
                    TagValue::Number(number, unit) => {
                        TagValue::Number(number, self.string(into, unit))
                    }
                };
                tags.push(Tag { key, value });
            }
            self.tag_sets[id.position()] = into.intern_tag_set(&tags).0;
        }
        TagSetId(self.tag_sets[id.position()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::text::window;

    /// Check that joined lines are shown and counted, tell no locations apart, and become a copy's own where asked for.
    #[test]
    fn joined_lines_are_no_part_of_what_a_location_is() {
        let text = "comm=a | main 0x1f@/lib/b.so 0x2f@/lib/b.so | 1";
        let window = window(text);
        let mut all = Dictionary::default();
        Import::new(&window.tables).copy_all(&mut all);
        let main = all.tables().lines_of(LocationId(0))[0];
        let (bytes, id) = (all.heap_bytes(), LocationId(2));
        all.join_lines(id, &[main, main]);
        assert!(all.heap_bytes() > bytes);
        assert_eq!(all.tables().lines_of(id), [main, main]);
        assert_eq!(all.tables().own_lines_of(id), []);
        assert_eq!(all.tables().lines_of(LocationId(1)), []);

        Import::new(&window.tables).copy_all(&mut all);
        assert_eq!(all.tables().locations.len(), 3);
        let mut copies = [Dictionary::default(), Dictionary::default()];
        Import::new(all.tables()).copy_all(&mut copies[0]);
        Import::joined(all.tables()).copy_all(&mut copies[1]);
        for (copy, lines, reason) in [(&copies[0], 0, 4), (&copies[1], 2, 0)] {
            assert_eq!(copy.tables().own_lines_of(id).len(), lines);
            assert_eq!(
                copy.tables().locations[id.position()].unnamed.code(),
                reason
            );
        }
        all.clear_joined();
        assert_eq!(all.tables(), copies[0].tables());
    }

    #[test]
    fn an_import_keeps_stacks_and_merges_what_is_equal() {
        let first = window("comm=a | main work | 1\ncomm=a | main idle | 2");
        let second = window("comm=a | main idle | 1\ncomm=b | main work deep | 2");
        let mut all = Dictionary::default();
        for one in [&first, &second] {
            let mut import = Import::new(&one.tables);
            for row in &one.rows {
                let copy = import.stack(&mut all, row.stack);
                let names = |tables: &Tables, stack| -> Vec<String> {
                    let name = |l| {
                        tables.string(
                            tables.functions[tables.lines_of(l)[0].function.position()].name,
                        )
                    };
                    tables
                        .walk_stack(stack)
                        .map(|l| name(l).to_owned())
                        .collect()
                };
                assert_eq!(names(all.tables(), copy), names(&one.tables, row.stack));
            }
        }
        // The empty stack, main, work, idle, deep.
        assert_eq!(all.tables().stacks.len(), 5);
        assert_eq!(all.tables().functions.len(), 4);
    }

    /// Check that only equal locations become one, also where several are at one place.
    #[test]
    fn locations_at_one_place_are_told_apart_by_what_they_say() {
        let mut first = Dictionary::default();
        for (name, line) in [("a", 5), ("b", 5), ("a", 6)] {
            let name = first.intern_string(name);
            let function = first.intern_function(Function {
                name,
                system_name: name,
                file: StringId(0),
                start_line: 0,
            });
            let location = Location {
                mapping: None,
                address: 7,
                lines_start: 0,
                lines_end: 0,
                is_folded: false,
                unnamed: Unnamed::default(),
            };
            first.intern_location(location, &[Line { function, line }]);
            first.intern_location(location, &[]);
        }
        assert_eq!(first.tables().locations.len(), 4);
        let mut all = Dictionary::default();
        for _ in 0..2 {
            let mut import = Import::new(first.tables());
            import.copy_all(&mut all);
            let copies = (0..4).map(|n| import.location(&mut all, LocationId(n)).0);
            assert!(copies.eq(0..4));
        }
        assert_eq!(all.tables(), first.tables());
    }
}
