//! One step by a rule.

use super::{
    Registers, SAVED, UNKNOWN, UNKNOWN_BP, USER_ADDRESS_END,
    rule::{RBP, RBX, RETURN_ON_STACK, RSP, Rule, kind, rbp, rbx},
    step_by_frame_pointer,
};
use crate::{outcome::Outcome, unwind::Step};

/// Offset of the registers in a `ucontext`, in bytes: `uc_flags`, `uc_link` and `uc_stack`
/// take 40, then come r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
/// Source: arch/x86/include/uapi/asm/sigcontext.h.
const CONTEXT_RBP: u64 = 120;
const CONTEXT_RBX: u64 = 128;
const CONTEXT_RSP: u64 = 160;
const CONTEXT_RIP: u64 = 168;

/// Places of the registers of a `ucontext` by their DWARF numbers, four bits each, in words from r8's on.
const CONTEXT_PLACES: u64 = 0x7654_3210_fa89_becd;

/// Offset of each register in a `ucontext`, by its DWARF number below 16.
#[inline(always)]
pub const fn context_offset(register: u8) -> u64 {
    40 + 8 * (CONTEXT_PLACES >> (4 * (register & 15)) & 15)
}

/// Whether a frame that made a call has the register's value of the code that it led to: of those that
/// a call does not preserve (`rax`, `rdx`, `rcx`, `rsi`, `rdi`, `r8` to `r11`) a frame's rule names one
/// only where the functions agreed that it is kept, as parts of OpenSSL's assembly do. The others may
/// have been saved and changed.
#[inline(always)]
pub const fn is_kept_by_agreement(register: u8) -> bool {
    const KEPT: u16 = 0b0000_1111_0011_0111;
    KEPT >> (register & 15) & 1 == 1
}

