//! Our names against those of `llvm-symbolizer`. (binutils' `addr2line` takes the file of an inlined function, or of one
//! from a header, for that of the unit in one address of twenty of a libc.)
//!
//! At random addresses, names, inlined calls, files and lines are the same at 3,848 of 3,848 in a C
//! library, 2,723 of 2,723 in this project's own tests, 3,934 of 3,939 in CPython 3.11 (five are
//! functions of which GCC made one), 3,777 of 3,777 in a C++ program, also with its units split in
//! DWARF 4 and 5 or shared by `dwz`, and 582 of 582 in a library that is read unit by unit; the
//! names of exported functions of libLLVM at 3,094 of 3,094, and the kernel's at 16,000 of 16,000.
//! Counted as the same: two names of one address, a part's name (`.cold`) and its function's, `..`
//! in paths. `cargo test -p pilotlight-collector --test name -- differential kernel --nocapture`
//! shows each difference; `PILOTLIGHT_DIFFERENTIAL='FILE FILE' ... -- --ignored
//! differential::given` compares any other program.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use collector::file::ElfFile;
use collector::name::{Namer, NamerOptions, NamerStats, Naming};
use elf::BuildId;
use fastrand::Rng;

use crate::linked::{seen_here, share};
use crate::own_address;
use crate::paths::build_id;
use crate::target::{
    CodeSegment, Program, code_segment, locate, mappings, namer, object, options, unmapped_file,
};
use crate::variants::run;

/// Minimum share of addresses with equal answers.
const SAME_MIN: f64 = 0.995;

