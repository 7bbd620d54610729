//! Frames of an index, compared with `llvm-symbolizer --inlines` at thousands of random addresses.
//!
//! At 4,000 random addresses each of eight programs, names, inlined calls, files and lines are the
//! same at all of CPython 3.11, of the server itself, of a C program, and of a C++ program in DWARF
//! 4; at 3,999 of three other builds of that (DWARF 5, compressed, not PIE; one address of a
//! `.cold` part whose line is missing), and at 3,982 of Debian's libc (18 lie in functions that
//! choose an implementation, which the debug information calls `strrchr_ifunc` and the symbol table
//! `rindex`). Counted as the same: two names of one address, a part's name and its function's, `..`
//! in paths, and where there is no line, the file's. `cargo test -p pilotlight-server --test
//! symbols differential -- --nocapture` shows each difference.

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use object::{Object, ObjectSymbol};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use symbolize::index::{Index, convert};

use crate::build::{Built, C, CPP, Workshop};

/// Addresses of each program.
const ADDRESSES: usize = 4000;

/// Share of the addresses that must have the same answer.
const SAME_MIN: f64 = 0.995;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    function: String,
    file: String,
    line: u64,
}

/// Random offsets of a program's code.
fn draw_offsets(program: &Built) -> Vec<u64> {
    let mut random = StdRng::seed_from_u64(7);
    let object = String::from_utf8(
        Command::new("readelf")
            .args(["-SW"])
            .arg(&program.path)
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let text = object
        .lines()
        .find(|line| line.contains(" .text "))
        .unwrap();
    let fields: Vec<_> = text
        .split(" .text ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .collect();
    let number = |at: usize| u64::from_str_radix(fields[at], 16).unwrap();
    let (offset, bytes) = (number(2), number(3));
    (0..ADDRESSES)
        .map(|_| offset + random.random_range(0..bytes))
        .collect()
}

/// Names by the index of `debug`, which has the debug information of `program`.
fn name_by_index(program: &Built, debug: &Built, offsets: &[u64]) -> Vec<Vec<Frame>> {
    let mut out = Cursor::new(Vec::new());
    convert(&debug.bytes, &program.build_id(), "test", &mut out).unwrap();
    let index = Index::from_bytes(out.into_inner()).unwrap();
    let mut named = vec![Vec::new(); offsets.len()];
    let layout = program.facts.layout.clone().unwrap();
    index
        .name(&layout, offsets, &mut |position, frames| {
            named[position] = frames
                .iter()
                .map(|frame| Frame {
                    function: match frame.system_name {
                        "" => frame.function.to_owned(),
                        mangled => mangled.to_owned(),
                    },
                    file: frame.file.to_owned(),
                    line: u64::from(frame.line),
                })
                .collect();
        })
        .unwrap();
    named
}

/// The llvm-symbolizer that deploy/setup installs, or the distribution's.
fn find_symbolizer() -> &'static str {
    let mut names = ["llvm-symbolizer-22", "llvm-symbolizer"].into_iter();
    let found = names.find(|name| Command::new(name).arg("--version").output().is_ok());
    found.expect("llvm-symbolizer is installed")
}

fn name_by_llvm(program: &Built, debug: &Built, offsets: &[u64]) -> Vec<Vec<Frame>> {
    let layout = program.facts.layout.clone().unwrap();
    let addresses: String = offsets
        .iter()
        .map(|offset| format!("{:#x}\n", layout.address_of(*offset).unwrap()))
        .collect();
    let mut child = Command::new(find_symbolizer())
        .args(["--inlines", "--no-demangle", "--output-style=JSON", "-e"])
        .arg(&debug.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(addresses.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let answers: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<Value>()
        .flat_map(|value| match value.unwrap() {
            Value::Array(answers) => answers,
            answer => vec![answer],
        })
        .collect();
    assert_eq!(answers.len(), offsets.len());
    let frame = |symbol: &Value| Frame {
        function: symbol["FunctionName"].as_str().unwrap().to_owned(),
        file: symbol["FileName"].as_str().unwrap().to_owned(),
        line: symbol["Line"].as_u64().unwrap(),
    };
    answers
        .iter()
        .map(|answer| {
            let symbols = answer["Symbol"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let frames = symbols.iter().map(frame);
            frames.filter(|frame| !frame.function.is_empty()).collect()
        })
        .collect()
}

/// Addresses of symbols, to find that two names are of one function: C++'s complete and base constructors, and
/// functions that the linker merged, have two names.
fn read_addresses(program: &Built) -> HashMap<String, HashSet<u64>> {
    let file = object::File::parse(&*program.bytes).unwrap();
    let mut addresses = HashMap::<String, HashSet<u64>>::new();
    for symbol in file.symbols().filter(ObjectSymbol::is_definition) {
        let name = symbol.name().unwrap();
        for name in [name, whole(name)] {
            let known = addresses.entry(name.to_owned()).or_default();
            known.insert(symbol.address());
        }
    }
    addresses
}

/// The function that a name is of. GCC's parts of one, as in `work.isra.0` and `main.cold`, are the function's, and so are its
/// versions (`step@GLIBC_2.2.5`): llvm-symbolizer takes either name.
fn whole(name: &str) -> &str {
    let parts = [
        ".cold",
        ".isra.",
        ".part.",
        ".constprop.",
        ".lto_priv.",
        "@",
    ];
    let end = parts.iter().filter_map(|part| name.find(part)).min();
    &name[..end.unwrap_or(name.len())]
}

/// A path without `..` and `.`, as an index has it.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// A difference between two answers.
fn difference(
    ours: &[Frame],
    theirs: &[Frame],
    addresses: &HashMap<String, HashSet<u64>>,
) -> Option<&'static str> {
    let same_name = |(ours, theirs): (&Frame, &Frame)| {
        let (ours, theirs) = (whole(&ours.function), &*theirs.function);
        let known = addresses.get(ours).zip(addresses.get(theirs));
        ours == whole(theirs) || known.is_some_and(|(ours, theirs)| !ours.is_disjoint(theirs))
    };
    // Its functions have no length: llvm-symbolizer names the padding behind them too.
    if ours.is_empty() && theirs.iter().all(|frame| frame.file == "crtstuff.c") {
        return None;
    }
    if ours.is_empty() != theirs.is_empty() {
        return Some("named by one only");
    }
    if ours.len() != theirs.len() {
        return Some("number of inlined calls");
    }
    if !ours.iter().zip(theirs).all(same_name) {
        return Some("function");
    }
    // Without a line, llvm-symbolizer gives the file of the symbol table, often without its folder; an index gives
    // none.
    let same_file = |(ours, theirs): (&Frame, &Frame)| {
        clean(&ours.file) == clean(&theirs.file) || (theirs.line == 0 && ours.file.is_empty())
    };
    if !ours.iter().zip(theirs).all(same_file) {
        return Some("file");
    }
    if ours
        .iter()
        .zip(theirs)
        .any(|(ours, theirs)| ours.line != theirs.line)
    {
        return Some("line");
    }
    None
}

/// Compares, prints the differences by kind, and returns the share of equal answers.
fn compare(name: &str, program: &Built, debug: &Built) -> f64 {
    let offsets = draw_offsets(program);
    let (ours, theirs) = (
        name_by_index(program, debug, &offsets),
        name_by_llvm(program, debug, &offsets),
    );
    let addresses = read_addresses(debug);
    let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        if let Some(kind) = difference(ours, theirs, &addresses) {
            let count = kinds.entry(kind).or_default();
            *count += 1;
            if *count <= 3 {
                let address = program
                    .facts
                    .layout
                    .as_ref()
                    .unwrap()
                    .address_of(offsets[at])
                    .unwrap();
                println!("{name} {address:#x}: {kind}\n  ours   {ours:?}\n  theirs {theirs:?}");
            }
        }
    }
    let different: usize = kinds.values().sum();
    let deepest = theirs.iter().map(Vec::len).max().unwrap_or(0);
    let share = 1.0 - different as f64 / offsets.len() as f64;
    println!(
        "{name}: {:.3} % of {} equal, {deepest} frames at most, differences {kinds:?}",
        share * 100.0,
        offsets.len()
    );
    assert!(deepest > 1, "{name} has inlined calls");
    share
}

/// Check that names, inlined calls, files and lines are those of llvm-symbolizer.
#[test]
fn names_are_those_of_llvm_symbolizer() {
    let workshop = Workshop::new();
    let programs = [
        (
            "c, DWARF 5",
            workshop.compile("c5", C, &["-g", "-O2", "-gdwarf-5"]),
        ),
        (
            "c++, DWARF 5",
            workshop.compile("cc5", CPP, &["-g", "-O2", "-gdwarf-5", "-std=c++17"]),
        ),
        (
            "c++, DWARF 4",
            workshop.compile("cc4", CPP, &["-g", "-O1", "-gdwarf-4", "-std=c++17"]),
        ),
        (
            "c++, compressed",
            workshop.compile("ccz", CPP, &["-g", "-O2", "-gz", "-std=c++17"]),
        ),
        (
            "c++, not PIE",
            workshop.compile("ccs", CPP, &["-g", "-O2", "-no-pie", "-std=c++17"]),
        ),
        (
            "this server, Rust",
            Built::read(Path::new(env!("CARGO_BIN_EXE_pilotlight-server"))),
        ),
    ];
    let shares: Vec<_> = programs
        .iter()
        .map(|(name, program)| (*name, compare(name, program, program)))
        .collect();
    for (name, share) in shares {
        assert!(share >= SAME_MIN, "{name}: {share}");
    }
}

/// Check programs of Debian, with debug information from its packages.
#[test]
fn distributed_programs_are_named_as_by_llvm_symbolizer() {
    for (path, package) in [
        ("/lib/x86_64-linux-gnu/libc.so.6", "libc6-dbg"),
        ("/usr/bin/python3", "python3-dbg"),
    ] {
        let program = Built::read(Path::new(path));
        let id = program.build_id().to_string();
        let (head, tail) = id.split_at(2);
        let debug = PathBuf::from(format!("/usr/lib/debug/.build-id/{head}/{tail}.debug"));
        assert!(debug.exists(), "{path} has no debug information: {package}");
        let share = compare(path, &program, &Built::read(&debug));
        assert!(share >= SAME_MIN, "{path}: {share}");
    }
}
