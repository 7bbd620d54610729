//! Names from symbol tables.
//!
//! In: an untrusted ELF file, and addresses as linked. Out: the name of the function at each address, if the file has one. A symbol
//! names the bytes that its length covers; a label, which has no length, those up to the end that the caller knows.
//!
//! The table is read once for all addresses of a call, in pieces, and of the names only the wanted ones; nothing is kept between calls.
//! A compiler has half a million symbols with 40 MB of names: sorting them takes 100 ms and 30 MB, reading through them 3 ms and 64 KB.
//!
//! Sources: System V ABI, chapter 4 (symbol table, relocation); System V ABI for AMD64, 5.2 (procedure linkage table).

use elf::{FileRange, Headers, ReadAt, SectionHeader};
use object::LittleEndian;
use object::elf::{
    R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, Rela64, SHF_ALLOC, SHT_DYNSYM, SHT_NOBITS, SHT_RELA,
    SHT_SYMTAB, STB_LOCAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, SectionType, Sym64,
};
use object::pod::{Pod, slice_from_bytes};

use crate::strings::read_string;

const LE: LittleEndian = LittleEndian;

/// Entries of a table that are read at once: 64 KB of symbols or relocations.
const PIECE_ENTRIES: u64 = 2730;

/// Bytes of a table: 11 million symbols, twenty times those of a browser. Reading them takes 0.1 s.
const TABLE_BYTES_MAX: u64 = 256 << 20;

/// Loaded tables of relocations that are read: programs have two, static ones one.
const RELOCATION_TABLES_MAX: usize = 8;

/// Bytes of relocations that are read for one call: ten times those of a browser. Reading them takes 0.1 s.
const RELOCATION_BYTES_MAX: u64 = 256 << 20;

/// Bytes of an entry of a procedure linkage table.
const LINKAGE_ENTRY_BYTES: u64 = 16;

/// The symbol tables and code sections of a file.
#[derive(Clone, Debug, Default)]
pub struct SymbolTables {
    sections: Vec<SectionHeader>,
    /// Whether there is a compressed table as well (`.gnu_debugdata`).
    pub has_compressed: bool,
}

impl SymbolTables {
    /// Keeps the section headers of a file.
    pub fn read(headers: &Headers) -> Self {
        Self {
            sections: headers.sections().to_vec(),
            has_compressed: headers.section(b".gnu_debugdata").is_some(),
        }
    }

    /// The names at addresses as linked, in their order. [`Self::find_linkages`] names the entries of linkage tables.
    ///
    /// `end_of` finds the end of the function of a label, a symbol without a length. It is asked in the order of addresses.
    pub fn find(
        &self,
        file: &(impl ReadAt + ?Sized),
        addresses: &[u64],
        mut end_of: impl FnMut(u64) -> u64,
    ) -> Vec<Option<String>> {
        let mut found = vec![None; addresses.len()];
        // The other table, if there is one, has the dynamic symbols as well.
        let table = self.table(SHT_SYMTAB).or_else(|| self.table(SHT_DYNSYM));
        if let Some(table) = table
            && let Some(names) = self.sections.get(table.link as usize)
        {
            let mut search = Search::new(addresses, &self.sections);
            for_each_entry(file, table, |symbol| search.offer(symbol));
            for (index, symbol) in search.finish(&mut end_of) {
                found[index] = read_name(file, names.range, symbol.name);
            }
        }
        found
    }

    fn table(&self, kind: SectionType) -> Option<&SectionHeader> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// The names of entries of procedure linkage tables at addresses as linked, in their order: the name of the called function and
    /// `@plt`; `None` for other code.
    ///
    /// An entry is identified by the pointer that it jumps through, in any kind of table.
    pub fn find_linkages(
        &self,
        file: &(impl ReadAt + ?Sized),
        addresses: &[u64],
    ) -> Vec<Option<String>> {
        let slots = addresses
            .iter()
            .map(|address| self.read_slot(file, *address));
        let slots: Vec<Option<u64>> = slots.collect();
        let mut wanted: Vec<u64> = slots.iter().copied().flatten().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let found = self.find_relocated(file, &wanted);
        let name_of = |slot: Option<u64>| {
            let index = wanted.binary_search(&slot?).ok()?;
            self.read_linked_name(file, found[index]?)
        };
        slots.into_iter().map(name_of).collect()
    }

