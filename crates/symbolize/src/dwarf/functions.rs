//! Functions of a unit.
//!
//! In: entries of a unit. Out: for each function its address ranges and the offset of its entry, read in one pass that skips all other
//! entries.

use gimli::{
    Abbreviation, Attribute, AttributeSpecification, AttributeValue, DwAt, EntriesRaw, Range,
    RangeListsOffset, Reader, Result, Section as _, UnitOffset, UnitRef, constants as dw,
};

use super::bytes::Bytes;

/// Ranges that are looked at for an address: functions within functions lie behind the outer one's start.
const OVERLAPS_MAX: usize = 16;

/// Functions of a unit by address.
pub(super) struct Functions(Box<[FunctionRange]>);

struct FunctionRange {
    begin: u64,
    end: u64,
    entry: UnitOffset,
}

impl Functions {
    /// Reads the functions of a unit.
    pub(super) fn read(unit: UnitRef<'_, Bytes>) -> Result<Self> {
        let header = &unit.header;
        let section = unit.dwarf.debug_info.reader();
        let start = header.offset().0 + header.header_size();
        let end = header.offset().0 + header.length_including_self();
        let mut bytes = section.with_piece(start..end);
        bytes.skip(start)?;
        bytes.truncate(end - start)?;
        let found = match bytes.as_slice() {
            Some(bytes) => find_with_code(unit, bytes)?,
            None => find_with_code(unit, bytes)?,
        };
        let mut functions = Vec::with_capacity(found.len());
        for entry in found {
            let mut entries = unit.entries_raw(Some(entry))?;
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            let mut code = CodeAttributes::default();
            read_attributes(&mut entries, abbreviation, is_of_code, |attribute| {
                code.take(&attribute, unit)
            })?;
            code.for_each_range(unit, |Range { begin, end }| {
                functions.push(FunctionRange { begin, end, entry });
            })?;
        }
        functions.sort_by_key(|function| function.begin);
        Ok(Self(functions.into()))
    }

