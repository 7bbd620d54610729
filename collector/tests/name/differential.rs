//! Our names against those of binutils' `addr2line`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use collector::name::Naming;

use crate::own_address;
use crate::target::{
    CodeSegment, Program, Random, code_segment, locate, namer, object, unmapped_file,
};

/// Share of the addresses that must have the same answer.
const SAME_MIN: f64 = 0.995;

/// A function at an address, with its name in the symbol table.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// What `addr2line` says of the offsets, each with its functions, the innermost first.
pub(crate) fn ask_addr2line(path: &Path, code: &CodeSegment, offsets: &[u64]) -> Vec<Vec<Frame>> {
    let mut child = Command::new("addr2line")
        .args(["--addresses", "--functions", "--inlines", "--exe"])
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

/// Whether the name of `ours[index]` is `theirs`. Where the debug information
/// has no linker names, addr2line gives the one of the symbol table to the
/// innermost function, which may be an inlined one, and the short one to the
/// function that has the code; we do the reverse.
fn is_same_name(ours: &[Frame], index: usize, theirs: &str) -> bool {
    let outer = ours.len() - 1;
    let is_short = ours[outer].name.starts_with('_') && !theirs.starts_with('_');
    ours[index].name == theirs
        || (index == 0 && ours[outer].name == theirs)
        || (index == outer && outer > 0 && is_short)
}

/// Paths as written may have `.` and `..` and doubled slashes in them.
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
    clean(ours) == clean(theirs)
}

/// How many of `count` random offsets in the code have the same answer.
fn check(path: &Path, count: usize, compared_min: usize) {
    let code = code_segment(&fs::read(path).unwrap());
    let mut random = Random::new(1);
    let mut offsets: Vec<u64> = (0..count)
        .map(|_| code.offset + random.below(code.bytes))
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    let mut namer = namer();
    let namings = namer.name(&object(unmapped_file(path)), &offsets);
    let theirs = ask_addr2line(path, &code, &offsets);
    assert_eq!(theirs.len(), offsets.len());
    let (mut compared, mut outside, mut same, mut frames, mut shown) = (0, 0, 0, 0, 0);
    for ((offset, naming), theirs) in offsets.iter().zip(&namings).zip(&theirs) {
        // Without a line addr2line takes the symbol before the address, however
        // small it is, and that one's file; there is nothing to compare with.
        if theirs[0].line == 0 {
            continue;
        }
        let ours = our_frames(naming);
        // Between functions addr2line takes the one before.
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
                        && is_same_name(&ours, index, &theirs.name)
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
}

/// Check this program: Rust, with inlined functions, files and lines.
#[test]
fn own_program_is_named_as_by_addr2line() {
    let (own, _) = locate(own_address());
    // Of the addresses drawn, about a third lie in code of other packages, which is
    // built without debug information.
    check(own.path.as_ref(), 4000, 2000);
}

/// Check a C program at every byte of its code.
#[test]
fn c_program_is_named_as_by_addr2line() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::compile(directory.path().join("program"), "some_function");
    check(&program.path, 5000, 20);
}