    /// The address of the pointer that an entry of a linkage table jumps through.
    fn read_slot(&self, file: &(impl ReadAt + ?Sized), address: u64) -> Option<u64> {
        let section = self.sections.iter().find(|section| {
            section.is_code() && section.kind != SHT_NOBITS && section.contains(address)
        })?;
        // `.plt`, `.plt.sec` and `.plt.got`: other code has no entries.
        let entry_bytes = match section.entry_bytes {
            bytes @ (8 | LINKAGE_ENTRY_BYTES) => bytes,
            _ => return None,
        };
        let offset = address - section.address;
        let start = offset - offset % entry_bytes;
        let entry = file.read_range(FileRange {
            offset: section.range.offset.checked_add(start)?,
            bytes: entry_bytes,
        })?;
        let (end, distance) = read_jump(&entry)?;
        let at = section.address.wrapping_add(start + end);
        Some(at.wrapping_add_signed(distance.into()))
    }

    /// The symbols whose addresses are put at `slots`, which are sorted, in their order.
    fn find_relocated(&self, file: &(impl ReadAt + ?Sized), slots: &[u64]) -> Vec<Option<Linked>> {
        let mut found = vec![None; slots.len()];
        let sections = self.sections.iter();
        let tables = sections
            .filter(|section| section.kind == SHT_RELA && section.flags.contains(SHF_ALLOC));
        let mut bytes_left = RELOCATION_BYTES_MAX;
        for table in tables.take(RELOCATION_TABLES_MAX) {
            if found.iter().all(Option::is_some) {
                break;
            }
            let mut table = *table;
            table.range.bytes = table.range.bytes.min(bytes_left);
            bytes_left -= table.range.bytes;
            for_each_entry(file, &table, |relocation: &Rela64<LittleEndian>| {
                let kind = relocation.r_type(LE, false);
                if matches!(kind, R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT)
                    && let Ok(index) = slots.binary_search(&relocation.r_offset.get(LE))
                {
                    found[index].get_or_insert(Linked {
                        table: table.link,
                        symbol: relocation.r_sym(LE, false),
                    });
                }
            });
        }
        found
    }

    fn read_linked_name(&self, file: &(impl ReadAt + ?Sized), linked: Linked) -> Option<String> {
        let symbols = self.sections.get(linked.table as usize)?;
        let names = self.sections.get(symbols.link as usize)?;
        let at = u64::from(linked.symbol) * size_of::<Sym64<LittleEndian>>() as u64;
        if at >= symbols.range.bytes {
            return None;
        }
        // A symbol begins with its name.
        let name = file.read_u32(symbols.range.offset.checked_add(at)?)?;
        Some(format!("{}@plt", read_name(file, names.range, name)?))
    }
}

/// A symbol of a relocation.
#[derive(Clone, Copy, Debug)]
struct Linked {
    /// Index of the section with the symbol.
    table: u32,
    symbol: u32,
}

/// Decodes the jump through a pointer in an entry: the end of its instruction, and the distance from there to the pointer.
///
/// The instruction is `ff 25` and a distance of four bytes, after a `bnd` (`f2`) or an `endbr64` (`f3 0f 1e fa`), if any.
fn read_jump(entry: &[u8]) -> Option<(u64, i32)> {
    let endbr64 = [0xf3, 0x0f, 0x1e, 0xfa];
    let at = if entry.starts_with(&endbr64) { 4 } else { 0 };
    let at = at + usize::from(entry.get(at) == Some(&0xf2));
    let distance = entry.get(at..)?.strip_prefix(&[0xff, 0x25])?;
    Some((at as u64 + 6, i32::from_le_bytes(*distance.first_chunk()?)))
}

