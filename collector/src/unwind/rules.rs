//! Rules by their numbers.

use profiler_bpf::arch::x86_64::rule::{NUMBER_OF_NONE, NUMBER_OF_UNSUPPORTED, Rule};
use rustc_hash::FxHashMap;

/// Rules of one file, at most 65,536, which a row's 16 bits can name.
#[derive(Clone, Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    numbers: FxHashMap<Rule, u16>,
    refused: u64,
}

impl RuleSet {
    /// Number of [`Rule::NONE`] in every set.
    pub const NONE: u16 = NUMBER_OF_NONE;
    /// Number of [`Rule::UNSUPPORTED`] in every set.
    pub const UNSUPPORTED: u16 = NUMBER_OF_UNSUPPORTED;

    /// A set of the two rules that each set has.
    pub fn new() -> Self {
        let mut set = Self {
            rules: Vec::new(),
            numbers: FxHashMap::default(),
            refused: 0,
        };
        for (rule, number) in [
            (Rule::NONE, Self::NONE),
            (Rule::UNSUPPORTED, Self::UNSUPPORTED),
        ] {
            debug_assert_eq!(set.rules.len(), usize::from(number));
            set.rules.push(rule);
            set.numbers.insert(rule, number);
        }
        set
    }

    /// The number of a rule. A rule for which there is no number left is counted, and is
    /// [`Self::UNSUPPORTED`].
    pub fn intern(&mut self, rule: Rule) -> u16 {
        if let Some(number) = self.numbers.get(&rule) {
            return *number;
        }
        let Ok(number) = u16::try_from(self.rules.len()) else {
            self.refused += 1;
            return Self::UNSUPPORTED;
        };
        self.rules.push(rule);
        self.numbers.insert(rule, number);
        number
    }

    /// The rule of a number.
    pub fn get(&self, number: u16) -> Option<&Rule> {
        self.rules.get(usize::from(number))
    }

    /// All rules in the order of their numbers.
    pub fn as_slice(&self) -> &[Rule] {
        &self.rules
    }

    /// Rules for which there was no number.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that equal rules share a number, and that the last number is not the end.
    #[test]
    fn numbers_are_shared_and_end() {
        let mut set = RuleSet::new();
        assert_eq!(set.intern(Rule::NONE), RuleSet::NONE);
        assert_eq!(set.intern(Rule::UNSUPPORTED), RuleSet::UNSUPPORTED);
        for offset in 0..65_534 {
            let number = set.intern(Rule::at_register(7, offset));
            assert_eq!(i32::from(number), offset + 2);
        }
        assert_eq!(set.intern(Rule::at_register(7, 65_533)), u16::MAX);
        assert_eq!(set.intern(Rule::at_register(6, 0)), RuleSet::UNSUPPORTED);
        assert_eq!((set.refused(), set.as_slice().len()), (1, 65_536));
        assert_eq!(set.get(9), Some(&Rule::at_register(7, 7)));
    }
}
