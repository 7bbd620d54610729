//! Go's table of functions, `runtime.pclntab`, in the four forms that it has had since Go 1.2.
//!
//! Format: `runtime/symtab.go` and `cmd/link/internal/ld/pcln.go` in Go's sources. A header leads to the list of
//! functions, sorted by address; each leads to its record, and that to its name and to tables of values by
//! address: of the file, of the line, and of the innermost inlined call, which is a place in a tree.

use super::super::protocol::FUNCTIONS_MAX;
use super::blocks::Blocks;
use super::headers::{Headers, Range};
use super::module::Module;

/// Steps through tables of values for one address. A function has three of them and each inlined call three more
/// looks; the longest known function (400 KB of code) has 100,000 steps in all, and a hundred of them would be too many.
const STEPS_MAX: u32 = 1 << 20;
/// Place of a call in the tree of inlined calls; Go's runtime has the same limit.
const INLINED_MAX: i32 = 1 << 20;

/// Number of the tree of inlined calls among a function's data, and of the table that leads to a place in it.
const FUNCDATA_TREE: u64 = 3;
const PCDATA_TREE: u64 = 2;

/// Since which version of Go the table has this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Addresses and offsets relative to the table's start.
    Go12,
    /// Parts of their own for names, files and values.
    Go116,
    /// Addresses relative to the start of the code.
    Go118,
    /// Lines where functions start.
    Go120,
}

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoFunction {
    /// Name with package and receiver, `main.(*T).Method`.
    pub name: String,
    /// Source file, or empty.
    pub file: String,
    /// Line, or 0.
    pub line: u32,
    /// Line where the function starts, or 0.
    pub start_line: u32,
}

/// The table's header. Places are offsets in the file.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) version: Version,
    pub(super) at: u64,
    pub(super) functions: u64,
    /// As the header says; 0 where it does not.
    pub(super) text_start: u64,
    end: u64,
    /// Bytes of the smallest instruction.
    quantum: u64,
    names: u64,
    units: u64,
    files: u64,
    values: u64,
    /// The list of functions, and what the places in it are relative to.
    list: u64,
    records: u64,
}

