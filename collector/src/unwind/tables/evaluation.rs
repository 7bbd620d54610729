//! The results of evaluating a file, and of a search in the tables.

use std::sync::Arc;

use profiler_bpf::arch::x86_64::rule::Rule;

use crate::{
    process::MappedFile,
    unwind::{Digest, RuleSet, Table},
};

/// The result of evaluating a file.
#[derive(Debug)]
pub enum Evaluation {
    /// The file's rows, with the rules that they refer to.
    Rows {
        /// Digest of all data that the evaluation read.
        digest: Digest,
        /// The rows.
        table: Table,
        /// Their rules, in the file's own numbering.
        rules: RuleSet,
    },
    /// The rows of another file: see [`Tables::known_digests`](super::Tables::known_digests).
    Known(Digest),
    /// The file has no call frame information, or is not an ELF file for this processor.
    NoRows,
    /// The file exceeds the limits.
    TooLarge {
        /// Bytes of the file.
        file_bytes: u64,
    },
    /// The file is gone, or cannot be read.
    Unreadable,
}

/// The result of a search for the rule at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The rule applies.
    Rule(Rule),
    /// The rows of this file are unknown.
    Missing(Arc<MappedFile>),
    /// The file has no call frame information at the address, and its instructions there were not read.
    Unread {
        /// The file.
        file: Arc<MappedFile>,
        /// Offset of the address in it.
        offset: u64,
    },
    /// The address is outside of all mappings.
    NoMapping,
}
