//! Lines of functions that the debug information does not list: assembler, and with Rust's and clang's "line tables only" all
//! functions into which nothing was inlined. Their lines are in the line tables, their names in the symbol table. And lines of
//! functions that begin before their lines do, as GCC's parts that are seldom run: symbolic finds none for them.

use std::borrow::Cow;

use gimli::{AttributeValue, DwarfSections, EndianSlice, RunTimeEndian, SectionId, Unit};
use hashbrown::HashMap;
use object::{Object, ObjectSection};

use super::paths::join_folders;

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;

/// Rows at most; each takes 24 bytes. Chromium's whole line table has some 60 million, of which all but a few lie in functions
/// that are listed.
const ROWS_MAX: usize = 20_000_000;

/// A stretch of code with one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineRow {
    /// Where it begins.
    pub(super) address: u64,
    /// Its length.
    pub(super) bytes: u32,
    /// Index into [`Lines::files`].
    pub(super) file: u32,
    /// The line.
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

/// Reads the lines in some stretches of addresses as linked, which are sorted and lie apart. What cannot be read of a unit is
/// left out.
pub(super) fn read_lines(bytes: &[u8], stretches: &[(u64, u64)]) -> Lines {
    let mut reader = LineReader {
        stretches,
        lines: Lines::default(),
        numbers: HashMap::new(),
    };
    if !stretches.is_empty() {
        // Whatever is wrong was already met, and counted, by what reads the functions.
        let _ = reader.read(bytes);
    }
    reader.lines.rows.sort();
    reader.lines
}

struct LineReader<'a> {
    stretches: &'a [(u64, u64)],
    lines: Lines,
    /// Numbers of files.
    numbers: HashMap<(String, String), u32>,
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
        let mut numbers: Vec<Option<u32>> = Vec::new();
        let mut before: Option<(u64, u64, u32)> = None;
        let mut rows = program.rows();
        while let Some((header, row)) = rows.next_row()? {
            let address = row.address();
            if let Some((start, file, line)) = before.take()
                && start < address
                && let Some((start, end)) = self.clip(start, address)
                && self.lines.rows.len() < ROWS_MAX
            {
                let place = usize::try_from(file).unwrap_or(usize::MAX).min(1 << 20);
                if numbers.len() <= place {
                    numbers.resize(place + 1, None);
                }
                let number = match numbers[place] {
                    Some(number) => number,
                    None => {
                        let number = self.number(read_path(dwarf, unit, header, file));
                        numbers[place] = Some(number);
                        number
                    }
                };
                self.lines.rows.push(LineRow {
                    address: start,
                    bytes: u32::try_from(end - start).unwrap_or(u32::MAX),
                    file: number,
                    line,
                });
            }
            if !row.end_sequence() {
                let line = row
                    .line()
                    .map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
                before = Some((address, row.file_index(), line));
            }
        }
        Ok(())
    }

    /// The part of a row in the stretch that it begins in or that begins in it.
    fn clip(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let at = self.stretches.partition_point(|stretch| stretch.1 <= start);
        let stretch = self.stretches.get(at)?;
        let (start, end) = (start.max(stretch.0), end.min(stretch.1));
        (start < end).then_some((start, end))
    }

    fn number(&mut self, path: (String, String)) -> u32 {
        if let Some(number) = self.numbers.get(&path) {
            return *number;
        }
        let number = self.lines.files.len() as u32;
        self.lines.files.push(path.clone());
        self.numbers.insert(path, number);
        number
    }
}

/// The folder, from where that of the unit begins, and the name of a file.
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
        let text = dwarf.attr_string(unit, value);
        text.map_or_else(
            |_| String::new(),
            |text| text.to_string_lossy().into_owned(),
        )
    };
    let folder = file.directory(header).map_or_else(String::new, text);
    let unit_folder = unit.comp_dir.map(|it| it.to_string_lossy());
    let folder = join_folders(&unit_folder.unwrap_or_default(), &folder);
    (folder, text(file.path_name()))
}
