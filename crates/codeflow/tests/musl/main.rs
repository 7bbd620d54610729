//! Stacks of a static program of musl, which has no call frame information, at random instructions: each reaches `main`, by rows by
//! instructions alone.

#[path = "../compare/file.rs"]
#[expect(dead_code, reason = "the comparison uses more of it")]
mod file;
mod stops;
mod walk;

use std::path::Path;
use std::process::Command;

use file::ElfFile;
use object::{Object as _, ObjectSymbol as _};

/// Stops of the program: in `qsort`, `printf`, `regcomp`, `strtod`, `malloc` and what they call.
const STOPS: u64 = 1_000;

/// Check that each stack reaches `main`. Needs `musl-gcc` and gdb, which `deploy/setup test` installs.
#[test]
fn stacks_reach_main() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join("calls");
    build(&program);
    let stops = stops::run(&program, &folder.join("calls.stops"), STOPS);
    let file = ElfFile::read(&program).expect("an ELF file");
    let main = range_of_main(&file);
    let torn: Vec<String> = stops
        .iter()
        .filter_map(|stop| walk::walk(&file, stop, &main).err())
        .collect();
    assert!(stops.len() as u64 > STOPS / 2, "{} stops", stops.len());
    assert!(
        torn.is_empty(),
        "{} of {}: {torn:#?}",
        torn.len(),
        stops.len()
    );
}

fn build(program: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/unwind/calls.c");
    let mut command = Command::new("musl-gcc");
    let status = command
        .args(["-O2", "-static", "-o"])
        .arg(program)
        .arg(source)
        .status();
    assert!(status.expect("musl-gcc runs").success());
}

fn range_of_main(file: &ElfFile) -> std::ops::Range<u64> {
    let object = object::File::parse(&*file.contents).expect("an ELF file");
    let main = object.symbols().find(|symbol| symbol.name() == Ok("main"));
    let main = main.expect("the program has symbols");
    main.address()..main.address() + main.size()
}
