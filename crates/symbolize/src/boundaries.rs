//! Start addresses of functions without a symbol. Call frame information stays in stripped files and has a record for each function, so
//! that all addresses of a function can be shown as one, though without a name.
//!
//! In: an untrusted file, and addresses as linked. Out: an address's distance from the start of its function. A damaged table gives
//! no answers, or wrong ones about its own file.
//!
//! Source: Linux Standard Base 5.0, 10.6 (`.eh_frame`, `.eh_frame_hdr`).
//!
//! So the flame graph of stripped code keeps its shape. Addresses are stored as they are: symbols that come later are looked up by
//! them. The records also end labels, which have no length of their own.

use std::ops::Range;

use elf::{FileRange, Headers, Layout, ReadAt};
use object::elf::PT_GNU_EH_FRAME;

/// Version, three encodings, and two numbers of four bytes: a pointer, and the count of entries.
const HEAD_BYTES: u64 = 12;
/// Two numbers of four bytes: the distances from the table's address to a function and to its record.
const ENTRY_BYTES: u64 = 8;
/// Version 1, a count of four bytes, and signed distances of four bytes from the table's address. Linkers write no other. (The second
/// byte is the encoding of the pointer, which is not used.)
const VERSION: u8 = 1;
const COUNT_ENCODING: u8 = 0x03;
const TABLE_ENCODING: u8 = 0x3b;

/// The table of a file's functions, for binary search.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boundaries {
    address: u64,
    range: FileRange,
}

impl Boundaries {
    /// Finds the table; without one, no function is found.
    pub fn read(headers: &Headers) -> Self {
        let mut headers = headers.program_headers().iter();
        let header = headers.find(|header| header.kind == PT_GNU_EH_FRAME);
        header.map_or_else(Self::default, |header| Self {
            address: header.address,
            range: header.range,
        })
    }

    /// The bytes from the start of its function to an address. `layout` is that of the same file.
    pub fn find(
        &self,
        file: &(impl ReadAt + ?Sized),
        layout: &Layout,
        address: u64,
    ) -> Option<u32> {
        let function = self.find_function(file, layout, address)?;
        u32::try_from(address - function.start).ok()
    }

    /// The addresses of the function that has the code at an address.
    pub(crate) fn find_function(
        &self,
        file: &(impl ReadAt + ?Sized),
        layout: &Layout,
        address: u64,
    ) -> Option<Range<u64>> {
        let place = self.count_until(file, address)?.checked_sub(1)?;
        let (start, record) = self.read_entry(file, place)?;
        let at = layout.offset_of(record)?;
        let word = |index: u64| file.read_u32(at.checked_add(4 * index)?);
        let (length, parent, start_distance, bytes) = (word(0)?, word(1)?, word(2)?, word(3)?);
        // Records of another kind have no start there.
        let is_record = length != 0 && length != u32::MAX && parent != 0;
        let is_same = add_distance(record.wrapping_add(8), start_distance) == start;
        let function = start..start.checked_add(bytes.into())?;
        (is_record && is_same && function.contains(&address)).then_some(function)
    }

    /// The start of the next function behind an address.
    pub(crate) fn find_next(&self, file: &(impl ReadAt + ?Sized), address: u64) -> Option<u64> {
        let place = self.count_until(file, address)?;
        let is_last = place == self.count(file)?;
        let (start, _) = (!is_last).then(|| self.read_entry(file, place))??;
        Some(start)
    }

