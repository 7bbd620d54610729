//! Functions at addresses of a large program, of which only the units are read that have them.
//!
//! A reader of debug information keeps something of each unit, and of some thousand units it is more than the child may
//! take. So each unit has a reader of its own, for which the others are a hole: one unit of types, which it passes over.

use gimli::{DebugAranges, DebugInfo, Dwarf, DwarfSections, Error, Section as _};

use rustc_hash::FxHashMap;

use super::bytes::{Bytes, Patch};
use super::reader::{Lookup, read_lookup};
use super::units::UnitIndex;

/// Units that are open: one of C++ takes 1 to 2 MB with its lines.
const OPEN_MAX: usize = 24;

/// Other units that one refers to, as programs have them that were optimized as a whole.
const REFERRED_MAX: usize = 64;

/// Units whose references are remembered: 2 MB, if each has as many as it may.
const REFERRING_MAX: usize = 8192;

/// Bytes of a type unit's header (DWARF 5, 7.5.1.3), with offsets of 4 and of 8 bytes.
const HEADER_BYTES: usize = 24;
const HEADER_BYTES_LONG: usize = 40;
const VERSION: u8 = 5;
const UNIT_OF_TYPES: u8 = 2;

/// The debug information of a large program.
pub(super) struct UnitwiseReader {
    sections: DwarfSections<Bytes>,
    index: UnitIndex,
    /// The one used last comes last.
    open: Vec<OpenUnit>,
    /// Units that refer to others, with those and themselves, in their order. It is found out one by one.
    referring: FxHashMap<u32, Vec<u32>>,
}

struct OpenUnit {
    unit: u32,
    /// It, and those that it refers to, in their order.
    units: Vec<u32>,
    context: addr2line::Context<Bytes>,
}

impl UnitwiseReader {
    /// Looks at all units once.
    pub(super) fn open(mut sections: DwarfSections<Bytes>) -> gimli::Result<Self> {
        let index = UnitIndex::read(&sections.borrow(Bytes::clone))?;
        // Of all units, and would be gone through for each.
        sections.debug_aranges = DebugAranges::from(Bytes::none());
        Ok(Self {
            sections,
            index,
            open: Vec::new(),
            referring: FxHashMap::default(),
        })
    }

    /// Forgets the units, but not where they are.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// Looks an address up.
    pub(super) fn find(&mut self, address: u64) -> Lookup {
        for unit in self.index.find(address) {
            match self.find_in(unit, address) {
                Ok(Lookup::Nothing) => {}
                Ok(found) => return found,
                Err(_) => return Lookup::Damaged,
            }
        }
        Lookup::Nothing
    }

    fn find_in(&mut self, unit: u32, address: u64) -> gimli::Result<Lookup> {
        let mut open = match self.open.iter().position(|it| it.unit == unit) {
            Some(at) => self.open.remove(at),
            None => {
                let known = self.referring.get(&unit).cloned();
                self.open_unit(unit, known.unwrap_or_else(|| vec![unit]))?
            }
        };
        for _ in 0..REFERRED_MAX {
            let found = open.context.find_frames(address).skip_all_loads();
            let found = found.and_then(|mut frames| read_lookup(&mut frames));
            let Err(Error::NoEntryAtGivenOffset(offset)) = found else {
                self.keep(open);
                return found;
            };
            let referred = self
                .index
                .at(offset)
                .ok_or(Error::NoEntryAtGivenOffset(offset))?;
            let mut units = open.units;
            match units.binary_search(&referred) {
                Ok(_) => return Err(Error::NoEntryAtGivenOffset(offset)),
                Err(at) => units.insert(at, referred),
            }
            if self.referring.len() >= REFERRING_MAX {
                self.referring.clear();
            }
            self.referring.insert(unit, units.clone());
            open = self.open_unit(unit, units)?;
        }
        self.keep(open);
        Ok(Lookup::Damaged)
    }

    fn keep(&mut self, open: OpenUnit) {
        if self.open.len() >= OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push(open);
    }

    fn open_unit(&self, unit: u32, units: Vec<u32>) -> gimli::Result<OpenUnit> {
        let holes = self.index.holes(&units);
        let patches = holes.iter().filter_map(|it| {
            Some(Patch {
                at: it.start,
                bytes: header_of_types(it.len())?,
            })
        });
        let section = self.sections.debug_info.reader();
        let dwarf = Dwarf {
            debug_info: DebugInfo::from(section.patch(patches.collect())),
            ..self.sections.borrow(Bytes::clone)
        };
        let context = addr2line::Context::from_dwarf(dwarf)?;
        Ok(OpenUnit {
            unit,
            units,
            context,
        })
    }
}

/// A unit of so many bytes that has no functions; `None` if its header would not fit. (The units there are then read.)
fn header_of_types(bytes: usize) -> Option<Vec<u8>> {
    let mut header = Vec::new();
    let word = match u32::try_from(bytes).ok().filter(|it| *it < 0xffff_fff0) {
        Some(bytes) => {
            header.extend(bytes.checked_sub(4)?.to_le_bytes());
            4
        }
        None => {
            header.extend([0xff; 4]);
            header.extend((bytes as u64 - 12).to_le_bytes());
            8
        }
    };
    header.extend([VERSION, 0, UNIT_OF_TYPES, 8]);
    // Where its abbreviations are, its number, and where its type is: no matter.
    header.resize(header.len() + word + 8 + word, 0);
    debug_assert!([HEADER_BYTES, HEADER_BYTES_LONG].contains(&header.len()));
    (header.len() <= bytes).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that gimli passes over a hole of either form as one unit of types.
    #[test]
    fn holes_are_units_of_types() {
        for bytes in [24, 100, 5000] {
            let mut section = header_of_types(bytes).unwrap();
            section.resize(bytes, 0xcc);
            let info = DebugInfo::from(Bytes::of_memory(section));
            let mut units = info.units();
            let unit = units.next().unwrap().unwrap();
            assert!(matches!(unit.type_(), gimli::UnitType::Type { .. }));
            assert!(matches!(units.next(), Ok(None)), "{bytes}");
        }
        assert_eq!(header_of_types(23), None);
        assert_eq!(header_of_types(3), None);
        let long = header_of_types(1 << 33).unwrap();
        assert_eq!(long.len(), HEADER_BYTES_LONG);
        assert_eq!(long[4..12], ((1_u64 << 33) - 12).to_le_bytes());
    }
}
