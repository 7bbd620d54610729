//! What an ELF file says about itself: its build id, where it is loaded, what it has to name addresses with. Pure.

use object::elf::{
    ELFMAG, FileHeader32, FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_LOAD, PT_NOTE, SHF_EXECINSTR,
    SHT_DYNSYM, SHT_NOBITS, SHT_NOTE, SHT_SYMTAB,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, FileKind};

use super::build_id::BuildId;
use super::index::Rank;
use super::layout::{Layout, Segment};

/// What was found in an ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfFacts {
    /// Its GNU build id.
    pub build_id: Option<BuildId>,
    /// Where it is loaded, if its own word can be taken for that.
    pub layout: Option<Layout>,
    /// What it has sections for; `None` is neither a symbol table nor debug information.
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
/// It is not an ELF file, or its header cannot be read.
pub fn read_elf(bytes: &[u8]) -> object::Result<ElfFacts> {
    match FileKind::parse(bytes)? {
        FileKind::Elf32 => read_facts::<FileHeader32<Endianness>>(bytes),
        FileKind::Elf64 => read_facts::<FileHeader64<Endianness>>(bytes),
        // `FileKind` has no errors of its own to give; this one says the same.
        _ => FileHeader64::<Endianness>::parse(bytes)
            .and_then(|_| read_facts::<FileHeader64<Endianness>>(bytes)),
    }
}

fn read_facts<H: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> object::Result<ElfFacts> {
    let header = H::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let segments = header.program_headers(endian, bytes)?;

    let (mut has_symbol_table, mut has_debug_info) = (false, false);
    let mut is_stripped_of_code = false;
    let mut build_id = None;
    for section in sections.iter() {
        let name = sections.section_name(endian, section).unwrap_or_default();
        match section.sh_type(endian) {
            SHT_SYMTAB | SHT_DYNSYM => has_symbol_table = true,
            SHT_NOBITS => {
                is_stripped_of_code |= section.sh_flags(endian).0 & SHF_EXECINSTR.0 != 0;
            }
            SHT_NOTE => {
                if let Ok(Some(notes)) = section.notes(endian, bytes) {
                    build_id = build_id.or_else(|| find_build_id(notes, endian));
                }
            }
            _ if name == b".gnu_debugdata" => has_symbol_table = true,
            _ if name == b".debug_info" || name == b".zdebug_info" => has_debug_info = true,
            _ => {}
        }
    }
    // A file without section headers has its notes in a segment.
    for segment in segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_NOTE)
    {
        if let Ok(Some(notes)) = segment.notes(endian, bytes) {
            build_id = build_id.or_else(|| find_build_id(notes, endian));
        }
    }
    Ok(ElfFacts {
        build_id,
        layout: read_layout::<H>(segments, endian, is_stripped_of_code),
        rank: match (has_debug_info, has_symbol_table) {
            (true, _) => Some(Rank::DebugInfo),
            (false, true) => Some(Rank::SymbolTable),
            (false, false) => None,
        },
        has_symbol_table,
    })
}

fn find_build_id<H: FileHeader<Endian = Endianness>>(
    mut notes: object::read::elf::NoteIterator<'_, H>,
    endian: Endianness,
) -> Option<BuildId> {
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID {
            return BuildId::from_bytes(note.desc());
        }
    }
    None
}

/// The load segments, if they are those of the file that runs.
///
/// A file with debug information only (its code sections have no bytes) was written by a tool that may have moved them:
/// `objcopy --only-keep-debug` gives all code the length 0 and an offset that is not the program's, `eu-strip -f` leaves them
/// as they were. So they are believed there only if the code has all its bytes, the offsets fit the addresses, and no two
/// segments lie on each other.
fn read_layout<H: FileHeader<Endian = Endianness>>(
    headers: &[H::ProgramHeader],
    endian: Endianness,
    is_stripped_of_code: bool,
) -> Option<Layout> {
    let loads = || {
        headers
            .iter()
            .filter(|header| header.p_type(endian) == PT_LOAD)
    };
    let segments = loads()
        .map(|header| Segment {
            file_offset: header.p_offset(endian).into(),
            address: header.p_vaddr(endian).into(),
            bytes: header.p_filesz(endian).into(),
        })
        .filter(|segment| segment.bytes > 0)
        .collect();
    let layout = Layout::new(segments)?;
    if !is_stripped_of_code {
        return Some(layout);
    }
    let is_whole = loads().all(|header| {
        let (offset, address): (u64, u64) = (
            header.p_offset(endian).into(),
            header.p_vaddr(endian).into(),
        );
        let (in_file, in_memory): (u64, u64) = (
            header.p_filesz(endian).into(),
            header.p_memsz(endian).into(),
        );
        let align: u64 = header.p_align(endian).into();
        let is_code = header.p_flags(endian).0 & PF_X.0 != 0;
        let fits = align <= 1 || offset % align == address % align;
        fits && (!is_code || (in_file > 0 && in_file == in_memory))
    });
    let lie_apart = layout
        .segments()
        .windows(2)
        .all(|pair| pair[0].file_offset + pair[0].bytes <= pair[1].file_offset);
    (is_whole && lie_apart).then_some(layout)
}
