//! Index of the units in a file's debug information: their offsets and address ranges.
//!
//! The ranges of a unit come from `.debug_aranges`; without an entry there, from the unit's own attributes; without these, from its
//! line table. The 30,000 units of a browser take 2 MB.

use std::iter::Peekable;
use std::sync::Arc;

use gimli::{
    ArangeHeader, DebugInfoOffset, Dwarf, Reader as _, Result, Section as _, UnitHeader, UnitType,
};

use super::bytes::Bytes;
use super::unit::OpenUnit;

/// Units that an address may belong to. It belongs to several where the linker kept one of several equal functions.
const UNITS_OF_ADDRESS_MAX: usize = 16;

/// Ranges collected before adjacent ranges of the same unit are joined: 2 MB.
const RANGES_UNJOINED_MAX: usize = 100_000;

/// Ranges in all: 24 MB. A unit has four or five joined ranges, so that 200,000 units fit.
const RANGES_MAX: usize = 1_000_000;

/// Units and their addresses.
#[derive(Debug, Default)]
pub(super) struct UnitIndex {
    /// Offsets of the units in `.debug_info`, and the end of the last.
    edges: Vec<usize>,
    ranges: Vec<UnitRange>,
    /// For each range, the highest end among it and the ranges before it: a search backwards stops where this is too low.
    reach: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnitRange {
    start: u64,
    end: u64,
    unit: u32,
}

impl UnitIndex {
    /// Reads the headers of all units.
    pub(super) fn read_edges(dwarf: &Dwarf<Bytes>) -> Result<Self> {
        let mut index = Self::default();
        index.read_headers(dwarf, |_, _| {})?;
        Ok(index)
    }

    /// Reads the headers and the addresses of all units. A damaged unit has only the addresses before the damage.
    pub(super) fn read(dwarf: &Arc<Dwarf<Bytes>>) -> Result<Self> {
        let mut index = Self::default();
        let sets = dwarf.debug_aranges.headers().map_while(Result::ok);
        let mut sets = sets.peekable();
        let mut joined = 0;
        index.read_headers(dwarf, |index, header| {
            let Some(offset) = header.debug_info_offset() else {
                return;
            };
            // The listed ranges first: the unit's own attributes need its abbreviations, which take time to read.
            if !read_listed_ranges(&mut sets, offset.0, |range| index.push(range))
                && has_code(&header)
            {
                // The ranges before an error stay.
                let _ = read_unit_ranges(dwarf, header, |range| index.push(range));
            }
            if index.ranges.len() - joined > RANGES_UNJOINED_MAX {
                index.join();
                joined = index.ranges.len();
            }
        })?;
        index.join();
        index.ranges.shrink_to_fit();
        index.find_reach();
        Ok(index)
    }

    fn read_headers(
        &mut self,
        dwarf: &Dwarf<Bytes>,
        mut visit: impl FnMut(&mut Self, UnitHeader<Bytes>),
    ) -> Result<()> {
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            if let Some(offset) = header.debug_info_offset() {
                self.edges.push(offset.0);
                visit(self, header);
            }
        }
        self.edges.push(dwarf.debug_info.reader().len());
        self.edges.shrink_to_fit();
        Ok(())
    }

    /// Adds a range of the last unit.
    fn push(&mut self, gimli::Range { begin, end }: gimli::Range) {
        if begin < end && begin != 0 && self.ranges.len() < RANGES_MAX {
            self.ranges.push(UnitRange {
                start: begin,
                end,
                unit: self.edges.len() as u32 - 1,
            });
        }
    }

