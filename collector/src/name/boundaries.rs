//! Where functions start that have no symbol. Call frame information stays when a file is stripped, and has a record for
//! each function: so all addresses of one function can be shown as one, though nobody knows its name.
//!
//! In: an open file and addresses as linked. Out: how far into its function an address is. A damaged table has no answer,
//! or a wrong one about its own file.
//!
//! Source: Linux Standard Base 5.0, 10.6 (`.eh_frame`, `.eh_frame_hdr`).

use object::elf::{FileHeader64, PT_GNU_EH_FRAME};
use object::read::elf::{ElfFile, ProgramHeader as _};
use object::{LittleEndian, ReadRef};

use super::facts::FileFacts;
use super::symbols::ReadAt;

/// Version, three encodings, a pointer and a number of four bytes each.
const HEAD_BYTES: u64 = 12;
/// Two distances from the table's own address: to a function, and to its record.
const ENTRY_BYTES: u64 = 8;
/// Version 1; a number of four bytes; distances of four bytes, signed, from the table's address. Linkers write nothing
/// else. (The second byte is the encoding of the pointer, which is not used.)
const VERSION: u8 = 1;
const COUNT_ENCODING: u8 = 0x03;
const TABLE_ENCODING: u8 = 0x3b;
/// What lies between a record's start and the address in it.
const RECORD_HEAD_BYTES: u64 = 8;

/// The table of a file's functions, for binary search.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boundaries {
    address: u64,
    offset: u64,
    bytes: u64,
}

impl Boundaries {
    /// Reads where the table is; without one, no function is found.
    pub fn read<'data, R: ReadRef<'data>>(
        file: &ElfFile<'data, FileHeader64<LittleEndian>, R>,
    ) -> Self {
        let endian = file.endian();
        let mut headers = file.elf_program_headers().iter();
        let header = headers.find(|it| it.p_type(endian) == PT_GNU_EH_FRAME);
        header.map_or_else(Self::default, |it| Self {
            address: it.p_vaddr(endian),
            offset: it.p_offset(endian),
            bytes: it.p_filesz(endian),
        })
    }

    /// How many bytes after the start of its function an address lies. `facts` are those of the same file.
    pub fn find(
        &self,
        file: &(impl ReadAt + ?Sized),
        facts: &FileFacts,
        address: u64,
    ) -> Option<u32> {
        let (start, record) = self.search(file, self.count(file)?, address)?;
        let distance = u32::try_from(address.checked_sub(start)?).ok()?;
        let mut head = [0; 16];
        let at = facts.offset_of(record)?;
        if !file.read(at, &mut head) {
            return None;
        }
        let [length, parent, to_start, bytes] = words(head);
        // A record of another kind has other fields, whose start is another.
        let is_record = length != 0 && length != u32::MAX && parent != 0;
        let from = record.wrapping_add(RECORD_HEAD_BYTES);
        let its_start = from.wrapping_add_signed(i64::from(to_start as i32));
        (is_record && its_start == start && distance < bytes).then_some(distance)
    }

    fn count(&self, file: &(impl ReadAt + ?Sized)) -> Option<u64> {
        let mut head = [0; HEAD_BYTES as usize];
        if self.bytes < HEAD_BYTES || !file.read(self.offset, &mut head) {
            return None;
        }
        let [version, _, count, table, .., a, b, c, d] = head;
        let is_known = [version, count, table] == [VERSION, COUNT_ENCODING, TABLE_ENCODING];
        let count = u64::from(u32::from_le_bytes([a, b, c, d]));
        (is_known && count <= (self.bytes - HEAD_BYTES) / ENTRY_BYTES).then_some(count)
    }

    /// The last function that starts at or before an address, and its record: at most 33 reads.
    fn search(
        &self,
        file: &(impl ReadAt + ?Sized),
        count: u64,
        address: u64,
    ) -> Option<(u64, u64)> {
        let (mut low, mut high) = (0, count);
        let mut found = None;
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.entry(file, middle)?;
            if entry.0 <= address {
                found = Some(entry);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        found
    }

    fn entry(&self, file: &(impl ReadAt + ?Sized), number: u64) -> Option<(u64, u64)> {
        let mut entry = [0; ENTRY_BYTES as usize];
        let at = self.offset.checked_add(HEAD_BYTES + number * ENTRY_BYTES)?;
        if !file.read(at, &mut entry) {
            return None;
        }
        let [start, record] = words(entry);
        let from_table = |distance| self.address.wrapping_add_signed(i64::from(distance as i32));
        Some((from_table(start), from_table(record)))
    }
}

/// The little-endian words of some bytes.
fn words<const BYTES: usize, const WORDS: usize>(bytes: [u8; BYTES]) -> [u32; WORDS] {
    const { assert!(BYTES == WORDS * 4) };
    std::array::from_fn(|at| {
        let word = &bytes[at * 4..at * 4 + 4];
        word.iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::facts::read_facts;
    use object::{Object as _, ObjectSymbol as _, SymbolKind};

    struct Program {
        bytes: Vec<u8>,
        facts: FileFacts,
        boundaries: Boundaries,
    }

    impl Program {
        fn read(bytes: Vec<u8>) -> Self {
            let file = ElfFile::parse(&*bytes).unwrap();
            let facts = read_facts(&file).0;
            let boundaries = Boundaries::read(&file);
            Self {
                bytes,
                facts,
                boundaries,
            }
        }

        fn this() -> Self {
            Self::read(std::fs::read(std::env::current_exe().unwrap()).unwrap())
        }

        fn find(&self, address: u64) -> Option<u32> {
            self.boundaries.find(&*self.bytes, &self.facts, address)
        }
    }

    /// Check the functions of this very program: what the table says is what the symbols say.
    #[test]
    fn functions_start_where_their_symbols_are() {
        let program = Program::this();
        let file = object::File::parse(&*program.bytes).unwrap();
        let functions = file
            .symbols()
            .filter(|it| it.kind() == SymbolKind::Text && it.size() > 0)
            .filter(|it| it.name().is_ok_and(|name| name.contains("collector")));
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

    /// Check that damage in the table and in the records gives no panic, and no function that has not the address.
    #[test]
    fn damage_is_no_answer() {
        let mut program = Program::this();
        let Boundaries { offset, .. } = program.boundaries;
        let code = program.facts.segments.clone();
        for at in (0..4096).map(|it| offset as usize + it) {
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
        program.boundaries.bytes = 16;
        assert_eq!(program.find(code[1].address + 64), None);
    }
}