/// A function at an address, with its name in the symbol table.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// The answers of `llvm-symbolizer` for offsets, each with its functions, innermost first.
pub(crate) fn ask_symbolizer(path: &Path, code: &CodeSegment, offsets: &[u64]) -> Vec<Vec<Frame>> {
    let mut child = Command::new("llvm-symbolizer-22")
        .args(["--addresses", "--inlines", "--no-demangle"])
        .args(["--output-style=GNU", "--exe"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let addresses: String = offsets
        .iter()
        .map(|offset| format!("{:#x}\n", offset - code.offset + code.address))
        .collect();
    let writer = std::thread::spawn(move || input.write_all(addresses.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut answers: Vec<Vec<Frame>> = Vec::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            answers.push(Vec::new());
            continue;
        }
        let place = lines
            .next()
            .unwrap()
            .split(" (discriminator")
            .next()
            .unwrap();
        let (file, number) = place.rsplit_once(':').unwrap();
        answers.last_mut().unwrap().push(Frame {
            name: line.to_owned(),
            file: file.to_owned(),
            line: number.parse().unwrap_or(0),
        });
    }
    answers
}

pub(crate) fn our_frames(naming: &Naming) -> Vec<Frame> {
    let Naming::Named(frames) = naming else {
        return Vec::new();
    };
    let frame = |frame: &collector::name::Frame| {
        let name = match &*frame.system_name {
            "" => &frame.function,
            name => name,
        };
        Frame {
            name: name.to_string(),
            file: frame.file.to_string(),
            line: frame.line,
        }
    };
    frames.iter().map(frame).collect()
}

/// The addresses of all symbols of a file, from `nm`.
fn read_symbols(path: &Path, options: &[&str]) -> HashMap<String, String> {
    let output = Command::new("nm").args(options).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut symbols = HashMap::new();
    for line in text.lines() {
        let Some((address, name)) = line.split_once(' ') else {
            continue;
        };
        let name = name.get(2..).unwrap_or_default();
        symbols.insert(name.to_owned(), address.to_owned());
        // llvm-symbolizer omits a symbol's version.
        if let Some((plain, _)) = name.split_once('@') {
            let known = symbols.entry(plain.to_owned());
            known.or_insert_with(|| address.to_owned());
        }
    }
    symbols
}

/// Whether the name of `ours[index]` is `theirs`. For the function that contains the code,
/// llvm-symbolizer uses a name of the symbol table. That may be one of several names, or the name
/// of the function's rarely executed part (`abort` and `__GI_abort`, `gets.cold`).
fn is_same_name(
    ours: &[Frame],
    index: usize,
    theirs: &str,
    symbols: &HashMap<String, String>,
) -> bool {
    let name = &ours[index].name;
    let theirs_whole = without_part(theirs);
    let is_alias = || {
        let (ours, theirs) = (symbols.get(name), symbols.get(theirs_whole));
        ours.is_some() && ours == theirs
    };
    name == theirs
        || (index + 1 == ours.len() && (without_part(name) == theirs_whole || is_alias()))
}

/// The function that a part belongs to.
fn without_part(name: &str) -> &str {
    match name.split_once('.') {
        // The dot of a version (`@@GLIBC_2.3`) has another meaning.
        Some((whole, _)) if !whole.contains('@') => whole,
        _ => name,
    }
}

/// Compares paths, which may contain `.`, `..` and double slashes.
fn is_same_file(ours: &str, theirs: &str) -> bool {
    let clean = |path: &str| {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    };
    let (ours, theirs) = (clean(ours), clean(theirs));
    // If the compilation directory is relative too, theirs has an additional directory before it.
    ours == theirs || theirs.ends_with(&format!("/{ours}"))
}

/// A C++ program with deep inlined calls.
const SHOP: &str = include_str!("../../../testdata/names/shop.cc");

/// That program, compiled with `options`.
fn compile_shop(directory: &Path, options: &[&str]) -> PathBuf {
    let source = directory.join("shop.cc");
    fs::write(&source, SHOP).unwrap();
    let mut compile = Command::new("c++");
    compile
        .current_dir(directory)
        .args(["-g", "-O2", "-std=c++17", "-o", "shop", "shop.cc"])
        .args(options);
    run(&mut compile);
    directory.join("shop")
}

/// Random offsets in the code, in their order.
fn draw(code: &CodeSegment, count: usize) -> Vec<u64> {
    let mut random = Rng::with_seed(1);
    let mut offsets: Vec<u64> = (0..count)
        .map(|_| code.offset + random.u64(..code.bytes))
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

/// Compares the answers at `count` random offsets in the code.
fn check(path: &Path, count: usize, compared_min: usize) {
    check_against(unmapped_file(path), path, path, count, compared_min);
}

/// Like [`check`], with the file's debug information at `debug`.
fn check_against(
    file: ElfFile,
    path: &Path,
    debug: &Path,
    count: usize,
    compared_min: usize,
) -> NamerStats {
    let code = code_segment(&fs::read(path).unwrap());
    let offsets = draw(&code, count);
    let mut namer = Namer::new(NamerOptions {
        // A child that was compiled without optimization is slow.
        request_time: Duration::from_secs(120),
        ..options()
    });
    let namings = namer.name(&object(file), &offsets);
    let theirs = ask_symbolizer(debug, &code, &offsets);
    assert_eq!(theirs.len(), offsets.len());
    let symbols = read_symbols(debug, &[]);
    let (mut compared, mut outside, mut same, mut frames, mut shown) = (0, 0, 0, 0, 0);
    for ((offset, naming), theirs) in offsets.iter().zip(&namings).zip(&theirs) {
        // Without a line, it returns the preceding symbol, even a much smaller one: there is
        // nothing to compare.
        if theirs[0].line == 0 {
            continue;
        }
        let ours = our_frames(naming);
        // Between functions it returns the preceding one.
        if ours.is_empty() {
            outside += 1;
            continue;
        }
        let is_same = ours.len() == theirs.len()
            && ours
                .iter()
                .zip(theirs)
                .enumerate()
                .all(|(index, (frame, theirs))| {
                    frame.line == theirs.line
                        && is_same_file(&frame.file, &theirs.file)
                        && is_same_name(&ours, index, &theirs.name, &symbols)
                });
        compared += 1;
        same += usize::from(is_same);
        frames += ours.len();
        if !is_same && shown < 5 {
            shown += 1;
            eprintln!("{offset:#x}\n  ours   {ours:?}\n  theirs {theirs:?}");
        }
    }
    let share = same as f64 / compared as f64;
    eprintln!(
        "{}: {same} of {compared} the same, {outside} between functions, {frames} functions",
        path.display()
    );
    assert!(
        compared >= compared_min,
        "only {compared} could be compared"
    );
    assert!(
        outside * 20 <= compared,
        "{outside} addresses without a name"
    );
    assert!(share >= SAME_MIN, "{share} of {compared} are the same");
    namer.stats()
}

/// The path of the debug information in the build-id tree.
fn debug_file_of(id: &BuildId) -> PathBuf {
    let hex = id.to_string();
    let (directory, name) = hex.split_at(2);
    format!("/usr/lib/debug/.build-id/{directory}/{name}.debug").into()
}

/// Check this program: Rust, with inlined functions, files and lines.
#[test]
fn own_program_is_named_as_by_llvm_symbolizer() {
    let (own, _) = locate(own_address());
    // About a third of the drawn addresses are in code of other packages, which is built without
    // debug information.
    check(own.path.as_ref(), 4000, 2000);
}

/// Check a C program at every byte of its code.
#[test]
fn c_program_is_named_as_by_llvm_symbolizer() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::compile(directory.path().join("program"), "some_function");
    check(&program.path, 5000, 20);
}

/// Check the C library with Debian's separate package of its debug information, in the build-id
/// tree.
#[test]
fn libc_is_named_from_its_separate_debug_information() {
    let maps = mappings(std::process::id());
    let libc = maps
        .iter()
        .find(|mapping| mapping.path.contains("/libc.so.6"));
    let path = Path::new(&libc.unwrap().path);
    let id = build_id(path);
    let debug = debug_file_of(&id);
    let file = ElfFile {
        build_id: Some(id),
        ..unmapped_file(path)
    };
    check_against(file, path, &debug, 4000, 3000);
}

/// Check a C++ program with separate debug information.
#[test]
fn cpp_programs_are_named_as_by_llvm_symbolizer() {
    for options in [
        &["-gdwarf-5", "-gsplit-dwarf", "-gz"][..],
        &["-gdwarf-4", "-gsplit-dwarf"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = compile_shop(directory.path(), options);
        eprintln!("{options:?}");
        check_against(seen_here(&path), &path, &path, 4000, 3000);
    }
}

/// Check a C++ program whose common debug information `dwz` has moved to a shared file, against the
/// original.
#[test]
fn shared_cpp_programs_are_named_as_by_llvm_symbolizer() {
    let directory = tempfile::tempdir().unwrap();
    let path = compile_shop(directory.path(), &["-gdwarf-4"]);
    let shared = directory.path().join("shared.debug");
    let before = directory.path().join("before");
    fs::copy(&path, &before).unwrap();
    share(&path, &shared, shared.to_str().unwrap());
    check_against(seen_here(&path), &path, &before, 4000, 3000);
}

/// A library with several copies of a C++ program, without a symbol table, since the copies'
/// symbols were renamed.
fn link_copies(directory: &Path, copies: usize) -> PathBuf {
    let start = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(directory);
        command
    };
    fs::write(directory.join("shop.cc"), SHOP).unwrap();
    fs::write(directory.join("local"), "{ local: *; };").unwrap();
    run(start("c++").args(["-g", "-O2", "-fPIC", "-std=c++17", "-c", "shop.cc"]));
    let mut link = start("ld");
    link.args(["-shared", "--build-id=sha1", "--version-script=local", "-z"])
        .args(["noexecstack", "-o", "copies.so", "handles.o"]);
    let mut handles = String::new();
    for copy in 0..copies {
        let name = format!("copy{copy}.o");
        let prefix = format!("--prefix-symbols=copy{copy}_");
        run(start("objcopy").args([&prefix, "shop.o", &name]));
        link.arg(name);
        // The linker's own symbol of each library, here once per copy.
        handles += &format!(".globl copy{copy}___dso_handle\n.hidden copy{copy}___dso_handle\n");
        handles += &format!("copy{copy}___dso_handle: .quad 0\n");
    }
    fs::write(directory.join("handles.s"), handles).unwrap();
    run(start("as").args(["-o", "handles.o", "handles.s"]));
    run(&mut link);
    run(start("objcopy").args(["--wildcard", "--strip-symbol=*", "copies.so"]));
    directory.join("copies.so")
}

/// Check a library with 54 MB of debug information, which is read unit by unit, without lines and
/// names. The child takes no more memory for it than for other libraries, and searches its units
/// once.
#[test]
fn large_programs_are_named_as_by_llvm_symbolizer() {
    let directory = tempfile::tempdir().unwrap();
    let path = link_copies(directory.path(), 58);
    let stats = check_against(unmapped_file(&path), &path, &path, 600, 400);
    assert_eq!(stats.ends, Default::default());
    let peak = stats.child_resident_peak_bytes;
    let max = options().child.resident_bytes_max;
    eprintln!("{} MB at most", peak >> 20);
    assert!(peak <= max, "{peak} bytes of {max}");
}

/// Checks an installed program, with its debug information from the build-id tree or its own.
fn check_installed(path: &Path) {
    let id = build_id(path);
    let separate = debug_file_of(&id);
    let debug = if separate.exists() { &*separate } else { path };
    let file = ElfFile {
        build_id: Some(id),
        ..unmapped_file(path)
    };
    check_against(file, path, debug, 4000, 2000);
}

/// Check CPython, with Debian's package of its debug information.
#[test]
fn cpython_is_named_from_its_separate_debug_information() {
    let path = Path::new("/usr/bin/python3").canonicalize();
    let path = path.expect("Debian's python3 is installed");
    let debug = debug_file_of(&build_id(&path));
    assert!(
        debug.exists(),
        "{} is missing (python3-dbg)",
        debug.display()
    );
    check_installed(&path);
}

/// Check the files in `PILOTLIGHT_DIFFERENTIAL`, separated by spaces.
#[test]
#[ignore = "takes programs with debug information: PILOTLIGHT_DIFFERENTIAL='FILE FILE'"]
fn given_programs_are_named_as_by_llvm_symbolizer() {
    let files = std::env::var("PILOTLIGHT_DIFFERENTIAL").expect("says which programs");
    for path in files.split_whitespace() {
        check_installed(Path::new(path));
    }
}

/// Check a library that has only a table of exported symbols, one of the largest on a machine.
/// Three of ten addresses are in exported functions.
#[test]
fn llvm_is_named_from_its_symbol_table() {
    let libraries = ["22.1", "22", "14"]
        .map(|version| format!("/usr/lib/x86_64-linux-gnu/libLLVM.so.{version}"));
    let path = libraries.iter().map(Path::new).find(|path| path.exists());
    let path = path.expect("one of LLVM's libraries is installed");
    let code = code_segment(&fs::read(path).unwrap());
    let offsets = draw(&code, 10_000);
    let namings = namer().name(&object(unmapped_file(path)), &offsets);
    let theirs = ask_symbolizer(path, &code, &offsets);
    let symbols = read_symbols(path, &["-D"]);
    let (mut compared, mut same) = (0, 0);
    for ((offset, naming), theirs) in offsets.iter().zip(&namings).zip(&theirs) {
        let ours = our_frames(naming);
        // It returns the preceding symbol, even a much smaller one, and does not know linkage
        // tables.
        if ours.is_empty() || ours[0].name.ends_with("@plt") {
            continue;
        }
        compared += 1;
        if is_same_name(&ours, 0, &theirs[0].name, &symbols) {
            same += 1
        } else {
            eprintln!("{offset:#x}: {} and {}", ours[0].name, theirs[0].name)
        }
    }
    eprintln!("{}: {same} of {compared} the same", path.display());
    assert!(compared >= 2000, "only {compared} could be compared");
    assert!(f64::from(same) >= SAME_MIN * f64::from(compared));
}