/// A function's record.
struct Record {
    /// Its own address, as the list gives it.
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

/// An inlined call.
struct Call {
    name: u32,
    /// Where it is called, relative to the function that has the code.
    parent: u32,
    start_line: u32,
}

impl Table {
    /// Reads the header. `None` when it is not one.
    pub(super) fn read<R: Fn(u64, &mut [u8]) -> usize>(
        blocks: &mut Blocks<R>,
        range: Range,
    ) -> Option<Self> {
        let head: [u8; 8] = blocks.array(range.offset)?;
        let version = match head[..4] {
            [0xfb, 0xff, 0xff, 0xff] => Version::Go12,
            [0xfa, 0xff, 0xff, 0xff] => Version::Go116,
            [0xf0, 0xff, 0xff, 0xff] => Version::Go118,
            [0xf1, 0xff, 0xff, 0xff] => Version::Go120,
            _ => return None,
        };
        if head[4..6] != [0, 0] || !matches!(head[6], 1 | 2 | 4) || head[7] != 8 {
            return None;
        }
        let mut table = Self {
            version,
            at: range.offset,
            functions: blocks.u64(range.offset.checked_add(8)?)?,
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
        table.read_parts(blocks)?;
        // A list that ends before the table does, with the address behind the last function.
        let list_bytes = table.functions.checked_mul(table.entry_bytes())?;
        let list_end = table.list.checked_add(list_bytes)?;
        (table.functions > 0 && list_end.checked_add(8)? <= table.end).then_some(table)
    }

    fn read_parts<R: Fn(u64, &mut [u8]) -> usize>(&mut self, blocks: &mut Blocks<R>) -> Option<()> {
        let (at, end) = (self.at, self.end);
        let mut part = |word: u64| {
            let place = blocks.u64(at.checked_add(8 + 8 * word)?)?.checked_add(at)?;
            (place < end).then_some(place)
        };
        let first = match self.version {
            Version::Go12 => {
                // Behind the list stands where the list of files is.
                let list_bytes = self.functions.checked_mul(16)?.checked_add(8)?;
                let files = blocks.u32(self.list.checked_add(list_bytes)?)?;
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
            self.text_start = blocks.u64(at.checked_add(24)?)?;
        }
        Some(())
    }

    /// The parts that the module's record begins with, relative to the table.
    pub(super) fn part_offsets(&self) -> [u64; 5] {
        [self.names, self.units, self.files, self.values, self.list]
            .map(|place| place.wrapping_sub(self.at))
    }

    /// Bytes of an entry in the list: an address and a place.
    fn entry_bytes(&self) -> u64 {
        match self.version {
            Version::Go12 | Version::Go116 => 16,
            Version::Go118 | Version::Go120 => 8,
        }
    }

    /// The functions at an address; `None` when it lies in none.
    pub(super) fn name<R: Fn(u64, &mut [u8]) -> usize>(
        &self,
        blocks: &mut Blocks<R>,
        headers: &Headers,
        module: &Module,
        address: u64,
    ) -> Option<Vec<GoFunction>> {
        let mut pc = address.checked_sub(module.text)?;
        let record = self.find_record(blocks, module, pc)?;
        let mut look = Look {
            table: self,
            blocks,
            entry: record.entry,
            steps_left: STEPS_MAX,
        };
        let mut functions = Vec::new();
        while functions.len() + 1 < FUNCTIONS_MAX {
            let place = look.value(record.tree_values, pc).unwrap_or(-1);
            let Some(call) = look.call(headers, &record, place) else {
                break;
            };
            let Some(name) = look.name(call.name) else {
                break;
            };
            functions.push(look.function(name, &record, pc, call.start_line));
            pc = record.entry.checked_add(call.parent.into())?;
        }
        let name = look.name(record.name).filter(|name| !name.is_empty())?;
        functions.push(look.function(name, &record, pc, record.start_line));
        Some(functions)
    }

    /// The record of the function that `pc` lies in, an address as the list has them.
    fn find_record<R: Fn(u64, &mut [u8]) -> usize>(
        &self,
        blocks: &mut Blocks<R>,
        module: &Module,
        pc: u64,
    ) -> Option<Record> {
        let entry_bytes = self.entry_bytes();
        // Checked to lie in the table when that was read.
        let mut entry_at = |index: u64| {
            let at = self.list + index * entry_bytes;
            match self.version {
                Version::Go12 | Version::Go116 => Some((blocks.u64(at)?, at + 8)),
                Version::Go118 | Version::Go120 => Some((blocks.u32(at)?.into(), at + 4)),
            }
        };
        // The entry behind the last one has the end only.
        if pc < entry_at(0)?.0 || pc >= entry_at(self.functions)?.0 {
            return None;
        }
        let (mut low, mut high) = (0, self.functions);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if entry_at(middle)?.0 <= pc {
                low = middle;
            } else {
                high = middle;
            }
        }
        let (entry, place_at) = entry_at(low)?;
        let place = match self.version {
            Version::Go12 | Version::Go116 => blocks.u64(place_at)?,
            Version::Go118 | Version::Go120 => blocks.u32(place_at)?.into(),
        };
        let at = self.records.checked_add(place)?;
        (at < self.end).then(|| self.read_record(blocks, module, entry, at))?
    }

    fn read_record<R: Fn(u64, &mut [u8]) -> usize>(
        &self,
        blocks: &mut Blocks<R>,
        module: &Module,
        entry: u64,
        at: u64,
    ) -> Option<Record> {
        // The first field is an address, or since 1.18 a number of 4 bytes; all others have 4.
        let head_bytes = if self.version >= Version::Go118 { 4 } else { 8 };
        let fields_at = at.checked_add(head_bytes)?;
        // Name, arguments, deferreturn, stack, file, line, tables, unit, start line.
        let fields: [u8; 40] = blocks.array(fields_at)?;
        let field = |index: usize| {
            let bytes = fields[4 * index..].first_chunk();
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let mut record = Record {
            entry,
            name: field(0),
            file_values: field(4),
            line_values: field(5),
            unit: 0,
            start_line: 0,
            tree_values: 0,
            tree: None,
        };
        let tables = field(6);
        let fields_bytes = match self.version {
            // The numbers of inlined calls' tables changed from version to version then.
            Version::Go12 => return Some(record),
            Version::Go116 | Version::Go118 => 36,
            Version::Go120 => {
                record.start_line = field(8);
                40
            }
        };
        record.unit = field(7);
        // Four small numbers, of which the last is that of the data.
        let data = u64::from(fields[fields_bytes - 1]);
        let tables_at = fields_at.checked_add(fields_bytes as u64)?;
        if u64::from(tables) > PCDATA_TREE {
            record.tree_values = blocks.u32(tables_at.checked_add(4 * PCDATA_TREE)?)?;
        }
        if data > FUNCDATA_TREE {
            let data_at = tables_at.checked_add(4 * u64::from(tables))?;
            record.tree = self.read_tree(blocks, module, data_at);
        }
        Some(record)
    }

    fn read_tree<R: Fn(u64, &mut [u8]) -> usize>(
        &self,
        blocks: &mut Blocks<R>,
        module: &Module,
        data_at: u64,
    ) -> Option<u64> {
        if self.version >= Version::Go118 {
            let into = blocks.u32(data_at.checked_add(4 * FUNCDATA_TREE)?)?;
            return (into != u32::MAX).then(|| module.gofunc?.checked_add(into.into()))?;
        }
        // Pointers, aligned as the table is.
        let into = data_at.checked_sub(self.at)?.checked_next_multiple_of(8)?;
        let at = self.at.checked_add(into)?.checked_add(8 * FUNCDATA_TREE)?;
        blocks.u64(at).filter(|tree| *tree != 0)
    }
}

/// One look into the tables of a function.
struct Look<'a, R> {
    table: &'a Table,
    blocks: &'a mut Blocks<R>,
    entry: u64,
    steps_left: u32,
}

impl<R: Fn(u64, &mut [u8]) -> usize> Look<'_, R> {
    /// The value at `pc` in a table of values, which is a list of differences: of the value, then of the address
    /// up to which it holds.
    fn value(&mut self, table: u32, pc: u64) -> Option<i32> {
        if table == 0 {
            return None;
        }
        let mut at = self.table.values.checked_add(table.into())?;
        let mut value = -1_i32;
        let mut until = self.entry;
        let mut is_first = true;
        loop {
            self.steps_left = self.steps_left.checked_sub(1)?;
            let difference = self.varint(&mut at)?;
            if difference == 0 && !is_first {
                return None;
            }
            is_first = false;
            let sign = (difference & 1).wrapping_neg();
            value = value.wrapping_add((sign ^ (difference >> 1)) as i32);
            let bytes = u64::from(self.varint(&mut at)?).checked_mul(self.table.quantum)?;
            until = until.checked_add(bytes)?;
            if pc < until {
                return Some(value);
            }
        }
    }

