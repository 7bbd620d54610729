//! An open unit: its abbreviations, and the functions, lines and inlined calls that were read of it.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

use gimli::{
    Abbreviations, AttributeValue, DebugAddrBase, DebugInfoOffset, DebugLineOffset,
    DebugLocListsBase, DebugRngListsBase, DebugStrOffsetsBase, Dwarf, Error, Reader as _, Result,
    Unit, UnitHeader, UnitOffset, UnitRef, UnitType, constants as dw,
};

use super::bytes::Bytes;
use super::functions::Functions;
use super::inlined::{InlinedCall, InlinedCalls};
use super::lines::{Line, Lines};
use super::split_file::{SPLIT_PATH_BYTES_MAX, SplitFile};
use crate::frame::Frame;

/// Bytes of memory of a unit beside what is counted.
const UNIT_BYTES: usize = 1 << 10;

/// Bytes of memory of an abbreviation: 112 with up to five attributes, and 16 more for each further one.
const ABBREVIATION_BYTES: usize = 160;

/// A unit, and what was read of it.
pub(super) struct OpenUnit {
    dwarf: Arc<Dwarf<Bytes>>,
    unit: Unit<Bytes>,
    split_name: Option<AttributeValue<Bytes>>,
    line_program: Option<DebugLineOffset>,
    functions: OnceCell<Result<Functions>>,
    lines: OnceCell<Result<Option<Lines>>>,
    /// Of the function that was looked up last: addresses come in their order.
    inlined: RefCell<Option<InlinedCalls>>,
    /// Bytes of memory but for functions, lines and inlined calls.
    bytes: usize,
}

impl OpenUnit {
    /// Reads the header and the first entry of the unit at an offset.
    pub(super) fn read(
        dwarf: &Arc<Dwarf<Bytes>>,
        offset: DebugInfoOffset,
        abbreviations: impl FnOnce(&UnitHeader<Bytes>) -> Result<Arc<Abbreviations>>,
    ) -> Result<Self> {
        let header = dwarf.debug_info.header_from_offset(offset)?;
        let abbreviations = abbreviations(&header)?;
        Self::of_header(dwarf, header, abbreviations)
    }

    /// Reads the first entry of a unit.
    pub(super) fn of_header(
        dwarf: &Arc<Dwarf<Bytes>>,
        header: UnitHeader<Bytes>,
        abbreviations: Arc<Abbreviations>,
    ) -> Result<Self> {
        let numbered = (1..).take_while(|code| abbreviations.get(*code).is_some());
        let mut open = Self {
            bytes: UNIT_BYTES + numbered.count() * ABBREVIATION_BYTES,
            dwarf: Arc::clone(dwarf),
            unit: make_unit(dwarf, header, abbreviations),
            split_name: None,
            line_program: None,
            functions: OnceCell::new(),
            lines: OnceCell::new(),
            inlined: RefCell::default(),
        };
        open.read_root()?;
        let header = &open.unit.header;
        open.unit.header = UnitHeader::new(
            header.encoding(),
            header.unit_length(),
            header.type_(),
            header.debug_abbrev_offset(),
            header.section(),
            header.offset(),
            header.range_from(header.root_offset()..)?.detached(),
        );
        Ok(open)
    }

    /// Reads the attributes of the first entry.
    fn read_root(&mut self) -> Result<()> {
        let Self { dwarf, unit, .. } = self;
        let mut root = unit.entries();
        let root = root
            .next_dfs()?
            .ok_or(Error::MissingUnitDie)?
            .attrs()
            .to_vec();
        let [mut start, mut name, mut directory] = [const { None }; 3];
        for attribute in root {
            match (attribute.name(), attribute.value()) {
                (dw::DW_AT_name, value) => name = Some(value),
                (dw::DW_AT_comp_dir, value) => directory = Some(value),
                (dw::DW_AT_low_pc, value) => start = Some(value),
                (dw::DW_AT_dwo_name | dw::DW_AT_GNU_dwo_name, value) => {
                    self.split_name = Some(value)
                }
                (dw::DW_AT_stmt_list, AttributeValue::DebugLineRef(offset)) => {
                    self.line_program = Some(offset);
                }
                (dw::DW_AT_GNU_dwo_id, AttributeValue::DwoId(id)) => {
                    unit.dwo_id = unit.dwo_id.or(Some(id));
                }
                (_, AttributeValue::DebugStrOffsetsBase(base)) => unit.str_offsets_base = base,
                (_, AttributeValue::DebugAddrBase(base)) => unit.addr_base = base,
                (_, AttributeValue::DebugRngListsBase(base)) => unit.rnglists_base = base,
                _ => {}
            }
        }
        let string = |value| {
            let string = dwarf.attr_string(unit, value).ok()?;
            Some(string.detached())
        };
        let (name, directory) = (name.and_then(string), directory.and_then(string));
        (unit.name, unit.comp_dir) = (name, directory);
        if let Some(start) = start
            && let Some(address) = dwarf.attr_address(unit, start)?
        {
            unit.low_pc = address;
        }
        Ok(())
    }

