//! The strings, functions, files and tag sets of all inputs, and their new numbers.

use crate::chunk::dictionary::{
    decode_functions, decode_mappings, decode_strings, decode_tag_sets,
};
use crate::codec::column::Texts;
use crate::dictionary::{Function, Mapping, Names, Tag, TagValue, invert};
use crate::error::{Damage, Error};
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

use super::in_input;

/// The names of all inputs.
pub(super) struct MergedNames {
    pub(super) names: Names,
    /// The files and tag sets in the order of the file.
    pub(super) mappings: Vec<u32>,
    pub(super) tag_sets: Vec<u32>,
    /// For each input, the number in [`Self::names`] of each function.
    pub(super) functions: Vec<Vec<u32>>,
    /// For each input, the number in the file of each file of its, plus one; the first is that of no file.
    pub(super) mapping_numbers: Vec<Vec<u32>>,
    /// For each input, the number in the file of each tag set.
    pub(super) tag_set_numbers: Vec<Vec<u32>>,
}

impl MergedNames {
    pub(super) fn read<R: ReadAt>(inputs: &[&Segment<R>]) -> Result<Self, Error> {
        let mut names = Names::default();
        let (mut functions, mut mappings, mut tag_sets) = (Vec::new(), Vec::new(), Vec::new());
        for (input, segment) in inputs.iter().enumerate() {
            let mut reading = Reading {
                segment,
                names: &mut names,
                strings: Vec::new(),
                scratch: Scratch::default(),
            };
            reading.read_strings().map_err(in_input(input))?;
            functions.push(reading.read_functions().map_err(in_input(input))?);
            mappings.push(reading.read_mappings().map_err(in_input(input))?);
            tag_sets.push(reading.read_tag_sets().map_err(in_input(input))?);
        }
        let mapping_order = names.sorted_mappings();
        let tag_set_order = names.sorted_tag_sets();
        let (mapping_positions, tag_set_positions) =
            (invert(&mapping_order), invert(&tag_set_order));
        let mapping_numbers = mappings.iter().map(|of_input| {
            let numbers = of_input
                .iter()
                .map(|number| mapping_positions[*number as usize] + 1);
            std::iter::once(0).chain(numbers).collect()
        });
        let tag_set_numbers = tag_sets.iter().map(|of_input| {
            let numbers = of_input
                .iter()
                .map(|number| tag_set_positions[*number as usize]);
            numbers.collect()
        });
        Ok(Self {
            mapping_numbers: mapping_numbers.collect(),
            tag_set_numbers: tag_set_numbers.collect(),
            mappings: mapping_order,
            tag_sets: tag_set_order,
            functions,
            names,
        })
    }
}

/// Reads the names of one input.
struct Reading<'a, R> {
    segment: &'a Segment<R>,
    names: &'a mut Names,
    strings: Vec<u32>,
    scratch: Scratch,
}

impl<R: ReadAt> Reading<'_, R> {
    fn read_strings(&mut self) -> Result<(), Damage> {
        for number in 0..self.segment.chunks(Section::Strings).len() {
            let texts: Texts = self.segment.read(
                Section::Strings,
                number,
                &mut self.scratch,
                |bytes, chunk, unpacker| decode_strings(bytes, chunk.items as usize, unpacker),
            )?;
            for text in texts.iter() {
                self.strings.push(self.names.strings.intern(text));
            }
        }
        Ok(())
    }

    fn read_functions(&mut self) -> Result<Vec<u32>, Damage> {
        let limits = self.segment.dictionary_limits();
        let mut numbers = Vec::new();
        for number in 0..self.segment.chunks(Section::Functions).len() {
            let functions = self.segment.read(
                Section::Functions,
                number,
                &mut self.scratch,
                |bytes, chunk, unpacker| {
                    decode_functions(bytes, chunk.items as usize, limits, unpacker)
                },
            )?;
            for function in functions {
                let string = |number: u32| self.strings[number as usize];
                numbers.push(self.names.functions.intern(Function {
                    name: string(function.name),
                    system_name: string(function.system_name),
                    file: string(function.file),
                    ..function
                }));
            }
        }
        Ok(numbers)
    }

    fn read_mappings(&mut self) -> Result<Vec<u32>, Damage> {
        let limits = self.segment.dictionary_limits();
        let mut numbers = Vec::new();
        for number in 0..self.segment.chunks(Section::Mappings).len() {
            let mappings = self.segment.read(
                Section::Mappings,
                number,
                &mut self.scratch,
                |bytes, chunk, unpacker| {
                    decode_mappings(bytes, chunk.items as usize, limits, unpacker)
                },
            )?;
            for mapping in mappings {
                let string = |number: u32| self.strings[number as usize];
                numbers.push(self.names.intern_mapping(&Mapping {
                    file: string(mapping.file),
                    build_id: string(mapping.build_id),
                    file_id: string(mapping.file_id),
                    ..mapping
                }));
            }
        }
        Ok(numbers)
    }

    fn read_tag_sets(&mut self) -> Result<Vec<u32>, Damage> {
        let limits = self.segment.dictionary_limits();
        let mut numbers = Vec::new();
        for number in 0..self.segment.chunks(Section::TagSets).len() {
            let sets = self.segment.read(
                Section::TagSets,
                number,
                &mut self.scratch,
                |bytes, chunk, unpacker| {
                    decode_tag_sets(bytes, chunk.items as usize, limits, unpacker)
                },
            )?;
            let string = |number: u32| self.strings[number as usize];
            for set in sets {
                let tag = |tag: &Tag| Tag {
                    key: string(tag.key),
                    value: match tag.value {
                        TagValue::Text(text) => TagValue::Text(string(text)),
                        TagValue::Number(number, unit) => TagValue::Number(number, string(unit)),
                    },
                };
                let set = set.iter().map(tag).collect();
                numbers.push(self.names.tag_sets.intern(set));
            }
        }
        Ok(numbers)
    }
}
