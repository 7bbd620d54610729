//! The effect of an instruction on registers and on the stack.
//!
//! Only what can lead to a caller's registers is kept: copies of registers with a constant added,
//! loads and stores of whole registers, pushes and pops. Each other result is unknown.

use iced_x86::{
    Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind,
};

use crate::register::{Register, RegisterSet};

/// The effect of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Changes no register, and no memory that a register may have been saved in.
    None,
    /// Registers get unknown values.
    Clobber(RegisterSet),
    /// `to` = `from` + `add`.
    Copy {
        to: Register,
        from: Register,
        add: i32,
    },
    /// `to` = the address behind the instruction + `distance`.
    Address {
        to: Register,
        distance: i32,
    },
    /// `to` = the word at `base` + `offset`.
    Load {
        to: Register,
        base: Register,
        offset: i32,
    },
    /// The word at `base` + `offset` = `from`.
    Store {
        base: Register,
        offset: i32,
        from: Register,
    },
    /// `bytes` bytes at `base` + `offset` get unknown values.
    Overwrite {
        base: Register,
        offset: i32,
        bytes: u16,
    },
    Push(Register),
    /// `rsp` += `add` and, where that is negative, unknown values are pushed.
    MoveStack {
        add: i32,
    },
    Pop(Register),
    Leave,
    /// A call that returned: only the stack pointer, `rbx`, `rbp` and `r12` to `r15` are kept.
    Call,
}

impl Operation {
    /// The registers that get other values.
    pub(crate) fn written(&self) -> RegisterSet {
        const RSP: RegisterSet = RegisterSet::of(Register::RSP);
        match *self {
            Self::None | Self::Store { .. } | Self::Overwrite { .. } => RegisterSet::EMPTY,
            Self::Clobber(registers) => registers,
            Self::Copy { to, .. } | Self::Address { to, .. } | Self::Load { to, .. } => {
                RegisterSet::of(to)
            }
            Self::Push(_) | Self::MoveStack { .. } => RSP,
            Self::Pop(to) => RSP.with(to),
            Self::Leave => RSP.with(Register::RBP),
            Self::Call => RegisterSet::VOLATILE,
        }
    }

    /// Whether it gives the register another value.
    pub(crate) fn writes(&self, register: Register) -> bool {
        self.written().contains(register)
    }
}

/// Reads the effects of instructions.
pub(crate) struct OperationReader {
    factory: InstructionInfoFactory,
}

impl OperationReader {
    pub(crate) fn new() -> Self {
        Self {
            factory: InstructionInfoFactory::new(),
        }
    }

    /// The effect of an instruction that goes on to the next one.
    pub(crate) fn read(&mut self, instruction: &Instruction) -> Operation {
        match instruction.mnemonic() {
            Mnemonic::Mov => read_move(instruction),
            Mnemonic::Lea => read_address(instruction),
            Mnemonic::Add => read_sum(instruction, 1),
            Mnemonic::Sub => read_sum(instruction, -1),
            Mnemonic::Push => read_push(instruction),
            Mnemonic::Pop => read_pop(instruction),
            Mnemonic::Leave => Operation::Leave,
            Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Bt => {
                Operation::None
            }
            Mnemonic::Cdqe => Operation::Clobber(RegisterSet::of(Register::RAX)),
            mnemonic if writes_destination_only(mnemonic) => write_destination(instruction),
            _ => self.read_other(instruction),
        }
    }

    /// The effect of any instruction, by the decoder's table of the registers that each writes.
    fn read_other(&mut self, instruction: &Instruction) -> Operation {
        if instruction.is_stack_instruction() {
            let add = instruction.stack_pointer_increment();
            return Operation::MoveStack { add };
        }
        let options = InstructionInfoOptions::NO_MEMORY_USAGE;
        let info = self.factory.info_options(instruction, options);
        let mut written = RegisterSet::EMPTY;
        for used in info.used_registers() {
            if let Some(register) = Register::of(used.register())
                && is_write(used.access())
            {
                written = written.with(register);
            }
        }
        if !written.is_empty() {
            return Operation::Clobber(written);
        }
        match instruction.op0_kind() {
            OpKind::Memory if is_write(info.op0_access()) => overwrite_destination(instruction),
            _ => Operation::None,
        }
    }
}

