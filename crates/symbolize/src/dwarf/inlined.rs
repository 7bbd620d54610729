//! The calls that were inlined into a function.
//!
//! In: the entries of a function, read once. Out: for each address of it the inlined calls there. A large function has thousands of
//! them, and hundreds of its addresses are looked up one after the other.

use std::ops::Range;

use gimli::{Attribute, AttributeValue, DwAt, Error, Result, UnitOffset, UnitRef, constants as dw};

use super::bytes::Bytes;
use super::functions::{CodeAttributes, NameAttributes, is_of_code, is_of_name, read_attributes};
use super::lines::Line;

/// Calls in a function, and ranges of addresses of these: 4 MB and 8 MB. CPython's interpreter loop has some thousands.
const CALLS_MAX: usize = 1 << 18;
const RANGES_MAX: usize = 1 << 19;

/// The inlined calls of a function. Each is followed by those within it.
pub(super) struct InlinedCalls {
    function: UnitOffset,
    calls: Vec<CallRange>,
    /// The ranges of all calls, one after the other.
    ranges: Vec<Range<u64>>,
}

struct CallRange {
    entry: UnitOffset,
    /// The end of its ranges, which begin at the end of those of the call before it.
    ranges_end: u32,
    /// Number of the next call that is not within it.
    next: u32,
}

impl InlinedCalls {
    /// Reads the calls of the function that has this entry.
    ///
    /// # Errors
    /// Damaged entries, or more calls than any program has.
    pub(super) fn read(unit: UnitRef<'_, Bytes>, function: UnitOffset) -> Result<Self> {
        let mut found = Self {
            function,
            calls: Vec::new(),
            ranges: Vec::new(),
        };
        // The calls that the next entry is within, each with its depth.
        let mut around: Vec<(isize, usize)> = Vec::new();
        // The depth of a function within this one. Its calls are not this one's.
        let mut inner = None;
        let mut entries = unit.entries_raw(Some(function))?;
        loop {
            let (entry, depth) = (entries.next_offset(), entries.next_depth());
            if let Some(abbreviation) = entries.read_abbreviation()? {
                let left = around.iter().take_while(|(other, _)| *other < depth);
                for (_, call) in around.drain(left.count()..) {
                    found.calls[call].next = found.calls.len() as u32;
                }
                inner = inner.filter(|inner| *inner < depth);
                if abbreviation.tag() == dw::DW_TAG_inlined_subroutine && inner.is_none() {
                    let mut code = CodeAttributes::default();
                    read_attributes(&mut entries, abbreviation, is_of_code, |attribute| {
                        code.take(&attribute, unit)
                    })?;
                    around.push((depth, found.calls.len()));
                    found.push(unit, entry, &code)?;
                } else {
                    if abbreviation.tag() == dw::DW_TAG_subprogram && depth > 0 && inner.is_none() {
                        inner = Some(depth);
                    }
                    entries.skip_attributes(abbreviation.attributes())?;
                }
            }
            if entries.next_depth() <= 0 || entries.is_empty() {
                break;
            }
        }
        for (_, call) in around {
            found.calls[call].next = found.calls.len() as u32;
        }
        found.calls.shrink_to_fit();
        found.ranges.shrink_to_fit();
        Ok(found)
    }

    fn push(
        &mut self,
        unit: UnitRef<'_, Bytes>,
        entry: UnitOffset,
        code: &CodeAttributes,
    ) -> Result<()> {
        let ranges = &mut self.ranges;
        code.for_each_range(unit, |range| {
            if ranges.len() < RANGES_MAX {
                ranges.push(range.begin..range.end);
            }
        })?;
        if self.ranges.len() == RANGES_MAX || self.calls.len() == CALLS_MAX {
            // gimli has no error for it; all of them lead to the symbol table.
            return Err(Error::TooManyIterations);
        }
        self.calls.push(CallRange {
            entry,
            ranges_end: self.ranges.len() as u32,
            next: 0,
        });
        Ok(())
    }

    /// The function.
    pub(super) fn function(&self) -> UnitOffset {
        self.function
    }

    /// The entries of the calls at an address, the outermost first.
    pub(super) fn find(&self, address: u64) -> impl Iterator<Item = UnitOffset> {
        let (mut at, mut end) = (0, self.calls.len());
        std::iter::from_fn(move || {
            while at < end {
                let call = &self.calls[at];
                let ranges_start = match at {
                    0 => 0,
                    _ => self.calls[at - 1].ranges_end,
                };
                let ranges = &self.ranges[ranges_start as usize..call.ranges_end as usize];
                if ranges.iter().any(|range| range.contains(&address)) {
                    (at, end) = (at + 1, call.next as usize);
                    return Some(call.entry);
                }
                at = call.next as usize;
            }
            None
        })
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.calls) + size_of_val(&*self.ranges)
    }
}

/// A function that was inlined, and the place of the call.
#[derive(Default)]
pub(super) struct InlinedCall {
    pub(super) names: NameAttributes,
    pub(super) place: Line,
}

impl InlinedCall {
    /// Reads the entry of a call.
    pub(super) fn read(unit: UnitRef<'_, Bytes>, entry: UnitOffset) -> Result<Self> {
        let mut call = Self::default();
        let mut entries = unit.entries_raw(Some(entry))?;
        if let Some(abbreviation) = entries.read_abbreviation()? {
            let version = unit.header.version();
            read_attributes(&mut entries, abbreviation, is_of_call, |attribute| {
                call.take(&attribute, version);
                Ok(())
            })?;
        }
        Ok(call)
    }

    fn take(&mut self, attribute: &Attribute<Bytes>, version: u16) {
        let number = || attribute.udata_value().unwrap_or(0) as u32;
        match attribute.name() {
            dw::DW_AT_call_file => {
                if let AttributeValue::FileIndex(file) = attribute.value() {
                    // Before DWARF 5, 0 is no file.
                    self.place.file = Some(file).filter(|file| *file > 0 || version >= 5);
                }
            }
            dw::DW_AT_call_line => self.place.line = number(),
            dw::DW_AT_call_column => self.place.column = number(),
            _ => self.names.take(attribute),
        }
    }
}

fn is_of_call(name: DwAt) -> bool {
    let is_of_place = matches!(
        name,
        dw::DW_AT_call_file | dw::DW_AT_call_line | dw::DW_AT_call_column
    );
    is_of_place || is_of_name(name)
}
