//! The unwinder core: any registers, rules and memory give a walk that ends.
//!
//! The input is, in words of 8 bytes: how many rules there are, the 17 registers, two words for each rule, and the stack.

use collector::unwind::{Lookup, StackCopy, walk_copy};
use profiler_bpf::arch::x86_64::rule::{RBP, RETURN_ADDRESS, RSP, Rule, kind, rbp, rbx};
use profiler_bpf::outcome::Outcome;

/// A walk that does not end by itself can only be one over signal frames, which may lie anywhere.
const FRAMES_MAX: usize = 5_000;

/// Takes a walk.
pub(crate) fn run(input: &[u8]) {
    let mut words = input
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    let rules_count = words.next().unwrap_or(0) % 16;
    let mut registers = [0; 17];
    for register in &mut registers {
        *register = words.next().unwrap_or(0);
    }
    let rules: Vec<Rule> = (0..rules_count)
        .filter_map(|_| Some(Rule::from_words([words.next()?, words.next()?])))
        .collect();
    let bytes = &input[(8 * (18 + 2 * rules.len())).min(input.len())..];
    let stack = StackCopy {
        address: registers[usize::from(RSP)],
        bytes,
    };
    let has_signals = rules.iter().any(|rule| rule.kind == kind::SIGNAL);
    // The low half of an address names the rule, so that the stack chooses what comes next.
    let rule_at = |address: u64| match rules.get((address % 16) as usize) {
        Some(rule) => Lookup::Rule(*rule),
        None if address % 16 == 15 => Lookup::Missing,
        None => Lookup::NoCode,
    };
    let mut frames = Vec::new();
    let outcome = walk_copy(&registers, &stack, rule_at, &mut frames, FRAMES_MAX);
    assert!(!frames.is_empty() && frames.len() <= FRAMES_MAX);
    assert_eq!(frames[0], registers[usize::from(RETURN_ADDRESS)]);
    if !has_signals {
        // Each step goes up by 8 bytes of a stack that is this long; the innermost may go by none.
        assert!(
            frames.len() <= bytes.len() / 8 + 3,
            "{} frames in {} bytes",
            frames.len(),
            bytes.len()
        );
        assert_ne!(outcome, Outcome::CutAtDepth);
    }
}

/// A stack with each kind of rule.
pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let saved = Rule {
        rbp: rbp::AT_CFA,
        rbp_offset: -16,
        rbx: rbx::AT_CFA,
        rbx_offset: -24,
        ..Rule::at_register(RSP, 24)
    };
    let realigned = Rule {
        kind: kind::DEREFERENCE,
        rbp: rbp::AT_RBP,
        rbx: rbx::AT_RBP,
        ..Rule::at_register(RBP, -8)
    };
    let linkage = Rule {
        kind: kind::LINKAGE,
        cfa_add: 11,
        ..Rule::at_register(RSP, 8)
    };
    let by_rbx = Rule::at_register(3, 56);
    let in_register = Rule {
        return_register: 11,
        ..Rule::at_register(RSP, 8)
    };
    [
        saved,
        realigned,
        linkage,
        by_rbx,
        in_register,
        Rule::NONE,
        Rule::SIGNAL,
    ]
    .into_iter()
    .map(|rule| {
        let stack = 0x7fff_0000_u64;
        let mut words = vec![3];
        let mut registers = [stack + 32; 17];
        (registers[7], registers[16]) = (stack, 0x40_0000);
        words.extend(registers);
        for rule in [rule, Rule::at_register(RSP, 8), Rule::END] {
            words.extend(rule.to_words());
        }
        for place in 0..40 {
            // Return addresses of the second rule and, further up, the last; and words that point up the stack.
            words.push(match place % 4 {
                3 => stack + 8 * (place + 2),
                _ => 0x40_0002 + u64::from(place > 20),
            });
        }
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    })
    .collect()
}
