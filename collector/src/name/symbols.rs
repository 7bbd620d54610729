//! Names from symbol tables.
//!
//! In: an ELF file that nobody has checked, and addresses as linked. Out: the name of the function at each, if the file
//! has one. Keeps nothing between two questions, and holds little while it looks: the table is read through once for all
//! addresses, a piece at a time, and of the names only those that are wanted. A compiler has half a million symbols with
//! 40 MB of names; to sort them takes 100 ms and 30 MB, to read through them 3 ms and 64 KiB.
//!
//! Sources: System V ABI, chapter 4 (symbol table, relocation); System V ABI for AMD64, 5.2 (procedure linkage table).

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use object::elf::{
    FileHeader64, SHF_ALLOC, SHF_EXECINSTR, SHT_DYNSYM, SHT_NOBITS, SHT_RELA, SHT_SYMTAB,
    SectionHeader64, SectionType,
};
use object::read::elf::{ElfFile, SectionHeader as _};
use object::{LittleEndian, Object as _, ReadRef};

use super::protocol::STRING_BYTES_MAX;

/// Bytes of a symbol, and of a relocation with addend: both have 24.
const ENTRY_BYTES: usize = 24;

/// Entries of a table that are read at once, 64 KB.
const PIECE_ENTRIES: u64 = 2730;

/// Bytes of a table: 11 million symbols, twenty times those of a browser. Reading them takes 0.1 s.
const TABLE_BYTES_MAX: u64 = 256 << 20;

/// Sections looked at. Programs have 30 to 40; with a section for each function, objects have more, but are not run.
const SECTIONS_MAX: usize = 4096;

/// Tables of relocations that are looked at, of those that are loaded: programs have two, and static ones one.
const RELOCATION_TABLES_MAX: usize = 8;

/// Bytes of them in all, read once for a question: ten times those of a browser. Reading them takes 0.1 s.
const RELOCATION_BYTES_MAX: u64 = 256 << 20;

/// Bytes of an entry of a procedure linkage table.
const LINKAGE_ENTRY_BYTES: u64 = 16;

// Numbers of the System V ABI.
const SECTION_UNDEFINED: u16 = 0;
const SECTION_RESERVED: u16 = 0xff00;
const TYPE_NONE: u8 = 0;
const TYPE_FUNCTION: u8 = 2;
const TYPE_INDIRECT_FUNCTION: u8 = 10;
const BINDING_LOCAL: u8 = 0;
const BINDING_WEAK: u8 = 2;
const RELOCATION_GLOB_DAT: u32 = 6;
const RELOCATION_JUMP_SLOT: u32 = 7;

/// What can be read from at any place.
pub trait ReadAt {
    /// Fills `buffer` with what lies at `offset`. Gives `false` when not all of it is there.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool;
}

impl ReadAt for File {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.read_exact_at(buffer, offset).is_ok()
    }
}

impl ReadAt for [u8] {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let from = usize::try_from(offset).ok().and_then(|it| self.get(it..));
        let Some(bytes) = from.and_then(|it| it.get(..buffer.len())) else {
            return false;
        };
        buffer.copy_from_slice(bytes);
        true
    }
}

/// Where a file's tables of symbols are, and its code.
#[derive(Clone, Debug, Default)]
pub struct SymbolTables {
    sections: Vec<Section>,
    /// Whether there is another table, compressed (`.gnu_debugdata`).
    pub(super) has_compressed: bool,
}

/// What counts of a section's header.
#[derive(Clone, Copy, Debug)]
struct Section {
    kind: SectionType,
    is_loaded: bool,
    is_code: bool,
    address: u64,
    offset: u64,
    bytes: u64,
    entry_bytes: u64,
    link: u32,
}

