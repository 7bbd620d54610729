//! Code symbols that symbolic leaves out because they are not typed as functions: labels of hand-written assembler, and indirect
//! functions (`STT_GNU_IFUNC`).
//!
//! A label is used where no function is. A label without a length reaches to the next symbol or the end of its section. A dynamic
//! symbol without a length is not used: a function that is not exported may start anywhere after it.

use std::cmp::Reverse;

use object::elf::{SHF_EXECINSTR, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolFlags};
use symbolic_debuginfo::Symbol;

/// A symbol of code.
struct CodeSymbol<'a> {
    start: u64,
    bytes: u64,
    section_end: u64,
    /// `None`: a function, which symbolic adds.
    label: Option<&'a str>,
    is_global: bool,
}

/// The labels of a file, with addresses from `load_address` on. `covered` has the start and end of functions with debug information,
/// counted in the same way.
pub(super) fn read_labels<'a>(
    bytes: &'a [u8],
    load_address: u64,
    covered: &[(u64, u64)],
) -> Vec<Symbol<'a>> {
    let Ok(file) = object::File::parse(bytes) else {
        return Vec::new();
    };
    let read = |symbol| read_symbol(&file, &symbol);
    let mut symbols: Vec<CodeSymbol<'_>> = file.symbols().filter_map(read).collect();
    if symbols.is_empty() {
        let dynamic = file.dynamic_symbols().filter_map(read);
        symbols = dynamic
            .filter(|symbol| symbol.label.is_none() || symbol.bytes > 0)
            .collect();
    }
    symbols.extend(covered.iter().map(|(start, end)| CodeSymbol {
        start: start.wrapping_add(load_address),
        bytes: end.saturating_sub(*start),
        section_end: u64::MAX,
        label: None,
        is_global: false,
    }));
    // Of symbols with the same start, functions come first, and then those that other files see.
    symbols.sort_by_key(|code| (code.start, code.label.is_some(), Reverse(code.is_global)));
    let (mut labels, mut covered_to) = (Vec::new(), 0);
    let groups = symbols.chunk_by(|code, next| code.start == next.start);
    let mut groups = groups.peekable();
    while let Some(group) = groups.next() {
        let symbol = &group[0];
        if let Some(label) = symbol.label
            && symbol.start >= covered_to
        {
            let next = groups.peek().map_or(u64::MAX, |group| group[0].start);
            let size = match symbol.bytes {
                0 => next.min(symbol.section_end).saturating_sub(symbol.start),
                bytes => bytes,
            };
            // A symcache extends a symbol of length zero to the next one that it has.
            if size > 0 {
                labels.push(Symbol {
                    name: Some(label.into()),
                    address: symbol.start.wrapping_sub(load_address),
                    size,
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
    let label = match st_info.st_type() {
        STT_FUNC => None,
        STT_NOTYPE | STT_GNU_IFUNC => Some(symbol.name().ok().filter(|name| !name.is_empty())?),
        _ => return None,
    };
    Some(CodeSymbol {
        start: symbol.address(),
        bytes: symbol.size(),
        section_end: section.address().saturating_add(section.size()),
        label,
        is_global: symbol.is_global(),
    })
}
