//! Programs with Go's table of functions. Any bytes give names and rows within the limits, or none.

use std::rc::Rc;

use elf::test_support::ElfBuilder;
use elf::{FileRange, ProgramHeader};
use object::elf::{PF_R, PF_W, PF_X, PT_DYNAMIC, PT_LOAD};
use symbolize::go::GoFile;
use symbolize::{FUNCTIONS_MAX, STRING_BYTES_MAX};

/// The file is mapped at one address, as code and as data.
const BASE: u64 = 0x40_0000;
const CODE_AT: u64 = 0x400;
const CODE_BYTES: u64 = 0x100;
const TABLE_AT: usize = 0x500;

/// Names every 16th offset of what the first 4 KB hold: all of the seeds' code.
pub(crate) fn run(input: &[u8]) {
    let Some(file) = GoFile::open(input, &Rc::default()) else {
        return;
    };
    for offset in (0..4096).step_by(16) {
        let functions = file.name(offset);
        assert!(functions.len() <= FUNCTIONS_MAX);
        for function in functions {
            assert!(
                function.symbol.len() <= 3 * (STRING_BYTES_MAX + 1)
                    && function.file.len() <= 3 * (STRING_BYTES_MAX + 1)
            );
        }
    }
    for function in file.frames() {
        let starts = function.rows.iter().map(|row| row.0);
        assert!(starts.clone().is_sorted() && starts.clone().all(|start| function.range.contains(&start)));
    }
}

/// One file of each form, and one whose pointers stand in relocations; each named as it should be.
pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let forms = [
        (0xfb, false),
        (0xfa, false),
        (0xf0, false),
        (0xf1, false),
        (0xf1, true),
    ];
    forms
        .map(|(form, is_relocated)| make_go_file(form, is_relocated))
        .into()
}

fn make_go_file(form: u8, is_relocated: bool) -> Vec<u8> {
    let (table, tree) = make_table(form);
    let module_at = (TABLE_AT + table.len()).next_multiple_of(8);
    let mut file = vec![0; TABLE_AT];
    file.extend(&table);
    file.resize(module_at, 0);
    // The module's record: the parts' addresses, the number of functions, the start of the code, the trees' start.
    let address = |at: usize| BASE + (TABLE_AT + at) as u64;
    let word = |at: usize| {
        table[at..]
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word) as usize)
    };
    let mut record = [0_u64; 44];
    for (field, part) in [
        (0, 0),
        (1, word(32)),
        (4, word(40)),
        (7, word(48)),
        (10, word(56)),
        (13, word(64)),
    ] {
        record[field] = address(part);
    }
    (record[22], record[if form == 0xf0 { 38 } else { 40 }]) = (BASE + CODE_AT, address(tree));
    let mut relocations = Vec::new();
    for (field, value) in record
        .iter()
        .enumerate()
        .filter(|(_, value)| **value != 0 && is_relocated)
    {
        relocations.extend(
            [BASE + (module_at + 8 * field) as u64, 8, *value]
                .map(u64::to_le_bytes)
                .concat(),
        );
    }
    if is_relocated {
        record = [0; 44];
    }
    record[17] = 3;
    file.extend(record.map(u64::to_le_bytes).concat());
    let relocations_at = file.len() as u64;
    file.extend(&relocations);
    let dynamic_at = file.len() as u64;
    let dynamic = [7, BASE + relocations_at, 8, relocations.len() as u64, 0, 0];
    file.extend(dynamic.map(u64::to_le_bytes).concat());
    let data_bytes = (file.len() - TABLE_AT) as u64;
    let mut elf = ElfBuilder::new(file);
    for (kind, flags, offset, bytes) in [
        (PT_LOAD, PF_R | PF_X, CODE_AT, CODE_BYTES),
        (PT_LOAD, PF_R | PF_W, TABLE_AT as u64, data_bytes),
        (PT_DYNAMIC, PF_R | PF_W, dynamic_at, 48),
    ] {
        elf.segment(ProgramHeader {
            kind,
            flags,
            range: FileRange { offset, bytes },
            address: BASE + offset,
            ..Default::default()
        });
    }
    let file = elf.build();
    check_names(&file, form);
    file
}

