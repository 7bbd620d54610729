//! A walk over the frames of a stop.

use std::ops::Range;

use codeflow::{Cfa, Register, Row, Saved, analyze, find_call};

use super::file::ElfFile;
use super::stops::Stop;

/// Frames of a stack: regular expressions are matched by recursion.
const FRAMES_MAX: usize = 200;

/// Walks up to `main`.
///
/// # Errors
/// Says where the walk ended otherwise.
pub(crate) fn walk(file: &ElfFile, stop: &Stop, main: &Range<u64>) -> Result<(), String> {
    let mut registers = stop.registers.map(Some);
    let (mut start, mut lookup) = (stop.pc, stop.pc);
    for _ in 0..FRAMES_MAX {
        if main.contains(&lookup) {
            return Ok(());
        }
        let at = |what: &str| format!("{what} at {lookup:#x}, from {:#x}", stop.pc);
        let row = match analyze(file, start).get(lookup) {
            Some(Ok(row)) => row,
            Some(Err(reason)) => return Err(at(reason.name())),
            None => return Err(at("no code")),
        };
        let return_address = step(stop, &mut registers, &row);
        let return_address = return_address.ok_or_else(|| at(&format!("unreadable: {row}")))?;
        let call = find_call(file, return_address).ok_or_else(|| at("no call"))?;
        (start, lookup) = (call, return_address.wrapping_sub(1));
    }
    Err(format!("no end, from {:#x}", stop.pc))
}

/// Goes to the caller, and returns the return address.
fn step(stop: &Stop, registers: &mut [Option<u64>; 16], row: &Row) -> Option<u64> {
    let plus = |register: Register, offset: i32| {
        let value = registers[usize::from(register.number())]?;
        Some(value.wrapping_add_signed(offset.into()))
    };
    let cfa = match row.cfa {
        Cfa::Register(register, offset) => plus(register, offset)?,
        Cfa::Word {
            register,
            offset,
            add,
        } => {
            let word = stop.read(plus(register, offset)?)?;
            word.wrapping_add_signed(add.into())
        }
    };
    let find = |saved: Saved, register: Register| match saved {
        Saved::Same => registers[usize::from(register.number())],
        Saved::AtCfa(offset) => stop.read(cfa.wrapping_add_signed(offset.into())),
        Saved::At(register, offset) => stop.read(plus(register, offset)?),
        Saved::Unknown => None,
    };
    let (rbp, rbx) = (find(row.rbp, Register::RBP), find(row.rbx, Register::RBX));
    *registers = [None; 16];
    let kept = [
        (Register::RSP, Some(cfa)),
        (Register::RBP, rbp),
        (Register::RBX, rbx),
    ];
    for (register, value) in kept {
        registers[usize::from(register.number())] = value;
    }
    stop.read(cfa.wrapping_sub(8))
}