impl Section {
    fn new(header: &SectionHeader64<LittleEndian>) -> Self {
        let endian = LittleEndian;
        Self {
            kind: header.sh_type(endian),
            is_loaded: header.sh_flags(endian).contains(SHF_ALLOC),
            is_code: header.sh_flags(endian).contains(SHF_EXECINSTR),
            address: header.sh_addr(endian),
            offset: header.sh_offset(endian),
            bytes: header.sh_size(endian),
            entry_bytes: header.sh_entsize(endian),
            link: header.sh_link(endian),
        }
    }

    fn end(&self) -> u64 {
        self.address.saturating_add(self.bytes)
    }

    fn has(&self, address: u64) -> bool {
        (self.address..self.end()).contains(&address)
    }

    /// Where it lies in the file.
    fn place(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.bytes)
    }
}

impl SymbolTables {
    /// Reads the section headers.
    pub fn read<'data, R: ReadRef<'data>>(
        file: &ElfFile<'data, FileHeader64<LittleEndian>, R>,
    ) -> Self {
        let headers = file.elf_section_table().iter().take(SECTIONS_MAX);
        Self {
            sections: headers.map(Section::new).collect(),
            has_compressed: file.section_by_name(".gnu_debugdata").is_some(),
        }
    }

    /// The names at addresses as linked, in their order. Entries of linkage tables have none here, see [`Self::find_linkages`].
    pub fn find(&self, file: &(impl ReadAt + ?Sized), addresses: &[u64]) -> Vec<Option<String>> {
        let mut search = Search::new(addresses, &self.sections);
        // The dynamic symbols are among the others, where there are others.
        if let Some(table) = self
            .of_kind(SHT_SYMTAB)
            .or_else(|| self.of_kind(SHT_DYNSYM))
        {
            search.go_through(file, table);
        }
        let mut names = vec![None; addresses.len()];
        for (place, symbol) in search.finish() {
            names[place] = symbol.read_name(file);
        }
        names
    }

    fn of_kind(&self, kind: SectionType) -> Option<&Section> {
        self.sections.iter().find(|it| it.kind == kind)
    }

    /// The names of entries of procedure linkage tables, at addresses as linked, in their order: that of the function it leads
    /// to, and `@plt`; `None` for all other code.
    ///
    /// What an entry jumps through says which it is, whatever kind of table it is in.
    pub fn find_linkages(
        &self,
        file: &(impl ReadAt + ?Sized),
        addresses: &[u64],
    ) -> Vec<Option<String>> {
        let slots = addresses.iter().map(|it| self.read_slot(file, *it));
        let slots: Vec<Option<u64>> = slots.collect();
        let mut wanted: Vec<u64> = slots.iter().copied().flatten().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let found = self.find_relocated(file, &wanted);
        let name_of = |slot: Option<u64>| {
            let place = wanted.binary_search(&slot?).ok()?;
            self.read_linked_name(file, found[place]?)
        };
        slots.into_iter().map(name_of).collect()
    }

    /// Where the pointer lies that an entry of a linkage table jumps through.
    fn read_slot(&self, file: &(impl ReadAt + ?Sized), address: u64) -> Option<u64> {
        let section = self
            .sections
            .iter()
            .find(|it| it.is_code && it.kind != SHT_NOBITS && it.has(address))?;
        // `.plt`, `.plt.sec` and `.plt.got`: other code has no entries.
        let step = match section.entry_bytes {
            8 => 8,
            LINKAGE_ENTRY_BYTES => LINKAGE_ENTRY_BYTES,
            _ => return None,
        };
        let within = address - section.address;
        let start = within - within % step;
        let mut entry = [0; LINKAGE_ENTRY_BYTES as usize];
        let entry = &mut entry[..step as usize];
        if !file.read(section.offset.checked_add(start)?, entry) {
            return None;
        }
        let (end, distance) = read_jump(entry)?;
        let at = section.address.wrapping_add(start + end);
        Some(at.wrapping_add_signed(distance.into()))
    }