    /// Sorts the ranges, and joins consecutive ranges of the same unit.
    fn join(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, before| {
            let is_same_unit = next.unit == before.unit;
            if is_same_unit {
                before.end = before.end.max(next.end);
            }
            is_same_unit
        });
    }

    fn find_reach(&mut self) {
        let mut highest = 0;
        let reach = self.ranges.iter().map(|range| {
            highest = range.end.max(highest);
            highest
        });
        self.reach = reach.collect();
    }

    /// The units that may have an address.
    pub(super) fn find(&self, address: u64) -> Vec<u32> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let reaching = (0..after)
            .rev()
            .take_while(|at| self.reach[*at] > address)
            .map(|at| self.ranges[at])
            .filter(|range| range.end > address);
        let units = reaching.map(|range| range.unit);
        units.take(UNITS_OF_ADDRESS_MAX).collect()
    }

    /// The unit at an offset in the section.
    pub(super) fn at(&self, offset: usize) -> Option<u32> {
        let after = self.edges.partition_point(|edge| *edge <= offset);
        let is_within = after > 0 && after < self.edges.len();
        is_within.then(|| after as u32 - 1)
    }

    /// The offset of a unit in the section.
    pub(super) fn offset_of(&self, unit: u32) -> DebugInfoOffset {
        DebugInfoOffset(self.edges.get(unit as usize).copied().unwrap_or(usize::MAX))
    }
}

/// Whether a unit may have code of its own.
fn has_code(header: &UnitHeader<Bytes>) -> bool {
    use UnitType::{Partial, SplitType, Type};
    !matches!(header.type_(), Partial | Type { .. } | SplitType { .. })
}

/// Reads the ranges of a unit from its first entry, or from its line table if the entry has none.
fn read_unit_ranges(
    dwarf: &Arc<Dwarf<Bytes>>,
    header: UnitHeader<Bytes>,
    mut push: impl FnMut(gimli::Range),
) -> Result<()> {
    let abbreviations = dwarf.abbreviations(&header)?;
    let unit = OpenUnit::of_header(dwarf, header, abbreviations)?;
    let mut has_any = false;
    let mut ranges = unit.unit_ref().unit_ranges()?;
    while let Some(range) = ranges.next()? {
        has_any |= range.begin < range.end;
        push(range);
    }
    if !has_any && let Some(lines) = unit.lines()? {
        lines.ranges().for_each(push);
    }
    Ok(())
}

/// Reads the ranges of the unit at an offset from `.debug_aranges`, whose units are usually sorted by offset. Returns whether there are
/// any.
fn read_listed_ranges(
    sets: &mut Peekable<impl Iterator<Item = ArangeHeader<Bytes>>>,
    offset: usize,
    mut push: impl FnMut(gimli::Range),
) -> bool {
    while sets
        .next_if(|set| set.debug_info_offset().0 < offset)
        .is_some()
    {}
    let mut has_any = false;
    while let Some(set) = sets.next_if(|set| set.debug_info_offset().0 == offset) {
        // A range that overflows is skipped. After damage the iterator ends.
        for entry in set.entries().flatten() {
            has_any |= entry.length() > 0;
            push(entry.range());
        }
    }
    has_any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(ranges: &[(u64, u64, u32)]) -> UnitIndex {
        let range = |&(start, end, unit): &(u64, u64, u32)| UnitRange { start, end, unit };
        let mut index = UnitIndex {
            edges: vec![0, 10, 30, 60],
            ranges: ranges.iter().map(range).collect(),
            reach: Vec::new(),
        };
        index.join();
        index.find_reach();
        index
    }

    /// Check that consecutive ranges of a unit are joined, and that a unit's range may lie within another unit's.
    #[test]
    fn addresses_lead_to_units() {
        let index = index(&[
            (20, 30, 0),
            (10, 12, 0),
            (40, 50, 1),
            (60, 65, 0),
            (42, 44, 2),
        ]);
        assert_eq!(index.ranges.len(), 4);
        for (address, units) in [
            (9, &[][..]),
            (10, &[0]),
            (15, &[0]),
            (30, &[]),
            (43, &[2, 1]),
            (45, &[1]),
            (64, &[0]),
            (65, &[]),
            (u64::MAX, &[]),
        ] {
            assert_eq!(index.find(address), units, "{address}");
        }
    }

    /// Check offsets.
    #[test]
    fn offsets_lead_to_units() {
        let index = index(&[]);
        for (offset, unit) in [
            (0, Some(0)),
            (9, Some(0)),
            (10, Some(1)),
            (59, Some(2)),
            (60, None),
        ] {
            assert_eq!(index.at(offset), unit, "{offset}");
        }
        assert!(UnitIndex::default().at(0).is_none() && UnitIndex::default().find(0).is_empty());
    }
}
