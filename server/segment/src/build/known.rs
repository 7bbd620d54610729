//! Finds what a builder has of a window's tables: nearly everything, since a window repeats those before it.
//!
//! A look-up waits for memory: the tables of a block are larger than a processor's caches. So each step here goes through one table, in
//! rounds that do not depend on each other, and their waits overlap.

use model::StackNode;
use model::tables::{LocationId, StringId};

use crate::dictionary::{Function, Location};

use super::Builder;
use super::import::{Import, NEW, location_of};
use crate::tree::sort_by_number;

/// Entries of the builder that may be those of the window; [`NEW`] where there is none.
struct Candidates {
    strings: Vec<u32>,
    functions: Vec<u32>,
    locations: Vec<u32>,
}

impl Import<'_> {
    /// Notes the numbers of the entries that the builder has.
    pub(super) fn find_known(&mut self, into: &mut Builder) {
        let mut candidates = Candidates {
            strings: vec![NEW; self.strings.len()],
            functions: vec![NEW; self.functions.len()],
            locations: self.find_places(into),
        };
        self.compare_locations(into, &mut candidates);
        self.compare_functions(into, &mut candidates);
        let texts = self.strings.iter_mut().zip(&candidates.strings).zip(0..);
        for ((string, candidate), number) in texts {
            let text = self.from.string(StringId(number));
            if *candidate != NEW && into.names.strings.get(*candidate) == text {
                *string = *candidate;
            }
        }
        self.note_functions(&candidates);
        self.note_locations(into, &candidates);
        self.find_stacks(into);
    }

    /// The last location at the address of each.
    fn find_places(&self, into: &Builder) -> Vec<u32> {
        let mapping = |mapping: &model::Mapping| {
            let texts = [mapping.file, mapping.build_id, mapping.file_id];
            into.names.find_file(texts.map(|id| self.from.string(id)))
        };
        let mappings: Vec<Option<u32>> = self.from.mappings.iter().map(mapping).collect();
        let place = |location: &model::Location| {
            let mapping = match location.mapping {
                Some(mapping) => mappings[mapping.position()]? + 1,
                None => 0,
            };
            into.locations.last_at(&location_of(location, mapping))
        };
        let places = self.from.locations.iter().map(place);
        places.map(|place| place.unwrap_or(NEW)).collect()
    }

    /// Drops candidates that have other lines, and finds those of the functions in their lines.
    fn compare_locations(&self, into: &Builder, candidates: &mut Candidates) {
        for (number, candidate) in candidates.locations.iter_mut().enumerate() {
            if *candidate == NEW {
                continue;
            }
            let from = &self.from.locations[number];
            let lines = self.from.own_lines_of(LocationId(number as u32));
            let (known, known_lines) = into.locations.get(*candidate);
            let Location { flags, unnamed, .. } = location_of(from, 0);
            let mut is_same = (flags, unnamed) == (known.flags, known.unnamed)
                && lines.len() == known_lines.len();
            for (line, known) in lines.iter().zip(known_lines) {
                let function = &mut candidates.functions[line.function.position()];
                if *function == NEW {
                    *function = known.function;
                }
                is_same &= (*function, line.line, 0) == (known.function, known.line, known.flags);
            }
            if !is_same {
                *candidate = NEW;
            }
        }
    }

    /// Drops candidates that start at other lines, and finds those of their texts.
    fn compare_functions(&self, into: &Builder, candidates: &mut Candidates) {
        for (from, candidate) in self.from.functions.iter().zip(&mut candidates.functions) {
            if *candidate == NEW {
                continue;
            }
            let Function {
                name,
                system_name,
                file,
                start_line,
                language,
            } = into.names.functions.entries()[*candidate as usize];
            let mut is_same = (from.start_line, 0) == (start_line, language);
            let texts = [
                (from.name, name),
                (from.system_name, system_name),
                (from.file, file),
            ];
            for (text, known) in texts {
                let string = &mut candidates.strings[text.position()];
                if *string == NEW {
                    *string = known;
                }
                is_same &= *string == known;
            }
            if !is_same {
                *candidate = NEW;
            }
        }
    }

    fn note_functions(&mut self, candidates: &Candidates) {
        let functions = self.functions.iter_mut().zip(&candidates.functions);
        for ((function, candidate), from) in functions.zip(&self.from.functions) {
            let texts = [from.name, from.system_name, from.file];
            let is_known = texts
                .iter()
                .all(|text| self.strings[text.position()] != NEW);
            if is_known {
                *function = *candidate;
            }
        }
    }

    fn note_locations(&mut self, into: &mut Builder, candidates: &Candidates) {
        for (number, candidate) in candidates.locations.iter().enumerate() {
            let lines = self.from.own_lines_of(LocationId(number as u32));
            let mut functions = lines.iter().map(|line| line.function);
            let is_known = functions.all(|id| self.functions[id.position()] != NEW);
            if *candidate == NEW || !is_known {
                continue;
            }
            self.locations[number] = *candidate;
            if let Some(mapping) = self.from.locations[number].mapping {
                // The window's limit and flags of the file count too.
                self.mapping(&mut into.names, mapping);
            }
        }
    }

    /// Finds the stacks, those with one frame first, then those with two, and so on.
    fn find_stacks(&mut self, into: &Builder) {
        for node in self.by_depth() {
            let StackNode { parent, location } = self.from.stacks[node as usize];
            let parent = self.stacks[parent.position()];
            let location = self.locations[location.position()];
            if parent != NEW && location != NEW {
                let known = into.tree.find_child(parent, location);
                self.stacks[node as usize] = known.unwrap_or(NEW);
            }
        }
    }

    /// All nodes but the root by depth, and notes the depths.
    fn by_depth(&mut self) -> Vec<u32> {
        let nodes = 1..self.stacks.len() as u32;
        // A node's parent has a smaller number.
        for node in nodes.clone() {
            let parent = self.from.stacks[node as usize].parent;
            self.depths[node as usize] = self.depths[parent.position()] + 1;
        }
        let nodes: Vec<u32> = nodes.collect();
        let depths = self.depths.iter().max().map_or(0, |max| *max as usize + 1);
        sort_by_number(&nodes, depths, |node| self.depths[node as usize]).1
    }
}