    /// The unit for gimli.
    pub(super) fn unit_ref(&self) -> UnitRef<'_, Bytes> {
        UnitRef::new(&self.dwarf, &self.unit)
    }

    /// The file that it is in.
    pub(super) fn dwarf(&self) -> &Arc<Dwarf<Bytes>> {
        &self.dwarf
    }

    /// Takes what a split unit has from the part that is left of it.
    pub(super) fn attach_to(&mut self, skeleton: &Self) {
        self.unit.copy_relocated_attributes(&skeleton.unit);
    }

    /// The file with the rest of the unit, if it is split and the file's name is a path.
    pub(super) fn split_file(&self) -> Option<SplitFile> {
        let text = |bytes: Bytes| -> Option<String> {
            let text = bytes.to_string().ok()?;
            (text.len() <= SPLIT_PATH_BYTES_MAX).then(|| text.into_owned())
        };
        let name = self.unit_ref().attr_string(self.split_name.clone()?).ok()?;
        let directory = self.unit.comp_dir.clone();
        Some(SplitFile {
            id: self.unit.dwo_id?.0,
            directory: directory.and_then(text).unwrap_or_default(),
            name: text(name).filter(|name| !name.is_empty())?,
        })
    }

    /// The entry of the function at an address.
    pub(super) fn find_function(&self, address: u64) -> Result<Option<UnitOffset>> {
        let functions = self
            .functions
            .get_or_init(|| Functions::read(self.unit_ref()));
        match functions {
            Ok(functions) => Ok(functions.find(address)),
            Err(err) => Err(*err),
        }
    }

    /// The calls that were inlined at an address of a function, the outermost first.
    pub(super) fn find_inlined(
        &self,
        function: UnitOffset,
        address: u64,
    ) -> Result<Vec<InlinedCall>> {
        let unit = self.unit_ref();
        let last = &mut *self.inlined.borrow_mut();
        let calls = match last {
            Some(calls) if calls.function() == function => calls,
            _ => last.insert(InlinedCalls::read(unit, function)?),
        };
        let entries = calls.find(address);
        entries
            .map(|entry| InlinedCall::read(unit, entry))
            .collect()
    }

    /// The line at an address.
    pub(super) fn find_line(&self, address: u64) -> Result<Option<Line>> {
        match self.lines()? {
            Some(lines) => lines.find(address),
            None => Ok(None),
        }
    }

    /// A function at a line of this unit.
    pub(super) fn frame_at(&self, symbol: String, line: Line) -> Result<Frame> {
        let file = match (self.lines()?, line.file) {
            (Some(lines), Some(file)) => lines.path_of(self.unit_ref(), file)?,
            _ => String::new(),
        };
        Ok(Frame {
            file,
            line: line.line,
            column: line.column,
            ..Frame::bare(symbol)
        })
    }

    /// The lines, if it has any.
    pub(super) fn lines(&self) -> Result<Option<&Lines>> {
        let lines = self.lines.get_or_init(|| {
            let offset = self.line_program;
            offset
                .map(|offset| Lines::read(self.unit_ref(), offset))
                .transpose()
        });
        match lines {
            Ok(lines) => Ok(lines.as_ref()),
            Err(err) => Err(*err),
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let functions = self
            .functions
            .get()
            .and_then(|functions| functions.as_ref().ok());
        let lines = self.lines.get().and_then(|lines| lines.as_ref().ok());
        let functions = functions.map_or(0, Functions::bytes);
        let lines = lines.and_then(Option::as_ref).map_or(0, Lines::bytes);
        let inlined = self.inlined.borrow();
        let inlined = inlined.as_ref().map_or(0, InlinedCalls::bytes);
        self.bytes + functions + lines + inlined
    }
}

/// The unit of a header, before its first entry was read. (That which gimli makes has the names of all files too.)
fn make_unit(
    dwarf: &Dwarf<Bytes>,
    header: UnitHeader<Bytes>,
    abbreviations: Arc<Abbreviations>,
) -> Unit<Bytes> {
    let (encoding, file) = (header.encoding(), dwarf.file_type);
    Unit {
        abbreviations,
        name: None,
        comp_dir: None,
        low_pc: 0,
        str_offsets_base: DebugStrOffsetsBase::default_for_encoding_and_file(encoding, file),
        addr_base: DebugAddrBase(0),
        loclists_base: DebugLocListsBase::default_for_encoding_and_file(encoding, file),
        rnglists_base: DebugRngListsBase::default_for_encoding_and_file(encoding, file),
        line_program: None,
        dwo_id: match header.type_() {
            UnitType::Skeleton(id) | UnitType::SplitCompilation(id) => Some(id),
            _ => None,
        },
        header,
    }
}