/// Reads the entries of a table, up to the first unreadable piece.
fn for_each_entry<T: Pod>(
    file: &(impl ReadAt + ?Sized),
    table: &SectionHeader,
    mut visit: impl FnMut(&T),
) {
    let entry_bytes = size_of::<T>() as u64;
    if table.entry_bytes != entry_bytes {
        return;
    }
    let mut left = table.range.bytes.min(TABLE_BYTES_MAX) / entry_bytes;
    let mut offset = table.range.offset;
    let mut buffer = vec![0; (left.min(PIECE_ENTRIES) * entry_bytes) as usize];
    while left > 0 {
        let count = left.min(PIECE_ENTRIES);
        let piece = &mut buffer[..(count * entry_bytes) as usize];
        if !file.pread_exact(offset, piece) {
            return;
        }
        let (entries, _) = slice_from_bytes(piece, count as usize).unwrap_or_default();
        entries.iter().for_each(&mut visit);
        left -= count;
        offset = offset.saturating_add(count * entry_bytes);
    }
}

fn read_name(file: &(impl ReadAt + ?Sized), names: FileRange, at: u32) -> Option<String> {
    let offset = names.offset.checked_add(at.into())?;
    let bytes = names.end().checked_sub(offset)?;
    let name = read_string(file, FileRange { offset, bytes })?;
    (!name.is_empty()).then_some(name)
}

/// A symbol of a function, or a label in code.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: u64,
    /// Length, or 0 if it is unknown.
    bytes: u64,
    section: usize,
    name: u32,
    /// Of symbols with the same start, the highest rank counts: functions before labels, and global before weak before local.
    rank: (bool, u8),
}

impl Symbol {
    /// `None` for symbols that are not in code.
    fn read(symbol: &Sym64<LittleEndian>, sections: &[SectionHeader]) -> Option<Self> {
        let section = usize::from(symbol.st_shndx.get(LE).index()?);
        let is_code = sections.get(section)?.is_code();
        let kind = symbol.st_type();
        let binding = match symbol.st_bind() {
            STB_LOCAL => 0,
            STB_WEAK => 1,
            _ => 2,
        };
        let is_code = is_code && matches!(kind, STT_NOTYPE | STT_FUNC | STT_GNU_IFUNC);
        is_code.then(|| Self {
            start: symbol.st_value.get(LE),
            bytes: symbol.st_size.get(LE),
            section,
            name: symbol.st_name.get(LE),
            rank: (kind != STT_NOTYPE, binding),
        })
    }
}

/// The best symbols of an address so far.
struct Query {
    address: u64,
    /// Index among the addresses of the call.
    index: usize,
    /// Of symbols with a length that contain the address, the one that starts last.
    around: Option<Symbol>,
    /// Of all symbols that start after the address of the query before, up to this address, the one that starts last.
    before: Option<Symbol>,
    /// The last end of symbols with a length among the latter.
    end: u64,
}

struct Search<'a> {
    /// By address.
    queries: Vec<Query>,
    sections: &'a [SectionHeader],
}

impl<'a> Search<'a> {
    fn new(addresses: &[u64], sections: &'a [SectionHeader]) -> Self {
        let queries = addresses.iter().enumerate().map(|(index, address)| Query {
            address: *address,
            index,
            around: None,
            before: None,
            end: 0,
        });
        let mut queries: Vec<Query> = queries.collect();
        queries.sort_by_key(|query| query.address);
        Self { queries, sections }
    }

    /// Takes a symbol for the addresses for which it is the best so far.
    fn offer(&mut self, symbol: &Sym64<LittleEndian>) {
        let Some(symbol) = Symbol::read(symbol, self.sections) else {
            return;
        };
        let queries = &mut self.queries;
        let first = queries.partition_point(|query| query.address < symbol.start);
        let Some(query) = queries.get_mut(first) else {
            return;
        };
        // Of symbols with the same start, one with a length knows where the function ends.
        let order = |symbol: &Symbol| (symbol.start, symbol.bytes > 0, symbol.rank);
        let is_better = |best: &Option<Symbol>| {
            best.as_ref()
                .is_none_or(|best| order(&symbol) > order(best))
        };
        if is_better(&query.before) {
            query.before = Some(symbol);
        }
        let end = symbol.start.saturating_add(symbol.bytes);
        query.end = query.end.max(end);
        for query in &mut queries[first..] {
            if query.address >= end {
                break;
            }
            if is_better(&query.around) {
                query.around = Some(symbol);
            }
        }
    }

