//! One step by a rule.

use super::{
    Registers, USER_ADDRESS_END,
    rule::{RBP, RETURN_ON_STACK, RSP, Rule, kind, rbp},
    step_by_frame_pointer,
};
use crate::{outcome::Outcome, unwind::Step};

/// Where the kernel puts registers in a `ucontext`, in bytes: `uc_flags`, `uc_link` and `uc_stack`
/// take 40, then come r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
/// Source: arch/x86/include/uapi/asm/sigcontext.h.
const CONTEXT_RBP: u64 = 120;
const CONTEXT_RSP: u64 = 160;
const CONTEXT_RIP: u64 = 168;

/// Goes from a frame to its caller by a rule.
///
/// `other` gives a register that is not among [`Registers`], by its DWARF number; only the
/// innermost frame has them. `read` gives the word at an address.
#[inline(always)]
pub fn step_by_rule(
    registers: &mut Registers,
    rule: &Rule,
    other: impl Fn(u8) -> Option<u64>,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Step {
    match rule.kind {
        kind::REGISTER | kind::DEREFERENCE | kind::LINKAGE => {}
        kind::NONE => {
            return step_by_frame_pointer(registers, |at| Some([read(at)?, read(at + 8)?]));
        }
        kind::SIGNAL => return step_over_signal(registers, read),
        kind::END => return Step::End,
        _ => return Step::Failed(Outcome::RuleUnsupported),
    }
    let base = match rule.register {
        RSP => registers.sp,
        RBP => registers.bp,
        register => match other(register) {
            Some(value) => value,
            None => return Step::Failed(Outcome::RuleUnsupported),
        },
    };
    let base = base.wrapping_add_signed(rule.cfa_offset.into());
    let cfa = match rule.kind {
        kind::REGISTER => base,
        kind::LINKAGE if registers.ip & 15 >= rule.cfa_add as u64 => base.wrapping_add(8),
        kind::LINKAGE => base,
        _ => match read(base) {
            Some(word) => word.wrapping_add_signed(rule.cfa_add.into()),
            None => return Step::Failed(Outcome::Unreadable),
        },
    };
    // A call pushes at least the return address, so that each step goes up and no chain of
    // frames can be a circle. (Only the innermost frame can have it in a register.)
    let is_popped = rule.return_register != RETURN_ON_STACK;
    if cfa < registers.sp
        || (cfa == registers.sp && !is_popped)
        || cfa & 7 != 0
        || cfa >= USER_ADDRESS_END
    {
        return Step::Failed(Outcome::BadFrame);
    }
    let ip = match rule.return_register {
        RETURN_ON_STACK => read(cfa - 8),
        register => other(register),
    };
    let bp = match rule.rbp {
        rbp::SAME => Some(registers.bp),
        rbp::AT_CFA => read(cfa.wrapping_add_signed(rule.rbp_offset.into())),
        _ => read(registers.bp.wrapping_add_signed(rule.rbp_offset.into())),
    };
    let (Some(ip), Some(bp)) = (ip, bp) else {
        return Step::Failed(Outcome::Unreadable);
    };
    go_to(registers, Registers { ip, sp: cfa, bp }, Step::Caller)
}

/// Goes from a signal trampoline to the code that the signal interrupted. The stack may be another
/// one (`sigaltstack`), so that it need not go up.
#[inline(always)]
fn step_over_signal(registers: &mut Registers, mut read: impl FnMut(u64) -> Option<u64>) -> Step {
    let mut saved = |at: u64| read(registers.sp.wrapping_add(at));
    let (Some(ip), Some(sp), Some(bp)) =
        (saved(CONTEXT_RIP), saved(CONTEXT_RSP), saved(CONTEXT_RBP))
    else {
        return Step::Failed(Outcome::Unreadable);
    };
    go_to(registers, Registers { ip, sp, bp }, Step::Interrupted)
}

#[inline(always)]
fn go_to(registers: &mut Registers, caller: Registers, step: Step) -> Step {
    if caller.ip == 0 {
        return Step::End;
    }
    if caller.ip >= USER_ADDRESS_END {
        return Step::Failed(Outcome::BadFrame);
    }
    *registers = caller;
    step
}
