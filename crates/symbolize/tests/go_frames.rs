//! Rows of Go programs by Go's own table, compared at each instruction with `.debug_frame`, which the linker writes, and with what the
//! instructions do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use codeflow::{Cfa, Code, Confidence, Function, Opinion, Register, Row, Saved};
use elf::BlockCache;
use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EndianSlice, LittleEndian, UnwindContext,
    UnwindSection as _,
};
use iced_x86::{Decoder, DecoderOptions, Instruction};
use object::{Object as _, ObjectSection as _};
use symbolize::go::{Caller, FunctionFrames, GoFile, Kind};

/// Builds testdata/names/go, or what `PILOTLIGHT_GO_PROGRAM` names, which is then compared as well.
fn build(directory: &Path, name: &str, flags: &str, cgo: &str) -> PathBuf {
    let sources = directory.join("sources");
    fs::create_dir_all(&sources).unwrap();
    for entry in fs::read_dir(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/names/go"
    ))
    .unwrap()
    {
        let entry = entry.unwrap();
        fs::copy(entry.path(), sources.join(entry.file_name())).unwrap();
    }
    let program = directory.join(name);
    let output = Command::new("go")
        .current_dir(&sources)
        .envs([("CGO_ENABLED", cgo), ("GOFLAGS", ""), ("GOENV", "off")])
        .env(
            "GOTOOLCHAIN",
            std::env::var("GOTOOLCHAIN").as_deref().unwrap_or("local"),
        )
        .args([
            "build",
            &format!("-ldflags=-compressdwarf=false {flags}"),
            "-o",
        ])
        .args([&program, Path::new(".")])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

fn read_frames(path: &Path) -> Vec<FunctionFrames> {
    let bytes = fs::read(path).unwrap();
    let file = GoFile::open(&*bytes, &Rc::new(BlockCache::default())).unwrap();
    file.frames().collect()
}

/// An unstripped program.
struct Program {
    bytes: Vec<u8>,
    code_address: u64,
    code_offset: u64,
    debug_frame: Vec<u8>,
}

impl Code for Program {
    fn bytes(&self, address: u64) -> &[u8] {
        let distance = address.wrapping_sub(self.code_address);
        let offset = self.code_offset.checked_add(distance);
        offset
            .and_then(|offset| self.bytes.get(offset as usize..))
            .unwrap_or_default()
    }
}

impl Program {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let debug_frame = file.section_by_name(".debug_frame").unwrap();
        Self {
            code_address: text.address(),
            code_offset: text.file_range().unwrap().0,
            debug_frame: debug_frame.uncompressed_data().unwrap().into_owned(),
            bytes: bytes.clone(),
        }
    }

    /// First addresses of rows, and the bytes from `rsp` to the CFA.
    fn read_debug_frame(&self) -> BTreeMap<u64, (u64, u64)> {
        let mut section = DebugFrame::new(&self.debug_frame, LittleEndian);
        section.set_address_size(8);
        let bases = BaseAddresses::default();
        let mut context = UnwindContext::new();
        let mut rows = BTreeMap::new();
        let mut entries = section.entries(&bases);
        while let Some(entry) = entries.next().unwrap() {
            let gimli::CieOrFde::Fde(partial) = entry else {
                continue;
            };
            let entry = partial
                .parse(DebugFrame::<EndianSlice<'_, LittleEndian>>::cie_from_offset)
                .unwrap();
            let mut table = entry.rows(&section, &bases, &mut context).unwrap();
            while let Some(row) = table.next_row().unwrap() {
                let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
                    panic!("{row:?}");
                };
                assert_eq!(register.0, 7);
                rows.insert(row.start_address(), (row.end_address(), *offset as u64));
            }
        }
        rows
    }
}

#[derive(Debug, Default)]
struct Sums {
    functions: u64,
    /// Instructions.
    same: u64,
    different: u64,
    missing: u64,
    /// Instructions of functions of other kinds, which the rows describe in their own way.
    others: u64,
    /// By the instructions: agreeing, disagreeing and undecided.
    cfa: [u64; 3],
    frame_pointer: [u64; 3],
    by_kind: BTreeMap<&'static str, BTreeSet<String>>,
    examples: Vec<String>,
}