    /// The functions whose addresses are put at `slots`, which are sorted, in their order.
    fn find_relocated(&self, file: &(impl ReadAt + ?Sized), slots: &[u64]) -> Vec<Option<Linked>> {
        let mut found = vec![None; slots.len()];
        let is_loaded = |it: &&Section| it.kind == SHT_RELA && it.is_loaded;
        let tables = self.sections.iter().filter(is_loaded);
        let mut bytes_left = RELOCATION_BYTES_MAX;
        for table in tables.take(RELOCATION_TABLES_MAX) {
            if found.iter().all(Option::is_some) {
                break;
            }
            let bytes = table.bytes.min(bytes_left);
            bytes_left -= bytes;
            for_each_entry(file, &Section { bytes, ..*table }, |entry| {
                let (at, info) = (u64_at(entry, 0), u64_at(entry, 8));
                let is_function =
                    [RELOCATION_GLOB_DAT, RELOCATION_JUMP_SLOT].contains(&(info as u32));
                if is_function && let Ok(place) = slots.binary_search(&at) {
                    found[place].get_or_insert(Linked {
                        table: table.link,
                        number: info >> 32,
                    });
                }
            });
        }
        found
    }

    fn read_linked_name(&self, file: &(impl ReadAt + ?Sized), linked: Linked) -> Option<String> {
        let symbols = self.sections.get(linked.table as usize)?;
        let names = self.sections.get(symbols.link as usize)?;
        let at = linked.number.checked_mul(ENTRY_BYTES as u64)?;
        let mut symbol = [0; ENTRY_BYTES];
        let is_there =
            at < symbols.bytes && file.read(symbols.offset.checked_add(at)?, &mut symbol);
        let name = is_there.then(|| u32_at(&symbol, 0))?;
        Some(format!("{}@plt", read_name(file, &names.place(), name)?))
    }
}

/// A symbol that a relocation names.
#[derive(Clone, Copy, Debug)]
struct Linked {
    /// The section that it is in.
    table: u32,
    number: u64,
}

/// The jump through a pointer in an entry: where its instruction ends, and how far from there the pointer lies.
///
/// `ff 25` and a distance of four bytes, behind a `bnd` (`f2`) or an `endbr64` (`f3 0f 1e fa`), if any.
fn read_jump(entry: &[u8]) -> Option<(u64, i32)> {
    let at = entry
        .strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa])
        .map_or(0, |_| 4);
    let at = at + usize::from(entry.get(at) == Some(&0xf2));
    let distance = entry
        .get(at..)?
        .strip_prefix(&[0xff, 0x25])?
        .first_chunk()?;
    Some((at as u64 + 6, i32::from_le_bytes(*distance)))
}

/// Reads through a table of entries of 24 bytes, up to where it can be read.
fn for_each_entry(
    file: &(impl ReadAt + ?Sized),
    table: &Section,
    mut visit: impl FnMut(&[u8; ENTRY_BYTES]),
) {
    if table.entry_bytes != ENTRY_BYTES as u64 {
        return;
    }
    let mut left = table.bytes.min(TABLE_BYTES_MAX) / ENTRY_BYTES as u64;
    let mut offset = table.offset;
    let mut piece = vec![0; left.min(PIECE_ENTRIES) as usize * ENTRY_BYTES];
    while left > 0 {
        let entries = left.min(PIECE_ENTRIES);
        let bytes = entries as usize * ENTRY_BYTES;
        if !file.read(offset, &mut piece[..bytes]) {
            return;
        }
        let (entries_read, _) = piece[..bytes].as_chunks();
        entries_read.iter().for_each(&mut visit);
        left -= entries;
        offset = offset.saturating_add(bytes as u64);
    }
}

fn u32_at(entry: &[u8; ENTRY_BYTES], at: usize) -> u32 {
    entry[at..]
        .first_chunk()
        .map_or(0, |it| u32::from_le_bytes(*it))
}

