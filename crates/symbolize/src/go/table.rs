//! Go's table of functions, `runtime.pclntab`, in the four forms that it has had since Go 1.2.
//!
//! Format: `runtime/symtab.go` and `cmd/link/internal/ld/pcln.go` in Go's sources. The header points to the list of functions, sorted
//! by address. Each entry points to a record, and the record to the function's name and to tables of values by address: of files,
//! of lines, and of innermost inlined calls, which are indices into a tree.

use elf::{CachedFile, FileRange, ReadAt};

use super::program::Program;
use crate::frame::{FUNCTIONS_MAX, Frame};
use crate::strings::read_string;

/// Steps through tables of values for one address. A function takes three look-ups and each inlined call three more. The longest
/// known function (400 KB of code) has 100,000 steps in all; this ends a look-up that would take a hundred times as many.
const STEPS_MAX: u32 = 1 << 20;
/// Index of a call in the tree of inlined calls; Go's runtime has the same limit.
const INLINED_MAX: i32 = 1 << 20;

/// Index of the tree of inlined calls among a function's data, and of the table of values that are indices into the tree.
const FUNCDATA_TREE: u64 = 3;
const PCDATA_TREE: u64 = 2;

/// The version of Go that introduced the form of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Addresses and offsets relative to the table's start.
    Go12,
    /// Separate parts for names, files and values.
    Go116,
    /// Addresses relative to the start of the code.
    Go118,
    /// Start lines of functions.
    Go120,
}