    /// Functions that start at or before an address: at most 33 reads.
    fn count_until(&self, file: &(impl ReadAt + ?Sized), address: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.count(file)?);
        while low < high {
            let middle = low.midpoint(high);
            if self.read_entry(file, middle)?.0 <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    /// The functions of the table, if it is one that can be read.
    fn count(&self, file: &(impl ReadAt + ?Sized)) -> Option<u64> {
        let [version, _, count, table] = file.read_array(self.range.offset)?;
        if [version, count, table] != [VERSION, COUNT_ENCODING, TABLE_ENCODING] {
            return None;
        }
        let count = u64::from(file.read_u32(self.range.offset.checked_add(8)?)?);
        (count <= self.range.bytes.checked_sub(HEAD_BYTES)? / ENTRY_BYTES).then_some(count)
    }

    fn read_entry(&self, file: &(impl ReadAt + ?Sized), index: u64) -> Option<(u64, u64)> {
        let at = self.range.offset.checked_add(HEAD_BYTES)?;
        let at = at.checked_add(index * ENTRY_BYTES)?;
        let start = add_distance(self.address, file.read_u32(at)?);
        let record = add_distance(self.address, file.read_u32(at.checked_add(4)?)?);
        Some((start, record))
    }
}

fn add_distance(address: u64, distance: u32) -> u64 {
    address.wrapping_add_signed(i64::from(distance as i32))
}

#[cfg(test)]
mod tests {
    use elf::Limits;
    use object::{Object as _, ObjectSymbol as _, SymbolKind};

    use super::*;

    struct Program {
        bytes: Vec<u8>,
        layout: Layout,
        boundaries: Boundaries,
    }

    impl Program {
        fn this() -> Self {
            let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
            let headers = Headers::read(&*bytes, Limits::MAPPED).unwrap();
            Self {
                bytes,
                layout: headers.layout(),
                boundaries: Boundaries::read(&headers),
            }
        }

        fn find(&self, address: u64) -> Option<u32> {
            self.boundaries.find(&*self.bytes, &self.layout, address)
        }
    }

    /// Check the functions of this program against its symbols.
    #[test]
    fn functions_start_where_their_symbols_are() {
        let program = Program::this();
        let file = object::File::parse(&*program.bytes).unwrap();
        let functions = file
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
            .filter(|symbol| symbol.name().is_ok_and(|name| name.contains("symbolize")));
        let (mut same, mut all) = (0, 0);
        for function in functions {
            let (start, bytes) = (function.address(), function.size());
            for distance in [0, bytes / 2, bytes - 1] {
                all += 1;
                same += u32::from(program.find(start + distance) == Some(distance as u32));
            }
        }
        assert!(all > 1000 && same == all, "{same} of {all}");
        for nowhere in [0, 1, u64::MAX] {
            assert_eq!(program.find(nowhere), None);
        }
    }

    /// Check that functions follow one another up to the last one.
    #[test]
    fn functions_in_their_order() {
        let program = Program::this();
        let Program {
            bytes,
            layout,
            boundaries,
        } = &program;
        let next = |start: &u64| boundaries.find_next(&**bytes, *start);
        let starts: Vec<u64> = std::iter::successors(next(&0), next).collect();
        assert_eq!(Some(starts.len() as u64), boundaries.count(&**bytes));
        for start in &starts[1..100] {
            let function = boundaries.find_function(&**bytes, layout, *start).unwrap();
            assert_eq!(function.start, *start);
            assert!(next(start).unwrap() >= function.end, "{start:#x}");
        }
    }

    /// Check that damage in the table and in the records causes no panic, and no wrong function.
    #[test]
    fn damage_is_no_answer() {
        let mut program = Program::this();
        let offset = program.boundaries.range.offset;
        let code = program.layout.segments().to_vec();
        for at in (0..4096).map(|distance| offset as usize + distance) {
            let before = program.bytes[at];
            program.bytes[at] ^= 0xff;
            for segment in &code {
                program.find(segment.address + segment.bytes / 2);
            }
            program.bytes[at] = before;
        }
        let whole = program.bytes.clone();
        for end in [offset as usize, offset as usize + 11, offset as usize + 20] {
            program.bytes.truncate(end);
            assert_eq!(program.find(code[1].address + 64), None);
            program.bytes = whole.clone();
        }
        program.boundaries.range.bytes = 16;
        assert_eq!(program.find(code[1].address + 64), None);
    }
}
