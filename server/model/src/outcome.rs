//! Outcomes of user stacks: the collector's codes, and which of them are complete.
//!
//! A sample carries its code as the tag `outcome`. One that has none was walked to its end in the kernel.

/// The tag's name.
pub const OUTCOME_TAG: &str = "outcome";

/// Name of the tag with the second unwinder's result.
pub const CHECK_TAG: &str = "check";

/// Name in answers of a stack that was walked to its end in the kernel. No sample is tagged with it.
pub const COMPLETE: &str = "complete";

/// Name in answers of a sample without a user stack. No sample is tagged with it.
pub const KERNEL_ONLY: &str = "kernel_only";

/// The codes, and whether such a stack reaches its end.
pub const OUTCOMES: [(&str, bool); 18] = [
    (COMPLETE, true),
    (KERNEL_ONLY, true),
    // Copied by the kernel, walked in user space.
    ("copied", true),
    // Walked to its end; of its frames the first and the last 512 are kept.
    ("middle_left_out", true),
    // Walked to its end, in part by rows that were made from instructions.
    ("by_instructions", true),
    ("uncertain", false),
    ("undecided", false),
    ("cut_at_depth", false),
    ("cut_by_budget", false),
    ("unreadable", false),
    ("bad_frame_pointer", false),
    ("bad_frame", false),
    ("bad_return_address", false),
    ("rule_unsupported", false),
    ("no_rows", false),
    ("stale_rows", false),
    ("compat_32", false),
    ("process_unknown", false),
];

/// Whether a stack with this code reaches its end. The empty code is that of a sample without one; a code of a newer
/// collector that this server does not know counts as incomplete, so that no share is ever too good.
pub fn is_complete(outcome: &str) -> bool {
    outcome.is_empty() || OUTCOMES.contains(&(outcome, true))
}

/// Result of the second, independent unwinder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The same frames.
    Agreed,
    /// Other frames.
    Differed,
}

impl Check {
    /// Reads the tag's text; `None` for a sample that was not compared.
    pub fn from_tag(text: &str) -> Option<Self> {
        match text {
            "agreed" => Some(Self::Agreed),
            "differed" => Some(Self::Differed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_codes_are_complete() {
        for outcome in [
            "",
            "complete",
            "kernel_only",
            "copied",
            "middle_left_out",
            "by_instructions",
        ] {
            assert!(is_complete(outcome), "{outcome}");
        }
        for outcome in [
            "cut_at_depth",
            "no_rows",
            "uncertain",
            "a_newer_code",
            "Copied",
        ] {
            assert!(!is_complete(outcome), "{outcome}");
        }
    }

    #[test]
    fn codes_come_once() {
        for (i, (outcome, _)) in OUTCOMES.iter().enumerate() {
            assert!(OUTCOMES[..i].iter().all(|(before, _)| before != outcome));
        }
    }
}
