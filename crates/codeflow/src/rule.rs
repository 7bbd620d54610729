//! Rules of code addresses: the caller's registers in terms of those at the address.

use crate::confidence::Confidence;
use crate::register::{Register, RegisterSet};
use crate::state::State;
use crate::summary::Effect;
use crate::value::{Base, Value};

/// Alignment of the stack at calls (System V ABI for AMD64, section 3.2.2).
pub(crate) const STACK_ALIGNMENT: i32 = 16;

/// Registers that functions give back, in the order of [`Rule::saved`].
pub(crate) const PRESERVED: [Register; 6] = [
    Register::RBP,
    Register::RBX,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// Values after the return to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    /// The canonical frame address (CFA), which the return sets `rsp` to.
    pub(crate) cfa: Value,
    pub(crate) saved: [Value; 6],
    pub(crate) confidence: Confidence,
}

/// Why a rule cannot be that of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The CFA is not known, or is no place of a frame.
    Cfa,
    /// Registers are not given back.
    Registers,
}

impl Rule {
    /// The rule of a return whose address is `offset` bytes above the stack pointer.
    pub(crate) fn of_return(offset: i32, confidence: Confidence) -> Self {
        Self {
            cfa: Value::at(Base::RSP, offset + 8),
            saved: PRESERVED.map(Value::of),
            confidence,
        }
    }

    /// The rule at the start of a block, by that at its end.
    pub(crate) fn before(&self, effect: &Effect<'_>) -> Self {
        Self {
            cfa: effect.resolve(self.cfa),
            saved: self.saved.map(|value| effect.resolve(value)),
            confidence: self.confidence,
        }
    }

    /// The rule where `rsp` is equal to `register`.
    pub(crate) fn where_equal(&self, register: Register) -> Self {
        let replace = |value| match value {
            Value::Sum {
                base: Base::RSP,
                add,
            } => Value::at(Base::of(register), add),
            Value::Word {
                base: Base::RSP,
                offset,
                add,
            } => Value::Word {
                base: Base::of(register),
                offset,
                add,
            },
            other => other,
        };
        Self {
            cfa: replace(self.cfa),
            saved: self.saved.map(replace),
            confidence: self.confidence,
        }
    }

    /// Whether the rule can be that behind a call: where the distance of the stack pointer from the
    /// CFA is known, it is aligned.
    pub(crate) fn is_aligned(&self) -> bool {
        match self.cfa {
            Value::Sum {
                base: Base::RSP,
                add,
            } => add % STACK_ALIGNMENT == 0,
            _ => true,
        }
    }

    /// Registers whose values the rule depends on.
    pub(crate) fn bases(&self) -> RegisterSet {
        let values = self.saved.iter().chain([&self.cfa]);
        let bases = values.filter_map(|value| value.base()?.register());
        bases.fold(RegisterSet::EMPTY, RegisterSet::with)
    }

    /// Checks what holds in each function.
    pub(crate) fn check(&self) -> Result<(), Defect> {
        let is_frame = match self.cfa {
            Value::Unknown => false,
            Value::Sum { base, add } => {
                add % 8 == 0 && (base != Base::RSP || add >= 8) && base.register().is_some()
            }
            Value::Word { base, add, .. } => add % 8 == 0 && base.register().is_some(),
        };
        if !is_frame {
            return Err(Defect::Cfa);
        }
        let mut pairs = PRESERVED.iter().zip(&self.saved);
        if pairs.all(|(register, value)| self.is_restored(*register, *value)) {
            Ok(())
        } else {
            Err(Defect::Registers)
        }
    }

    /// Whether `value` can be the caller's value of the register: it is still there, or in the
    /// frame.
    fn is_restored(&self, register: Register, value: Value) -> bool {
        match (value, self.cfa) {
            (
                Value::Word {
                    base,
                    offset,
                    add: 0,
                },
                Value::Sum { base: frame, add },
            ) if base == frame => offset <= add.saturating_sub(16),
            (Value::Word { add, .. }, _) => add == 0,
            (value, _) => value == Value::of(register),
        }
    }

    /// The same rule without the registers that are not given back.
    pub(crate) fn weakened(&self) -> Self {
        let mut rule = *self;
        for (place, register) in PRESERVED.iter().enumerate() {
            if !self.is_restored(*register, self.saved[place]) {
                rule.saved[place] = Value::Unknown;
            }
        }
        rule.confidence = Confidence::Weak;
        rule
    }

    /// The distance between this CFA and that of a function's state, if both can be compared.
    pub(crate) fn distance(&self, state: &State) -> Option<i32> {
        state.resolve(self.cfa).distance_to_cfa()
    }

    pub(crate) fn with_confidence(&self, confidence: Confidence) -> Self {
        Self {
            confidence: self.confidence.min(confidence),
            ..*self
        }
    }

    /// The rank of the CFA's base: `rsp` can be checked best, and is lost last.
    fn rank(&self) -> u8 {
        match self.cfa {
            Value::Sum {
                base: Base::RSP, ..
            } => 0,
            Value::Sum {
                base: Base::RBP, ..
            } => 1,
            Value::Sum { .. } => 2,
            Value::Word { .. } => 3,
            Value::Unknown => 4,
        }
    }

    /// The rule of code from which two paths lead on; none if they contradict each other.
    pub(crate) fn merge(&self, other: &Self) -> Option<Self> {
        if self.confidence != other.confidence {
            let better = if self.confidence > other.confidence {
                self
            } else {
                other
            };
            return Some(*better);
        }
        if self.cfa == other.cfa {
            let mut merged = *self;
            for (value, theirs) in merged.saved.iter_mut().zip(&other.saved) {
                if *value != *theirs {
                    *value = Value::Unknown;
                }
            }
            return Some(merged);
        }
        match self.rank().cmp(&other.rank()) {
            std::cmp::Ordering::Less => Some(*self),
            std::cmp::Ordering::Greater => Some(*other),
            std::cmp::Ordering::Equal => None,
        }
    }
}
