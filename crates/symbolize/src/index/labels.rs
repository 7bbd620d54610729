//! Code symbols that symbolic leaves out or lengthens: labels of hand-written assembler, indirect functions (`STT_GNU_IFUNC`), and
//! functions without a length.
//!
//! A label is used where no function is. Without a length it ends with its function ([`LabelEnds`]), the next symbol or its section.
//!
//! Files with debug information only, and those from collectors, have no code. There the next symbol is the only end: the symbol
//! table of such a file mostly has all functions, and a dynamic one has not.

use std::cmp::Reverse;

use elf::{Headers, Limits};
use object::elf::{SHF_EXECINSTR, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};
use object::{Architecture, Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolFlags};
use symbolic_debuginfo::Symbol;

use crate::boundaries::Boundaries;
use crate::labels::LabelEnds;

/// Bytes of a label's function in a file without code. Assembler functions of codecs have up to some KB.
const UNREAD_BYTES_MAX: u64 = 4 << 10;

/// Bytes in which code has others than zeros: a file from a collector has a hole in its place.
const HOLE_BYTES: u64 = 16;

/// A symbol of code.
struct CodeSymbol<'a> {
    start: u64,
    bytes: u64,
    section_end: u64,
    /// `None`: a function with a length, which symbolic adds.
    label: Option<&'a str>,
    is_function: bool,
    is_global: bool,
    /// Whether the file has its instructions.
    has_code: bool,
}

/// The labels of a file, with addresses from `load_address` on. `covered` has the start and end of functions with debug information,
/// counted in the same way.
pub(super) fn read_labels<'a>(
    bytes: &'a [u8],
    load_address: u64,
    covered: &[(u64, u64)],
) -> Vec<Symbol<'a>> {
    let (Ok(file), Ok(headers)) = (
        object::File::parse(bytes),
        Headers::read(bytes, Limits::OBJECTS),
    ) else {
        return Vec::new();
    };
    let read = |symbol| read_symbol(&file, &symbol);
    let mut symbols: Vec<CodeSymbol<'_>> = file.symbols().filter_map(read).collect();
    let mut unread_bytes = UNREAD_BYTES_MAX;
    if symbols.is_empty() {
        symbols = file.dynamic_symbols().filter_map(read).collect();
        unread_bytes = 0;
    }
    symbols.extend(covered.iter().map(|(start, end)| CodeSymbol {
        start: start.wrapping_add(load_address),
        bytes: end.saturating_sub(*start),
        section_end: u64::MAX,
        label: None,
        is_function: true,
        is_global: false,
        has_code: false,
    }));
    symbols.sort_by_key(CodeSymbol::order);
    let (layout, boundaries) = (headers.layout(), Boundaries::read(&headers));
    // The parts that are read do not overlap: each label is read up to the next one.
    let mut ends = LabelEnds::new(bytes, &layout, &boundaries, usize::MAX);
    let (mut labels, mut covered_to) = (Vec::new(), 0);
    let groups = symbols.chunk_by(|code, next| code.start == next.start);
    let mut groups = groups.peekable();
    while let Some(group) = groups.next() {
        let symbol = &group[0];
        if let Some(label) = symbol.label
            && symbol.start >= covered_to
        {
            let next = groups.peek().map_or(u64::MAX, |group| group[0].start);
            let limit = next.min(symbol.section_end);
            let end = match symbol.bytes {
                0 if symbol.has_code => ends.find(symbol.start, limit),
                0 => symbol.start.saturating_add(unread_bytes).min(limit),
                bytes => symbol.start.saturating_add(bytes),
            };
            // A symcache extends a symbol of length zero to the next one that it has.
            if end > symbol.start {
                labels.push(Symbol {
                    name: Some(label.into()),
                    address: symbol.start.wrapping_sub(load_address),
                    size: end - symbol.start,
                });
            }
        }
        let ends = group
            .iter()
            .map(|code| code.start.saturating_add(code.bytes));
        covered_to = ends.fold(covered_to, u64::max);
    }
    labels
}

impl CodeSymbol<'_> {
    /// Of symbols with the same start, those with a length come first, then functions, and then those that other files see.
    fn order(&self) -> impl Ord + use<> {
        let has_length = self.bytes > 0;
        let is_function = (self.label.is_none(), has_length, self.is_function);
        (self.start, Reverse((is_function, self.is_global)))
    }
}

fn read_symbol<'a>(
    file: &object::File<'a>,
    symbol: &object::Symbol<'a, '_>,
) -> Option<CodeSymbol<'a>> {
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    // Files with debug information only keep this flag, without the section's bytes.
    let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
        return None;
    };
    let SymbolFlags::Elf { st_info, .. } = symbol.flags() else {
        return None;
    };
    if !sh_flags.contains(SHF_EXECINSTR) {
        return None;
    }
    let is_function = match st_info.st_type() {
        STT_FUNC => true,
        STT_NOTYPE | STT_GNU_IFUNC => false,
        _ => return None,
    };
    let label = if is_function && symbol.size() > 0 {
        None
    } else {
        Some(symbol.name().ok().filter(|name| !name.is_empty())?)
    };
    let section_end = section.address().saturating_add(section.size());
    let room = section_end.saturating_sub(symbol.address());
    let code = section.data_range(symbol.address(), room.min(HOLE_BYTES));
    let code = code.ok().flatten().unwrap_or_default();
    let is_readable = file.architecture() == Architecture::X86_64;
    Some(CodeSymbol {
        start: symbol.address(),
        bytes: symbol.size(),
        section_end,
        label,
        is_function,
        is_global: symbol.is_global(),
        has_code: is_readable && code.iter().any(|byte| *byte != 0),
    })
}
