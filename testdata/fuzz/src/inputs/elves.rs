//! Small ELF files with call frame information, and checks of the rows of any file. The collector's test `unwind` uses it too.

#![allow(dead_code, reason = "not every target takes all of it")]

use collector::unwind::{Evaluated, Limits, RuleSet, read_table};
use elf::test_support::ElfBuilder;
use elf::{FileRange, ProgramHeader, SectionHeader};
use object::elf::{PF_R, PF_X, PT_LOAD, SHF_ALLOC, SHT_PROGBITS};

/// File offset and address of the code: below the sections that point to it.
const CODE_OFFSET: u64 = 0x1000;
const CODE_ADDRESS: u64 = 0x40_1000;
const CODE_BYTES: u64 = 0x2_0000;
const FRAME_ADDRESS: u64 = 0x48_0000;

/// Reads the rows of a file twice: with limits that it does not reach, and with limits that it does.
pub(crate) fn try_file(input: &[u8]) {
    let limits = Limits {
        section_bytes_max: 1 << 16,
        functions_max: 500,
        rows_max: 5_000,
        work_bytes_max: 1 << 17,
    };
    let mut rules = RuleSet::new();
    if let Ok(evaluated) = read_table(input, &mut rules, &limits) {
        check(&evaluated, &rules, &limits);
    }
    let small = Limits {
        section_bytes_max: 200,
        functions_max: 2,
        rows_max: 3,
        work_bytes_max: 300,
    };
    if let Ok(evaluated) = read_table(input, &mut RuleSet::new(), &small) {
        assert!(evaluated.table.rows().len() <= small.rows_max);
    }
}

/// Reads the rows of a section. The first byte says which section it is.
pub(crate) fn try_section(input: &[u8]) {
    if let Some((kind, section)) = input.split_first() {
        try_file(&wrap(section, kind % 2 == 1));
    }
}

/// Checks the invariants of rows.
pub(crate) fn check(evaluated: &Evaluated, rules: &RuleSet, limits: &Limits) {
    let table = &evaluated.table;
    assert!(table.rows().len() <= limits.rows_max);
    let mut rows = 0;
    let mut number_before = None;
    for block in table.blocks() {
        assert!(number_before.is_none_or(|before| before < block.number));
        number_before = Some(block.number);
        let of_block = table.rows_of(block);
        assert_eq!(
            (of_block.len(), block.first as usize),
            (block.count as usize, rows)
        );
        rows += of_block.len();
        assert!(of_block.is_sorted_by(|a, b| a.offset() < b.offset()));
        for row in of_block {
            assert!(rules.get(row.rule()).is_some());
            assert!(
                table
                    .find(block.number * 65_536 + u64::from(row.offset()))
                    .is_some()
            );
        }
    }
    assert_eq!(rows, table.rows().len());
}

/// A file with a segment of code, and one section of call frame information.
pub(crate) fn wrap(section: &[u8], is_debug_frame: bool) -> Vec<u8> {
    let code = FileRange {
        offset: CODE_OFFSET,
        bytes: CODE_BYTES,
    };
    let mut elf = ElfBuilder::default();
    elf.segment(ProgramHeader {
        kind: PT_LOAD,
        flags: PF_R | PF_X,
        range: code,
        address: CODE_ADDRESS,
        ..Default::default()
    });
    let name = if is_debug_frame {
        ".debug_frame"
    } else {
        ".eh_frame"
    };
    let frames = elf.place(section);
    for (name, address, range) in [(name, FRAME_ADDRESS, frames), (".text", CODE_ADDRESS, code)] {
        let header = SectionHeader {
            kind: SHT_PROGBITS,
            flags: SHF_ALLOC,
            address,
            range,
            ..Default::default()
        };
        elf.section(name, header);
    }
    elf.build()
}

/// Files with each of the sections below.
pub(crate) fn make_elves() -> Vec<Vec<u8>> {
    make_sections()
        .iter()
        .map(|section| wrap(&section[1..], section[0] == 1))
        .collect()
}

