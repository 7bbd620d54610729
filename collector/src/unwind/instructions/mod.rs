//! Rows of code without call frame information, from its instructions.
//!
//! In: a file, and the addresses at which stacks stopped in it. Out: [`CodeRows`] by file offset, of all code that can be reached
//! from these addresses (`codeflow` explains how). A row is certain, weak (see
//! [`source::WEAK`](profiler_bpf::arch::x86_64::rule::source::WEAK)), or says that the instructions do not tell the caller:
//! that stays an outcome, since a wrong caller is worse than none.
//!
//! | for an address | by | rows |
//! | --- | --- | --- |
//! | at the outermost frame | the table of [`ends`] | [`Rule::END`] |
//! | whose closure decides it | `codeflow::analyze`; where that is not certain, from the start that a symbol tells | of the whole closure |
//! | in a function that keeps a frame pointer | the function's first two instructions, and all paths from there | of this address |
//! | else | | [`Rule::UNDECIDED`], of this address |
//!
//! The third is for the interpreters of V8 and HotSpot: they never return where they were called, and their frame pointer is right.
//!
//! # Cost
//! An address takes 30 to 500 us, of which reading the file takes a tenth; the limit of a closure, 16,000 instructions, bounds it at
//! 10 ms. The unwinder has an allowance for all addresses together, see `pipeline::code_requests`.

mod ends;
mod file_code;
mod frame_pointer;
mod rows;
mod rules;

use std::{collections::BTreeMap, ops::Range};

use codeflow::{Code, Confidence, Reason, Rows, analyze, find_call};
use elf::ReadAt;
use profiler_bpf::arch::x86_64::rule::Rule;

pub use rows::{CodeRange, CodeRows};

use self::file_code::FileCode;

/// An address in the code of a file, at which a row is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodeAddress {
    /// The offset of an instruction.
    Instruction(u64),
    /// The offset of the last byte of a call, or of a system call.
    Call(u64),
}

impl CodeAddress {
    /// The offset at which the row is looked up.
    pub fn offset(self) -> u64 {
        match self {
            Self::Instruction(offset) | Self::Call(offset) => offset,
        }
    }
}

/// The rows that were made for some addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadCode {
    /// The rows. Each of the addresses has one.
    pub rows: CodeRows,
    /// Addresses whose instructions do not tell the caller, by reason.
    pub undecided: BTreeMap<&'static str, u64>,
}

/// Reads the code of a file at these addresses.
pub fn read_code(file: &(impl ReadAt + ?Sized), addresses: &[CodeAddress]) -> ReadCode {
    let mut read = ReadCode::default();
    let code = FileCode::open(file);
    for address in addresses {
        if read.rows.find(address.offset()).is_some() {
            continue;
        }
        let result = code.as_ref().ok_or("no_code");
        match result.and_then(|code| read_address(code, *address, &mut read.rows)) {
            Ok(()) => {}
            Err(reason) => {
                *read.undecided.entry(reason).or_default() += 1;
                read.rows.insert(address.offset(), 1, Rule::UNDECIDED);
            }
        }
    }
    read
}

/// Adds the rows of a closure. An error is the reason why the address has none.
fn read_address<R: ReadAt + ?Sized>(
    code: &FileCode<'_, R>,
    address: CodeAddress,
    rows: &mut CodeRows,
) -> Result<(), &'static str> {
    let offset = address.offset();
    let lookup = code.address_of(offset).ok_or("no_code")?;
    if let Some(end) = ends::find(code, lookup) {
        let start = code.offset_of(end.start).ok_or("no_code")?;
        rows.insert(start, end.end - end.start, Rule::END_BY_INSTRUCTIONS);
        return Ok(());
    }
    let start = match address {
        CodeAddress::Instruction(_) => lookup,
        CodeAddress::Call(_) => {
            let behind = lookup.wrapping_add(1);
            let call = find_system_call(code, behind).or_else(|| find_call(code, behind));
            call.ok_or("no_call")?
        }
    };
    let mut found = analyze(code, start);
    if !is_certain(&found, lookup) && code.find_function(start).is_some() {
        found = code.telling_starts(|| analyze(code, start));
    }
    let reason = match found.get(lookup) {
        Some(Ok(row)) if rules::rule_of(&row).is_some() => {
            add_closure(code, &found, rows);
            return Ok(());
        }
        Some(Ok(_)) => Reason::LostFrame,
        Some(Err(reason)) => reason,
        None => Reason::NotRead,
    };
    if frame_pointer::is_kept(code, start) {
        rows.insert(offset, 1, frame_pointer::RULE);
        return Ok(());
    }
    Err(reason.name())
}

fn is_certain(found: &Rows, address: u64) -> bool {
    let row = found.get(address).and_then(Result::ok);
    row.is_some_and(|row| row.confidence > Confidence::Weak)
}

/// Adds all rows of a closure; where it has an outermost frame, that holds.
fn add_closure<R: ReadAt + ?Sized>(code: &FileCode<'_, R>, found: &Rows, rows: &mut CodeRows) {
    let decided = found.ranges().iter().filter_map(|(range, row)| {
        let rule = row.ok().and_then(|row| rules::rule_of(&row))?;
        Some((range, rule))
    });
    let range_of = |range: &Range<u64>, rule| {
        let start = code.offset_of(range.start)?;
        let end = start.checked_add(range.end - range.start)?;
        Some(CodeRange { start, end, rule })
    };
    let threads = decided
        .clone()
        .flat_map(|(range, _)| ends::list_threads(code, range));
    let ends = threads.filter_map(|range| range_of(&range, Rule::END_BY_INSTRUCTIONS));
    rows.extend(ends.collect());
    let decided = decided.filter_map(|(range, rule)| range_of(range, rule));
    rows.extend(decided.collect());
}

/// The system call in front of an address.
fn find_system_call(code: &impl Code, address: u64) -> Option<u64> {
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    let call = address.checked_sub(2)?;
    code.bytes(call).starts_with(&SYSCALL).then_some(call)
}

#[cfg(test)]
mod tests;
