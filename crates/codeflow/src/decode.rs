//! Bytes to instructions: the effect of each, and where the processor goes from there.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction as Decoded, Mnemonic, OpKind};

use crate::operation::{Operation, OperationReader};
use crate::register::{Register, RegisterSet};

/// System calls that do not come back: `rt_sigreturn`, `exit`, `exit_group`
/// (arch/x86/entry/syscalls/syscall_64.tbl).
const SYSTEM_CALLS_WITHOUT_RETURN: [u64; 3] = [15, 60, 231];

/// An instruction's place and effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    pub(crate) address: u64,
    pub(crate) bytes: u8,
    pub(crate) kind: Kind,
    pub(crate) operation: Operation,
}

impl Instruction {
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.address.wrapping_add(self.bytes.into())
    }

    /// The address that it takes, which may be that of a function.
    pub(crate) fn taken_address(&self) -> Option<u64> {
        match self.operation {
            Operation::Address { distance, .. } => {
                Some(self.end().wrapping_add_signed(distance.into()))
            }
            _ => None,
        }
    }
}

/// Kinds of instructions that say something of the code in front of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Other,
    /// Fills the room between functions.
    Padding,
    /// `endbr64`: the target of an indirect jump or call, as functions' starts are.
    Landing,
}

/// The function that a call calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    Address(u64),
    /// The function whose address is in the word at this address.
    Slot(u64),
    Unknown,
}

/// The next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    Jump(u64),
    /// The target, or the next instruction; the operation holds for the next one only.
    Branch(u64),
    Call(Callee),
    /// A jump to the function whose address is in the word at this address.
    JumpSlot(u64),
    JumpIndirect,
    Return,
    /// None.
    Stop,
}

/// Decodes a run of instructions.
pub(crate) struct Run<'a, 'b> {
    decoder: Decoder<'a>,
    operations: &'b mut OperationReader,
    instruction: Decoded,
    /// The constant in `rax`.
    constant: Option<u64>,
    /// The register that `rsp` was compared with by the instruction before.
    compared: Option<Register>,
}

impl<'a, 'b> Run<'a, 'b> {
    pub(crate) fn new(bytes: &'a [u8], address: u64, operations: &'b mut OperationReader) -> Self {
        Self {
            decoder: Decoder::with_ip(64, bytes, address, DecoderOptions::NONE),
            operations,
            instruction: Decoded::default(),
            constant: None,
            compared: None,
        }
    }

    #[inline]
    fn operation(&mut self, flow: Flow) -> Operation {
        let instruction = &self.instruction;
        match flow {
            // A loop that touches pages ends where the stack pointer is equal to another register.
            Flow::Branch(_) if instruction.mnemonic() == Mnemonic::Jne => {
                self.compared
                    .map_or(Operation::None, |from| Operation::Copy {
                        to: Register::RSP,
                        from,
                        add: 0,
                    })
            }
            Flow::Call(_) => Operation::Call,
            Flow::Stop
            | Flow::Return
            | Flow::Jump(_)
            | Flow::Branch(_)
            | Flow::JumpSlot(_)
            | Flow::JumpIndirect => Operation::None,
            // `call` to the next instruction pushes that one's address.
            Flow::Next if instruction.mnemonic() == Mnemonic::Call => {
                Operation::MoveStack { add: -8 }
            }
            Flow::Next if instruction.mnemonic() == Mnemonic::Syscall => {
                const R11: RegisterSet = RegisterSet::from_bits(1 << 11);
                Operation::Clobber(R11.with(Register::RAX).with(Register::RCX))
            }
            Flow::Next => self.operations.read(instruction),
        }
    }

    #[inline]
    fn flow(&self) -> Flow {
        let instruction = &self.instruction;
        match instruction.flow_control() {
            FlowControl::Next => next_flow(instruction),
            FlowControl::UnconditionalBranch => Flow::Jump(instruction.near_branch_target()),
            FlowControl::ConditionalBranch => Flow::Branch(instruction.near_branch_target()),
            FlowControl::IndirectBranch => match slot(instruction) {
                Some(slot) => Flow::JumpSlot(slot),
                None => Flow::JumpIndirect,
            },
            FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret => Flow::Return,
            FlowControl::Call if instruction.mnemonic() == Mnemonic::Syscall => self.system_call(),
            FlowControl::Call if instruction.is_call_near() => {
                match instruction.near_branch_target() {
                    target if target == instruction.next_ip() => Flow::Next,
                    target => Flow::Call(Callee::Address(target)),
                }
            }
            FlowControl::IndirectCall if instruction.is_call_near_indirect() => {
                Flow::Call(slot(instruction).map_or(Callee::Unknown, Callee::Slot))
            }
            FlowControl::Interrupt if instruction.mnemonic() == Mnemonic::Int => Flow::Next,
            FlowControl::XbeginXabortXend if instruction.mnemonic() == Mnemonic::Xbegin => {
                Flow::Branch(instruction.near_branch_target())
            }
            FlowControl::XbeginXabortXend => Flow::Next,
            _ => Flow::Stop,
        }
    }

    fn system_call(&self) -> Flow {
        match self.constant {
            Some(number) if SYSTEM_CALLS_WITHOUT_RETURN.contains(&number) => Flow::Stop,
            _ => Flow::Next,
        }
    }

    /// Remembers what the flow and the effect of later instructions depend on.
    #[inline]
    fn remember(&mut self, operation: Operation, flow: Flow) {
        let instruction = &self.instruction;
        let is_constant = instruction.mnemonic() == Mnemonic::Mov
            && Register::of(instruction.op0_register()) == Some(Register::RAX)
            && !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
        if is_constant {
            self.constant = Some(instruction.immediate(1));
        } else if flow != Flow::Next || operation.writes(Register::RAX) {
            self.constant = None;
        }
        let is_compared = instruction.mnemonic() == Mnemonic::Cmp
            && instruction.op0_register() == iced_x86::Register::RSP
            && instruction.op1_register().is_gpr64();
        self.compared = is_compared
            .then(|| Register::of(instruction.op1_register()))
            .flatten();
    }
}

impl Iterator for Run<'_, '_> {
    type Item = (Instruction, Flow);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if !self.decoder.can_decode() {
            return None;
        }
        self.decoder.decode_out(&mut self.instruction);
        let flow = self.flow();
        let operation = self.operation(flow);
        self.remember(operation, flow);
        let instruction = Instruction {
            address: self.instruction.ip(),
            bytes: self.instruction.len() as u8,
            kind: kind(&self.instruction),
            operation,
        };
        Some((instruction, flow))
    }
}

fn next_flow(instruction: &Decoded) -> Flow {
    if matches!(instruction.mnemonic(), Mnemonic::Hlt | Mnemonic::INVALID) {
        Flow::Stop
    } else {
        Flow::Next
    }
}

#[inline]
fn kind(instruction: &Decoded) -> Kind {
    match instruction.mnemonic() {
        Mnemonic::Nop | Mnemonic::Int3 => Kind::Padding,
        Mnemonic::Endbr64 => Kind::Landing,
        _ => Kind::Other,
    }
}

/// The address of the word that a jump or a call reads its target from.
fn slot(instruction: &Decoded) -> Option<u64> {
    let is_memory = instruction.op0_kind() == OpKind::Memory;
    (is_memory && instruction.is_ip_rel_memory_operand())
        .then(|| instruction.ip_rel_memory_address())
}
