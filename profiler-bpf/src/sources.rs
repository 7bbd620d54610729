//! Sources of the rules of a walk, which say how sure its end is.

use crate::{
    arch::x86_64::rule::{Rule, kind, source},
    outcome::Outcome,
};

/// Sources of the rules of the frames that a walk has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sources {
    /// Bits of all rules but the last one's.
    before: u32,
    /// Bits of the last one.
    last: u32,
}

impl Sources {
    /// Adds the rule of a frame that the walk leaves.
    #[inline(always)]
    pub fn add(&mut self, rule: &Rule) {
        self.before |= self.last;
        self.last = rule.source as u32;
    }

    /// The outcome of a walk that ends at a frame with this rule.
    ///
    /// A return address in the frame that is known to be the outermost shows that the step to it was right: no other function
    /// returns there.
    #[inline(always)]
    pub fn end_at(self, rule: &Rule) -> Outcome {
        let all = self.before | self.last | rule.source as u32;
        let unproven = match rule.kind {
            kind::END => self.before,
            _ => all,
        };
        if unproven & source::WEAK as u32 != 0 {
            Outcome::Uncertain
        } else if all & source::INSTRUCTIONS as u32 != 0 {
            Outcome::ByInstructions
        } else {
            Outcome::Complete
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEAK: u8 = source::INSTRUCTIONS | source::WEAK;

    fn end(sources: &[u8], end: &Rule) -> Outcome {
        let mut walked = Sources::default();
        for source in sources {
            walked.add(&Rule {
                source: *source,
                ..Rule::at_register(7, 8)
            });
        }
        walked.end_at(end)
    }

    /// Check the outcomes of walks by all sources: a weak row counts, unless it led to the outermost frame.
    #[test]
    fn ends() {
        let zero = Rule::at_register(7, 8);
        for (sources, at_end, at_zero) in [
            (&[0, 0][..], Outcome::Complete, Outcome::Complete),
            (&[0, 1, 0], Outcome::ByInstructions, Outcome::ByInstructions),
            (&[0, 0, 1], Outcome::ByInstructions, Outcome::ByInstructions),
            (&[0, WEAK], Outcome::ByInstructions, Outcome::Uncertain),
            (&[WEAK, 0], Outcome::Uncertain, Outcome::Uncertain),
        ] {
            assert_eq!(end(sources, &Rule::END), at_end, "{sources:?}");
            assert_eq!(end(sources, &zero), at_zero, "{sources:?}");
        }
    }
}
