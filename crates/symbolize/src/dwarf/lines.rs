//! Lines of a unit.
//!
//! In: a line program (DWARF 5, 6.2). Out: file, line and column at an address. Of the rows that the program makes only one in
//! [`ROWS_BETWEEN`] is kept, with the state of the program: from there it runs again to the address. It is run here and not by gimli,
//! whose instructions take three times as long.

use std::ops::Range;

use gimli::{
    AttributeValue, DebugLineOffset, Error, FileEntry, LineProgramHeader, Reader, Result,
    Section as _, UnitRef, constants as dw,
};

use super::bytes::Bytes;

/// Rows from one that is kept to the next in a sequence. So many take about 2 µs.
const ROWS_BETWEEN: usize = 128;

/// The lines of a unit.
pub(super) struct Lines {
    program: Program,
    /// By address. They do not overlap.
    sequences: Box<[Sequence]>,
    states: Box<[State]>,
    /// By number. 0 may be none, as that of files.
    directories: Box<[Option<AttributeValue<Bytes>>]>,
    files: Box<[FileName]>,
}

/// A line program, with what its header says about it.
struct Program {
    instructions: Bytes,
    address_size: u8,
    instruction_bytes: u64,
    operations_in_one: u64,
    line_base: i64,
    line_range: u8,
    /// Numbers behind each standard instruction; opcodes after these are special.
    lengths: Vec<u8>,
}

/// The name of a file, and the number of its directory.
struct FileName {
    name: Option<AttributeValue<Bytes>>,
    directory: u64,
}

/// Rows with ascending addresses.
struct Sequence {
    start: u64,
    end: u64,
    /// Indices of its states, of which there is at least one.
    states: Range<u32>,
}

/// Registers of the program after one of its rows, and the bytes that are left of it.
#[derive(Clone, Copy)]
struct State {
    address: u64,
    operation: u64,
    file: u64,
    line: u64,
    column: u64,
    /// The linker removed the code of the next rows: the program has set an address that none can have.
    is_removed: bool,
    left: usize,
}

/// The reason why a program stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Row,
    SequenceEnd,
    ProgramEnd,
}

/// A place in the source.
#[derive(Clone, Copy, Default)]
pub(super) struct Line {
    /// Number of the file.
    pub(super) file: Option<u64>,
    /// 0 if it is unknown.
    pub(super) line: u32,
    /// 0 if it is unknown.
    pub(super) column: u32,
}

