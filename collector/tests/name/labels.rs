//! Symbols without a length, as NASM and hand-written assembler have them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::target::{code_segment, functions, namer, object, unmapped_file};
use crate::variants::run;

/// `first_asm` and `looping` are exported; `work`, `behind_cfi` and `alone` are not, and have no symbol after `strip`.
const SOURCE: &str = r#"
asm(".text\n.globl first_asm\nfirst_asm: ret\n"
    ".skip 65536, 0x90\n"
    ".hidden work\n.globl work\nwork: mov $100, %eax\nwork_loop: dec %eax\njnz work_loop\nret\n"
    ".p2align 4\n.globl looping\nlooping: jmp check\n.p2align 4, 0x90\nbody: dec %edi\ncheck: test %edi, %edi\njg body\n"
    "back: ret\nalone: ret\n"
    ".globl with_cfi\nwith_cfi:\n.cfi_startproc\njmp *%rax\nhandler: ret\n.cfi_endproc\n"
    "behind_cfi:\n.cfi_startproc\nret\n.cfi_endproc\n");
int main(void) { return 0; }
"#;

const NONE: &str = "unnamed: no_symbol";

/// Offset of a symbol of the unstripped program.
fn offset_of(program: &Path, symbol: &str) -> u64 {
    let output = Command::new("nm").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|line| line.last() == Some(&symbol)).unwrap();
    let address = u64::from_str_radix(line[0], 16).unwrap();
    let code = code_segment(&fs::read(program).unwrap());
    address - code.address + code.offset
}

/// Check that an exported label names its function, and no code behind it whose symbol was stripped.
#[test]
fn labels_end_with_their_functions() {
    let folder = tempfile::tempdir().unwrap();
    let [source, program, stripped] =
        ["a.c", "program", "stripped"].map(|name| folder.path().join(name));
    fs::write(&source, SOURCE).unwrap();
    run(Command::new("cc")
        .args(["-O1", "-rdynamic", "-o"])
        .args([&program, &source]));
    run(Command::new("strip").arg("-o").args([&stripped, &program]));
    for (symbol, bytes, whole, exported) in [
        ("first_asm", 0, "first_asm", "first_asm"),
        ("first_asm", 1, NONE, NONE),
        ("first_asm", 0x8000, NONE, NONE),
        ("work", 0, "work", NONE),
        ("work_loop", 1, "work_loop", NONE),
        ("looping", 0, "looping", "looping"),
        ("body", 1, "body", "looping"),
        ("back", 0, "back", "looping"),
        ("alone", 0, "alone", NONE),
        ("handler", 0, "handler", "with_cfi"),
        ("behind_cfi", 0, "behind_cfi", NONE),
    ] {
        let offset = offset_of(&program, symbol) + bytes;
        for (path, expected) in [(&program, whole), (&stripped, exported)] {
            let namings = namer().name(&object(unmapped_file(path)), &[offset]);
            let place = format!("{symbol}+{bytes} of {}", path.display());
            assert_eq!(functions(&namings[0]), [expected], "{place}");
        }
    }
}