impl Version {
    /// The version of a table that begins with these bytes: a magic number, two zeros, and the bytes of the smallest instruction
    /// and of a pointer.
    pub(super) fn of_head(head: [u8; 8]) -> Option<Self> {
        match head {
            [magic, 0xff, 0xff, 0xff, 0, 0, 1 | 2 | 4, 8] => match magic {
                0xfb => Some(Self::Go12),
                0xfa => Some(Self::Go116),
                0xf0 => Some(Self::Go118),
                0xf1 => Some(Self::Go120),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The table's header, and the file offsets of its parts.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) version: Version,
    pub(super) at: u64,
    pub(super) functions: u64,
    /// Start of the code; 0 in versions whose header does not have it.
    pub(super) text_start: u64,
    end: u64,
    /// Bytes of the smallest instruction.
    quantum: u64,
    names: u64,
    units: u64,
    files: u64,
    values: u64,
    /// The list of functions.
    list: u64,
    /// Base of the offsets in the list.
    records: u64,
}

/// Base addresses of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Module {
    /// Address of the first function; 0 for versions whose table has absolute addresses.
    pub(super) text: u64,
    /// Base of the trees of inlined calls; 0 for versions whose table has absolute addresses, `None` if it is not known.
    pub(super) gofunc: Option<u64>,
}

/// A function's record.
struct Record {
    /// The function's address, as in the list.
    entry: u64,
    name: u32,
    file_values: u32,
    line_values: u32,
    unit: u32,
    start_line: u32,
    tree_values: u32,
    /// Address of the tree of inlined calls.
    tree: Option<u64>,
}

/// The part of a function's record that describes its stack.
pub(super) struct StackRecord {
    /// The function's address, as in the list.
    pub(super) entry: u64,
    pub(super) name: u32,
    /// Table of the stack's depths.
    depths: u32,
    /// Flags of the function for the runtime's own unwinder.
    pub(super) flags: u8,
}

/// An inlined call.
struct Call {
    name: u32,
    /// The call's offset in the function that has the code.
    parent: u32,
    start_line: u32,
}

impl Table {
    /// Reads the header. `None` if there is none.
    pub(super) fn read(file: &impl ReadAt, range: FileRange) -> Option<Self> {
        let head: [u8; 8] = file.read_array(range.offset)?;
        let mut table = Self {
            version: Version::of_head(head)?,
            at: range.offset,
            functions: file.read_u64(range.offset.checked_add(8)?)?,
            text_start: 0,
            end: range.offset.checked_add(range.bytes)?,
            quantum: head[6].into(),
            names: range.offset,
            units: 0,
            files: range.offset,
            values: range.offset,
            list: range.offset.checked_add(16)?,
            records: range.offset,
        };
        table.read_parts(file)?;
        // The list ends within the table, with the address after the last function.
        let list_bytes = table.functions.checked_mul(2 * table.word_bytes())?;
        let list_end = table.list.checked_add(list_bytes)?;
        (table.functions > 0 && list_end.checked_add(8)? <= table.end).then_some(table)
    }

    fn read_parts(&mut self, file: &impl ReadAt) -> Option<()> {
        let (at, end) = (self.at, self.end);
        let part = |word: u64| {
            let place = file
                .read_u64(at.checked_add(8 + 8 * word)?)?
                .checked_add(at)?;
            (place < end).then_some(place)
        };
        let first = match self.version {
            Version::Go12 => {
                // The offset of the list of files follows the list of functions.
                let list_bytes = self.functions.checked_mul(16)?.checked_add(8)?;
                let files = file.read_u32(self.list.checked_add(list_bytes)?)?;
                self.files = at.checked_add(files.into())?;
                return Some(());
            }
            Version::Go116 => 2,
            Version::Go118 | Version::Go120 => 3,
        };
        self.names = part(first)?;
        self.units = part(first + 1)?;
        self.files = part(first + 2)?;
        self.values = part(first + 3)?;
        self.list = part(first + 4)?;
        self.records = self.list;
        if self.version >= Version::Go118 {
            self.text_start = file.read_u64(at.checked_add(24)?)?;
        }
        Some(())
    }

    /// Offsets in the table of the parts that the module's record begins with.
    pub(super) fn part_offsets(&self) -> [u64; 5] {
        [self.names, self.units, self.files, self.values, self.list]
            .map(|place| place.wrapping_sub(self.at))
    }

    /// Bytes of a number in the list and of a record's first field.
    fn word_bytes(&self) -> u64 {
        if self.version >= Version::Go118 { 4 } else { 8 }
    }

    fn read_word(&self, file: &impl ReadAt, at: u64) -> Option<u64> {
        match self.word_bytes() {
            4 => file.read_u32(at).map(u64::from),
            _ => file.read_u64(at),
        }
    }

    /// The functions at an address; `None` outside all functions.
    pub(super) fn name(
        &self,
        file: &CachedFile<impl ReadAt>,
        program: &Program,
        module: &Module,
        address: u64,
    ) -> Option<Vec<Frame>> {
        let mut pc = address.checked_sub(module.text)?;
        let mut record = self.find_record(file, module, pc)?;
        let mut lookup = Lookup {
            table: self,
            file,
            entry: record.entry,
            steps_left: STEPS_MAX,
        };
        // Nothing runs in the padding between functions. The kernel calls a signal's handler as if it came from the byte in front of the
        // function that it returns to.
        if lookup.value(record.line_values, pc).is_none()
            && let Some(next) = self.find_record(file, module, pc + 1)
            && next.entry == pc + 1
        {
            (record, pc) = (next, pc + 1);
            lookup.entry = record.entry;
        }
        let mut functions = Vec::new();
        while functions.len() + 1 < FUNCTIONS_MAX {
            let index = lookup.value(record.tree_values, pc).unwrap_or(-1);
            let Some(call) = lookup.call(program, &record, index) else {
                break;
            };
            let Some(name) = lookup.name(call.name) else {
                break;
            };
            functions.push(lookup.function(name, &record, pc, call.start_line));
            pc = record.entry.checked_add(call.parent.into())?;
        }
        let name = lookup.name(record.name).filter(|name| !name.is_empty())?;
        functions.push(lookup.function(name, &record, pc, record.start_line));
        Some(functions)
    }

    /// The record of the function with an address as in the list.
    fn find_record(&self, file: &impl ReadAt, module: &Module, pc: u64) -> Option<Record> {
        let word_bytes = self.word_bytes();
        // `read` has checked that the list lies in the table.
        let entry_at = |index: u64| self.list + index * 2 * word_bytes;
        let address_of = |index: u64| self.read_word(file, entry_at(index));
        // The entry after the last function only has the end.
        if pc < address_of(0)? || pc >= address_of(self.functions)? {
            return None;
        }
        let (mut low, mut high) = (0, self.functions);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if address_of(middle)? <= pc {
                low = middle;
            } else {
                high = middle;
            }
        }
        let place = self.read_word(file, entry_at(low) + word_bytes)?;
        let at = self.records.checked_add(place)?;
        (at < self.end).then(|| self.read_record(file, module, address_of(low)?, at))?
    }

    fn read_record(
        &self,
        file: &impl ReadAt,
        module: &Module,
        entry: u64,
        at: u64,
    ) -> Option<Record> {
        let fields_at = at.checked_add(self.word_bytes())?;
        // Name, arguments, deferreturn, stack, file, line, tables, unit, start line, and four small numbers.
        let field = |index: u64| file.read_u32(fields_at.checked_add(4 * index)?);
        let mut record = Record {
            entry,
            name: field(0)?,
            file_values: field(4)?,
            line_values: field(5)?,
            unit: 0,
            start_line: 0,
            tree_values: 0,
            tree: None,
        };
        let small_numbers = match self.version {
            // The indices of inlined calls' tables changed from version to version then.
            Version::Go12 => return Some(record),
            Version::Go116 | Version::Go118 => 8,
            Version::Go120 => {
                record.start_line = field(8)?;
                9
            }
        };
        record.unit = field(7)?;
        let tables = u64::from(field(6)?);
        let [.., data] = field(small_numbers)?.to_le_bytes();
        let tables_at = fields_at.checked_add(4 * (small_numbers + 1))?;
        if tables > PCDATA_TREE {
            record.tree_values = file.read_u32(tables_at.checked_add(4 * PCDATA_TREE)?)?;
        }
        if u64::from(data) > FUNCDATA_TREE {
            let data_at = tables_at.checked_add(4 * tables)?;
            record.tree = self.read_tree(file, module, data_at);
        }
        Some(record)
    }

    /// The record of the function with a number in the list. Only for versions since Go 1.18.
    pub(super) fn stack_record(&self, file: &impl ReadAt, index: u64) -> Option<StackRecord> {
        let entry_at = self.list.checked_add(index.checked_mul(8)?)?;
        let at = self
            .records
            .checked_add(file.read_u32(entry_at.checked_add(4)?)?.into())?;
        let field = |index: u64| file.read_u32(at.checked_add(4 * index)?);
        let small_numbers = if self.version == Version::Go120 {
            10
        } else {
            9
        };
        let [_, flags, ..] = field(small_numbers)?.to_le_bytes();
        Some(StackRecord {
            entry: file.read_u32(entry_at)?.into(),
            name: field(1)?,
            depths: field(4)?,
            flags,
        })
    }

    /// The depths of a function's stack from its start on, each with the bytes of code that have it.
    pub(super) fn depths<'a, R: ReadAt>(
        &self,
        file: &'a R,
        record: &StackRecord,
    ) -> impl Iterator<Item = (u64, i32)> + use<'a, R> {
        self.values(file, record.depths).into_iter().flatten()
    }

    /// A table of values; `None` if there is none.
    fn values<'a, R: ReadAt>(&self, file: &'a R, table: u32) -> Option<Values<'a, R>> {
        let at = self.values.checked_add(table.into())?;
        (table != 0).then_some(Values {
            file,
            at,
            quantum: self.quantum,
            value: -1,
            is_first: true,
        })
    }

    pub(super) fn read_function_name(&self, file: &impl ReadAt, name: u32) -> Option<String> {
        self.read_string(file, self.names.checked_add(name.into())?)
    }

    fn read_tree(&self, file: &impl ReadAt, module: &Module, data_at: u64) -> Option<u64> {
        if self.version >= Version::Go118 {
            let offset = file.read_u32(data_at.checked_add(4 * FUNCDATA_TREE)?)?;
            return (offset != u32::MAX).then(|| module.gofunc?.checked_add(offset.into()))?;
        }
        // Pointers, aligned relative to the table.
        let offset = data_at
            .checked_sub(self.at)?
            .checked_next_multiple_of(8)?
            .checked_add(8 * FUNCDATA_TREE)?;
        let tree = file.read_u64(self.at.checked_add(offset)?)?;
        (tree != 0).then_some(tree)
    }

    fn read_string(&self, file: &impl ReadAt, at: u64) -> Option<String> {
        let bytes = self.end.checked_sub(at)?;
        read_string(file, FileRange { offset: at, bytes })
    }
}

