//! Changes of the kernel's tables.

use profiler_bpf::arch::x86_64::rule::Rule;

/// One change of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new rule.
    Rule {
        /// Its number.
        number: u16,
        /// The rule.
        rule: Rule,
    },
    /// A page without references.
    ClosePage(u16),
    /// A whole page, from [`Tables::copy_page`]; it may be new to the kernel.
    Page(u16),
    /// Consecutive blocks.
    Blocks {
        /// Index of the first.
        place: u32,
        /// Their words.
        words: Vec<u64>,
    },
    /// Consecutive mappings.
    Mappings {
        /// Index of the first.
        place: u32,
        /// Their words.
        words: Vec<[u64; 4]>,
    },
    /// A process's entry, as one value.
    Process {
        /// Its id.
        pid: u32,
        /// The entry's words.
        words: [u64; 4],
    },
    /// Removes a process's entry.
    RemoveProcess {
        /// Its id.
        pid: u32,
    },
}
