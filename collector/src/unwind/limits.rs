//! Limits of what is read of a file.

/// Limits of one file. The largest that are known are browsers and compilers with 100 to
/// 200 MB of code.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of call frame information, of all sections together, and of one that is compressed in both
    /// forms: all of it is in memory at once. Chromium's 190 MB of code have 27 MB of it.
    pub section_bytes_max: u64,
    /// Functions. Chromium has 700,000; with 24 bytes each while they are sorted, two million take
    /// 48 MB.
    pub functions_max: usize,
    /// Rows, 4 bytes each: 64 MB.
    pub rows_max: usize,
    /// Bytes of entries gone through: those of a function, and again those that it shares with
    /// others, once to list and once to follow them. Honest files go through each byte about four
    /// times.
    pub work_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            section_bytes_max: 256 << 20,
            functions_max: 2 << 20,
            rows_max: 16 << 20,
            work_bytes_max: 512 << 20,
        }
    }
}
