//! Where the units of a large program's debug information are, and which addresses each has. All units are looked at once,
//! and nothing of them is kept but this: 2 MB for the 30,000 of a browser, where what readers keep of each takes 100 KB.

use std::ops::Range;

use gimli::{Dwarf, Reader as _, Section as _};

use super::bytes::Bytes;

/// Units that may have one address. More than one has it where the linker took one of several equal functions.
const UNITS_OF_ADDRESS_MAX: usize = 16;

/// Ranges that are collected before those of a unit that follow each other are joined: 2 MB.
const RANGES_UNJOINED_MAX: usize = 100_000;

/// Ranges in all: 24 MB. A unit has four or five when they are joined, so that these are enough for 200,000 units.
const RANGES_MAX: usize = 1_000_000;

/// The units and their addresses.
#[derive(Debug, Default)]
pub(super) struct UnitIndex {
    /// Where each begins, and the end of the last.
    edges: Vec<usize>,
    ranges: Vec<UnitRange>,
    /// For each range, the end of the one that reaches farthest of it and those before.
    reach: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnitRange {
    start: u64,
    end: u64,
    unit: u32,
}

impl UnitIndex {
    /// Looks at all units. One that cannot be read has no addresses.
    pub(super) fn read(dwarf: &Dwarf<Bytes>) -> gimli::Result<Self> {
        let mut index = Self::default();
        let mut units = dwarf.units();
        let mut joined = 0;
        while let Some(header) = units.next()? {
            let Some(offset) = header.debug_info_offset() else {
                continue;
            };
            let number = index.edges.len() as u32;
            index.edges.push(offset.0);
            let Ok(unit) = dwarf.unit(header) else {
                continue;
            };
            let Ok(mut ranges) = dwarf.unit_ranges(&unit) else {
                continue;
            };
            while let Ok(Some(gimli::Range { begin, end })) = ranges.next() {
                if begin < end && begin != 0 && index.ranges.len() < RANGES_MAX {
                    index.ranges.push(UnitRange {
                        start: begin,
                        end,
                        unit: number,
                    });
                }
            }
            if index.ranges.len() - joined > RANGES_UNJOINED_MAX {
                index.join();
                joined = index.ranges.len();
            }
        }
        index.edges.push(dwarf.debug_info.reader().len());
        index.join();
        let mut farthest = 0;
        let reach = index.ranges.iter().map(|it| {
            farthest = it.end.max(farthest);
            farthest
        });
        index.reach = reach.collect();
        index.ranges.shrink_to_fit();
        Ok(index)
    }

    /// Sorts the ranges, and joins those of a unit between which nothing else begins.
    fn join(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, before| {
            let is_one = next.unit == before.unit;
            if is_one {
                before.end = before.end.max(next.end);
            }
            is_one
        });
    }

    /// The units that may have an address.
    pub(super) fn find(&self, address: u64) -> Vec<u32> {
        let after = self.ranges.partition_point(|it| it.start <= address);
        let reaching = (0..after)
            .rev()
            .take_while(|at| self.reach[*at] > address)
            .map(|at| self.ranges[at])
            .filter(|it| it.end > address);
        let units = reaching.map(|it| it.unit);
        units.take(UNITS_OF_ADDRESS_MAX).collect()
    }

    /// The unit that has an offset in the section.
    pub(super) fn at(&self, offset: u64) -> Option<u32> {
        let offset = usize::try_from(offset).ok()?;
        let after = self.edges.partition_point(|it| *it <= offset);
        let is_within = after > 0 && after < self.edges.len();
        is_within.then(|| after as u32 - 1)
    }

    /// What lies between these units, which are in their order.
    pub(super) fn holes(&self, units: &[u32]) -> Vec<Range<usize>> {
        let end = self.edges.last().copied().unwrap_or(0);
        let mut holes = Vec::with_capacity(units.len() + 1);
        let mut from = self.edges.first().copied().unwrap_or(0);
        for unit in units {
            let at = *unit as usize;
            if let Some([start, next]) = self.edges.get(at..at + 2) {
                holes.push(from..*start);
                from = *next;
            }
        }
        holes.push(from..end);
        holes.retain(|it| !it.is_empty());
        holes
    }
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
        let mut farthest = 0;
        for range in &index.ranges {
            farthest = range.end.max(farthest);
            index.reach.push(farthest);
        }
        index
    }

    /// Check that ranges of a unit are one where nothing lies between them, and that units may lie in each other.
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

    /// Check offsets, and what is left out between units.
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
        for (units, holes) in [
            (&[1][..], "[0..10, 30..60]"),
            (&[0, 1], "[30..60]"),
            (&[0, 2], "[10..30]"),
            (&[0, 1, 2], "[]"),
            (&[7], "[0..60]"),
        ] {
            assert_eq!(format!("{:?}", index.holes(units)), holes);
        }
        assert!(UnitIndex::default().at(0).is_none() && UnitIndex::default().find(0).is_empty());
    }
}
