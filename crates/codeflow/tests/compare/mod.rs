//! Rows by instructions beside those of call frame information, over the same file.
//!
//! The file's instructions are read from the starts of its functions. Padding behind jumps and
//! returns is left out, since the rows of call frame information are arbitrary there; so are signal
//! trampolines.

mod cfi;
mod file;
mod tally;

use codeflow::{
    Cfa, Code as _, Function, Opinion, Reason, Register, Row, Rows, Saved, analyze, analyze_region,
    find_call,
};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

use cfi::CfiFunction;
pub(crate) use file::ElfFile;
use tally::Part;
pub(crate) use tally::Tally;

/// Bytes of functions that are read of a file.
const FUNCTION_BYTES_MAX: u64 = 30 << 20;

/// Which analysis the rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// One analysis of each executable segment.
    Regions,
    /// One analysis for each address.
    Closures,
}

/// An address whose rows are compared.
struct Point {
    /// The instruction, or the call in front of a return address.
    address: u64,
    /// The return address of a call whose caller's frame is looked for.
    return_address: Option<u64>,
    /// The number of its function.
    function: u32,
}

/// Options of a comparison.
pub(crate) struct Options {
    /// Return addresses, and instructions, drawn from each file.
    pub(crate) points: usize,
    pub(crate) source: Source,
    /// Prints this many wrong rows of each file.
    pub(crate) examples: usize,
}

/// Compares a file; nothing if it has no call frame information that can be read.
pub(crate) fn compare(file: &ElfFile, options: &Options) -> Option<Tally> {
    let mut tally = Tally::default();
    let functions = cfi::read_functions(file);
    let points = draw_points(file, &functions, options.points);
    if points.is_empty() {
        return None;
    }
    tally.bytes = file.code().map(|range| range.end - range.start).sum();
    tally.decode_seconds = measure(|| decode_all(file)).1;
    let mut regions = Vec::new();
    if options.source == Source::Regions {
        let analyze = |range| analyze_region(file, range);
        (regions, tally.analysis_seconds) = measure(|| file.code().map(analyze).collect());
    }
    let mut own: Option<(u32, Function)> = None;
    let mut examples = options.examples;
    for point in points {
        let function = &functions[point.function as usize];
        // Unwinders look up a return address one byte lower.
        let lookup = point
            .return_address
            .map_or(point.address, |address| address - 1);
        let Some(expected) = function.row(lookup) else {
            continue;
        };
        let found = find_row(file, &regions, &point, &mut tally);
        if own
            .as_ref()
            .is_none_or(|(number, _)| *number != point.function)
        {
            own = Some((point.function, Function::read(file, function.start)));
        }
        let own = own.as_ref().filter(|_| function.is_whole());
        let verdict = judge(own.map(|(_, own)| own), point.address, found, &expected);
        if matches!(verdict, Verdict::Wrong | Verdict::WrongRbp) && examples > 0 {
            examples -= 1;
            print_example(file, &point, &verdict, found, &expected);
        }
        let part = Part {
            is_call: point.return_address.is_some(),
            is_plain: !function.has_exceptions,
        };
        tally.count(part, &verdict, &found);
    }
    Some(tally)
}

/// The row at an address by the analysis of its region or, without regions, by one of its own.
fn find_row(
    file: &ElfFile,
    regions: &[Rows],
    point: &Point,
    tally: &mut Tally,
) -> Result<Row, Reason> {
    let found = if regions.is_empty() {
        let (row, seconds) = measure(|| analyze_point(file, point));
        tally.analysis_seconds += seconds;
        tally.closures += 1;
        row
    } else {
        regions.iter().find_map(|rows| rows.get(point.address))
    };
    found.unwrap_or(Err(Reason::NotRead))
}

fn analyze_point(file: &ElfFile, point: &Point) -> Option<Result<Row, Reason>> {
    match point.return_address {
        None => analyze(file, point.address).get(point.address),
        Some(address) => analyze(file, find_call(file, address)?).get(address - 1),
    }
}

fn print_example(
    file: &ElfFile,
    point: &Point,
    verdict: &Verdict,
    found: Result<Row, Reason>,
    expected: &Row,
) {
    let found = found.map_or_else(|reason| reason.name().to_owned(), |row| row.to_string());
    let (path, address) = (file.path.display(), point.address);
    println!("{verdict:?}: {path} {address:#x}: {found}, expected {expected}");
}

/// The result of one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Agrees,
    /// The CFA agrees, and `rbp` is not known, or cannot be compared.
    AgreesWithoutRbp,
    WrongRbp,
    Wrong,
    /// The CFAs come from different registers, whose distance is not known.
    Incomparable,
    Undecided,
}