impl Lines {
    /// Runs the program at an offset in the section.
    pub(super) fn read(unit: UnitRef<'_, Bytes>, offset: DebugLineOffset) -> Result<Self> {
        let address_size = unit.header.address_size();
        let (directory, name) = (unit.comp_dir.clone(), unit.name.clone());
        let section = &unit.dwarf.debug_line;
        let header = section.program(offset, address_size, directory, name)?;
        let header = header.header();
        let program = Program::new(header)?;
        let start = program.instructions.offset_from(section.reader());
        let piece = start..start + program.instructions.len();
        let mut bytes = section.reader().with_piece(piece);
        bytes.skip(start)?;
        bytes.truncate(program.instructions.len())?;
        let (sequences, states) = match bytes.as_slice() {
            Some(bytes) => read_sequences(&program, bytes)?,
            None => read_sequences(&program, bytes)?,
        };
        // Directories and files have the numbers of DWARF 5.
        let numbered = (0..).map(|number| (number, header.directory(number)));
        let numbered =
            numbered.take_while(|(number, directory)| *number == 0 || directory.is_some());
        let directories = numbered
            .map(|(_, directory)| directory.map(detach))
            .collect();
        let numbered = (0..).map(|number| (number, header.file(number)));
        let numbered = numbered.take_while(|(number, file)| *number == 0 || file.is_some());
        let files = numbered.map(|(_, file)| FileName {
            name: file.map(|file| detach(file.path_name())),
            directory: file.map_or(0, FileEntry::directory_index),
        });
        Ok(Self {
            files: files.collect(),
            program,
            sequences: sequences.into(),
            states: states.into(),
            directories,
        })
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.sequences)
            + size_of_val(&*self.states)
            + size_of_val(&*self.directories)
            + size_of_val(&*self.files)
    }

    /// The addresses that have lines.
    pub(super) fn ranges(&self) -> impl Iterator<Item = gimli::Range> {
        self.sequences.iter().map(|sequence| gimli::Range {
            begin: sequence.start,
            end: sequence.end,
        })
    }

    /// The line at an address.
    pub(super) fn find(&self, address: u64) -> Result<Option<Line>> {
        let sequences = &self.sequences;
        let after = sequences.partition_point(|sequence| sequence.start <= address);
        let sequence = after.checked_sub(1).map(|before| &sequences[before]);
        let Some(sequence) = sequence.filter(|sequence| address < sequence.end) else {
            return Ok(None);
        };
        let Range { start, end } = sequence.states;
        let states = &self.states[start as usize..end as usize];
        let after = states.partition_point(|state| state.address <= address);
        let Some(mut state) = after.checked_sub(1).map(|before| states[before]) else {
            return Ok(None);
        };
        let mut rest = self.program.instructions.clone();
        rest.skip(rest.len() - state.left)?;
        let mut found = state;
        while state.run(&self.program, &mut rest)? == Stop::Row && state.address <= address {
            found = state;
        }
        let line = found.line as u32;
        Ok(Some(Line {
            file: Some(found.file),
            line,
            column: if line == 0 { 0 } else { found.column as u32 },
        }))
    }

    /// The path of a file, or nothing if there is none with this number.
    pub(super) fn path_of(&self, unit: UnitRef<'_, Bytes>, file: u64) -> Result<String> {
        let place = usize::try_from(file).ok();
        let file = place.and_then(|place| self.files.get(place));
        let Some((name, directory)) =
            file.and_then(|file| Some((file.name.as_ref()?, file.directory)))
        else {
            return Ok(String::new());
        };
        let text = |value: &AttributeValue<Bytes>| -> Result<String> {
            let text = unit.attr_string(value.clone())?;
            text.to_string_lossy().map(|text| text.into_owned())
        };
        let mut path = match &unit.comp_dir {
            Some(directory) => directory.to_string_lossy()?.into_owned(),
            None => String::new(),
        };
        // 0 is the directory of the unit.
        let place = usize::try_from(directory).ok().filter(|place| *place > 0);
        if let Some(Some(directory)) = place.and_then(|place| self.directories.get(place)) {
            push_path(&mut path, text(directory)?);
        }
        push_path(&mut path, text(name)?);
        Ok(path)
    }
}

impl Program {
    fn new(header: &LineProgramHeader<Bytes>) -> Result<Self> {
        Ok(Self {
            instructions: header.raw_program_buf().detached(),
            address_size: header.address_size(),
            instruction_bytes: header.minimum_instruction_length().into(),
            operations_in_one: header.maximum_operations_per_instruction().into(),
            line_base: header.line_base().into(),
            line_range: header.line_range(),
            lengths: header.standard_opcode_lengths().to_slice()?.into_owned(),
        })
    }

    /// The special instruction of an opcode.
    fn special(&self, opcode: u8) -> Option<u8> {
        // Their opcodes are from 1 on.
        opcode.checked_sub(self.lengths.len() as u8 + 1)
    }
}

/// A string of a header, which keeps no block resident.
fn detach(value: AttributeValue<Bytes>) -> AttributeValue<Bytes> {
    match value {
        AttributeValue::String(string) => AttributeValue::String(string.detached()),
        value => value,
    }
}

