//! Mappings, functions and locations.

use model::tables::{FunctionId, LocationId, MappingId, StringId};
use model::{Function, Line, Location, Mapping, MappingFlags, Unnamed};

use super::super::profile_bytes::ProfileBytes;
use super::super::refusal::Refusal;
use super::entry;
use super::fields::{FUNCTION, LOCATION, MAPPING, each_entry};
use super::head::push_string;
use super::unnamed::{UnnamedLocations, read_unnamed};
use super::{Reader, refuse};

/// Lines a location: each is one inlined call.
const LINES_MAX: usize = 1024;

impl Reader {
    pub(super) fn read_mappings_and_functions(
        &mut self,
        profile: &ProfileBytes<'_>,
    ) -> Result<(), Refusal> {
        each_entry(profile, &[MAPPING, FUNCTION], |field, bytes| {
            if field == MAPPING {
                self.read_mapping(entry::Mapping::read(bytes)?)
            } else {
                self.read_function(entry::Function::read(bytes)?)
            }
        })
    }

    fn read_mapping(&mut self, mapping: entry::Mapping) -> Result<(), Refusal> {
        let id = mapping.id;
        let whose = || format!("mapping {id}");
        if mapping.memory_start != 0 || mapping.file_offset != 0 {
            return Err(refuse(format!(
                "mapping {id}: memory_start and file_offset must be 0: addresses are offsets"
            )));
        }
        let flags = [
            MappingFlags::FUNCTIONS,
            MappingFlags::FILES,
            MappingFlags::LINES,
            MappingFlags::INLINES,
        ];
        let flags = flags.into_iter().zip(mapping.has);
        let flags = flags.map(|(flag, has)| if has { flag } else { 0 }).sum();
        let mut copy = Mapping {
            file: self.string(mapping.filename, whose)?,
            build_id: self.string(mapping.build_id, whose)?,
            start: mapping.memory_start,
            limit: mapping.memory_limit,
            offset: mapping.file_offset,
            flags: MappingFlags(flags),
            file_id: StringId::default(),
        };
        let file_id = self.file_ids.remove(&id).unwrap_or_default();
        let made = self.make(|tables| {
            copy.file_id = push_string(tables, &file_id);
            tables.mappings.push(copy);
            MappingId(tables.mappings.len() as u32 - 1)
        });
        self.mappings.insert(id, (made, copy.limit), "mapping")
    }

    fn read_function(&mut self, function: entry::Function) -> Result<(), Refusal> {
        let id = function.id;
        let whose = || format!("function {id}");
        let copy = Function {
            name: self.string(function.name, whose)?,
            system_name: self.string(function.system_name, whose)?,
            file: self.string(function.filename, whose)?,
            start_line: function.start_line,
        };
        let made = self.make(|tables| {
            tables.functions.push(copy);
            FunctionId(tables.functions.len() as u32 - 1)
        });
        self.functions.insert(id, made, "function")
    }

    pub(super) fn read_locations(
        &mut self,
        profile: &ProfileBytes<'_>,
        unnamed: UnnamedLocations<'_>,
    ) -> Result<(), Refusal> {
        let mut unnamed = read_unnamed(unnamed)?;
        let mut location = entry::Location::default();
        each_entry(profile, &[LOCATION], |_, bytes| {
            location.read(bytes)?;
            let unnamed = unnamed.remove(&location.id);
            self.read_location(&location, unnamed)
        })?;
        match unnamed.keys().min() {
            Some(id) => Err(refuse(format!(
                "unnamed_location_ids has {id}, which is not a location"
            ))),
            None => Ok(()),
        }
    }

    fn read_location(
        &mut self,
        location: &entry::Location,
        unnamed: Option<Unnamed>,
    ) -> Result<(), Refusal> {
        let id = location.id;
        let mapping = self.find_mapping(location)?;
        let lines = &location.lines;
        if lines.len() > LINES_MAX {
            return Err(refuse(format!(
                "location {id}: {} lines, and at most {LINES_MAX} are taken",
                lines.len()
            )));
        }
        for line in lines {
            let Some(function) = self.functions.get(line.function_id) else {
                return Err(refuse(format!(
                    "location {id}: no function {}",
                    line.function_id
                )));
            };
            self.make(|tables| {
                tables.lines.push(Line {
                    function,
                    line: line.line,
                });
            });
        }
        if unnamed.is_some() && !lines.is_empty() {
            return Err(refuse(format!(
                "location {id} is listed as unnamed, and has lines"
            )));
        }
        let made = self.make(|tables| {
            let lines_end = tables.lines.len() as u32;
            tables.locations.push(Location {
                mapping,
                address: location.address,
                lines_start: lines_end - lines.len() as u32,
                lines_end,
                is_folded: location.is_folded,
                unnamed: unnamed.unwrap_or_default(),
            });
            LocationId(tables.locations.len() as u32 - 1)
        });
        self.locations.insert(id, made, "location")
    }

    fn find_mapping(&self, location: &entry::Location) -> Result<Option<MappingId>, Refusal> {
        let id = location.id;
        if location.mapping_id == 0 {
            return Ok(None);
        }
        let Some((mapping, limit)) = self.mappings.get(location.mapping_id) else {
            return Err(refuse(format!(
                "location {id}: no mapping {}",
                location.mapping_id
            )));
        };
        if limit != 0 && location.address >= limit {
            return Err(refuse(format!(
                "location {id}: address {:#x} is beyond the limit {limit:#x} of mapping {}",
                location.address, location.mapping_id
            )));
        }
        Ok(Some(mapping))
    }
}
