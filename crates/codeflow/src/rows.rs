//! Rows: what unwinders read.

use std::fmt;
use std::ops::Range;

use crate::confidence::Confidence;
use crate::register::Register;

/// The caller's stack pointer, which is the canonical frame address (CFA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// The register plus the offset.
    Register(Register, i32),
    /// The word at the register plus `offset`, plus `add`.
    Word {
        /// Points to the frame.
        register: Register,
        /// The word's offset from it.
        offset: i32,
        /// The CFA's offset from the word.
        add: i32,
    },
}

/// The place of the caller's value of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Saved {
    /// In the register.
    Same,
    /// In the word at the CFA plus the offset.
    AtCfa(i32),
    /// In the word at the register plus the offset.
    At(Register, i32),
    /// Not known.
    Unknown,
}

/// The caller's registers at an address. The return address is in the word below the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The caller's `rsp`.
    pub cfa: Cfa,
    /// The caller's `rbp`.
    pub rbp: Saved,
    /// The caller's `rbx`.
    pub rbx: Saved,
    /// How sure the row is.
    pub confidence: Confidence,
}

/// As `rsp+24 rbp=[cfa-16] rbx=same`.
impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cfa {
            Cfa::Register(register, offset) => write!(formatter, "{register}{offset:+}")?,
            Cfa::Word {
                register,
                offset,
                add,
            } => write!(formatter, "[{register}{offset:+}]{add:+}")?,
        }
        write!(formatter, " rbp={} rbx={}", self.rbp, self.rbx)
    }
}

impl fmt::Display for Saved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => formatter.write_str("same"),
            Self::AtCfa(offset) => write!(formatter, "[cfa{offset:+}]"),
            Self::At(register, offset) => write!(formatter, "[{register}{offset:+}]"),
            Self::Unknown => formatter.write_str("?"),
        }
    }
}

/// Why an address has no row, the most informative one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Two paths give two rules, or those of the function's start and of its end disagree.
    Conflict,
    /// The only path leads behind a call at which the stack is not aligned.
    Alignment,
    /// The only path leads to a jump table that was not found, or to an interpreter's computed
    /// goto.
    ComputedJump,
    /// Registers that functions preserve are not restored.
    NotRestored,
    /// The frame's place is not in a register, nor in a word that a register points to.
    LostFrame,
    /// The path leads to code that was not read: there is too much of it, or it is not readable.
    NotRead,
    /// No path leads to a return.
    NoReturn,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Conflict,
        Self::Alignment,
        Self::ComputedJump,
        Self::NotRestored,
        Self::LostFrame,
        Self::NotRead,
        Self::NoReturn,
    ];

    /// A name for tables and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Alignment => "alignment",
            Self::ComputedJump => "computed_jump",
            Self::NotRestored => "not_restored",
            Self::LostFrame => "lost_frame",
            Self::NotRead => "not_read",
            Self::NoReturn => "no_return",
        }
    }
}

/// Rows of ranges of addresses, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    ranges: Vec<(Range<u64>, Result<Row, Reason>)>,
}

impl Rows {
    /// The row at an address; nothing if no instruction there was read. Return addresses are looked
    /// up one byte lower, at the call.
    pub fn get(&self, address: u64) -> Option<Result<Row, Reason>> {
        let number = self
            .ranges
            .partition_point(|(range, _)| range.end <= address);
        let (range, row) = self.ranges.get(number)?;
        range.contains(&address).then_some(*row)
    }

    /// All ranges, with the row or the reason why there is none.
    pub fn ranges(&self) -> &[(Range<u64>, Result<Row, Reason>)] {
        &self.ranges
    }

    /// Adds a range behind the others. Of two instructions that overlap, the one that begins first
    /// holds.
    pub(crate) fn push(&mut self, start: u64, end: u64, row: Result<Row, Reason>) {
        let start = self
            .ranges
            .last()
            .map_or(start, |(last, _)| start.max(last.end));
        if start >= end {
            return;
        }
        match self.ranges.last_mut() {
            Some((last, same)) if last.end == start && *same == row => last.end = end,
            _ => self.ranges.push((start..end, row)),
        }
    }
}
