//! How much of the stored profiles a question has read.

use parking_lot::Mutex;

/// Counts what a question reads. Each pass over the profiles adds to both what is read and what there is.
#[derive(Debug, Default)]
pub struct Reading(Mutex<ReadCounts>);

/// Progress of a question in the passes that have begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Segments, and blocks of windows that are in no segment yet.
    pub segments: u64,
    /// Those that are read.
    pub segments_read: u64,
    /// About how many bytes of them are in the range.
    pub bytes: u64,
    /// Those that are read.
    pub bytes_read: u64,
}

impl ReadCounts {
    /// Whether all passes that have begun are done.
    pub fn is_done(&self) -> bool {
        self.segments > 0 && self.segments_read == self.segments
    }
}

impl Reading {
    /// Begins a pass over segments with these bytes.
    pub fn begin(&self, segment_bytes: &[u64]) {
        let mut counts = self.0.lock();
        counts.segments += segment_bytes.len() as u64;
        counts.bytes += segment_bytes.iter().sum::<u64>();
    }

    /// A segment with so many bytes is read.
    pub fn note_read(&self, bytes: u64) {
        let mut counts = self.0.lock();
        counts.segments_read += 1;
        counts.bytes_read += bytes;
    }

    /// The counts now.
    pub fn counts(&self) -> ReadCounts {
        *self.0.lock()
    }
}