fn read_sequences(
    program: &Program,
    mut rest: impl Reader<Offset = usize>,
) -> Result<(Vec<Sequence>, Vec<State>)> {
    let (mut sequences, mut states) = (Vec::new(), Vec::<State>::new());
    let mut state = State::START;
    // Of the sequence: its first state, and its rows.
    let (mut first, mut rows) = (0, 0);
    loop {
        match state.run(program, &mut rest)? {
            Stop::Row => {
                if rows % ROWS_BETWEEN == 0 {
                    states.push(state);
                }
                rows += 1;
                continue;
            }
            Stop::SequenceEnd => {}
            Stop::ProgramEnd => break,
        }
        let end = state.address;
        let start = states.get(first).map(|state| state.address);
        match start.filter(|start| *start < end) {
            Some(start) => sequences.push(Sequence {
                start,
                end,
                states: first as u32..states.len() as u32,
            }),
            None => states.truncate(first),
        }
        (first, rows, state) = (states.len(), 0, State::START);
    }
    states.truncate(first);
    sequences.sort_by_key(|sequence| sequence.start);
    Ok((sequences, states))
}

impl State {
    /// The state at the start of a sequence.
    const START: Self = Self {
        address: 0,
        operation: 0,
        file: 1,
        line: 1,
        column: 0,
        is_removed: false,
        left: 0,
    };

    /// Runs the program to the next row.
    #[inline]
    fn run(&mut self, program: &Program, rest: &mut impl Reader<Offset = usize>) -> Result<Stop> {
        let stop = loop {
            if rest.is_empty() {
                break Stop::ProgramEnd;
            }
            let opcode = rest.read_u8()?;
            if let Some(special) = program.special(opcode) {
                let lines = program.line_base + i64::from(special % program.line_range);
                self.advance_line(lines);
                self.advance(program, (special / program.line_range).into())?;
                if !self.is_removed {
                    break Stop::Row;
                }
                continue;
            }
            match dw::DwLns(opcode) {
                dw::DwLns(0) => {
                    if self.extend(program, rest)? {
                        break Stop::SequenceEnd;
                    }
                }
                dw::DW_LNS_copy if !self.is_removed => break Stop::Row,
                dw::DW_LNS_copy => {}
                dw::DW_LNS_advance_pc => self.advance(program, rest.read_uleb128()?)?,
                dw::DW_LNS_advance_line => self.advance_line(rest.read_sleb128()?),
                dw::DW_LNS_set_file => self.file = rest.read_uleb128()?,
                dw::DW_LNS_set_column => self.column = rest.read_uleb128()?,
                dw::DW_LNS_const_add_pc => {
                    let special = program.special(u8::MAX).unwrap_or(0);
                    self.advance(program, (special / program.line_range).into())?;
                }
                dw::DW_LNS_fixed_advance_pc => {
                    let bytes = rest.read_u16()?;
                    if !self.is_removed {
                        self.move_to(self.address.checked_add(bytes.into()))?;
                    }
                }
                _ => {
                    for _ in 0..program.lengths[usize::from(opcode) - 1] {
                        rest.skip_leb128()?;
                    }
                }
            }
        };
        self.left = rest.len();
        Ok(stop)
    }

    /// Runs an extended instruction. Returns whether it ends the sequence.
    fn extend(
        &mut self,
        program: &Program,
        rest: &mut impl Reader<Offset = usize>,
    ) -> Result<bool> {
        let bytes = rest.read_uleb128()?;
        let too_short = Error::UnexpectedEof(rest.offset_id());
        let bytes = usize::try_from(bytes).map_err(|_| too_short)?;
        let left = rest.len().checked_sub(bytes).ok_or(too_short)?;
        let code = dw::DwLne(rest.read_u8()?);
        if code == dw::DW_LNE_set_address {
            let size = program.address_size;
            let address = rest.read_address(size)?;
            // Linkers set 0, -1, -2 or an addend. Addresses ascend, so that a lower one is none either.
            let removed = (u64::MAX >> (64 - 8 * u32::from(size))) - 1;
            self.is_removed = address < self.address || address >= removed;
            if !self.is_removed {
                self.move_to(Some(address))?;
            }
        }
        rest.skip(rest.len().checked_sub(left).ok_or(too_short)?)?;
        Ok(code == dw::DW_LNE_end_sequence)
    }

    fn advance_line(&mut self, lines: i64) {
        self.line = match lines {
            0.. => self.line.wrapping_add(lines as u64),
            _ => self.line.saturating_sub(lines.unsigned_abs()),
        };
    }

