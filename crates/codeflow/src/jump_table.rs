//! Targets of indirect jumps.
//!
//! Compilers write jump tables in few forms: `lea b,[rip+table]; movsxd r,[b+i*4]; add r,b; jmp r`
//! with distances, and `jmp [table+i*8]` with addresses. The number of entries is that of the
//! comparison in front of them.

use iced_x86::{Decoder, DecoderOptions, Instruction as Decoded, Mnemonic, OpKind, Register};

use crate::code::Code;
use crate::decode::Instruction;

/// Instructions in front of the jump that are looked at: the base is loaded outside of loops.
const INSTRUCTIONS_MAX: usize = 64;

/// Instructions in front of the jump in which the comparison is.
const COMPARISON_MAX: usize = 16;

/// Entries that are read of a table. The largest tables of lexers and interpreters have a few
/// hundred.
const ENTRIES_MAX: u64 = 512;

/// Where an indirect jump goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Indirect {
    /// To one of these addresses, by a table.
    Table(Vec<u64>),
    /// By a table that was not found: a `switch`, or an interpreter's computed goto.
    Computed,
    /// To a function whose address was in memory.
    Loaded,
    /// To an address in a register.
    Register,
}

/// Where the last instruction of `run`, an indirect jump, goes to.
pub(crate) fn find_targets(code: &impl Code, run: &[Instruction]) -> Indirect {
    let mut before = run.iter().rev().take(INSTRUCTIONS_MAX);
    let Some(jump) = before.next().and_then(|jump| decode(code, jump)) else {
        return Indirect::Register;
    };
    let before: Vec<Decoded> = before
        .map_while(|instruction| decode(code, instruction))
        .collect();
    match jump.op0_kind() {
        OpKind::Memory if jump.memory_index() != Register::None => {
            let table = find_table(&before, &jump);
            read_table(code, &before, table, Entry::Address)
        }
        OpKind::Memory => Indirect::Loaded,
        _ => find_register(code, &before, jump.op0_register()),
    }
}

/// Kinds of entries of a table.
#[derive(Clone, Copy)]
enum Entry {
    Address,
    /// The distance of the target from this address, which is the table's in most cases.
    Distance(u64),
}

fn decode(code: &impl Code, instruction: &Instruction) -> Option<Decoded> {
    let bytes = code
        .bytes(instruction.address)
        .get(..instruction.bytes.into())?;
    Some(Decoder::with_ip(64, bytes, instruction.address, DecoderOptions::NONE).decode())
}

/// Where a jump to the address in `target` goes to; `before` has the nearest instruction first.
fn find_register(code: &impl Code, before: &[Decoded], target: Register) -> Indirect {
    let Some((place, write)) = find_write(before, &[target]) else {
        return Indirect::Register;
    };
    let before = &before[place + 1..];
    match (write.mnemonic(), write.op1_kind()) {
        (Mnemonic::Mov, OpKind::Memory) if write.memory_index() != Register::None => {
            let table = find_table(before, write);
            read_table(code, before, table, Entry::Address)
        }
        (Mnemonic::Mov, OpKind::Memory) => Indirect::Loaded,
        (Mnemonic::Add, OpKind::Register) => {
            find_distances(code, before, [target, write.op1_register()])
        }
        (Mnemonic::Add, _) => Indirect::Computed,
        _ => Indirect::Register,
    }
}

/// Targets of a jump to the sum of two registers: an entry of a table of distances, and the address
/// that they are from.
fn find_distances(code: &impl Code, before: &[Decoded], sum: [Register; 2]) -> Indirect {
    let is_load = |instruction: &&Decoded| {
        instruction.mnemonic() == Mnemonic::Movsxd && instruction.memory_index() != Register::None
    };
    let Some((place, load)) = find_write(before, &sum) else {
        return Indirect::Computed;
    };
    // The address may be loaded behind the entry.
    let (place, load) = match Some(load).filter(is_load) {
        Some(load) => (place, load),
        None => match find_write(&before[place + 1..], &sum) {
            Some((more, load)) if is_load(&load) => (place + 1 + more, load),
            _ => return Indirect::Computed,
        },
    };
    let entry = load.op0_register();
    let from = if sum[0] == entry { sum[1] } else { sum[0] };
    let Some(from) = find_address(before, from) else {
        return Indirect::Computed;
    };
    let before = &before[place + 1..];
    read_table(
        code,
        before,
        find_table(before, load),
        Entry::Distance(from),
    )
}

/// The nearest instruction that writes one of the registers.
fn find_write<'a>(before: &'a [Decoded], registers: &[Register]) -> Option<(usize, &'a Decoded)> {
    let is_write = |instruction: &&Decoded| {
        instruction.op0_kind() == OpKind::Register
            && registers.contains(&instruction.op0_register().full_register())
            && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test)
    };
    let place = before
        .iter()
        .position(|instruction| is_write(&instruction))?;
    Some((place, &before[place]))
}

/// The address of the table that `load` loads an entry of.
fn find_table(before: &[Decoded], load: &Decoded) -> Option<u64> {
    let displacement = load.memory_displacement64();
    match load.memory_base() {
        Register::None => Some(displacement),
        base => Some(find_address(before, base)?.wrapping_add(displacement)),
    }
}

/// Reads a table.
fn read_table(code: &impl Code, before: &[Decoded], table: Option<u64>, entry: Entry) -> Indirect {
    let Some(table) = table else {
        return Indirect::Computed;
    };
    let count = find_count(before).unwrap_or(1).min(ENTRIES_MAX);
    let targets: Vec<u64> = (0..count)
        .map_while(|number| read_entry(code, table, number, entry))
        .collect();
    if targets.is_empty() {
        Indirect::Computed
    } else {
        Indirect::Table(targets)
    }
}

/// The address that `register` gets by `lea register,[rip+…]`.
fn find_address(before: &[Decoded], register: Register) -> Option<u64> {
    let (_, write) = find_write(before, &[register])?;
    (write.mnemonic() == Mnemonic::Lea && write.is_ip_rel_memory_operand())
        .then(|| write.ip_rel_memory_address())
}

/// The number of entries by the comparison with the last one.
fn find_count(before: &[Decoded]) -> Option<u64> {
    let mut near = before.iter().take(COMPARISON_MAX);
    let branch = near.position(|instruction| {
        matches!(
            instruction.mnemonic(),
            Mnemonic::Ja | Mnemonic::Jae | Mnemonic::Jbe | Mnemonic::Jb
        )
    })?;
    let comparison = before.get(branch + 1)?;
    let is_constant = comparison.mnemonic() == Mnemonic::Cmp
        && !matches!(comparison.op1_kind(), OpKind::Register | OpKind::Memory);
    let last = is_constant.then(|| comparison.immediate(1))?;
    let is_below = matches!(before[branch].mnemonic(), Mnemonic::Jae | Mnemonic::Jb);
    Some(if is_below {
        last
    } else {
        last.saturating_add(1)
    })
}

fn read_entry(code: &impl Code, table: u64, number: u64, entry: Entry) -> Option<u64> {
    match entry {
        Entry::Address => {
            let bytes = code.bytes(table.wrapping_add(number * 8)).first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        }
        Entry::Distance(from) => {
            let bytes = code.bytes(table.wrapping_add(number * 4)).first_chunk()?;
            Some(from.wrapping_add_signed(i32::from_le_bytes(*bytes).into()))
        }
    }
}
