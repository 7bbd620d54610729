//! A file as a source of code.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use codeflow::Code;
use object::elf::{PF_X, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT};
use object::{
    Object as _, ObjectSegment as _, ObjectSymbol as _, ObjectSymbolTable as _, SegmentFlags,
};

/// A segment: its address, its bytes, whether it is code.
struct Segment {
    address: u64,
    bytes: Range<usize>,
    is_code: bool,
}

/// A file in memory.
pub(crate) struct ElfFile {
    pub(crate) path: PathBuf,
    pub(crate) contents: Vec<u8>,
    segments: Vec<Segment>,
    imports: HashMap<u64, String>,
}

impl ElfFile {
    /// Reads a file; nothing unless it is one of x86-64, and none of Go.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        // Most files of a folder are something else, and large.
        let mut contents = vec![0; 4];
        file.read_exact(&mut contents).ok()?;
        if contents != *b"\x7fELF" {
            return None;
        }
        file.read_to_end(&mut contents).ok()?;
        let object = object::File::parse(&*contents).ok()?;
        let is_go = object.section_by_name(".gopclntab").is_some();
        if object.architecture() != object::Architecture::X86_64 || is_go {
            return None;
        }
        let mut segments = Vec::new();
        for segment in object.segments() {
            let (offset, bytes) = segment.file_range();
            let end = offset.checked_add(bytes)?;
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else {
                continue;
            };
            contents.get(offset as usize..end as usize)?;
            segments.push(Segment {
                address: segment.address(),
                bytes: offset as usize..end as usize,
                is_code: p_flags.0 & PF_X.0 != 0,
            });
        }
        let imports = read_imports(&object);
        Some(Self {
            path: path.to_owned(),
            segments,
            imports,
            contents,
        })
    }

    /// Addresses of the executable segments.
    pub(crate) fn code(&self) -> impl Iterator<Item = Range<u64>> {
        let code = self.segments.iter().filter(|segment| segment.is_code);
        code.map(|segment| segment.address..segment.address + segment.bytes.len() as u64)
    }
}

fn read_imports(object: &object::File<'_>) -> HashMap<u64, String> {
    let mut imports = HashMap::new();
    let (Some(relocations), Some(symbols)) =
        (object.dynamic_relocations(), object.dynamic_symbol_table())
    else {
        return imports;
    };
    for (slot, relocation) in relocations {
        let object::RelocationFlags::Elf { r_type } = relocation.flags() else {
            continue;
        };
        if r_type != R_X86_64_GLOB_DAT && r_type != R_X86_64_JUMP_SLOT {
            continue;
        }
        let object::RelocationTarget::Symbol(index) = relocation.target() else {
            continue;
        };
        if let Ok(symbol) = symbols.symbol_by_index(index)
            && let Ok(name) = symbol.name()
        {
            imports.insert(slot, name.to_owned());
        }
    }
    imports
}

impl Code for ElfFile {
    fn bytes(&self, address: u64) -> &[u8] {
        for segment in &self.segments {
            let offset = address.wrapping_sub(segment.address);
            if offset < segment.bytes.len() as u64 {
                return &self.contents[segment.bytes.start + offset as usize..segment.bytes.end];
            }
        }
        &[]
    }

    fn import(&self, slot: u64) -> Option<&str> {
        self.imports.get(&slot).map(String::as_str)
    }
}
