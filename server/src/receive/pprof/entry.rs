//! The entries of a profile's tables, as pprof's `profile.proto` defines them. Those with lists are read into memory that is reused.

use super::scan::{Malformed, Scan, read_numbers};

/// A sample.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Ids of its locations, the innermost first.
    pub(super) locations: Vec<u64>,
    pub(super) values: Vec<i64>,
    pub(super) labels: Vec<Label>,
}

/// A label of a sample; texts are numbers of strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) key: i64,
    pub(super) text: i64,
    pub(super) number: i64,
    pub(super) unit: i64,
}

impl Sample {
    /// Reads a sample in place of what is here.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let Self {
            locations,
            values,
            labels,
        } = self;
        locations.clear();
        values.clear();
        labels.clear();
        let mut scan = Scan::new(message);
        while let Some((field, value)) = scan.next_field()? {
            match field {
                1 => value.append_to(locations, |id| id)?,
                2 => value.append_to(values, |number| number as i64)?,
                3 => labels.push(Label::read(value.bytes()?)?),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Label {
    fn read(message: &[u8]) -> Result<Self, Malformed> {
        let [key, text, number, unit] = read_numbers(message)?.map(|number| number as i64);
        Ok(Self {
            key,
            text,
            number,
            unit,
        })
    }
}

/// A location.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) id: u64,
    pub(super) mapping_id: u64,
    pub(super) address: u64,
    pub(super) lines: Vec<Line>,
    pub(super) is_folded: bool,
}

/// A line of a location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) function_id: u64,
    pub(super) line: i64,
}

impl Location {
    /// Reads a location in place of what is here.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        *self = Self {
            lines,
            ..Self::default()
        };
        let mut scan = Scan::new(message);
        while let Some((field, value)) = scan.next_field()? {
            match field {
                1 => self.id = value.number()?,
                2 => self.mapping_id = value.number()?,
                3 => self.address = value.number()?,
                4 => {
                    let [function_id, line] = read_numbers(value.bytes()?)?;
                    self.lines.push(Line {
                        function_id,
                        line: line as i64,
                    });
                }
                5 => self.is_folded = value.number()? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) id: u64,
    pub(super) memory_start: u64,
    pub(super) memory_limit: u64,
    pub(super) file_offset: u64,
    pub(super) filename: i64,
    pub(super) build_id: i64,
    /// Whether the names have functions, files, lines, and inlined calls.
    pub(super) has: [bool; 4],
}

impl Mapping {
    pub(super) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let [
            id,
            memory_start,
            memory_limit,
            file_offset,
            filename,
            build_id,
            has @ ..,
        ]: [u64; 10] = read_numbers(message)?;
        Ok(Self {
            id,
            memory_start,
            memory_limit,
            file_offset,
            filename: filename as i64,
            build_id: build_id as i64,
            has: has.map(|number| number != 0),
        })
    }
}

/// A function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) id: u64,
    pub(super) name: i64,
    pub(super) system_name: i64,
    pub(super) filename: i64,
    pub(super) start_line: i64,
}

impl Function {
    pub(super) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let [id, name, system_name, filename, start_line] = read_numbers(message)?;
        let [name, system_name, filename, start_line] =
            [name, system_name, filename, start_line].map(|number| number as i64);
        Ok(Self {
            id,
            name,
            system_name,
            filename,
            start_line,
        })
    }
}