/// A table of two functions of 128 bytes, `main.outer`, into which `main.inner` is inlined at 16..48, and
/// `main.other`; and where in it the tree of inlined calls lies.
fn make_table(form: u8) -> (Vec<u8>, usize) {
    let mut table = vec![form, 0xff, 0xff, 0xff, 0, 0, 1, 8];
    let header_words = match form {
        0xfb => 1,
        0xfa => 7,
        _ => 8,
    };
    table.resize(8 + 8 * header_words, 0);
    table[8] = 2;
    if form == 0xfb {
        // The list comes first there: three addresses, two places, and where the files are.
        table.resize(16 + 5 * 8 + 8, 0);
    }
    let names = push(&mut table, b"main.outer\0main.inner\0main.other\0");
    let units = push(&mut table, &[0; 4]);
    let file_names = push(&mut table, b"/a.go\0");
    let files = match form {
        0xfb => push(
            &mut table,
            &[[2, 0, 0, 0], (file_names as u32).to_le_bytes()].concat(),
        ),
        _ => file_names,
    };
    // Pairs of a difference, doubled and negative ones odd, and of bytes of code. 0 is no table.
    let first_file = if form == 0xfb { 4 } else { 2 };
    let values = push(
        &mut table,
        &[
            0, first_file, 0x80, 1, 0, 22, 0x10, 10, 0x70, 0, 0, 0x10, 2, 0x20, 1, 0x50, 0,
        ],
    );
    let list = if form == 0xfb {
        16
    } else {
        push(&mut table, &[])
    };
    if form != 0xfb {
        table.resize(list + if form == 0xfa { 40 } else { 20 }, 0);
    }
    let base = if form == 0xfb { 0 } else { list };
    let origin = if form == 0xfb { 0 } else { values };
    let value = |at: usize| (at - if form == 0xfb { 0 } else { origin }) as u32;
    let name = |at: usize| (at + if form == 0xfb { names } else { 0 }) as u32;
    let tree = make_tree(form);
    let mut entries = Vec::new();
    for (entry, name_at) in [(0_u64, 0), (128, 22)] {
        let at = push(&mut table, &[]);
        entries.push((entry, at - base));
        match form {
            0xfb | 0xfa => table.extend((BASE + CODE_AT + entry).to_le_bytes()),
            _ => table.extend((entry as u32).to_le_bytes()),
        }
        let fields = [
            name(name_at),
            0,
            0,
            value(values + 1),
            value(values + 1),
            value(values + 5),
            3,
            0,
        ];
        let fields = if form == 0xfb {
            &fields[..7]
        } else {
            &fields[..]
        };
        table.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        if form == 0xf1 {
            table.extend(7_u32.to_le_bytes());
        }
        table.extend([0, 0, 0, 4]);
        let inlined = if entry == 0 { value(values + 10) } else { 0 };
        table.extend([0, 0, inlined].map(u32::to_le_bytes).concat());
        if form >= 0xfa {
            table.resize(table.len().next_multiple_of(8), 0);
            // The tree will follow the second function, whose record has the same length.
            let left = if entry == 0 {
                32 + (table.len() + 32 - at)
            } else {
                32
            };
            let tree_at = (table.len() + left).next_multiple_of(8);
            table.extend(
                [0, 0, 0, BASE + (TABLE_AT + tree_at) as u64]
                    .map(u64::to_le_bytes)
                    .concat(),
            );
        } else {
            table.extend(
                [u32::MAX, u32::MAX, u32::MAX, 0]
                    .map(u32::to_le_bytes)
                    .concat(),
            );
        }
    }
    let tree_at = push(&mut table, &tree);
    if form == 0xfb || form == 0xfa {
        let mut words: Vec<u64> = entries
            .iter()
            .flat_map(|(entry, at)| [BASE + CODE_AT + entry, *at as u64])
            .collect();
        words.push(BASE + CODE_AT + CODE_BYTES);
        put(
            &mut table,
            list,
            &words
                .into_iter()
                .flat_map(u64::to_le_bytes)
                .collect::<Vec<_>>(),
        );
    } else {
        let mut words: Vec<u32> = entries
            .iter()
            .flat_map(|(entry, at)| [*entry as u32, *at as u32])
            .collect();
        words.push(CODE_BYTES as u32);
        put(
            &mut table,
            list,
            &words
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect::<Vec<_>>(),
        );
    }
    match form {
        0xfb => put(&mut table, 16 + 40, &(files as u32).to_le_bytes()),
        _ => {
            let at = if form == 0xfa { 24 } else { 32 };
            let parts = [names, units, files, values, list].map(|part| (part as u64).to_le_bytes());
            put(&mut table, at, &parts.concat());
        }
    }
    (table, tree_at)
}

/// One call of `main.inner`, 4 bytes into the function.
fn make_tree(form: u8) -> Vec<u8> {
    let words = if form == 0xf1 {
        vec![0, 11, 4, 3]
    } else {
        vec![0, 0, 0, 11, 4]
    };
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn check_names(file: &[u8], form: u8) {
    let go = GoFile::open(file, &Rc::default()).expect("the table is found");
    let names = |into: u64| {
        let functions = go.name(CODE_AT + into);
        functions
            .iter()
            .map(|frame| format!("{} {}:{}", frame.symbol, frame.file, frame.line))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(8), ["main.outer /a.go:10"], "{form:x}");
    match form {
        0xfb => assert_eq!(names(20), ["main.outer /a.go:15"]),
        _ => assert_eq!(
            names(20),
            ["main.inner /a.go:15", "main.outer /a.go:10"],
            "{form:x}"
        ),
    }
    assert_eq!(names(200), ["main.other /a.go:15"], "{form:x}");
    assert!(go.name(CODE_AT + CODE_BYTES).is_empty());
    let ranges: Vec<_> = go.frames().map(|function| function.range).collect();
    let functions = [CODE_AT, CODE_AT + 128].map(|at| BASE + at..BASE + at + 128);
    assert_eq!(ranges, if matches!(form, 0xf0 | 0xf1) { &functions[..] } else { &[] });
}

/// Adds a part at a multiple of 8, and gives its place.
fn push(bytes: &mut Vec<u8>, part: &[u8]) -> usize {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let at = bytes.len();
    bytes.extend(part);
    at
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}
