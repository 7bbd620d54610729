//! Copies a window's tables into a builder.

use model::Tables;
use model::tables::{FunctionId, LocationId, MappingId, StackId, StringId, TagSetId};

use crate::chunk::dictionary::LIST_MAX;
use crate::chunk::tree::DEPTH_MAX;
use crate::dictionary::{Function, LOCATION_FOLDED, Line, Location, Mapping, Names, Tag, TagValue};
use crate::error::Error;

use super::Builder;
use super::tree::ROOT;

/// Copies what rows use, each entry at its first use, and remembers the new numbers.
pub(super) struct Import<'a> {
    from: &'a Tables,
    strings: Vec<u32>,
    mappings: Vec<u32>,
    functions: Vec<u32>,
    locations: Vec<u32>,
    stacks: Vec<u32>,
    depths: Vec<u32>,
    tag_sets: Vec<u32>,
    lines: Vec<Line>,
    pending: Vec<StackId>,
}

/// Not copied yet. No table has as many entries: each takes several bytes of a bounded message.
const NEW: u32 = u32::MAX;

impl<'a> Import<'a> {
    pub(super) fn new(from: &'a Tables) -> Self {
        let mut stacks = vec![NEW; from.stacks.len()];
        stacks[0] = ROOT;
        Self {
            from,
            strings: vec![NEW; from.string_count()],
            mappings: vec![NEW; from.mappings.len()],
            functions: vec![NEW; from.functions.len()],
            locations: vec![NEW; from.locations.len()],
            depths: vec![0; stacks.len()],
            stacks,
            tag_sets: vec![NEW; from.tag_set_count()],
            lines: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn string(&mut self, into: &mut Names, id: StringId) -> u32 {
        let known = &mut self.strings[id.position()];
        if *known == NEW {
            *known = into.strings.intern(self.from.string(id));
        }
        *known
    }

    fn mapping(&mut self, into: &mut Names, id: MappingId) -> u32 {
        if self.mappings[id.position()] == NEW {
            let model::Mapping {
                file,
                build_id,
                start,
                limit,
                offset,
                flags,
                file_id,
            } = self.from.mappings[id.position()];
            let mapping = Mapping {
                file: self.string(into, file),
                build_id: self.string(into, build_id),
                start,
                limit,
                offset,
                flags: flags.0,
                file_id: self.string(into, file_id),
            };
            self.mappings[id.position()] = into.intern_mapping(&mapping);
        }
        self.mappings[id.position()]
    }

    /// The builder's number of a mapping that was copied.
    pub(super) fn imported_mapping(&self, id: MappingId) -> Option<u32> {
        let number = self.mappings[id.position()];
        (number != NEW).then_some(number)
    }

    fn function(&mut self, into: &mut Names, id: FunctionId) -> u32 {
        if self.functions[id.position()] == NEW {
            let model::Function {
                name,
                system_name,
                file,
                start_line,
            } = self.from.functions[id.position()];
            let function = Function {
                name: self.string(into, name),
                system_name: self.string(into, system_name),
                file: self.string(into, file),
                start_line,
                language: 0,
            };
            self.functions[id.position()] = into.functions.intern(function);
        }
        self.functions[id.position()]
    }

    fn location(&mut self, into: &mut Builder, id: LocationId) -> Result<u32, Error> {
        if self.locations[id.position()] == NEW {
            let from = self.from.locations[id.position()];
            let mapping = from.mapping;
            let mapping = mapping.map_or(0, |mapping| self.mapping(&mut into.names, mapping) + 1);
            let location = Location {
                mapping,
                address: from.address,
                flags: if from.is_folded { LOCATION_FOLDED } else { 0 },
                unnamed: from.unnamed.bits(),
                lines: 0..0,
            };
            let known = into.locations.first_at(&location);
            let known = known.filter(|known| self.is_location(into, id, &location, *known));
            self.locations[id.position()] = match known {
                Some(known) => known,
                None => self.copy_location(into, id, location)?,
            };
        }
        Ok(self.locations[id.position()])
    }

    fn copy_location(
        &mut self,
        into: &mut Builder,
        id: LocationId,
        location: Location,
    ) -> Result<u32, Error> {
        let from = self.from.own_lines_of(id);
        if from.len() > LIST_MAX {
            return Err(Error::TooLarge("a location with more than 2^20 lines"));
        }
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for line in from {
            lines.push(Line {
                function: self.function(&mut into.names, line.function),
                line: line.line,
                flags: 0,
            });
        }
        let copy = into.locations.intern(location, &lines);
        self.lines = lines;
        Ok(copy)
    }

    /// Whether a location is equal to a known one at its address. Comparing names takes a third of the time of looking each of them up.
    fn is_location(
        &mut self,
        into: &Builder,
        id: LocationId,
        location: &Location,
        known: u32,
    ) -> bool {
        let (known, known_lines) = into.locations.get(known);
        let marks = |location: &Location| (location.flags, location.unnamed);
        let lines = self.from.own_lines_of(id);
        marks(location) == marks(known)
            && lines.len() == known_lines.len()
            && lines.iter().zip(known_lines).all(|(line, known)| {
                (line.line, 0) == (known.line, known.flags)
                    && self.is_function(&into.names, line.function, known.function)
            })
    }

    fn is_function(&mut self, into: &Names, id: FunctionId, known: u32) -> bool {
        let copy = self.functions[id.position()];
        if copy != NEW {
            return copy == known;
        }
        let from = self.from.functions[id.position()];
        let Function {
            name,
            system_name,
            file,
            start_line,
            language,
        } = into.functions.entries()[known as usize];
        let is_same = (from.start_line, 0) == (start_line, language)
            && self.is_string(into, from.name, name)
            && self.is_string(into, from.system_name, system_name)
            && self.is_string(into, from.file, file);
        if is_same {
            self.functions[id.position()] = known;
        }
        is_same
    }

    fn is_string(&mut self, into: &Names, id: StringId, known: u32) -> bool {
        let copy = &mut self.strings[id.position()];
        if *copy == NEW && self.from.string(id) == into.strings.get(known) {
            *copy = known;
        }
        *copy == known
    }

    /// Copies a stack and all stacks below it.
    pub(super) fn stack(&mut self, into: &mut Builder, id: StackId) -> Result<u32, Error> {
        let mut missing = id;
        while self.stacks[missing.position()] == NEW {
            self.pending.push(missing);
            missing = self.from.stacks[missing.position()].parent;
        }
        if self.depths[missing.position()] as usize + self.pending.len() > DEPTH_MAX {
            return Err(Error::TooLarge("a stack with more than 2^20 frames"));
        }
        while let Some(next) = self.pending.pop() {
            let node = self.from.stacks[next.position()];
            let location = self.location(into, node.location)?;
            let parent = self.stacks[node.parent.position()];
            self.stacks[next.position()] = into.tree.child(parent, location);
            self.depths[next.position()] = self.depths[node.parent.position()] + 1;
        }
        Ok(self.stacks[id.position()])
    }

    pub(super) fn tag_set(&mut self, into: &mut Builder, id: TagSetId) -> Result<u32, Error> {
        if self.tag_sets[id.position()] == NEW {
            let from = self.from.tag_set(id);
            if from.len() > LIST_MAX {
                return Err(Error::TooLarge("a sample with more than 2^20 tags"));
            }
            let names = &mut into.names;
            let mut tags = Vec::new();
            for tag in from {
                let key = self.string(names, tag.key);
                let value = match tag.value {
                    model::TagValue::Text(text) => TagValue::Text(self.string(names, text)),
                    model::TagValue::Number(number, unit) => {
                        TagValue::Number(number, self.string(names, unit))
                    }
                };
                tags.push(Tag { key, value });
            }
            self.tag_sets[id.position()] = names.tag_sets.intern(tags.into());
        }
        Ok(self.tag_sets[id.position()])
    }
}