/// Goes from a frame to its caller by a rule.
///
/// `other` gives a register that is not among [`Registers`], by its DWARF number; only the
/// innermost frame has them. `read` gives the word at an address, which may be any.
#[inline(always)]
pub fn step_by_rule(
    registers: &mut Registers,
    rule: &Rule,
    other: impl Fn(u8) -> Option<u64>,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Step {
    match rule.kind {
        kind::REGISTER | kind::DEREFERENCE | kind::LINKAGE | kind::OTHER_STACK => {}
        kind::NONE => {
            return step_by_frame_pointer(registers, |at| Some([read(at)?, read(at + 8)?]));
        }
        kind::SIGNAL => return step_over_signal(registers, read),
        kind::END => return Step::End,
        kind::UNDECIDED => return Step::Failed(Outcome::Undecided),
        _ => return Step::Failed(Outcome::RuleUnsupported),
    }
    let base = match rule.register {
        RSP => registers.sp,
        RBP if registers.bp == UNKNOWN_BP => return Step::Failed(Outcome::Undecided),
        RBP => registers.bp,
        RBX => {
            let value = match registers.bx & SAVED {
                0 => Some(registers.bx),
                _ => read(registers.bx & !SAVED),
            };
            match value {
                Some(UNKNOWN) => return Step::Failed(Outcome::RuleUnsupported),
                Some(value) => value,
                None => return Step::Failed(Outcome::Unreadable),
            }
        }
        register => match other(register) {
            Some(value) => value,
            None => return Step::Failed(Outcome::RuleUnsupported),
        },
    };
    let base = base.wrapping_add_signed(rule.cfa_offset.into());
    let cfa = match rule.kind {
        kind::REGISTER | kind::OTHER_STACK => base,
        kind::LINKAGE if registers.ip & 15 >= rule.cfa_add as u64 => base.wrapping_add(8),
        kind::LINKAGE => base,
        _ => match read(base) {
            Some(word) => word.wrapping_add_signed(rule.cfa_add.into()),
            None => return Step::Failed(Outcome::Unreadable),
        },
    };
    // A call pushes at least the return address, so that each step goes up and no chain of
    // frames can be a circle. (Only the innermost frame can have it in a register.) Where stacks are switched, only the limit on
    // frames ends a circle.
    let is_popped = rule.return_register != RETURN_ON_STACK;
    let goes_up = cfa > registers.sp || (cfa == registers.sp && is_popped);
    if !(goes_up || rule.kind == kind::OTHER_STACK) || cfa & 7 != 0 || cfa >= USER_ADDRESS_END {
        return Step::Failed(Outcome::BadFrame);
    }
    // Saved "by rbp" means that rbp points into the frame. GCC's rows say so until the end of functions
    // that realign the stack, although `leave` has restored all registers two instructions before.
    let has_frame = registers.sp <= registers.bp && registers.bp < cfa;
    // The lower one is read first: a window of the stack that begins there has the other too.
    let bp = match rule.rbp {
        rbp::SAME => Some(registers.bp),
        rbp::AT_CFA => read(cfa.wrapping_add_signed(rule.rbp_offset.into())),
        rbp::UNKNOWN => Some(UNKNOWN_BP),
        _ if !has_frame => Some(registers.bp),
        _ => read(registers.bp.wrapping_add_signed(rule.rbp_offset.into())),
    };
    let ip = match rule.return_register {
        RETURN_ON_STACK => read(cfa.wrapping_sub(8)),
        register => other(register),
    };
    let bx = match rule.rbx {
        rbx::SAME => registers.bx,
        rbx::AT_CFA => cfa.wrapping_add_signed(rule.rbx_offset.into()) | SAVED,
        rbx::AT_RBP if !has_frame => registers.bx,
        rbx::AT_RBP => registers.bp.wrapping_add_signed(rule.rbx_offset.into()) | SAVED,
        _ => UNKNOWN,
    };
    let (Some(ip), Some(bp)) = (ip, bp) else {
        return Step::Failed(Outcome::Unreadable);
    };
    let caller = Registers {
        ip,
        sp: cfa,
        bp,
        bx,
    };
    go_to(registers, caller, Step::Caller)
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
    let bx = registers.sp.wrapping_add(CONTEXT_RBX) | SAVED;
    go_to(registers, Registers { ip, sp, bp, bx }, Step::Interrupted)
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

#[cfg(test)]
mod tests {
    use super::*;

    const START: Registers = Registers {
        ip: 0x1000,
        sp: 0x7000,
        bp: 0x7100,
        bx: 0x7200,
    };

    /// Takes a step with memory given as (address, word); no other register than r10 is known.
    fn step(from: Registers, rule: Rule, memory: &[(u64, u64)]) -> (Registers, Step) {
        let mut registers = from;
        let other = |number| (number == 10).then_some(0x7300);
        let read = |at| Some(memory.iter().find(|(address, _)| *address == at)?.1);
        let step = step_by_rule(&mut registers, &rule, other, read);
        (registers, step)
    }

    fn caller(ip: u64, sp: u64, bp: u64, bx: u64) -> (Registers, Step) {
        (Registers { ip, sp, bp, bx }, Step::Caller)
    }

    /// Check the CFA of each register that it may come from, and of one that is not known.
    #[test]
    fn cfa_of_registers() {
        for (register, value) in [(RSP, 0x7000), (RBP, 0x7100), (RBX, 0x7200), (10, 0x7300)] {
            let memory = [(value + 16, 0x2000)];
            assert_eq!(
                step(START, Rule::at_register(register, 24), &memory),
                caller(0x2000, value + 24, 0x7100, 0x7200)
            );
        }
        assert_eq!(
            step(START, Rule::at_register(11, 24), &[]),
            (START, Step::Failed(Outcome::RuleUnsupported))
        );
    }

    /// Check that rbp and rbx come from the frame, by the CFA and by rbp.
    #[test]
    fn saved_registers() {
        let rule = Rule {
            rbp: rbp::AT_CFA,
            rbp_offset: -16,
            rbx: rbx::AT_CFA,
            rbx_offset: -24,
            ..Rule::at_register(RSP, 64)
        };
        let memory = [(0x7038, 0x2000), (0x7030, 0x9000)];
        assert_eq!(
            step(START, rule, &memory),
            caller(0x2000, 0x7040, 0x9000, 0x7028 | SAVED)
        );
        let rule = Rule {
            rbp: rbp::AT_RBP,
            rbx: rbx::AT_RBP,
            rbx_offset: -8,
            ..rule
        };
        let rule = Rule {
            rbp_offset: 0,
            ..rule
        };
        let memory = [(0x7038, 0x2000), (0x7030, 0x9000), (0x7040, 0x9001)];
        let framed = Registers {
            bp: 0x7030,
            ..START
        };
        assert_eq!(
            step(framed, rule, &memory),
            caller(0x2000, 0x7040, 0x9000, 0x7028 | SAVED)
        );
        // At the function's end rbp has the caller's value again.
        for bp in [0x6ff8, 0x7040, 0] {
            let restored = Registers { bp, ..START };
            assert_eq!(
                step(restored, rule, &memory),
                caller(0x2000, 0x7040, bp, 0x7200)
            );
        }
    }

    /// Check that a lost rbp leads nowhere, neither by a rule nor as a frame pointer, and comes back from a frame that saved
    /// it.
    #[test]
    fn lost_rbp() {
        let lost = Rule {
            rbp: rbp::UNKNOWN,
            ..Rule::at_register(RSP, 8)
        };
        let (unknown, _) = step(START, lost, &[(0x7000, 0x2000)]);
        assert_eq!(unknown.bp, UNKNOWN_BP);
        let memory = [(0x7010, 0x3000), (0x7008, 0x9000)];
        for (rule, outcome) in [
            (Rule::at_register(RBP, 16), Outcome::Undecided),
            (Rule::UNDECIDED, Outcome::Undecided),
            (Rule::NONE, Outcome::BadFramePointer),
        ] {
            assert_eq!(
                step(unknown, rule, &memory),
                (unknown, Step::Failed(outcome))
            );
        }
        let saving = Rule {
            rbp: rbp::AT_CFA,
            rbp_offset: -16,
            ..Rule::at_register(RSP, 16)
        };
        assert_eq!(
            step(unknown, saving, &memory),
            caller(0x3000, 0x7018, 0x9000, 0x7200)
        );
    }

    /// Check that a saved rbx is read when a CFA comes from it, and the outcome when it is not known.
    #[test]
    fn cfa_of_a_saved_rbx() {
        let rule = Rule::at_register(RBX, 56);
        let saved = Registers {
            bx: 0x7028 | SAVED,
            ..START
        };
        let memory = [(0x7028, 0x7400), (0x7430, 0x2000)];
        assert_eq!(
            step(saved, rule, &memory),
            caller(0x2000, 0x7438, 0x7100, 0x7028 | SAVED)
        );
        assert_eq!(
            step(saved, rule, &[]),
            (saved, Step::Failed(Outcome::Unreadable))
        );
        let lost = Rule {
            rbx: rbx::UNKNOWN,
            ..Rule::at_register(RSP, 8)
        };
        let (unknown, _) = step(START, lost, &[(0x7000, 0x2000)]);
        assert_eq!(
            step(unknown, rule, &memory),
            (unknown, Step::Failed(Outcome::RuleUnsupported))
        );
    }

    /// Check the CFA of a realigned stack, and of both halves of a linkage table's entry.
    #[test]
    fn cfa_by_expressions() {
        let rule = Rule {
            kind: kind::DEREFERENCE,
            cfa_add: 8,
            ..Rule::at_register(RBP, -8)
        };
        assert_eq!(
            step(START, rule, &[(0x70f8, 0x7500), (0x7500, 0x2000)]),
            caller(0x2000, 0x7508, 0x7100, 0x7200)
        );
        let rule = Rule {
            kind: kind::LINKAGE,
            cfa_add: 11,
            ..Rule::at_register(RSP, 8)
        };
        for (ip, sp) in [(0x100a, 0x7008), (0x100b, 0x7010)] {
            let from = Registers { ip, ..START };
            assert_eq!(
                step(from, rule, &[(sp - 8, 0x2000)]),
                caller(0x2000, sp, 0x7100, 0x7200)
            );
        }
    }

    /// Check that a frame on another stack is found wherever that is, and that no other rule leads down.
    #[test]
    fn other_stacks() {
        let memory = [(0x3008, 0x2000), (0x3000, 0x3100)];
        let rule = Rule {
            rbp: rbp::AT_CFA,
            rbp_offset: -16,
            ..Rule::at_register(RBP, 16)
        };
        let switched = Rule {
            kind: kind::OTHER_STACK,
            ..rule
        };
        let from = Registers {
            bp: 0x3000,
            ..START
        };
        assert_eq!(
            step(from, switched, &memory),
            caller(0x2000, 0x3010, 0x3100, 0x7200)
        );
        assert_eq!(
            step(from, rule, &memory),
            (from, Step::Failed(Outcome::BadFrame))
        );
    }

    /// Check that a signal's context gives the registers of the code that it interrupted, which may
    /// be on a lower stack.
    #[test]
    fn signal() {
        let memory = [
            (0x7000 + 168, 0x2000),
            (0x7000 + 160, 0x3000),
            (0x7000 + 120, 0x4000),
        ];
        let interrupted = Registers {
            ip: 0x2000,
            sp: 0x3000,
            bp: 0x4000,
            bx: (0x7000 + 128) | SAVED,
        };
        assert_eq!(
            step(START, Rule::SIGNAL, &memory),
            (interrupted, Step::Interrupted)
        );
    }

    /// Check the places of all registers in a context: by their DWARF numbers in the kernel's order.
    #[test]
    fn context_places() {
        let order = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, RBP, RBX, 1, 0, 2, RSP];
        for (place, register) in order.into_iter().enumerate() {
            assert_eq!(context_offset(register), 40 + 8 * place as u64);
        }
        assert_eq!(context_offset(RBP), CONTEXT_RBP);
        assert_eq!(context_offset(RBX), CONTEXT_RBX);
        assert_eq!(context_offset(RSP), CONTEXT_RSP);
    }

    /// Check the ends: an undefined return address, one that is zero, and rules that mean nothing.
    #[test]
    fn ends() {
        assert_eq!(step(START, Rule::END, &[]), (START, Step::End));
        let rule = Rule::at_register(RSP, 8);
        assert_eq!(step(START, rule, &[(0x7000, 0)]), (START, Step::End));
        for rule in [Rule::UNSUPPORTED, Rule::from_words([u64::MAX; 2])] {
            assert_eq!(
                step(START, rule, &[]),
                (START, Step::Failed(Outcome::RuleUnsupported))
            );
        }
    }

    /// Check that a frame which does not go up, is odd or returns to the kernel is refused; a return
    /// address in a register is one of a leaf, which may have pushed nothing.
    #[test]
    fn frames_that_cannot_be() {
        for (rule, word) in [
            (Rule::at_register(RSP, 0), 0x2000),
            (Rule::at_register(RSP, -8), 0x2000),
            (Rule::at_register(RSP, 12), 0x2000),
            (Rule::at_register(RSP, 8), USER_ADDRESS_END),
        ] {
            assert_eq!(
                step(START, rule, &[(0x7000, word), (0x6ff8, word)]),
                (START, Step::Failed(Outcome::BadFrame))
            );
        }
        let rule = Rule {
            return_register: 10,
            ..Rule::at_register(RSP, 0)
        };
        assert_eq!(
            step(START, rule, &[]),
            caller(0x7300, 0x7000, 0x7100, 0x7200)
        );
    }
}