/// A table of values by address: a list of differences, of the value and then of the address where it ends.
struct Values<'a, R> {
    file: &'a R,
    at: u64,
    quantum: u64,
    value: i32,
    is_first: bool,
}

impl<R: ReadAt> Values<'_, R> {
    /// Reads a number of 7 bits a byte, lowest first.
    fn varint(&mut self) -> Option<u32> {
        let mut number = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.file.read_array(self.at)?;
            self.at += 1;
            number |= u32::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

impl<R: ReadAt> Iterator for Values<'_, R> {
    /// Bytes of code, and their value.
    type Item = (u64, i32);

    fn next(&mut self) -> Option<Self::Item> {
        let difference = self.varint()?;
        if difference == 0 && !self.is_first {
            return None;
        }
        self.is_first = false;
        let sign = (difference & 1).wrapping_neg();
        self.value = self.value.wrapping_add((sign ^ (difference >> 1)) as i32);
        let bytes = u64::from(self.varint()?).checked_mul(self.quantum)?;
        Some((bytes, self.value))
    }
}

/// A look-up of one address in the tables of its function.
struct Lookup<'a, R> {
    table: &'a Table,
    file: &'a CachedFile<R>,
    entry: u64,
    steps_left: u32,
}

impl<R: ReadAt> Lookup<'_, R> {
    /// The value at `pc` in a table of values.
    fn value(&mut self, table: u32, pc: u64) -> Option<i32> {
        let mut until = self.entry;
        for (bytes, value) in self.table.values(self.file, table)? {
            self.steps_left = self.steps_left.checked_sub(1)?;
            until = until.checked_add(bytes)?;
            if pc < until {
                return Some(value);
            }
        }
        None
    }

    /// Reads a call in the tree of inlined calls; `None` if there is none.
    fn call(&self, program: &Program, record: &Record, index: i32) -> Option<Call> {
        if !(0..INLINED_MAX).contains(&index) {
            return None;
        }
        let words = match self.table.version {
            Version::Go12 => return None,
            Version::Go116 | Version::Go118 => 5,
            Version::Go120 => 4,
        };
        let offset = u64::from(index.unsigned_abs()) * 4 * words;
        let at = program.offset_of(record.tree?.checked_add(offset)?)?;
        let word = |index: u64| self.file.read_u32(at.checked_add(4 * index)?);
        let call = if self.table.version == Version::Go120 {
            // Three bytes of the first word are unused and zero.
            if word(0)? >> 8 != 0 {
                return None;
            }
            Call {
                name: word(1)?,
                parent: word(2)?,
                start_line: word(3)?,
            }
        } else {
            Call {
                name: word(3)?,
                parent: word(4)?,
                start_line: 0,
            }
        };
        // A name starts after the end of another. Data mistaken for a tree mostly fails this check.
        let name_at = self.table.names.checked_add(call.name.into())?;
        let is_start = call.name == 0 || self.file.read_array(name_at - 1)? == [0];
        is_start.then_some(call)
    }

    fn name(&self, name: u32) -> Option<String> {
        self.table.read_function_name(self.file, name)
    }

    /// A function with the file and line of `pc`, where they are known.
    fn function(&mut self, name: String, record: &Record, pc: u64, start_line: u32) -> Frame {
        let file = self.file(record, pc).unwrap_or_default();
        let line = match self.value(record.line_values, pc) {
            Some(line) if !file.is_empty() => u32::try_from(line).unwrap_or(0),
            _ => 0,
        };
        Frame {
            file,
            line,
            start_line,
            ..Frame::bare(name)
        }
    }

    fn file(&mut self, record: &Record, pc: u64) -> Option<String> {
        let number = u32::try_from(self.value(record.file_values, pc)?).ok()?;
        let table = self.table;
        let at = if table.version == Version::Go12 {
            // Entry 0 is the number of entries.
            if number == 0 {
                return None;
            }
            let place = table.files.checked_add(4 * u64::from(number))?;
            table.at.checked_add(self.file.read_u32(place)?.into())?
        } else {
            let index = record.unit.checked_add(number)?;
            let place = table.units.checked_add(4 * u64::from(index))?;
            let file = self.file.read_u32(place)?;
            if file == u32::MAX {
                return None;
            }
            table.files.checked_add(file.into())?
        };
        table.read_string(self.file, at)
    }
}
