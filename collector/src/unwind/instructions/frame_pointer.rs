//! Functions that keep a frame pointer, and do not return where they were called.
//!
//! V8's interpreter drops the arguments of its caller by their number, and HotSpot's leaves a method by the next one's code: no
//! path tells the place of their frames, but each has its frame pointer from its first two instructions on.

use codeflow::{Cfa, Code, Confidence, Function, Opinion, Register, Row, Saved};
use profiler_bpf::arch::x86_64::rule::{RBP, Rule, rbp, rbx, source};

/// Bytes before an address in which its function may begin. V8's interpreter has 1 KiB, its largest built-in functions 20.
const FUNCTION_BYTES_MAX: u64 = 16 << 10;

/// `push rbp; mov rbp,rsp`.
const PROLOGUE: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];

/// The rule of a function's code behind its prologue.
pub(super) const RULE: Rule = Rule {
    rbp: rbp::AT_CFA,
    rbp_offset: -16,
    rbx: rbx::UNKNOWN,
    source: source::INSTRUCTIONS,
    ..Rule::at_register(RBP, 16)
};

const ROW: Row = Row {
    cfa: Cfa::Register(Register::RBP, 16),
    rbp: Saved::AtCfa(-16),
    rbx: Saved::Unknown,
    confidence: Confidence::Certain,
};

/// Whether all paths from the nearest prologue before an address lead to it with the frame pointer as it was set there.
pub(super) fn is_kept(code: &impl Code, address: u64) -> bool {
    let Some(start) = find_prologue(code, address) else {
        return false;
    };
    let function = Function::read(code, start);
    function.check_cfa(address, &ROW) == Opinion::Agrees
        && function.check_rbp(address, &ROW) == Opinion::Agrees
}

fn find_prologue(code: &impl Code, address: u64) -> Option<u64> {
    let far = address.saturating_sub(FUNCTION_BYTES_MAX);
    // The segment may begin nearer.
    let distances = std::iter::successors(Some(address - far), |distance| Some(distance / 2));
    let mut starts = distances
        .take_while(|distance| *distance >= PROLOGUE.len() as u64)
        .map(|distance| (address - distance, distance as usize));
    let bytes = starts.find_map(|(start, length)| code.bytes(start).get(..length))?;
    let mut windows = bytes.windows(PROLOGUE.len());
    let place = windows.rposition(|window| window == PROLOGUE)?;
    Some(address - (bytes.len() - place) as u64)
}
