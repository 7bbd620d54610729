//! One file's rows by instructions.

use std::sync::Arc;

use super::Found;
use crate::{
    process::MappedFile,
    unwind::{CodeRows, Digest},
};

/// The rows of one file's code without call frame information.
#[derive(Debug, Default)]
pub(super) struct InstructionRows {
    pub(super) rows: CodeRows,
    /// Digest of its call frame information.
    pub(super) base: Option<Digest>,
    /// No merge before this time.
    pub(super) next_merge_ns: u64,
}

impl InstructionRows {
    /// The rule at an offset of its file.
    pub(super) fn find(&self, file: &Arc<MappedFile>, offset: u64) -> Found {
        let found = self.rows.find(offset).map(Found::Rule);
        found.unwrap_or_else(|| Found::Unread {
            file: Arc::clone(file),
            offset,
        })
    }

    /// Number of ranges.
    pub(super) fn len(&self) -> usize {
        self.rows.ranges().len()
    }

    /// A key for the file's content with these rows.
    pub(super) fn digest(&self) -> Option<Digest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"with rows by instructions");
        hasher.update(&self.base?.0);
        for range in self.rows.ranges() {
            let [first, second] = range.rule.to_words();
            for word in [range.start, range.end, first, second] {
                hasher.update(&word.to_le_bytes());
            }
        }
        Some(Digest(hasher.finalize().into()))
    }
}
