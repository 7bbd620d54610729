//! Findings of a start, and its work.

/// Work that was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The catalog was made anew.
    pub catalog_rebuilt: bool,
    /// Replacements of files that were finished.
    pub replacements_finished: u64,
    /// Lists of replacements that were damaged, and were kept.
    pub lists_damaged: u64,
    /// Files that did not count yet, and were removed.
    pub unfinished_removed: u64,
    /// Segments.
    pub segments: u64,
    /// Segments whose messages the catalog lacked.
    pub segments_read: u64,
    /// Segments that could not be opened, and were left as they are.
    pub segments_damaged: u64,
    /// Logs that were read.
    pub logs_read: u64,
    /// Windows in them.
    pub windows_read: u64,
    /// Windows in them that were stored already, and were left out.
    pub windows_repeated: u64,
    /// Bytes of unfinished records at the end of logs.
    pub tail_bytes_cut: u64,
    /// Damaged stretches of logs and of files of earlier versions, which are kept beside what could be read.
    pub records_damaged: u64,
    /// Files of earlier versions.
    pub old_files: u64,
    /// The limits that were chosen at the first start cannot be read: nothing is evicted before flags say so.
    pub limits_damaged: bool,
}