/// Frequent instructions that write their first operand and nothing else. The decoder's table has
/// them too, and takes longer.
fn writes_destination_only(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::And
            | Mnemonic::Or
            | Mnemonic::Xor
            | Mnemonic::Not
            | Mnemonic::Neg
            | Mnemonic::Inc
            | Mnemonic::Dec
            | Mnemonic::Adc
            | Mnemonic::Sbb
            | Mnemonic::Shl
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Movzx
            | Mnemonic::Movsx
            | Mnemonic::Movsxd
            | Mnemonic::Cmove
            | Mnemonic::Cmovne
            | Mnemonic::Sete
            | Mnemonic::Setne
            | Mnemonic::Movaps
            | Mnemonic::Movups
            | Mnemonic::Movdqa
            | Mnemonic::Movdqu
            | Mnemonic::Movss
            | Mnemonic::Pxor
    )
}

fn is_write(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}

fn read_move(instruction: &Instruction) -> Operation {
    match (instruction.op0_kind(), instruction.op1_kind()) {
        (OpKind::Register, OpKind::Register) => {
            match (whole(instruction, 0), whole(instruction, 1)) {
                (Some(to), Some(from)) => Operation::Copy { to, from, add: 0 },
                _ => clobber_destination(instruction),
            }
        }
        (OpKind::Register, OpKind::Memory) => {
            match (whole(instruction, 0), memory_place(instruction)) {
                (Some(to), Some((base, offset))) => Operation::Load { to, base, offset },
                _ => clobber_destination(instruction),
            }
        }
        (OpKind::Memory, OpKind::Register) => {
            match (memory_place(instruction), whole(instruction, 1)) {
                (Some((base, offset)), Some(from)) => Operation::Store { base, offset, from },
                _ => overwrite_destination(instruction),
            }
        }
        (OpKind::Memory, _) => overwrite_destination(instruction),
        _ => clobber_destination(instruction),
    }
}

fn read_address(instruction: &Instruction) -> Operation {
    match (whole(instruction, 0), memory_place(instruction)) {
        (Some(to), Some((from, add))) => Operation::Copy { to, from, add },
        (Some(to), None) if instruction.is_ip_rel_memory_operand() => {
            let target = instruction.ip_rel_memory_address();
            let distance = target.wrapping_sub(instruction.next_ip()) as i32;
            Operation::Address { to, distance }
        }
        _ => clobber_destination(instruction),
    }
}

/// `add` and `sub` with a constant.
fn read_sum(instruction: &Instruction, sign: i64) -> Operation {
    if instruction.op0_kind() == OpKind::Memory {
        return overwrite_destination(instruction);
    }
    let constant = match instruction.op1_kind() {
        OpKind::Register | OpKind::Memory => None,
        _ => i32::try_from(sign * instruction.immediate(1) as i64).ok(),
    };
    match (whole(instruction, 0), constant) {
        (Some(to), Some(add)) => Operation::Copy { to, from: to, add },
        _ => clobber_destination(instruction),
    }
}

fn read_push(instruction: &Instruction) -> Operation {
    match whole(instruction, 0) {
        Some(from) => Operation::Push(from),
        None => Operation::MoveStack {
            add: instruction.stack_pointer_increment(),
        },
    }
}

fn read_pop(instruction: &Instruction) -> Operation {
    match whole(instruction, 0) {
        Some(to) => Operation::Pop(to),
        None => Operation::MoveStack {
            add: instruction.stack_pointer_increment(),
        },
    }
}

/// The 64-bit register that an operand is.
fn whole(instruction: &Instruction, operand: u32) -> Option<Register> {
    if instruction.op_kind(operand) != OpKind::Register {
        return None;
    }
    let register = instruction.op_register(operand);
    if register.is_gpr64() {
        Register::of(register)
    } else {
        None
    }
}

/// Register and offset of a memory operand that has no index and no segment.
fn memory_place(instruction: &Instruction) -> Option<(Register, i32)> {
    if instruction.memory_index() != iced_x86::Register::None
        || instruction.segment_prefix() != iced_x86::Register::None
        || !instruction.memory_base().is_gpr64()
    {
        return None;
    }
    let base = Register::of(instruction.memory_base())?;
    let offset = i32::try_from(instruction.memory_displacement64() as i64).ok()?;
    Some((base, offset))
}

fn write_destination(instruction: &Instruction) -> Operation {
    if instruction.op0_kind() == OpKind::Register {
        clobber_destination(instruction)
    } else {
        overwrite_destination(instruction)
    }
}

fn clobber_destination(instruction: &Instruction) -> Operation {
    match Register::of(instruction.op0_register()) {
        Some(register) => Operation::Clobber(RegisterSet::of(register)),
        None => Operation::None,
    }
}

fn overwrite_destination(instruction: &Instruction) -> Operation {
    match memory_place(instruction) {
        Some((base, offset)) => Operation::Overwrite {
            base,
            offset,
            bytes: instruction.memory_size().size() as u16,
        },
        None => Operation::None,
    }
}