    /// The symbols found, with the indices of their addresses.
    fn finish(self, end_of: &mut impl FnMut(u64) -> u64) -> impl Iterator<Item = (usize, Symbol)> {
        let sections = self.sections;
        let (mut last, mut end) = (None, 0);
        self.queries.into_iter().filter_map(move |query| {
            last = query.before.or(last);
            end = query.end.max(end);
            if let Some(symbol) = query.around {
                return Some((query.index, symbol));
            }
            // A label within a function does not count.
            let label = last.filter(|label: &Symbol| {
                let section = sections.get(label.section);
                let is_within = section.is_some_and(|section| section.contains(query.address));
                label.bytes == 0 && end <= label.start && is_within
            })?;
            (query.address < end_of(label.start)).then_some((query.index, label))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use object::elf::{SHF_EXECINSTR, SectionFlags};

    use super::*;

    const CODE: SectionHeader = SectionHeader {
        name: 0,
        kind: SHT_SYMTAB,
        flags: SectionFlags(SHF_ALLOC.0 | SHF_EXECINSTR.0),
        address: 0x1000,
        range: FileRange {
            offset: 0,
            bytes: 0x1000,
        },
        link: 0,
        align: 1,
        entry_bytes: 0,
    };

    /// A file of a table with these symbols (name, start, bytes, kind, binding), and their names.
    fn make_file(symbols: &[(&str, u64, u64, u8, u8)]) -> (Vec<u8>, SymbolTables) {
        let (mut table, mut names) = (Vec::new(), vec![0]);
        for (name, start, bytes, kind, binding) in symbols {
            table.extend_from_slice(&(names.len() as u32).to_le_bytes());
            table.extend_from_slice(&[binding << 4 | kind, 0, 1, 0]);
            table.extend_from_slice(&start.to_le_bytes());
            table.extend_from_slice(&bytes.to_le_bytes());
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        let place = |offset: usize, bytes: usize, link| SectionHeader {
            flags: SHF_ALLOC,
            range: FileRange {
                offset: offset as u64,
                bytes: bytes as u64,
            },
            entry_bytes: 24,
            link,
            ..CODE
        };
        let sections = vec![
            place(0, table.len(), 2),
            CODE,
            SectionHeader {
                kind: SHT_RELA,
                ..place(table.len(), names.len(), 0)
            },
        ];
        table.extend(names);
        let tables = SymbolTables {
            sections,
            has_compressed: false,
        };
        (table, tables)
    }

    /// Length of the function of each label.
    const LABEL_BYTES: u64 = 0x80;

    fn find(symbols: &[(&str, u64, u64, u8, u8)], addresses: &[u64]) -> Vec<String> {
        let (file, tables) = make_file(symbols);
        let names = tables.find(&*file, addresses, |label| label + LABEL_BYTES);
        names.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Check that an address belongs to the innermost function around it, not to one that ends before it, and to a label only up to
    /// its end and if no symbol starts between them, in any order of the addresses.
    #[test]
    fn functions_and_labels() {
        let symbols = [
            ("outer", 0x1100, 0x100, 2, 1),
            ("inner", 0x1140, 0x10, 2, 0),
            ("mark", 0x1160, 0, 0, 0),
            ("label", 0x1300, 0, 0, 1),
            ("short", 0x1400, 0x10, 2, 1),
            ("data", 0x1500, 0x10, 1, 1),
        ];
        for (address, name) in [
            (0x10ff, ""),
            (0x1100, "outer"),
            (0x113f, "outer"),
            (0x1140, "inner"),
            (0x1150, "outer"),
            (0x1160, "outer"),
            (0x11ff, "outer"),
            (0x1200, ""),
            (0x1300, "label"),
            (0x137f, "label"),
            (0x1380, ""),
            (0x13ff, ""),
            (0x1400, "short"),
            (0x1410, ""),
            (0x1505, ""),
            (0x2000, ""),
            (u64::MAX, ""),
        ] {
            assert_eq!(find(&symbols, &[address]), [name], "{address:#x}");
            let mixed = find(&symbols, &[0x2000, address, 0x1148, address]);
            assert_eq!(mixed, ["", name, "inner", name], "{address:#x}");
        }
    }

    /// Check the choice among several names of a function.
    #[test]
    fn aliases() {
        let symbols = [
            ("local", 0x1100, 8, 2, 0),
            ("global", 0x1100, 8, 2, 1),
            ("weak", 0x1100, 8, 2, 2),
            ("label", 0x1100, 0, 0, 1),
        ];
        assert_eq!(find(&symbols, &[0x1104]), ["global"]);
        assert_eq!(find(&symbols[2..], &[0x1104]), ["weak"]);
        assert_eq!(find(&symbols[2..], &[0x1108]), [""]);
    }

    /// Check long names, truncated tables, and names outside the file.
    #[test]
    fn damaged_tables() {
        let long = "x".repeat(300);
        let symbols = [(&*long, 0x1100, 8, 2, 1)];
        assert_eq!(find(&symbols, &[0x1100]), [&*long]);
        let (file, mut tables) = make_file(&symbols);
        for bytes in 0..file.len() {
            let names = tables.find(&file[..bytes], &[0x1100], |label| label);
            assert_eq!(names, [None], "{bytes}");
        }
        tables.sections[2].range.bytes = 100;
        let name = tables.find(&*file, &[0x1100], |label| label).remove(0);
        assert_eq!(name.map(|name| name.len()), Some(99));
        tables.sections[0].link = 7;
        assert_eq!(tables.find(&*file, &[0x1100], |label| label), [None]);
        for offset in [5, u64::MAX - 3] {
            tables.sections[0].range.offset = offset;
            tables.find(&*file, &[0x1100], |label| label);
        }
        assert_eq!(
            SymbolTables::default().find(&*file, &[0], |label| label),
            [None]
        );
    }

    /// A file, and the bytes that were read of it. Beyond its end it has zeros.
    struct Counted {
        bytes: Vec<u8>,
        read: Cell<u64>,
    }

    impl ReadAt for Counted {
        fn pread(&self, offset: u64, buffer: &mut [u8]) -> usize {
            self.read.set(self.read.get() + buffer.len() as u64);
            buffer.fill(0);
            let rest = self.bytes.get(offset as usize..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            buffer.len()
        }
    }

    /// A file with a linkage table of `count` entries at 0x1000 for `f` and `g` in turns, and with tables of so many bytes of
    /// relocations, of which the last but one has those of the entries.
    fn make_linkage(count: u64, relocation_bytes: &[u64]) -> (Counted, SymbolTables) {
        let place = |offset: usize, bytes: u64, entry_bytes: u64| SectionHeader {
            range: FileRange {
                offset: offset as u64,
                bytes,
            },
            entry_bytes,
            ..CODE
        };
        let mut bytes = Vec::new();
        for entry in 0..count {
            // To 0x10_0000 and eight bytes an entry.
            let distance = 0x10_0000 + entry * 8 - (0x1000 + entry * 16 + 6);
            bytes.extend([0xff, 0x25]);
            bytes.extend((distance as u32).to_le_bytes());
            bytes.extend([0x90; 10]);
        }
        let code = place(0, count * 16, 16);
        let symbols = place(bytes.len(), 48, 24);
        for name in [1_u64, 3] {
            bytes.extend([name.to_le_bytes(), [0; 8], [0; 8]].concat());
        }
        let names = place(bytes.len(), 5, 0);
        bytes.extend(*b"\0f\0g\0");
        let relocations_at = bytes.len();
        for entry in 0..count {
            let info = ((entry % 2) << 32) | u64::from(R_X86_64_JUMP_SLOT.0);
            let words = [0x10_0000 + entry * 8, info, 0];
            bytes.extend(words.map(u64::to_le_bytes).concat());
        }
        let other = SectionType(0);
        let mut sections = vec![
            SectionHeader {
                kind: other,
                ..code
            },
            SectionHeader {
                kind: other,
                flags: SHF_ALLOC,
                link: 2,
                ..symbols
            },
            SectionHeader {
                kind: other,
                flags: SHF_ALLOC,
                ..names
            },
        ];
        for (place_of, of_table) in relocation_bytes.iter().enumerate() {
            let has_entries = place_of + 2 == relocation_bytes.len();
            let at = if has_entries { relocations_at } else { 1 << 40 };
            sections.push(SectionHeader {
                kind: SHT_RELA,
                flags: SHF_ALLOC,
                link: 1,
                ..place(at, *of_table, 24)
            });
        }
        let tables = SymbolTables {
            sections,
            has_compressed: false,
        };
        let read = Cell::new(0);
        (Counted { bytes, read }, tables)
    }

    /// Check that entries of a linkage table have the names of their functions, in the order of the addresses, and that relocations
    /// are read once.
    #[test]
    fn linkages_of_a_question() {
        let (file, tables) = make_linkage(500, &[24_000, 12_000, 24_000]);
        let addresses: Vec<u64> = (0..500).rev().map(|n| 0x1000 + n * 16 + n % 7).collect();
        let names = tables.find_linkages(&file, &addresses);
        for (place, name) in names.iter().enumerate() {
            let expected = if place % 2 == 0 { "g@plt" } else { "f@plt" };
            assert_eq!(name.as_deref(), Some(expected), "{place}");
        }
        let of_entries = 500 * (16 + 24 + 128);
        assert!(file.read.get() <= 24_000 + 12_000 + of_entries);
        let same = tables.find_linkages(&file, &[0x1000, 0x2fff, 0x1001, 0x9000]);
        let name = Some("f@plt".to_owned());
        assert_eq!(same, [name.clone(), None, name, None]);
        // Without entries, no relocations are read.
        file.read.set(0);
        assert_eq!(tables.find_linkages(&file, &[0x9000]), [None]);
        assert_eq!(file.read.get(), 0);
    }

    /// Check the limits on tables of relocations, and that tables which are not loaded are not read.
    #[test]
    fn relocations_without_end() {
        let (file, tables) = make_linkage(500, &[RELOCATION_BYTES_MAX / 4; 100]);
        assert_eq!(tables.find_linkages(&file, &[0x1000]), [None]);
        assert!(file.read.get() <= RELOCATION_BYTES_MAX + 1000);
        let (file, tables) = make_linkage(500, &[24; 100]);
        assert_eq!(tables.find_linkages(&file, &[0x1000]), [None]);
        assert!(file.read.get() <= 24 * 8 + 1000);
        let (file, mut tables) = make_linkage(500, &[12_000; 2]);
        tables.sections[3].flags = SectionFlags(0);
        assert_eq!(tables.find_linkages(&file, &[0x1000]), [None]);
        assert!(file.read.get() <= 12_000 + 1000);
    }

    /// Check the three forms of an entry of a procedure linkage table.
    #[test]
    fn jumps() {
        let jump = [0xff, 0x25, 0x10, 0, 0, 0];
        assert_eq!(read_jump(&jump), Some((6, 16)));
        assert_eq!(read_jump(&[&[0xf2], &jump[..]].concat()), Some((7, 16)));
        let marked = [&[0xf3, 0x0f, 0x1e, 0xfa], &jump[..]].concat();
        assert_eq!(read_jump(&marked), Some((10, 16)));
        assert_eq!(read_jump(&marked[..9]), None);
        assert_eq!(read_jump(&[0x90; 16]), None);
    }
}
