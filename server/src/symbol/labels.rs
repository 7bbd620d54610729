//! Symbols of code that are not typed as functions, which are all that symbolic takes: labels of assembler that says no more, and
//! functions that are chosen when a program is linked (`STT_GNU_IFUNC`).
//!
//! They are taken where no function is. One without a length reaches to whatever begins next in its section; of dynamic symbols
//! none such is taken, since a function that is not exported may begin anywhere after it.

use std::cmp::Reverse;

use object::elf::{SHF_EXECINSTR, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolFlags};
use symbolic_debuginfo::Symbol;

/// A symbol of code.
struct Code<'a> {
    start: u64,
    bytes: u64,
    section_end: u64,
    /// `None`: a function, which is not to be added.
    label: Option<&'a str>,
    is_global: bool,
}

/// The labels of a file, from `load_address` on. `covered` are functions in that way: starts and ends, in order.
pub(super) fn read_labels<'a>(
    bytes: &'a [u8],
    load_address: u64,
    covered: &[(u64, u64)],
) -> Vec<Symbol<'a>> {
    let Ok(file) = object::File::parse(bytes) else {
        return Vec::new();
    };
    let mut code: Vec<Code<'_>> = file.symbols().filter_map(|it| read(&file, &it)).collect();
    if code.is_empty() {
        code = file
            .dynamic_symbols()
            .filter_map(|it| read(&file, &it))
            .filter(|it| it.label.is_none() || it.bytes > 0)
            .collect();
    }
    if code.iter().all(|it| it.label.is_none()) {
        return Vec::new();
    }
    code.extend(covered.iter().map(|(start, end)| Code {
        start: start.wrapping_add(load_address),
        bytes: end.saturating_sub(*start),
        section_end: u64::MAX,
        label: None,
        is_global: false,
    }));
    // Where several begin, functions come first, and then what other files see.
    code.sort_by_key(|it| (it.start, it.label.is_some(), Reverse(it.is_global)));
    let (mut labels, mut reach, mut last) = (Vec::new(), 0, None);
    for (place, it) in code.iter().enumerate() {
        if let Some(label) = it.label
            && it.start >= reach
            && last != Some(it.start)
        {
            let next = code[place..].iter().find(|next| next.start > it.start);
            let next = next.map_or(u64::MAX, |next| next.start);
            let size = match it.bytes {
                0 => next.min(it.section_end).saturating_sub(it.start),
                bytes => bytes,
            };
            // A symcache takes a length of zero for all up to whatever it knows next.
            if size > 0 {
                labels.push(Symbol {
                    name: Some(label.into()),
                    address: it.start.wrapping_sub(load_address),
                    size,
                });
            }
        }
        last = Some(it.start);
        reach = reach.max(it.start.saturating_add(it.bytes));
    }
    labels
}

fn read<'a>(file: &object::File<'a>, symbol: &object::Symbol<'a, '_>) -> Option<Code<'a>> {
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    // In a file that has only debug information, the section has no bytes, but still this flag.
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
        STT_NOTYPE | STT_GNU_IFUNC => Some(symbol.name().ok().filter(|it| !it.is_empty())?),
        _ => return None,
    };
    Some(Code {
        start: symbol.address(),
        bytes: symbol.size(),
        section_end: section.address().saturating_add(section.size()),
        label,
        is_global: symbol.is_global(),
    })
}