/// Sections with the shapes that compilers and linkers write, each after a byte that says which section it is.
pub(crate) fn make_sections() -> Vec<Vec<u8>> {
    // A frame of pushes: CFA = rsp + 16, rbp and rbx saved; then one by rbp; remembered and restored.
    let pushes = [
        0x41, 0x0e, 16, 0x86, 2, 0x44, 0x0d, 6, 0x83, 3, 0x0a, 0x48, 0x0c, 7, 8, 0x0b, 0x02, 9,
        0x2e, 16, 0x03, 9, 1, 0xc6, 0xc3,
    ];
    // Realigned: CFA = r10, then the word at rbp - 8; rbp at rbp + 0, rbx at rbp - 16.
    let realigned = [
        0x45, 0x0c, 10, 0, 0x49, 0x10, 6, 2, 0x76, 0, 0x10, 3, 2, 0x76, 0x70, 0x42, 0x0f, 3, 0x76,
        0x78, 6, 0x50, 0x0c, 10, 0, 0x44, 0x0c, 7, 8,
    ];
    // A linkage table: rsp + 8 + ((rip & 15) >= 11) * 8.
    let linkage = [
        0x0e, 16, 0x46, 0x0e, 24, 0x4a, 0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33,
        0x24, 0x22,
    ];
    // A signal trampoline: everything from the context at rsp.
    let signal = [
        0x0f, 4, 0x77, 0xa0, 1, 6, 0x10, 6, 3, 0x77, 0xf8, 0, 0x16, 3, 3, 0x77, 0x80, 1, 0x10, 16,
        3, 0x77, 0xa8, 1,
    ];
    // The outermost frame, a return address in a register, and a CFA in another.
    let outermost = [0x07, 16];
    let registers = [
        0x42, 0x09, 16, 11, 0x43, 0x0c, 3, 56, 0x09, 3, 8, 0x12, 3, 0x7e, 0x11, 6, 0x7e,
    ];
    let bodies: [&[u8]; 6] = [
        &pushes, &realigned, &linkage, &signal, &outermost, &registers,
    ];
    let mut sections = Vec::new();
    for is_debug_frame in [false, true] {
        for (place, body) in bodies.iter().enumerate() {
            let augmentation: &[u8] = if place == 3 { b"zRS\0" } else { b"zR\0" };
            let section = make_section(augmentation, &[body], is_debug_frame);
            sections.push([&[is_debug_frame.into()], &section[..]].concat());
        }
        let section = make_section(b"zR\0", &bodies, is_debug_frame);
        sections.push([&[is_debug_frame.into()], &section[..]].concat());
    }
    sections
}

/// A common entry, and one for each function: the first CFA is rsp + 8, the return address lies below it.
fn make_section(augmentation: &[u8], bodies: &[&[u8]], is_debug_frame: bool) -> Vec<u8> {
    let mut section = Vec::new();
    let start = [0x0c, 7, 8, 0x90, 1];
    let mut common = vec![1];
    if is_debug_frame {
        common.extend([0, 1, 0x78, 16]);
    } else {
        // Pointers are four bytes, from where they stand.
        common.extend([augmentation, &[1, 0x78, 16, 1, 0x1b]].concat());
    }
    common.extend(start);
    push_entry(
        &mut section,
        if is_debug_frame { u32::MAX } else { 0 },
        &common,
    );
    for (place, body) in bodies.iter().enumerate() {
        let at = section.len() as u64;
        let address = CODE_ADDRESS + 0x1f0 * place as u64;
        let mut entry = Vec::new();
        if is_debug_frame {
            entry.extend([address, 0x1f0].map(u64::to_le_bytes).concat())
        } else {
            let relative = address.wrapping_sub(FRAME_ADDRESS + at + 8) as u32;
            entry.extend([relative.to_le_bytes(), 0x1f0_u32.to_le_bytes()].concat());
            entry.push(0);
        }
        entry.extend(*body);
        push_entry(
            &mut section,
            if is_debug_frame { 0 } else { at as u32 + 4 },
            &entry,
        );
    }
    if !is_debug_frame {
        section.extend([0; 4]);
    }
    section
}

fn push_entry(section: &mut Vec<u8>, common: u32, content: &[u8]) {
    let length = (4 + content.len()).next_multiple_of(4);
    section.extend((length as u32).to_le_bytes());
    section.extend(common.to_le_bytes());
    section.extend(content);
    section.resize(section.len() + length - 4 - content.len(), 0);
}
