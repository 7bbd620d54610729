//! Lines that symbolic does not find:
//!
//! - of functions that debug information does not list: assembler, and with Rust's and clang's "line tables only" all functions
//!   without inlined calls. Their names are in the symbol table;
//! - of functions that start before their lines do, as GCC's cold parts. Without them 1.1 % of CPython's addresses would lose their
//!   inlined calls.

use std::borrow::Cow;

use gimli::{AttributeValue, DwarfSections, EndianSlice, RunTimeEndian, SectionId, Unit};
use object::{Object, ObjectSection};
use rustc_hash::FxHashMap;

use super::paths::join_folders;

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;

/// Rows, 24 bytes each. Chromium's whole line table has some 60 million, nearly all of them in listed functions.
const ROWS_MAX: usize = 20_000_000;

/// A range of code with one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineRow {
    pub(super) address: u64,
    pub(super) bytes: u32,
    /// Index into [`Lines::files`].
    pub(super) file: u32,
    pub(super) line: u32,
}

/// Lines by address.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Sorted by address.
    pub(super) rows: Vec<LineRow>,
    /// Folders and names of files.
    pub(super) files: Vec<(String, String)>,
}

/// Reads the lines in ranges of addresses as linked, which are sorted and do not overlap. Unreadable parts of units are left out.
pub(super) fn read_lines(bytes: &[u8], ranges: &[(u64, u64)]) -> Lines {
    let mut reader = LineReader {
        ranges,
        lines: Lines::default(),
        numbers: FxHashMap::default(),
    };
    if !ranges.is_empty() {
        // The reader of functions met the same error and counted it.
        let _ = reader.read(bytes);
    }
    reader.lines.rows.sort();
    reader.lines
}

struct LineReader<'a> {
    ranges: &'a [(u64, u64)],
    lines: Lines,
    /// Indices into [`Lines::files`].
    numbers: FxHashMap<(String, String), u32>,
}

impl LineReader<'_> {
    fn read(&mut self, bytes: &[u8]) -> gimli::Result<()> {
        let Ok(file) = object::File::parse(bytes) else {
            return Ok(());
        };
        let endian = if file.is_little_endian() {
            RunTimeEndian::Little
        } else {
            RunTimeEndian::Big
        };
        let load = |id: SectionId| -> gimli::Result<Cow<'_, [u8]>> {
            let wanted = matches!(
                id,
                SectionId::DebugAbbrev
                    | SectionId::DebugInfo
                    | SectionId::DebugLine
                    | SectionId::DebugLineStr
                    | SectionId::DebugStr
                    | SectionId::DebugStrOffsets
            );
            let section = file.section_by_name(id.name()).filter(|_| wanted);
            Ok(section
                .and_then(|section| section.uncompressed_data().ok())
                .unwrap_or_default())
        };
        let sections = DwarfSections::load(load)?;
        let dwarf = sections.borrow(|section| EndianSlice::new(section, endian));
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            if let Ok(unit) = dwarf.unit(header) {
                let _ = self.read_unit(&dwarf, &unit);
            }
        }
        Ok(())
    }

    fn read_unit(
        &mut self,
        dwarf: &gimli::Dwarf<Slice<'_>>,
        unit: &Unit<Slice<'_>>,
    ) -> gimli::Result<()> {
        let Some(program) = unit.line_program.clone() else {
            return Ok(());
        };
        let mut numbers = FxHashMap::default();
        let mut before: Option<(u64, u64, u32)> = None;
        let mut rows = program.rows();
        while let Some((header, row)) = rows.next_row()? {
            let address = row.address();
            if let Some((start, file, line)) = before.take()
                && start < address
                && let Some((start, end)) = self.clip(start, address)
                && self.lines.rows.len() < ROWS_MAX
            {
                let number = || self.number(read_path(dwarf, unit, header, file));
                let file = *numbers.entry(file).or_insert_with(number);
                self.lines.rows.push(LineRow {
                    address: start,
                    bytes: u32::try_from(end - start).unwrap_or(u32::MAX),
                    file,
                    line,
                });
            }
            if !row.end_sequence() {
                let line = row.line().and_then(|line| u32::try_from(line.get()).ok());
                before = Some((address, row.file_index(), line.unwrap_or(0)));
            }
        }
        Ok(())
    }

    /// The part of a row in the first range that it overlaps.
    fn clip(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let at = self.ranges.partition_point(|range| range.1 <= start);
        let range = self.ranges.get(at)?;
        let (start, end) = (start.max(range.0), end.min(range.1));
        (start < end).then_some((start, end))
    }

    fn number(&mut self, path: (String, String)) -> u32 {
        let files = &mut self.lines.files;
        *self.numbers.entry(path).or_insert_with_key(|path| {
            files.push(path.clone());
            files.len() as u32 - 1
        })
    }
}

/// Folder and name of a file. The folder is joined to that of the unit.
fn read_path<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &Unit<Slice<'a>>,
    header: &gimli::LineProgramHeader<Slice<'a>>,
    index: u64,
) -> (String, String) {
    let Some(file) = header.file(index) else {
        return Default::default();
    };
    let text = |value: AttributeValue<Slice<'a>>| {
        let text = dwarf.attr_string(unit, value).unwrap_or_default();
        text.to_string_lossy().into_owned()
    };
    let folder = file.directory(header).map(text).unwrap_or_default();
    let unit_folder = unit.comp_dir.map(|folder| folder.to_string_lossy());
    let folder = join_folders(&unit_folder.unwrap_or_default(), &folder);
    (folder, text(file.path_name()))
}
