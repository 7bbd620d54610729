//! Outcomes of samples: every entry of the program counts exactly one.

/// The one outcome of a sample, as the kernel side sees it.
///
/// Those with a record are told by [`has_record`](Self::has_record). The numbers are part
/// of the ABI and are never used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// The whole user stack was walked to its end.
    Complete = 0,
    /// A task without user memory: a kernel thread, or a process at its very end or in the middle of an
    /// exec.
    KernelOnly = 1,
    /// The walk reached [`WALKED_FRAMES_MAX`](crate::settings::WALKED_FRAMES_MAX).
    CutAtDepth = 2,
    /// Memory that the stack points to could not be read.
    Unreadable = 3,
    /// The chain of frame pointers was broken: misaligned, or not going up the stack.
    BadFramePointer = 4,
    /// A 32-bit process: only its topmost frame is known.
    Compat32 = 5,
    /// The ring buffer was full: the sample is lost.
    RingFull = 6,
    /// The program could not do its work (no scratch memory, no registers): the sample is lost.
    Internal = 7,
    /// Unwind information of a shape that is not supported, or one that needs a register
    /// that only the innermost frame has.
    RuleUnsupported = 8,
    /// A frame that cannot be: its stack does not lie above its callee's, or its return
    /// address is not one.
    BadFrame = 9,
    /// The rows for an address are not in the kernel, and the stack could not be copied.
    NoRows = 10,
    /// The processor's time for deep stacks was used up: see
    /// [`BUDGET_FREE_FRAMES`](crate::settings::BUDGET_FREE_FRAMES).
    CutByBudget = 11,
    /// Walked to its end, but deeper than [`USER_FRAMES_MAX`](crate::settings::USER_FRAMES_MAX): the
    /// middle was left out.
    MiddleLeftOut = 12,
    /// The policy excludes the task's cgroup: nothing was read of the task.
    Excluded = 13,
    /// A task outside of the collector's PID namespace: nothing was read of it.
    OtherNamespace = 14,
    /// Walked to its end, in part by rows made from instructions, all of which are certain.
    ByInstructions = 15,
    /// Walked to its end, in part by rows made from instructions that may be wrong.
    Uncertain = 16,
    /// Code without call frame information whose instructions do not tell where the caller is.
    Undecided = 17,
}

impl Outcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Complete,
        Self::KernelOnly,
        Self::CutAtDepth,
        Self::Unreadable,
        Self::BadFramePointer,
        Self::Compat32,
        Self::RingFull,
        Self::Internal,
        Self::RuleUnsupported,
        Self::BadFrame,
        Self::NoRows,
        Self::CutByBudget,
        Self::MiddleLeftOut,
        Self::Excluded,
        Self::OtherNamespace,
        Self::ByInstructions,
        Self::Uncertain,
        Self::Undecided,
    ];

    /// The outcome with this number, or `None` for a number that has no outcome.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its name in metrics and in the profile's label `outcome`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::KernelOnly => "kernel_only",
            Self::CutAtDepth => "cut_at_depth",
            Self::Unreadable => "unreadable",
            Self::BadFramePointer => "bad_frame_pointer",
            Self::Compat32 => "compat_32",
            Self::RingFull => "ring_full",
            Self::Internal => "internal",
            Self::RuleUnsupported => "rule_unsupported",
            Self::BadFrame => "bad_frame",
            Self::NoRows => "no_rows",
            Self::CutByBudget => "cut_by_budget",
            Self::MiddleLeftOut => "middle_left_out",
            Self::Excluded => "excluded",
            Self::OtherNamespace => "other_namespace",
            Self::ByInstructions => "by_instructions",
            Self::Uncertain => "uncertain",
            Self::Undecided => "undecided",
        }
    }

    /// Whether the sample comes with a record.
    pub const fn has_record(self) -> bool {
        !matches!(
            self,
            Self::RingFull | Self::Internal | Self::Excluded | Self::OtherNamespace
        )
    }

    /// Whether the stack was walked to its end.
    pub const fn is_complete(self) -> bool {
        matches!(
            self,
            Self::Complete | Self::KernelOnly | Self::MiddleLeftOut | Self::ByInstructions
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that an outcome's number is its place in the list.
    #[test]
    fn numbers_are_places() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
            assert_eq!(Outcome::from_number(place as u8), Some(outcome));
        }
        assert_eq!(Outcome::from_number(Outcome::ALL.len() as u8), None);
    }
}
