//! Copies from one dictionary's tables to another's.

use crate::dictionary::{Dictionary, LocationAddress};
use crate::joined::{Lines, NamedTables};
use crate::tables::{
    Function, FunctionId, Line, Location, LocationId, Mapping, MappingId, StackId, StackNode,
    StringId, Tables, Tag, TagSetId, TagValue, Unnamed,
};

/// Not copied yet. No table has as many entries: each takes several bytes of a bounded message.
const NEW: u32 = u32::MAX;

/// Copies strings and functions.
struct TextImport<'a> {
    from: &'a Tables,
    strings: Vec<u32>,
    functions: Vec<u32>,
}

impl<'a> TextImport<'a> {
    fn new(from: &'a Tables) -> Self {
        Self {
            from,
            strings: vec![NEW; from.string_count()],
            functions: vec![NEW; from.functions.len()],
        }
    }

    fn string(&mut self, into: &mut Dictionary, id: StringId) -> StringId {
        let known = &mut self.strings[id.position()];
        if *known == NEW {
            *known = into.intern_string(self.from.string(id)).0;
        }
        StringId(*known)
    }

    fn function(&mut self, into: &mut Dictionary, id: FunctionId) -> FunctionId {
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
}

/// Copies entries of foreign tables into a dictionary, each at its first use, and remembers their new numbers.
pub struct Import<'a> {
    from: NamedTables<'a>,
    own: TextImport<'a>,
    joined: Option<TextImport<'a>>,
    mappings: Vec<u32>,
    locations: Vec<u32>,
    stacks: Vec<u32>,
    tag_sets: Vec<u32>,
    lines: Vec<Line>,
    pending: Vec<StackId>,
}

impl<'a> Import<'a> {
    /// Starts an import; nothing is copied yet.
    pub fn new(from: &'a Tables) -> Self {
        Self::named(from.into())
    }

    /// Starts an import that stores joined lines as the locations' own.
    pub fn named(from: NamedTables<'a>) -> Self {
        Self {
            from,
            own: TextImport::new(from.own()),
            joined: from.joined().map(TextImport::new),
            mappings: vec![NEW; from.mappings.len()],
            locations: vec![NEW; from.locations.len()],
            stacks: vec![NEW; from.stacks.len()],
            tag_sets: vec![NEW; from.tag_set_count()],
            lines: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Copies a string.
    pub fn string(&mut self, into: &mut Dictionary, id: StringId) -> StringId {
        self.own.string(into, id)
    }

    /// Copies a function.
    pub fn function(&mut self, into: &mut Dictionary, id: FunctionId) -> FunctionId {
        self.own.function(into, id)
    }

    /// The import of the tables that these lines refer to.
    fn text_of(&mut self, lines: Lines<'_>) -> &mut TextImport<'a> {
        match &mut self.joined {
            Some(joined) if lines.is_joined => joined,
            _ => &mut self.own,
        }
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
                file_id,
            } = self.from.mappings[id.position()];
            let file = self.string(into, file);
            let build_id = self.string(into, build_id);
            let file_id = self.string(into, file_id);
            let copy = Mapping {
                file,
                build_id,
                start,
                limit,
                offset,
                flags,
                file_id,
            };
            self.mappings[id.position()] = into.intern_mapping(copy).0;
        }
        MappingId(self.mappings[id.position()])
    }

    /// Copies a location with its lines.
    pub fn location(&mut self, into: &mut Dictionary, id: LocationId) -> LocationId {
        if self.locations[id.position()] == NEW {
            let location = self.from.locations[id.position()];
            let mapping = location.mapping.map(|mapping| self.mapping(into, mapping));
            let unnamed = match self.from.lines_of(id).lines {
                [] => location.unnamed,
                _ => Unnamed::default(),
            };
            let location = Location {
                mapping,
                unnamed,
                ..location
            };
            let known = into
                .find_by_address(&LocationAddress::of(&location))
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
        let from = self.from.lines_of(id);
        let text = self.text_of(from);
        for line in from.lines {
            lines.push(Line {
                function: text.function(into, line.function),
                line: line.line,
            });
        }
        let copy = into.intern_location(location, &lines);
        self.lines = lines;
        copy
    }

    /// Whether a location with the same mapping and address is equal to the copy of `id`. Comparing the names takes a
    /// third of the time of looking each of them up.
    fn is_location(
        &mut self,
        into: &Tables,
        id: LocationId,
        a: &Location,
        known: LocationId,
    ) -> bool {
        let b = into.locations[known.position()];
        let (from, known) = (self.from.lines_of(id), into.own_lines_of(known));
        let text = self.text_of(from);
        (a.is_folded, a.unnamed, from.lines.len()) == (b.is_folded, b.unnamed, known.len())
            && from
                .lines
                .iter()
                .zip(known)
                .all(|(a, b)| a.line == b.line && text.is_function(into, a.function, b.function))
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
            for tag in self.own.from.tag_set(id) {
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
    use crate::text::window;

    #[test]
    fn an_import_keeps_stacks_and_merges_equal_entries() {
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
                            tables.functions[tables.own_lines_of(l)[0].function.position()].name,
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

    /// Check that only equal locations become one, also where several have one address.
    #[test]
    fn locations_at_one_address_differ_by_their_contents() {
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