/// Check the rows of programs with and without cgo.
#[test]
fn rows_are_those_of_debug_frame() {
    let folder = tempfile::tempdir().unwrap();
    let mut programs = vec![
        build(folder.path(), "pure", "", "0"),
        build(folder.path(), "cgo", "", "1"),
    ];
    programs.extend(std::env::var_os("PILOTLIGHT_GO_PROGRAM").map(PathBuf::from));
    for program in programs {
        let sums = compare(&program);
        eprintln!("{}: {sums:#?}", program.display());
        assert!(
            sums.functions > 1000 && sums.different + sums.missing == 0,
            "{sums:?}"
        );
        // Behind a tail call of `systemstack`, the table has the depth of the tail call. The code there ends the program.
        let mut wrong = sums.examples.iter();
        assert!(
            wrong.all(|example| example.starts_with("runtime.systemstack ")),
            "{sums:?}"
        );
        assert!(sums.cfa[1] <= 3 && sums.frame_pointer[1] == 0, "{sums:?}");
    }
}

fn compare(path: &Path) -> Sums {
    let program = Program::read(path);
    let theirs = program.read_debug_frame();
    let file = GoFile::open(&*program.bytes, &Rc::new(BlockCache::default())).unwrap();
    let mut sums = Sums::default();
    for function in file.frames() {
        sums.functions += 1;
        let name = file.name(program.code_offset + (function.range.start - program.code_address));
        let name = name
            .last()
            .map_or_else(String::new, |frame| frame.symbol.clone());
        if function.kind != Kind::Ordinary {
            let kind = match function.kind {
                Kind::SwitchesStacks
                    if function.rows.iter().all(|row| row.1 == Caller::Unknown) =>
                {
                    "unknown"
                }
                Kind::SwitchesStacks => "switches stacks",
                Kind::LeavesGoroutine => "leaves its goroutine",
                Kind::Outermost => "outermost",
                _ => "returns from signals",
            };
            sums.by_kind.entry(kind).or_default().insert(name.clone());
        }
        compare_function(&program, &function, &theirs, &mut sums, &name);
    }
    sums
}

fn compare_function(
    program: &Program,
    function: &FunctionFrames,
    theirs: &BTreeMap<u64, (u64, u64)>,
    sums: &mut Sums,
    name: &str,
) {
    let bytes = (function.range.end - function.range.start) as usize;
    let code = &program.bytes(function.range.start)[..bytes];
    let by_instructions = Function::read(program, function.range.start);
    let mut decoder = Decoder::with_ip(64, code, function.range.start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let address = instruction.ip();
        let place = function.rows.partition_point(|row| row.0 <= address);
        let (_, caller) = function.rows[place - 1];
        let row = match caller {
            Caller::AtStackPointer {
                cfa,
                is_pointer_saved,
            } => {
                let known = theirs.range(..=address).next_back();
                match known.filter(|(_, row)| address < row.0) {
                    Some((_, row)) if row.1 == u64::from(cfa) => sums.same += 1,
                    Some(_) => sums.different += 1,
                    None => sums.missing += 1,
                }
                row_of(Register::RSP, cfa as i32, is_pointer_saved)
            }
            Caller::AtFramePointer => {
                sums.others += 1;
                row_of(Register::RBP, 16, true)
            }
            _ => {
                sums.others += 1;
                continue;
            }
        };
        let cfa = by_instructions.check_cfa(address, &row);
        let frame_pointer = by_instructions.check_rbp(address, &row);
        sums.cfa[number(cfa)] += 1;
        sums.frame_pointer[number(frame_pointer)] += 1;
        let disagrees = [cfa, frame_pointer].contains(&Opinion::Disagrees);
        if disagrees && sums.examples.len() < 20 {
            sums.examples.push(format!(
                "{name} {address:#x} {row}: {cfa:?} {frame_pointer:?}"
            ));
        }
    }
}

fn row_of(register: Register, cfa: i32, is_pointer_saved: bool) -> Row {
    Row {
        cfa: Cfa::Register(register, cfa),
        rbp: if is_pointer_saved {
            Saved::AtCfa(-16)
        } else {
            Saved::Same
        },
        rbx: Saved::Unknown,
        confidence: Confidence::Certain,
    }
}

fn number(opinion: Opinion) -> usize {
    match opinion {
        Opinion::Agrees => 0,
        Opinion::Disagrees => 1,
        Opinion::Unknown => 2,
    }
}

/// Check that stripping changes no row.
#[test]
fn stripped_programs_have_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let whole = read_frames(&build(folder.path(), "whole", "", "0"));
    let stripped = read_frames(&build(folder.path(), "stripped", "-s -w", "0"));
    assert!(!whole.is_empty());
    assert_eq!(whole.len(), stripped.len());
    let differ = whole
        .iter()
        .zip(&stripped)
        .filter(|(one, other)| one != other);
    assert_eq!(differ.count(), 0);
}