/// Compares two rows, which may describe the same place by different registers: then the function's
/// own code shows whether they do.
fn judge(
    function: Option<&Function>,
    address: u64,
    found: Result<Row, Reason>,
    expected: &Row,
) -> Verdict {
    let Ok(found) = found else {
        return Verdict::Undecided;
    };
    let check = |check: fn(&Function, u64, &Row) -> Opinion, row: &Row| {
        function.map_or(Opinion::Unknown, |function| check(function, address, row))
    };
    if found.cfa != expected.cfa {
        let ours = check(Function::check_cfa, &found);
        match (check(Function::check_cfa, expected), ours) {
            (Opinion::Agrees, Opinion::Agrees) => {}
            (Opinion::Agrees, Opinion::Disagrees) => return Verdict::Wrong,
            _ if have_same_base(&found, expected) => return Verdict::Wrong,
            _ => return Verdict::Incomparable,
        }
    }
    if found.rbp == expected.rbp || found.rbp == Saved::Same && is_popped(expected) {
        return Verdict::Agrees;
    }
    let ours = check(Function::check_rbp, &found);
    match (check(Function::check_rbp, expected), ours) {
        (Opinion::Agrees, Opinion::Agrees) => Verdict::Agrees,
        _ if found.rbp == Saved::Unknown || expected.rbp == Saved::Unknown => {
            Verdict::AgreesWithoutRbp
        }
        // One in the register, which may not have changed yet, and one in memory.
        (_, Opinion::Unknown) if found.rbp == Saved::Same || expected.rbp == Saved::Same => {
            Verdict::AgreesWithoutRbp
        }
        _ => Verdict::WrongRbp,
    }
}

/// Whether the place of `rbp` is below the stack pointer: epilogues have popped it.
fn is_popped(row: &Row) -> bool {
    match (row.cfa, row.rbp) {
        (Cfa::Register(Register::RSP, cfa), Saved::AtCfa(offset)) => cfa + offset < 0,
        _ => false,
    }
}

/// Whether both CFAs are distances from one register. Two words on the stack may have copies of one
/// pointer, as OpenSSL's assembler keeps them.
fn have_same_base(one: &Row, other: &Row) -> bool {
    match (one.cfa, other.cfa) {
        (Cfa::Register(one, _), Cfa::Register(other, _)) => one == other,
        _ => false,
    }
}

/// Draws calls and instructions of all functions, the same ones in each run.
fn draw_points(file: &ElfFile, functions: &[CfiFunction], count: usize) -> Vec<Point> {
    let mut points = Vec::new();
    let mut bytes_left = FUNCTION_BYTES_MAX;
    for (number, function) in functions.iter().enumerate() {
        let length = function.end - function.start;
        let Some(bytes) = file.bytes(function.start).get(..length as usize) else {
            continue;
        };
        let Some(left) = bytes_left.checked_sub(length) else {
            break;
        };
        bytes_left = left;
        list_points(bytes, function.start, number as u32, &mut points);
    }
    let mut random = fastrand::Rng::with_seed(18);
    let (calls, instructions) = points
        .into_iter()
        .partition(|point: &Point| point.return_address.is_some());
    let draw = |points: Vec<Point>| random.choose_multiple(points, count);
    let mut drawn: Vec<Point> = [calls, instructions].into_iter().flat_map(draw).collect();
    drawn.sort_by_key(|point| (point.function, point.address));
    drawn
}

/// Lists the calls, and all instructions, of a function.
fn list_points(bytes: &[u8], start: u64, function: u32, points: &mut Vec<Point>) {
    let mut is_behind_end = false;
    for instruction in Decoder::with_ip(64, bytes, start, DecoderOptions::NONE) {
        let flow = instruction.flow_control();
        let is_padding = matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
        is_behind_end = match flow {
            FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception => true,
            _ => is_behind_end && is_padding,
        };
        if is_behind_end && is_padding {
            continue;
        }
        let address = instruction.ip();
        if instruction.mnemonic() == Mnemonic::Call {
            points.push(Point {
                address,
                return_address: Some(instruction.next_ip()),
                function,
            });
        }
        points.push(Point {
            address,
            return_address: None,
            function,
        });
    }
}

/// Reads all instructions, without anything else.
fn decode_all(file: &ElfFile) {
    let mut instruction = Instruction::default();
    for range in file.code() {
        let bytes = file.bytes(range.start);
        let mut decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            std::hint::black_box(&instruction);
        }
    }
}

/// The result of a function, and the seconds of the processor that it took: the machine may be
/// busy.
fn measure<T>(function: impl FnOnce() -> T) -> (T, f64) {
    let seconds = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let started = seconds();
    let result = function();
    (result, seconds() - started)
}