    /// The entry of the function at an address. Of several functions, it is the one that starts last.
    pub(super) fn find(&self, address: u64) -> Option<UnitOffset> {
        let after = self.0.partition_point(|range| range.begin <= address);
        let mut before = self.0[..after].iter().rev().take(OVERLAPS_MAX);
        let found = before.find(|range| address < range.end)?;
        Some(found.entry)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Finds the functions that have addresses among all entries of a unit.
fn find_with_code<R: Reader<Offset = usize>>(
    unit: UnitRef<'_, Bytes>,
    bytes: R,
) -> Result<Vec<UnitOffset>> {
    let (encoding, root) = (unit.encoding(), unit.header.root_offset());
    let mut entries = EntriesRaw::new(bytes, encoding, &unit.abbreviations, root);
    let mut found = Vec::new();
    while !entries.is_empty() {
        let entry = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else {
            continue;
        };
        let attributes = abbreviation.attributes();
        let is_of_code = |attribute: &AttributeSpecification| is_of_code(attribute.name());
        if abbreviation.tag() == dw::DW_TAG_subprogram && attributes.iter().any(is_of_code) {
            found.push(entry);
        }
        entries.skip_attributes(attributes)?;
    }
    Ok(found)
}

/// Attributes that lead to the name of a function.
#[derive(Default)]
pub(super) struct NameAttributes {
    /// The name in the symbol table.
    pub(super) linkage_name: Option<AttributeValue<Bytes>>,
    pub(super) name: Option<AttributeValue<Bytes>>,
    /// The entry that has a name if this one has none.
    pub(super) origin: Option<AttributeValue<Bytes>>,
}

impl NameAttributes {
    /// Reads those of an entry.
    pub(super) fn read(unit: UnitRef<'_, Bytes>, entry: UnitOffset) -> Result<Option<Self>> {
        let mut names = Self::default();
        let mut entries = unit.entries_raw(Some(entry))?;
        let Some(abbreviation) = entries.read_abbreviation()? else {
            return Ok(None);
        };
        read_attributes(&mut entries, abbreviation, is_of_name, |attribute| {
            names.take(&attribute);
            Ok(())
        })?;
        Ok(Some(names))
    }

    pub(super) fn take(&mut self, attribute: &Attribute<Bytes>) {
        let place = match attribute.name() {
            dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => &mut self.linkage_name,
            dw::DW_AT_name => &mut self.name,
            dw::DW_AT_abstract_origin | dw::DW_AT_specification => &mut self.origin,
            _ => return,
        };
        *place = Some(attribute.value());
    }
}

/// Reads the attributes of an entry whose names are wanted, and skips the others.
pub(super) fn read_attributes(
    entries: &mut EntriesRaw<'_, Bytes>,
    abbreviation: &Abbreviation,
    is_wanted: fn(DwAt) -> bool,
    mut take: impl FnMut(Attribute<Bytes>) -> Result<()>,
) -> Result<()> {
    let is_wanted = |attribute: &AttributeSpecification| is_wanted(attribute.name());
    let mut rest = abbreviation.attributes();
    loop {
        let skipped = rest.iter().position(is_wanted).unwrap_or(rest.len());
        entries.skip_attributes(&rest[..skipped])?;
        let Some((wanted, behind)) = rest[skipped..].split_first() else {
            return Ok(());
        };
        take(entries.read_attribute(*wanted)?)?;
        rest = behind;
    }
}

pub(super) fn is_of_code(name: DwAt) -> bool {
    matches!(
        name,
        dw::DW_AT_low_pc | dw::DW_AT_high_pc | dw::DW_AT_ranges
    )
}

pub(super) fn is_of_name(name: DwAt) -> bool {
    matches!(
        name,
        dw::DW_AT_linkage_name
            | dw::DW_AT_MIPS_linkage_name
            | dw::DW_AT_name
            | dw::DW_AT_abstract_origin
            | dw::DW_AT_specification
    )
}

/// Attributes with the addresses of an entry.
#[derive(Default)]
pub(super) struct CodeAttributes {
    start: Option<u64>,
    end: Option<u64>,
    bytes: Option<u64>,
    ranges: Option<RangeListsOffset>,
}

impl CodeAttributes {
    pub(super) fn take(
        &mut self,
        attribute: &Attribute<Bytes>,
        unit: UnitRef<'_, Bytes>,
    ) -> Result<()> {
        match (attribute.name(), attribute.value()) {
            (dw::DW_AT_low_pc, value) => self.start = unit.attr_address(value)?,
            (dw::DW_AT_high_pc, AttributeValue::Udata(bytes)) => self.bytes = Some(bytes),
            (dw::DW_AT_high_pc, value) => self.end = unit.attr_address(value)?,
            (dw::DW_AT_ranges, value) => self.ranges = unit.attr_ranges_offset(value)?,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn for_each_range(
        &self,
        unit: UnitRef<'_, Bytes>,
        mut visit: impl FnMut(Range),
    ) -> Result<()> {
        if let Some(offset) = self.ranges {
            let mut ranges = unit.ranges(offset)?;
            while let Some(range) = ranges.next()? {
                if range.begin < range.end {
                    visit(range);
                }
            }
        } else if let Some(begin) = self.start {
            // The mark of a removed function, -1, overflows.
            let end = self.bytes.map(|bytes| begin.wrapping_add(bytes));
            let end = self.end.or(end).unwrap_or(begin);
            if begin < end {
                visit(Range { begin, end });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check functions within functions, behind each other and at one address.
    #[test]
    fn of_several_functions_the_last_start_counts() {
        let ranges = [
            (10, 50, 1),
            (20, 30, 2),
            (30, 31, 3),
            (60, 70, 4),
            (60, 70, 5),
        ];
        let range = |(begin, end, entry)| FunctionRange {
            begin,
            end,
            entry: UnitOffset(entry),
        };
        let functions = Functions(ranges.map(range).into());
        for (address, entry) in [
            (9, None),
            (10, Some(1)),
            (29, Some(2)),
            (30, Some(3)),
            (31, Some(1)),
            (50, None),
            (69, Some(5)),
            (u64::MAX, None),
        ] {
            assert_eq!(functions.find(address), entry.map(UnitOffset), "{address}");
        }
    }
}
