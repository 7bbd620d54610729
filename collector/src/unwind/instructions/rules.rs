//! Rows by instructions to rules.

use codeflow::{Cfa, Confidence, Register, Row, Saved};
use profiler_bpf::arch::x86_64::rule::{Rule, kind, rbp, rbx, source};

/// The rule of a row, if the frame is in reach of a rule's numbers.
pub(super) fn rule_of(row: &Row) -> Option<Rule> {
    let rule = match row.cfa {
        Cfa::Register(register, offset) => Rule::at_register(register.number(), offset),
        Cfa::Word {
            register,
            offset,
            add,
        } => Rule {
            kind: kind::DEREFERENCE,
            cfa_add: i16::try_from(add).ok()?,
            ..Rule::at_register(register.number(), offset)
        },
    };
    let (rbp, rbp_offset) = place_of(row.rbp, [rbp::SAME, rbp::AT_CFA, rbp::AT_RBP, rbp::UNKNOWN]);
    let (rbx, rbx_offset) = place_of(row.rbx, [rbx::SAME, rbx::AT_CFA, rbx::AT_RBP, rbx::UNKNOWN]);
    let source = match row.confidence {
        Confidence::Certain | Confidence::Tail => source::INSTRUCTIONS,
        Confidence::Weak => source::INSTRUCTIONS | source::WEAK,
    };
    Some(Rule {
        rbp,
        rbp_offset,
        rbx,
        rbx_offset,
        source,
        ..rule
    })
}

/// The place of a saved register, of `[same, at the CFA, at rbp, unknown]`, and the offset.
fn place_of(saved: Saved, [same, at_cfa, at_rbp, unknown]: [u8; 4]) -> (u8, i16) {
    let found = match saved {
        Saved::Same => Some((same, 0)),
        Saved::AtCfa(offset) => i16::try_from(offset).ok().map(|offset| (at_cfa, offset)),
        Saved::At(Register::RBP, offset) => {
            i16::try_from(offset).ok().map(|offset| (at_rbp, offset))
        }
        Saved::At(..) | Saved::Unknown => None,
    };
    found.unwrap_or((unknown, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check each place of the frame and of its saved registers, and numbers that are too large.
    #[test]
    fn rules_of_rows() {
        let row = Row {
            cfa: Cfa::Register(Register::RBX, 1 << 20),
            rbp: Saved::AtCfa(-16),
            rbx: Saved::At(Register::RBP, -8),
            confidence: Confidence::Tail,
        };
        let expected = Rule {
            rbp: rbp::AT_CFA,
            rbp_offset: -16,
            rbx: rbx::AT_RBP,
            rbx_offset: -8,
            source: source::INSTRUCTIONS,
            ..Rule::at_register(3, 1 << 20)
        };
        assert_eq!(rule_of(&row), Some(expected));
        let row = Row {
            cfa: Cfa::Word {
                register: Register::RBP,
                offset: -8,
                add: 16,
            },
            rbp: Saved::At(Register::RAX, 0),
            rbx: Saved::AtCfa(-40_000),
            confidence: Confidence::Weak,
        };
        let expected = Rule {
            kind: kind::DEREFERENCE,
            cfa_add: 16,
            rbp: rbp::UNKNOWN,
            rbx: rbx::UNKNOWN,
            source: source::INSTRUCTIONS | source::WEAK,
            ..Rule::at_register(6, -8)
        };
        assert_eq!(rule_of(&row), Some(expected));
        let far = Cfa::Word {
            register: Register::RBP,
            offset: -8,
            add: 40_000,
        };
        assert_eq!(rule_of(&Row { cfa: far, ..row }), None);
    }
}