fn u64_at(entry: &[u8; ENTRY_BYTES], at: usize) -> u64 {
    entry[at..]
        .first_chunk()
        .map_or(0, |it| u64::from_le_bytes(*it))
}

/// A string of a table of strings, cut where names are cut.
fn read_name(file: &(impl ReadAt + ?Sized), names: &Range<u64>, at: u32) -> Option<String> {
    let start = names.start.checked_add(at.into())?;
    let left = names.end.checked_sub(start)?;
    // Most names are short: one read in place of a page.
    for bytes in [128, STRING_BYTES_MAX as u64 + 1] {
        let mut name = vec![0; left.min(bytes) as usize];
        if !file.read(start, &mut name) {
            return None;
        }
        if let Some(end) = name.iter().position(|it| *it == 0) {
            name.truncate(end);
        } else if bytes < left {
            continue;
        }
        let name = String::from_utf8_lossy(&name);
        return (!name.is_empty()).then(|| name.into_owned());
    }
    None
}

/// A symbol of a function, or of a place in code.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: u64,
    bytes: u64,
    section: u16,
    kind: u8,
    binding: u8,
    name: u32,
}

impl Symbol {
    fn read(entry: &[u8; ENTRY_BYTES]) -> Self {
        Self {
            name: u32_at(entry, 0),
            kind: entry[4] & 15,
            binding: entry[4] >> 4,
            section: u16::from_le_bytes([entry[6], entry[7]]),
            start: u64_at(entry, 8),
            bytes: u64_at(entry, 16),
        }
    }

    fn is_code(&self) -> bool {
        let is_defined = (SECTION_UNDEFINED + 1..SECTION_RESERVED).contains(&self.section);
        is_defined && [TYPE_NONE, TYPE_FUNCTION, TYPE_INDIRECT_FUNCTION].contains(&self.kind)
    }

    /// Of several that begin at one address, the one with the highest rank is taken: functions before labels, and what
    /// other files see before what they may replace, and that before what they do not see.
    fn rank(&self) -> (bool, u8) {
        let visibility = match self.binding {
            BINDING_LOCAL => 0,
            BINDING_WEAK => 1,
            _ => 2,
        };
        (self.kind != TYPE_NONE, visibility)
    }
}

/// A symbol that may be an address's, and where its name is.
#[derive(Clone, Debug)]
struct Candidate {
    symbol: Symbol,
    names: Range<u64>,
}

impl Candidate {
    fn read_name(&self, file: &(impl ReadAt + ?Sized)) -> Option<String> {
        read_name(file, &self.names, self.symbol.name)
    }
}

/// An address whose symbol is looked for.
struct Query {
    address: u64,
    /// Its place among the addresses.
    place: usize,
    /// Of the symbols that say how long they are, and have the address, the one that begins last.
    around: Option<Candidate>,
    /// Of all symbols that begin behind the query before, and not behind the address, the one that begins last.
    before: Option<Candidate>,
    /// Of those that say how long they are, the last end.
    end: u64,
}

struct Search<'a> {
    /// By address.
    queries: Vec<Query>,
    sections: &'a [Section],
}

impl<'a> Search<'a> {
    fn new(addresses: &[u64], sections: &'a [Section]) -> Self {
        let queries = addresses.iter().enumerate().map(|(place, address)| Query {
            address: *address,
            place,
            around: None,
            before: None,
            end: 0,
        });
        let mut queries: Vec<Query> = queries.collect();
        queries.sort_by_key(|it| it.address);
        Self { queries, sections }
    }

    /// Goes through a table of symbols.
    fn go_through(&mut self, file: &(impl ReadAt + ?Sized), table: &Section) {
        let Some(names) = self.sections.get(table.link as usize) else {
            return;
        };
        let names = names.place();
        for_each_entry(file, table, |entry| {
            let symbol = Symbol::read(entry);
            let section = self.sections.get(usize::from(symbol.section));
            if symbol.is_code() && section.is_some_and(|it| it.is_code) {
                self.offer(symbol, &names);
            }
        });
    }

