//! Search for the table in a program.

use elf::{CachedFile, FileRange, ProgramHeader, ReadAt};

use super::program::Program;
use super::scan::find_words;
use super::table::{Module, Table, Version};

/// Bytes in which the table is searched by its first bytes if no section has it: about 0.1 s, once for a file. The largest Go
/// programs (Kubernetes, Prometheus) have 50 to 150 MB.
const SCAN_BYTES_MAX: u64 = 256 << 20;

/// Finds the table and its base addresses.
pub(super) fn find_table(
    file: &CachedFile<impl ReadAt>,
    program: &Program,
) -> Option<(Table, Module)> {
    if let Some(range) = program.table {
        return read_table(file, program, range);
    }
    // A file with sections that Go did not make has no table.
    if program.has_sections && !program.is_go {
        return None;
    }
    let mut bytes_left = SCAN_BYTES_MAX;
    let (code, data): (Vec<&ProgramHeader>, Vec<_>) = program
        .segments
        .iter()
        .partition(|segment| segment.is_code());
    data.into_iter().chain(code).find_map(|segment| {
        let FileRange { offset, bytes } = segment.range;
        let bytes = bytes.min(bytes_left);
        bytes_left -= bytes;
        let is_head = |word: &[u8; 8]| Version::of_head(*word).is_some();
        let heads = find_words(file.file(), FileRange { offset, bytes }, is_head);
        heads.into_iter().find_map(|offset| {
            let bytes = segment.range.end() - offset;
            read_table(file, program, FileRange { offset, bytes })
        })
    })
}

fn read_table(
    file: &CachedFile<impl ReadAt>,
    program: &Program,
    range: FileRange,
) -> Option<(Table, Module)> {
    let table = Table::read(file, range)?;
    let module = Module::find(file, program, &table)?;
    Some((table, module))
}
