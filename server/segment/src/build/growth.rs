//! How much a window would add to the dictionary of an open block.

use model::tables::{FunctionId, LocationId, MappingId, StackId, StringId};
use model::{Tables, Window};

use crate::dictionary::{Function, LOCATION_FOLDED, Line, Location};

use super::Builder;
use crate::tree::ROOT;

/// Entries of a block's dictionary that cost each question about the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Nodes of the tree of stacks.
    pub stack_nodes: u64,
    /// Locations.
    pub locations: u64,
}

impl Builder {
    /// Size of the dictionary now.
    pub fn dictionary_size(&self) -> Growth {
        Growth {
            stack_nodes: self.tree.len() as u64,
            locations: self.locations.len() as u64,
        }
    }

    /// New entries of a window. Adds nothing, and takes about as long as adding a window without new entries.
    ///
    /// A window in which the same file has several mappings may add less.
    pub fn measure_growth(&self, window: &Window) -> Growth {
        let mut lookup = Lookup::new(self, &window.tables);
        window
            .rows
            .iter()
            .for_each(|row| lookup.add_stack(row.stack));
        lookup.growth
    }
}

/// The builder's number of an entry of a window, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    NotLookedUp,
    Missing,
    At(u32),
}

impl Found {
    fn number(self) -> Option<u32> {
        match self {
            Self::At(number) => Some(number),
            Self::NotLookedUp | Self::Missing => None,
        }
    }
}

impl From<Option<u32>> for Found {
    fn from(number: Option<u32>) -> Self {
        number.map_or(Self::Missing, Self::At)
    }
}

struct Lookup<'a> {
    builder: &'a Builder,
    from: &'a Tables,
    strings: Vec<Found>,
    functions: Vec<Found>,
    locations: Vec<Found>,
    stacks: Vec<Found>,
    lines: Vec<Line>,
    pending: Vec<StackId>,
    growth: Growth,
}

impl<'a> Lookup<'a> {
    fn new(builder: &'a Builder, from: &'a Tables) -> Self {
        let mut stacks = vec![Found::NotLookedUp; from.stacks.len()];
        stacks[0] = Found::At(ROOT);
        Self {
            builder,
            from,
            strings: vec![Found::NotLookedUp; from.string_count()],
            functions: vec![Found::NotLookedUp; from.functions.len()],
            locations: vec![Found::NotLookedUp; from.locations.len()],
            stacks,
            lines: Vec::new(),
            pending: Vec::new(),
            growth: Growth::default(),
        }
    }

    fn add_stack(&mut self, id: StackId) {
        let mut next = id;
        while self.stacks[next.position()] == Found::NotLookedUp {
            self.pending.push(next);
            next = self.from.stacks[next.position()].parent;
        }
        while let Some(next) = self.pending.pop() {
            let node = self.from.stacks[next.position()];
            let location = self.location(node.location);
            let parent = self.stacks[node.parent.position()].number();
            let found = parent
                .zip(location)
                .and_then(|(parent, location)| self.builder.tree.find_child(parent, location));
            self.growth.stack_nodes += u64::from(found.is_none());
            self.stacks[next.position()] = found.into();
        }
    }

    fn location(&mut self, id: LocationId) -> Option<u32> {
        if self.locations[id.position()] == Found::NotLookedUp {
            let found = self.find_location(id);
            self.growth.locations += u64::from(found.is_none());
            self.locations[id.position()] = found.into();
        }
        self.locations[id.position()].number()
    }

    fn find_location(&mut self, id: LocationId) -> Option<u32> {
        let from = self.from.locations[id.position()];
        let mapping = match from.mapping {
            Some(mapping) => self.find_mapping(mapping)? + 1,
            None => 0,
        };
        let location = Location {
            mapping,
            address: from.address,
            flags: if from.is_folded { LOCATION_FOLDED } else { 0 },
            unnamed: from.unnamed.bits(),
            lines: 0..0,
        };
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for line in self.from.own_lines_of(id) {
            lines.push(Line {
                function: self.function(line.function)?,
                line: line.line,
                flags: 0,
            });
        }
        let found = self.builder.locations.find(&location, &lines);
        self.lines = lines;
        found
    }

    fn find_mapping(&mut self, id: MappingId) -> Option<u32> {
        let mapping = self.from.mappings[id.position()];
        let key = [
            self.string(mapping.file)?,
            self.string(mapping.build_id)?,
            self.string(mapping.file_id)?,
        ];
        self.builder.names.find_mapping(key)
    }

    fn function(&mut self, id: FunctionId) -> Option<u32> {
        if self.functions[id.position()] == Found::NotLookedUp {
            self.functions[id.position()] = self.find_function(id).into();
        }
        self.functions[id.position()].number()
    }

    fn find_function(&mut self, id: FunctionId) -> Option<u32> {
        let from = self.from.functions[id.position()];
        let function = Function {
            name: self.string(from.name)?,
            system_name: self.string(from.system_name)?,
            file: self.string(from.file)?,
            start_line: from.start_line,
            language: 0,
        };
        self.builder.names.functions.find(&function)
    }

    fn string(&mut self, id: StringId) -> Option<u32> {
        if self.strings[id.position()] == Found::NotLookedUp {
            let text = self.from.string(id);
            self.strings[id.position()] = self.builder.names.strings.find(text).into();
        }
        self.strings[id.position()].number()
    }
}