    /// Takes a symbol for those addresses for which it is the best so far.
    fn offer(&mut self, symbol: Symbol, names: &Range<u64>) {
        let first = self.queries.partition_point(|it| it.address < symbol.start);
        let candidate = || {
            Some(Candidate {
                symbol,
                names: names.clone(),
            })
        };
        let Some(query) = self.queries.get_mut(first) else {
            return;
        };
        // Where one that says its length begins at the same address, that one tells where the function ends.
        let order = |it: &Symbol| (it.start, it.bytes > 0, it.rank());
        let is_better = |best: &Option<Candidate>| {
            best.as_ref()
                .is_none_or(|it| order(&symbol) > order(&it.symbol))
        };
        if is_better(&query.before) {
            query.before = candidate();
        }
        let end = symbol.start.saturating_add(symbol.bytes);
        query.end = query.end.max(end);
        for query in &mut self.queries[first..] {
            if query.address >= end {
                break;
            }
            if is_better(&query.around) {
                query.around = candidate();
            }
        }
    }

    /// The symbols found, with the places of their addresses.
    fn finish(self) -> impl Iterator<Item = (usize, Candidate)> {
        let sections = self.sections;
        let (mut last, mut end) = (None, 0);
        self.queries.into_iter().filter_map(move |query| {
            if query.before.is_some() {
                last = query.before;
            }
            end = query.end.max(end);
            // Hand-written code does not say its length: it reaches to the next symbol, in its section. A label within a
            // function reaches nowhere.
            let label = last.as_ref().filter(|it| {
                let section = sections.get(usize::from(it.symbol.section));
                let is_within = section.is_some_and(|it| it.has(query.address));
                it.symbol.bytes == 0 && end <= it.symbol.start && is_within
            });
            Some((query.place, query.around.or_else(|| label.cloned())?))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const CODE: Section = Section {
        kind: SHT_SYMTAB,
        is_loaded: true,
        is_code: true,
        address: 0x1000,
        offset: 0,
        bytes: 0x1000,
        entry_bytes: 0,
        link: 0,
    };

    /// A table with these symbols (name, start, bytes, kind, binding), at the file's start, its names behind it.
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
        let place = |offset: usize, bytes: usize, link| Section {
            is_code: false,
            offset: offset as u64,
            bytes: bytes as u64,
            entry_bytes: ENTRY_BYTES as u64,
            link,
            ..CODE
        };
        let sections = vec![
            place(0, table.len(), 2),
            CODE,
            Section {
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

    fn find(symbols: &[(&str, u64, u64, u8, u8)], addresses: &[u64]) -> Vec<String> {
        let (file, tables) = make_file(symbols);
        let names = tables.find(&*file, addresses);
        names.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Check that an address belongs to the innermost function around it, not to one that ends before it, and to a label
    /// only if nothing begins between them; whatever the order of the addresses.
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
            (0x13ff, "label"),
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

    /// Check which of several names of a function is taken.
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

    /// Check long names, a table that is cut, and names that lie outside.
    #[test]
    fn damaged_tables() {
        let long = "x".repeat(300);
        let symbols = [(&*long, 0x1100, 8, 2, 1)];
        assert_eq!(find(&symbols, &[0x1100]), [&*long]);
        let (file, mut tables) = make_file(&symbols);
        for bytes in 0..file.len() {
            let names = tables.find(&file[..bytes], &[0x1100]);
            assert_eq!(names, [None], "{bytes}");
        }
        tables.sections[2].bytes = 100;
        assert_eq!(
            tables.find(&*file, &[0x1100])[0].as_ref().map(String::len),
            Some(99)
        );
        tables.sections[0].link = 7;
        assert_eq!(tables.find(&*file, &[0x1100]), [None]);
        for offset in [5, u64::MAX - 3] {
            tables.sections[0].offset = offset;
            tables.find(&*file, &[0x1100]);
        }
        assert_eq!(SymbolTables::default().find(&*file, &[0]), [None]);
    }

    /// A file, and how many bytes were read of it. Behind its end it is zeros.
    struct Counted {
        bytes: Vec<u8>,
        read: Cell<u64>,
    }

    impl ReadAt for Counted {
        fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
            self.read.set(self.read.get() + buffer.len() as u64);
            buffer.fill(0);
            let rest = self.bytes.get(offset as usize..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            true
        }
    }

    /// A file with a linkage table of `count` entries at 0x1000, that lead to `f`, and `g`, by turns; and behind it, tables of
    /// so many bytes of relocations, of which the last but one has those of the entries.
    fn make_linkage(count: u64, relocation_bytes: &[u64]) -> (Counted, SymbolTables) {
        let place = |offset: usize, bytes: u64, entry_bytes: u64| Section {
            offset: offset as u64,
            bytes,
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
            let info = ((entry % 2) << 32) | u64::from(RELOCATION_JUMP_SLOT);
            let words = [0x10_0000 + entry * 8, info, 0];
            bytes.extend(words.map(u64::to_le_bytes).concat());
        }
        let other = SectionType(0);
        let mut sections = vec![
            Section {
                kind: other,
                ..code
            },
            Section {
                kind: other,
                is_code: false,
                link: 2,
                ..symbols
            },
            Section {
                kind: other,
                is_code: false,
                ..names
            },
        ];
        for (place_of, of_table) in relocation_bytes.iter().enumerate() {
            let at = match place_of + 2 == relocation_bytes.len() {
                true => relocations_at,
                false => 1 << 40,
            };
            sections.push(Section {
                kind: SHT_RELA,
                is_code: false,
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

    /// Check that entries of a linkage table have the names of what they lead to, in the order of their addresses, and that all
    /// relocations are read once for all.
    #[test]
    fn linkages_of_a_question() {
        let (file, tables) = make_linkage(500, &[24_000, 12_000, 24_000]);
        let addresses: Vec<u64> = (0..500).rev().map(|it| 0x1000 + it * 16 + it % 7).collect();
        let names = tables.find_linkages(&file, &addresses);
        for (place, name) in names.iter().enumerate() {
            let expected = if place % 2 == 0 { "g@plt" } else { "f@plt" };
            assert_eq!(name.as_deref(), Some(expected), "{place}");
        }
        let of_entries = 500 * (16 + 24 + 128);
        assert!(file.read.get() <= 24_000 + 12_000 + of_entries);
        let same = tables.find_linkages(&file, &[0x1000, 0x2fff, 0x1001, 0x9000]);
        assert_eq!(
            same,
            [Some("f@plt".into()), None, Some("f@plt".into()), None]
        );
        // Where there is no entry, nothing is looked for.
        file.read.set(0);
        assert_eq!(tables.find_linkages(&file, &[0x9000]), [None]);
        assert_eq!(file.read.get(), 0);
    }

    /// Check that neither many tables of relocations nor large ones take all time, nor such that are not loaded.
    #[test]
    fn relocations_without_end() {
        let (file, tables) = make_linkage(500, &[RELOCATION_BYTES_MAX / 4; 100]);
        assert_eq!(tables.find_linkages(&file, &[0x1000]), [None]);
        assert!(file.read.get() <= RELOCATION_BYTES_MAX + 1000);
        let (file, tables) = make_linkage(500, &[24; 100]);
        assert_eq!(tables.find_linkages(&file, &[0x1000]), [None]);
        assert!(file.read.get() <= 24 * 8 + 1000);
        let (file, mut tables) = make_linkage(500, &[12_000; 2]);
        tables.sections[3].is_loaded = false;
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
