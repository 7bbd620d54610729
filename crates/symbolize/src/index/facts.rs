//! Facts of an uploaded ELF file: its build id, its load segments, and its sources of names. Pure.

use elf::{BuildId, Headers, HeadersError, Layout, Limits};
use object::elf::{ELFMAG, SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB};

use super::file::Rank;
use crate::facts::has_debug_info;

/// Facts of an ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfFacts {
    /// Its GNU build id.
    pub build_id: Option<BuildId>,
    /// Its load segments, if they are those of the program that runs.
    pub layout: Option<Layout>,
    /// The best source of names that it has a section for.
    pub rank: Option<Rank>,
    /// Whether it has a symbol table.
    pub has_symbol_table: bool,
}

/// Whether a file begins as ELF files do.
pub fn is_elf(start: &[u8]) -> bool {
    start.starts_with(&ELFMAG)
}

/// Reads the facts.
///
/// # Errors
/// It is not an ELF file, or its headers cannot be read.
pub fn read_elf(bytes: &[u8]) -> Result<ElfFacts, HeadersError> {
    let headers = Headers::read(bytes, Limits::OBJECTS)?;
    let packed = headers.section(b".gnu_debugdata");
    let mut sections = headers.sections().iter();
    let has_symbol_table = sections.any(|section| matches!(section.kind, SHT_SYMTAB | SHT_DYNSYM))
        || packed.is_some_and(|section| section.file_range().is_some());
    Ok(ElfFacts {
        build_id: headers.build_id(bytes),
        layout: read_layout(&headers),
        rank: match (has_debug_info(&headers), has_symbol_table) {
            (true, _) => Some(Rank::DebugInfo),
            (false, true) => Some(Rank::SymbolTable),
            (false, false) => None,
        },
        has_symbol_table,
    })
}

/// The load segments, if they are those of the program that runs.
///
/// The tool that wrote a file with debug information only (its code sections have no bytes) may have moved them: `objcopy
/// --only-keep-debug` gives code segments the length 0 and other offsets, `eu-strip -f` leaves them as they were. The segments of
/// such a file count only if the code has all its bytes, offsets fit addresses, and no segments overlap.
fn read_layout(headers: &Headers) -> Option<Layout> {
    let layout = headers.layout();
    let segments = layout.segments();
    let mut sections = headers.sections().iter();
    let has_code = !sections.any(|section| section.kind == SHT_NOBITS && section.is_code());
    let is_in_place = || {
        headers.loads().all(|header| {
            let (offset, address, align) = (header.range.offset, header.address, header.align);
            let fits = align <= 1 || offset % align == address % align;
            let has_all_bytes = header.range.bytes > 0 && header.range.bytes == header.memory_bytes;
            fits && (!header.is_code() || has_all_bytes)
        }) && segments
            .windows(2)
            .all(|pair| pair[0].file_end() <= pair[1].file_offset)
    };
    (!segments.is_empty() && (has_code || is_in_place())).then_some(layout)
}