    #[inline]
    fn advance(&mut self, program: &Program, operations: u64) -> Result<()> {
        if self.is_removed {
            return Ok(());
        }
        let in_one = program.operations_in_one;
        let operations = self.operation.wrapping_add(operations);
        let (instructions, operation) = match in_one {
            // As on all processors but some that are of no interest here.
            1 => (operations, 0),
            _ => (operations / in_one, operations % in_one),
        };
        let bytes = instructions.wrapping_mul(program.instruction_bytes);
        self.move_to(self.address.checked_add(bytes))?;
        self.operation = operation;
        Ok(())
    }

    fn move_to(&mut self, address: Option<u64>) -> Result<()> {
        self.address = address.ok_or(Error::AddressOverflow)?;
        self.operation = 0;
        Ok(())
    }
}

fn push_path(path: &mut String, part: String) {
    let is_drive = |path: &str, separator| path.get(1..3) == Some(separator);
    let is_of_windows = |path: &str| path.starts_with('\\') || is_drive(path, ":\\");
    if part.starts_with('/') || is_drive(&part, ":/") || is_of_windows(&part) {
        *path = part;
        return;
    }
    let separator = if is_of_windows(path) { '\\' } else { '/' };
    if !path.is_empty() && !path.ends_with(separator) {
        path.push(separator);
    }
    path.push_str(&part);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::rc::Rc;

    use gimli::{Dwarf, SectionId};

    use super::super::image::Image;
    use super::*;

    /// Check the lines of this program at each row that gimli reads, and at the byte behind.
    #[test]
    fn lines_are_those_that_gimli_reads() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        let image = Image::open(&own, &Rc::default()).unwrap();
        let load = |id: SectionId| -> Result<Bytes> { Ok(image.section(id.name())) };
        let dwarf = Dwarf::load(load).unwrap();
        let mut units = dwarf.units();
        let mut checked = 0;
        while checked < 10_000 {
            let header = units.next().unwrap().expect("this program has lines");
            let unit = dwarf.unit(header).unwrap();
            let Some(program) = unit.line_program.clone() else {
                continue;
            };
            let offset = program.header().offset();
            let unit = UnitRef::new(&dwarf, &unit);
            let lines = Lines::read(unit, offset).unwrap();
            let (program, sequences) = program.sequences().unwrap();
            for sequence in sequences.iter().filter(|sequence| sequence.start > 0) {
                let mut rows = program.resume_from(sequence);
                let mut before: Option<gimli::LineRow> = None;
                while let Some((_, row)) = rows.next_row().unwrap() {
                    // Of rows with one address the last counts.
                    let before = before.replace(*row);
                    let Some(before) = before.filter(|before| before.address() < row.address())
                    else {
                        continue;
                    };
                    for address in [before.address(), row.address() - 1] {
                        let found = lines.find(address).unwrap().unwrap();
                        let line = before.line().map_or(0, |line| line.get() as u32);
                        assert_eq!((found.file, found.line), (Some(before.file_index()), line));
                        checked += 1;
                    }
                }
                assert!(lines.find(sequence.end).unwrap().is_none_or(|_| {
                    let starts_there = |other: &gimli::LineSequence<_>| other.start == sequence.end;
                    sequences.iter().any(starts_there)
                }));
            }
        }
    }

    /// Check parts of a path, absolute ones, and those of Windows.
    #[test]
    fn paths_are_joined() {
        for (path, part, joined) in [
            ("", "a.c", "a.c"),
            ("/src", "a.c", "/src/a.c"),
            ("/src/", "../a.c", "/src/../a.c"),
            ("/src", "/usr/a.h", "/usr/a.h"),
            ("C:\\src", "a.c", "C:\\src\\a.c"),
            ("/src", "C:/a.c", "C:/a.c"),
        ] {
            let mut path = path.to_owned();
            push_path(&mut path, part.to_owned());
            assert_eq!(path, joined);
        }
    }
}
