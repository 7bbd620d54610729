//! Copies a window's tables into a builder.

use model::Tables;
use model::tables::{FunctionId, LocationId, MappingId, StackId, StringId, TagSetId};

use crate::chunk::dictionary::LIST_MAX;
use crate::chunk::tree::DEPTH_MAX;
use crate::dictionary::{Function, LOCATION_FOLDED, Line, Location, Mapping, Names, Tag, TagValue};
use crate::error::Error;

use super::Builder;
use crate::tree::ROOT;

/// Copies what rows use, each entry at its first use, and remembers the new numbers.
pub(super) struct Import<'a> {
    pub(super) from: &'a Tables,
    pub(super) strings: Vec<u32>,
    mappings: Vec<u32>,
    pub(super) functions: Vec<u32>,
    pub(super) locations: Vec<u32>,
    pub(super) stacks: Vec<u32>,
    pub(super) depths: Vec<u32>,
    tag_sets: Vec<u32>,
    lines: Vec<Line>,
    pending: Vec<StackId>,
}

/// Not copied yet. No table has as many entries: each takes several bytes of a bounded message.
pub(super) const NEW: u32 = u32::MAX;

impl<'a> Import<'a> {
    /// Finds what the builder has.
    pub(super) fn new(from: &'a Tables, into: &mut Builder) -> Self {
        let mut stacks = vec![NEW; from.stacks.len()];
        stacks[0] = ROOT;
        let mut import = Self {
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
        };
        import.find_known(into);
        import
    }

    fn string(&mut self, into: &mut Names, id: StringId) -> u32 {
        let known = &mut self.strings[id.position()];
        if *known == NEW {
            *known = into.strings.intern(self.from.string(id));
        }
        *known
    }

    pub(super) fn mapping(&mut self, into: &mut Names, id: MappingId) -> u32 {
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
            let lines = self.from.own_lines_of(id);
            if lines.len() > LIST_MAX {
                return Err(Error::TooLarge("a location with more than 2^20 lines"));
            }
            let mut copied = std::mem::take(&mut self.lines);
            copied.clear();
            for line in lines {
                copied.push(Line {
                    function: self.function(&mut into.names, line.function),
                    line: line.line,
                    flags: 0,
                });
            }
            let from = &self.from.locations[id.position()];
            let mapping = from.mapping;
            let mapping = mapping.map_or(0, |mapping| self.mapping(&mut into.names, mapping) + 1);
            let location = location_of(from, mapping);
            self.locations[id.position()] = into.locations.intern(location, &copied);
            self.lines = copied;
        }
        Ok(self.locations[id.position()])
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

/// A location of a window without its lines, in the builder's form and with its number of the file.
pub(super) fn location_of(from: &model::Location, mapping: u32) -> Location {
    Location {
        mapping,
        address: from.address,
        flags: if from.is_folded { LOCATION_FOLDED } else { 0 },
        unnamed: from.unnamed.bits(),
        lines: 0..0,
    }
}