    /// A number of 7 bits a byte, the lowest first.
    fn varint(&mut self, at: &mut u64) -> Option<u32> {
        let mut number = 0_u32;
        for shift in (0..35).step_by(7) {
            let byte = self.blocks.u8(*at)?;
            *at += 1;
            number |= u32::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A place in the tree of inlined calls; `None` when there is none, or what is there is not a call.
    fn call(&mut self, headers: &Headers, record: &Record, place: i32) -> Option<Call> {
        if !(0..INLINED_MAX).contains(&place) {
            return None;
        }
        let entry_bytes = match self.table.version {
            Version::Go12 => return None,
            Version::Go116 | Version::Go118 => 20,
            Version::Go120 => 16,
        };
        let into = u64::from(place.unsigned_abs()) * entry_bytes;
        let at = headers.offset_of(record.tree?.checked_add(into)?)?;
        let entry: [u8; 16] = self.blocks.array(at)?;
        let word = |index: usize| {
            let bytes = entry[4 * index..].first_chunk();
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let call = if self.table.version == Version::Go120 {
            // The rest of the first word is unused and zero.
            (entry[1..4] == [0; 3]).then(|| Call {
                name: word(1),
                parent: word(2),
                start_line: word(3),
            })?
        } else {
            Call {
                name: word(3),
                parent: self.blocks.u32(at.checked_add(16)?)?,
                start_line: 0,
            }
        };
        // Names begin where another ends: a tree that was taken for one is seen by that.
        let before = self
            .table
            .names
            .checked_add(call.name.into())?
            .checked_sub(1)?;
        let begins = call.name == 0 || self.blocks.u8(before)? == 0;
        begins.then_some(call)
    }

    fn name(&mut self, name: u32) -> Option<String> {
        let at = self.table.names.checked_add(name.into())?;
        (at < self.table.end).then(|| self.blocks.string(at))?
    }

    /// A function with the file and the line of `pc`, or without them where they are not known.
    fn function(&mut self, name: String, record: &Record, pc: u64, start_line: u32) -> GoFunction {
        let file = self.file(record, pc).unwrap_or_default();
        let line = match self.value(record.line_values, pc) {
            Some(line) if !file.is_empty() => u32::try_from(line).unwrap_or(0),
            _ => 0,
        };
        GoFunction {
            name,
            file,
            line,
            start_line,
        }
    }

    fn file(&mut self, record: &Record, pc: u64) -> Option<String> {
        let number = u32::try_from(self.value(record.file_values, pc)?).ok()?;
        let table = self.table;
        let at = if table.version == Version::Go12 {
            // The first entry is the number of entries.
            if number == 0 {
                return None;
            }
            let place = table.files.checked_add(4 * u64::from(number))?;
            table.at.checked_add(self.blocks.u32(place)?.into())?
        } else {
            let index = record.unit.checked_add(number)?;
            let place = table.units.checked_add(4 * u64::from(index))?;
            let file = self.blocks.u32(place)?;
            if file == u32::MAX {
                return None;
            }
            table.files.checked_add(file.into())?
        };
        (at < table.end).then(|| self.blocks.string(at))?
    }
}
