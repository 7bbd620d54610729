//! Walks of Go programs that gdb stopped, over their memory images.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::rc::Rc;

use collector::unwind::{AllRegisters, Limits, Lookup, RuleSet, Table, read_table, walk};
use elf::{BlockCache, Headers, Segment};
use object::{Object as _, ObjectSymbol as _};
use profiler_bpf::arch::x86_64::rule::Rule;
use profiler_bpf::outcome::Outcome;
use symbolize::go::GoFile;

/// Frames of the deepest stack are 20.
const FRAMES_MAX: usize = 100;

/// Where `NT_PRSTATUS` has the registers, in the order of `user_regs_struct`.
const REGISTERS_AT: usize = 112;
/// Places there of the registers by their DWARF numbers; the last is the instruction pointer.
const REGISTER_PLACES: [usize; 17] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Builds testdata/unwind/go.
fn build(program: &Path, cgo: &str, flags: &str) {
    run(Command::new("go")
        .current_dir(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../testdata/unwind/go"
        ))
        .envs([
            ("CGO_ENABLED", cgo),
            ("GOFLAGS", "-buildvcs=false"),
            ("GOENV", "off"),
        ])
        .args(["build", "-ldflags", flags, "-o"])
        .args([program, Path::new(".")]));
}

/// Stops a program at an address that it has been at before, and writes its memory to a file.
fn stop_at(program: &Path, address: u64, image: &Path) {
    let commands = [
        "set pagination off".to_owned(),
        "set auto-load off".to_owned(),
        "handle SIGURG nostop noprint pass".to_owned(),
        format!("break *{address:#x}"),
        "ignore 1 3".to_owned(),
        "run".to_owned(),
        format!("generate-core-file {}", image.display()),
        "kill".to_owned(),
    ];
    let commands = commands.iter().flat_map(|command| ["-ex", command]);
    run(Command::new("gdb")
        .args(["-q", "-nx", "-batch"])
        .args(commands)
        .arg(program));
}

/// The memory of a stopped process, and the registers of the thread that stopped.
struct Image {
    bytes: Vec<u8>,
    memory: Vec<Segment>,
    registers: AllRegisters,
}

impl Image {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let headers = Headers::read_program_headers(&*bytes, elf::Limits::OBJECTS).unwrap();
        // The stopped thread comes first.
        let status = headers.find_note(&*bytes, b"CORE", object::elf::NoteType(1), |note| {
            Some(note.to_vec())
        });
        let status = status.unwrap();
        let registers = REGISTER_PLACES.map(|place| {
            let at = REGISTERS_AT + 8 * place;
            u64::from_le_bytes(status[at..at + 8].try_into().unwrap())
        });
        let memory = headers.loads().map(|header| header.segment()).collect();
        Self {
            bytes,
            memory,
            registers,
        }
    }

    fn read_word(&self, address: u64) -> Option<u64> {
        let offset = self
            .memory
            .iter()
            .find_map(|segment| segment.offset_of(address))?;
        let word = self.bytes.get(offset as usize..)?.first_chunk()?;
        Some(u64::from_le_bytes(*word))
    }
}

/// A program at a fixed address, stripped.
struct Program {
    bytes: Vec<u8>,
    code: Segment,
    table: Table,
    rules: RuleSet,
}

impl Program {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let headers = Headers::read(&*bytes, elf::Limits::MAPPED).unwrap();
        let code = headers
            .loads()
            .find(|header| header.is_code())
            .unwrap()
            .segment();
        let mut rules = RuleSet::new();
        let table = read_table(&*bytes, &mut rules, &Limits::default())
            .unwrap()
            .table;
        Self {
            bytes,
            code,
            table,
            rules,
        }
    }

    fn walk(&self, image: &Image) -> (Vec<String>, Outcome) {
        let rule_at = |address: u64| match self.code.offset_of(address) {
            Some(offset) => {
                let number = self.table.find(offset).unwrap_or(RuleSet::NONE);
                Lookup::Rule(*self.rules.get(number).unwrap_or(&Rule::NONE))
            }
            None => Lookup::NoCode,
        };
        let mut frames = Vec::new();
        let outcome = walk(
            &image.registers,
            |at| image.read_word(at),
            rule_at,
            &mut frames,
            FRAMES_MAX,
        );
        let file = GoFile::open(&*self.bytes, &Rc::new(BlockCache::default())).unwrap();
        let name = |(depth, address): (usize, &u64)| {
            let offset = self.code.offset_of(address - u64::from(depth > 0));
            let functions = offset.map(|offset| file.name(offset)).unwrap_or_default();
            functions
                .last()
                .map_or_else(|| "C".to_owned(), |function| function.symbol.clone())
        };
        (frames.iter().enumerate().map(name).collect(), outcome)
    }
}

/// Stops a program without symbols and debug information at a function, and checks that the stack is complete and leads through these
/// functions.
fn check(cgo: &str, stop: &str, through: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let [whole, stripped, image] =
        ["whole", "stripped", "image"].map(|name| folder.path().join(name));
    build(&whole, cgo, "");
    build(&stripped, cgo, "-s -w");
    let whole = fs::read(whole).unwrap();
    let whole = object::File::parse(&*whole).unwrap();
    let mut symbols = whole.symbols();
    let symbol = symbols.find(|symbol| symbol.name() == Ok(stop)).unwrap();
    stop_at(&stripped, symbol.address(), &image);
    let (names, outcome) = Program::read(&stripped).walk(&Image::read(&image));
    assert_eq!(outcome, Outcome::Complete, "{names:?}");
    let mut left = names.iter();
    let missing: Vec<_> = through
        .iter()
        .filter(|function| !left.any(|name| name == *function))
        .collect();
    assert!(missing.is_empty(), "no {missing:?} in {names:?}");
}

/// Check that a stack goes on from the scheduler's stack to the goroutine's.
#[test]
fn the_scheduler_s_stack() {
    let through = [
        "runtime.systemstack",
        "runtime.callers",
        "main.asksForItsCallers",
        "main.main",
        "runtime.goexit",
    ];
    check("0", "runtime.tracebackPCs", &through);
}

/// Check that a stack goes on from Go that C called to the C code, and from there to the Go that called it.
#[test]
fn go_that_c_called() {
    let into_go = [
        "main.calledBack",
        "runtime.cgocallback",
        "crosscall2",
        "C",
        "C",
    ];
    let into_c = [
        "runtime.asmcgocall",
        "main.callsC",
        "main.main",
        "runtime.goexit",
    ];
    check("1", "main.calledBack", &[&into_go[..], &into_c].concat());
}

/// Check that a stack goes on from a signal's handler to the interrupted code.
#[test]
fn a_signal_s_stack() {
    let through = [
        "runtime.sigtramp",
        "runtime.sigreturn__sigaction",
        "runtime.goexit",
    ];
    check("0", "runtime.sighandler", &through);
}
