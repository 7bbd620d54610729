//! Tests of reading code, on files of a few functions.

use elf::ProgramHeader;
use elf::test_support::ElfBuilder;
use object::elf::{PF_R, PF_X, PT_LOAD};
use profiler_bpf::arch::x86_64::rule::{RSP, rbp, rbx, source};

use super::*;

/// Address as linked of the file's offset 0.
const LINKED_AT: u64 = 0x40_0000;

/// A file with this code, which begins at its entry; and the offset of the code.
fn file_with(code: &[u8]) -> (Vec<u8>, u64) {
    let mut builder = ElfBuilder::new(Vec::new());
    let range = builder.place(code);
    builder.segment(ProgramHeader {
        kind: PT_LOAD,
        flags: PF_R | PF_X,
        range,
        address: LINKED_AT + range.offset,
        ..ProgramHeader::default()
    });
    let mut file = builder.build();
    // `e_entry`
    file[24..32].copy_from_slice(&(LINKED_AT + range.offset).to_le_bytes());
    (file, range.offset)
}

/// The rule of one address by its offset in the code, and the reason if it is undecided.
fn rule_of(code: &[u8], at: impl Fn(u64) -> CodeAddress) -> (Rule, Option<&'static str>) {
    let (file, start) = file_with(code);
    let address = at(start);
    let read = read_code(&*file, &[address]);
    let rule = read.rows.find(address.offset()).unwrap();
    (rule, read.undecided.into_keys().next())
}

fn instruction(offset: u64) -> impl Fn(u64) -> CodeAddress {
    move |start| CodeAddress::Instruction(start + offset)
}

fn call(last_byte: u64) -> impl Fn(u64) -> CodeAddress {
    move |start| CodeAddress::Call(start + last_byte)
}

/// musl's `_start`, which calls the function behind it: `push rbx; call rax; pop rbx; ret`.
const START: [u8; 21] = [
    0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x83, 0xe4, 0xf0, 0xe8, 1, 0, 0, 0, 0x90, 0x53, 0xff,
    0xd0, 0x5b, 0xc3,
];

/// Check that the entry of a program is an outermost frame up to its call, and no further; and that a return address is looked
/// up at its call.
#[test]
fn entry_of_a_program() {
    let end = (Rule::END_BY_INSTRUCTIONS, None);
    assert_eq!(rule_of(&START, instruction(3)), end);
    assert_eq!(rule_of(&START, call(14)), end);
    let saved = Rule {
        rbx: rbx::AT_CFA,
        rbx_offset: -16,
        source: source::INSTRUCTIONS,
        ..Rule::at_register(RSP, 16)
    };
    assert_eq!(rule_of(&START, instruction(19)), (saved, None));
    let (rule, reason) = rule_of(&START, call(18));
    assert_eq!((rule.cfa_offset, reason), (16, None));
    assert_eq!(
        rule_of(&START, call(19)),
        (Rule::UNDECIDED, Some("no_call"))
    );
    let behind = |_| CodeAddress::Instruction(0x10_0000);
    assert_eq!(rule_of(&START, behind), (Rule::UNDECIDED, Some("no_code")));
}

/// Check that a new thread's part of musl's `__clone` is an outermost frame, wherever the code is entered, and the parent's is not.
#[test]
fn first_function_of_a_thread() {
    // `ret` behind the part of the new thread, for the parent; and the entry of the file in front.
    let mut code = START.to_vec();
    let clone = code.len() as u64;
    code.extend(ends::CLONE);
    code.push(0xc3);
    let end = (Rule::END_BY_INSTRUCTIONS, None);
    assert_eq!(rule_of(&code, call(clone + 11)), end);
    assert_eq!(rule_of(&code, instruction(clone + 8)), end);
    let (file, start) = file_with(&code);
    let addresses = [CodeAddress::Instruction(start + clone)];
    let rows = read_code(&*file, &addresses).rows;
    let at = |offset| rows.find(start + clone + offset).unwrap();
    assert_eq!((at(2).cfa_offset, at(2).source), (8, source::INSTRUCTIONS));
    assert_eq!(at(6), Rule::END_BY_INSTRUCTIONS);
    assert_eq!(at(21).cfa_offset, 8);
}

/// Check that a function that keeps a frame pointer and leaves by a jump of an interpreter is walked by it, and one without is undecided.
#[test]
fn frame_pointer_of_an_interpreter() {
    // push rbp; mov rbp,rsp; lea rax,[rax+rcx*8]; add rax,rdx; jmp rax
    let framed = [
        0x55, 0x48, 0x89, 0xe5, 0x48, 0x8d, 0x04, 0xc8, 0x48, 0x01, 0xd0, 0xff, 0xe0,
    ];
    let mut code = START.to_vec();
    let start = code.len() as u64;
    code.extend(framed);
    let expected = Rule {
        rbp: rbp::AT_CFA,
        rbp_offset: -16,
        ..frame_pointer::RULE
    };
    assert_eq!(rule_of(&code, instruction(start + 8)), (expected, None));
    code[start as usize..][..4].fill(0x90);
    let (rule, reason) = rule_of(&code, instruction(start + 8));
    assert_eq!(rule, Rule::UNDECIDED);
    assert!(reason.is_some());
}

/// Check that bytes that are no file give a row for each address.
#[test]
fn no_file() {
    let read = read_code(&b"\x7fELF"[..], &[CodeAddress::Call(7)]);
    assert_eq!(read.rows.find(7), Some(Rule::UNDECIDED));
    assert_eq!(read.undecided.into_iter().next(), Some(("no_code", 1)));
}
