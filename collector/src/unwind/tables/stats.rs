//! Counts of the tables: entries, evictions and refusals.

/// Files without rows, by reason. Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedStats {
    /// The file exceeds the limits of an evaluation.
    pub too_large: u64,
    /// The file has code over more than 1 GiB, or in too many ranges.
    pub blocks: u64,
    /// Blocks with more rows than a page has room for; these blocks have no rows.
    pub dense_blocks: u64,
    /// The file is gone, or cannot be read.
    pub unreadable: u64,
    /// There was no room in the kernel when the file was evaluated; its stacks are copied until
    /// there is.
    pub no_room: u64,
    /// Rules beyond the limit of a file; code with these rules is treated as unsupported.
    pub rules: u64,
    /// Files beyond the limit of a process; walked by frame pointers.
    pub files: u64,
    /// Mappings beyond the number that a search can handle.
    pub mappings: u64,
    /// Processes evicted because the table was full.
    pub processes: u64,
}

/// Entries of the tables, and counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TablesStats {
    /// Files whose rows are in the kernel. Files with equal rows count once.
    pub files: usize,
    /// Evaluated files whose rows have no room in the kernel.
    pub files_waiting: usize,
    /// Files with an entry in the tables.
    pub files_known: usize,
    /// Pages in the kernel.
    pub pages: usize,
    /// Bytes of the pages.
    pub bytes: u64,
    /// Rows in the pages.
    pub rows: u64,
    /// Blocks.
    pub blocks: u32,
    /// Rules that rows in the kernel refer to.
    pub rules: usize,
    /// Rule numbers that were reassigned to another rule, since the start.
    pub rules_reused: u64,
    /// Processes.
    pub processes: usize,
    /// Mappings of the processes.
    pub mappings: u32,
    /// Files whose rows were evicted from the kernel to make room, since the start.
    pub evictions: u64,
    /// File entries that were evicted because the table was full, since the start.
    pub file_evictions: u64,
    /// Ranges of code without call frame information whose instructions were read.
    pub code_ranges: usize,
    /// Files whose rows by instructions were forgotten because there were too many, since the start.
    pub code_evictions: u64,
    /// Files without rows, by reason.
    pub refused: RefusedStats,
}
