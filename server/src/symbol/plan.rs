//! The ranges of a file that a collector sends, and the offset of each received byte. Pure.
//!
//! The ranges are sent one after the other and written at their own offsets into a file that is empty elsewhere. The
//! length of the file on the disk tells the number of received bytes, and its holes read as zeros.

use elf::{FileRange, slice_ranges};
use serde_json::json;

/// Parts of one file. Linkers write some 40 sections, of which at most 25 are for names; with headers and notes these are
/// fewer than 40 parts.
pub const RANGES_MAX: usize = 1024;

/// Bytes of an encoded plan with all ranges: two numbers of up to 20 digits each.
pub const PLAN_BYTES_MAX: u64 = 32 + 44 * RANGES_MAX as u64;

/// The ranges of a file that are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPlan {
    file_bytes: u64,
    ranges: Vec<FileRange>,
    total_bytes: u64,
}

impl UploadPlan {
    /// Makes a plan of ranges that are sorted, apart from each other, within the file and not empty.
    ///
    /// # Errors
    /// The mistake in the ranges.
    pub fn new(file_bytes: u64, ranges: Vec<FileRange>) -> Result<Self, &'static str> {
        if ranges.is_empty() || ranges.len() > RANGES_MAX {
            return Err("ranges must be 1 to 1024");
        }
        let mut end = 0;
        let mut total_bytes = 0;
        for range in &ranges {
            if range.bytes == 0 {
                return Err("a range is empty");
            }
            if range.offset < end {
                return Err("ranges lie on each other, or are not in the order of their places");
            }
            let range_end = range.offset.checked_add(range.bytes);
            end = range_end.ok_or("a range goes beyond 2^64")?;
            total_bytes += range.bytes;
        }
        if end > file_bytes {
            return Err("a range goes beyond the file's end");
        }
        Ok(Self {
            file_bytes,
            ranges,
            total_bytes,
        })
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of all parts.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The ranges of the file for `bytes` bytes from a position on; they end with the plan's ranges.
    pub fn places(&self, position: u64, bytes: u64) -> impl Iterator<Item = FileRange> + '_ {
        slice_ranges(&self.ranges, position, bytes)
    }

    /// Received bytes, by the length of the file on the disk.
    pub fn received_at(&self, length: u64) -> u64 {
        let before = |range: &FileRange| length.saturating_sub(range.offset).min(range.bytes);
        self.ranges.iter().map(before).sum()
    }

    /// Length of the file on the disk by received bytes: the reverse of [`Self::received_at`].
    pub fn length_at(&self, received: u64) -> u64 {
        let last = self.places(0, received).last();
        last.map_or(0, |range| range.end())
    }

    /// Writes it as JSON: `[bytes of the file, [[offset, bytes], …]]`. It needs no checksum: a changed plan is not
    /// equal to the collector's, and the upload begins anew.
    pub fn encode(&self) -> Vec<u8> {
        let ranges = self.ranges.iter().map(|range| (range.offset, range.bytes));
        let ranges: Vec<(u64, u64)> = ranges.collect();
        json!((self.file_bytes, ranges)).to_string().into_bytes()
    }

    /// Reads the output of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (file_bytes, ranges): (u64, Vec<(u64, u64)>) = serde_json::from_slice(bytes).ok()?;
        let range = |(offset, bytes)| FileRange { offset, bytes };
        Self::new(file_bytes, ranges.into_iter().map(range).collect()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(file_bytes: u64, ranges: &[(u64, u64)]) -> Result<UploadPlan, &'static str> {
        let range = |(offset, bytes): &(u64, u64)| FileRange {
            offset: *offset,
            bytes: *bytes,
        };
        UploadPlan::new(file_bytes, ranges.iter().map(range).collect())
    }

    #[test]
    fn parts_that_cannot_be_are_refused() {
        for (ranges, words) in [
            (&[][..], "1 to 1024"),
            (&[(0, 0)], "empty"),
            (&[(0, 10), (9, 1)], "on each other"),
            (&[(10, 10), (0, 1)], "on each other"),
            (&[(0, 101)], "end"),
            (&[(50, 50), (100, 1)], "end"),
            (&[(5, u64::MAX)], "2^64"),
            (&[(0, 1), (1, u64::MAX)], "2^64"),
        ] {
            let refused = plan(100, ranges).unwrap_err();
            assert!(refused.contains(words), "{ranges:?}: {refused}");
        }
        let many: Vec<_> = (0..=RANGES_MAX as u64).map(|n| (2 * n, 1)).collect();
        assert!(plan(u64::MAX, &many).is_err());
        // The largest ranges add up without an overflow.
        let all = plan(u64::MAX, &[(0, u64::MAX - 1), (u64::MAX - 1, 1)]).unwrap();
        assert_eq!(all.total_bytes(), u64::MAX);
    }

    /// Check that each position has its offset, and that the file's length leads back to the position.
    #[test]
    fn every_byte_has_its_place() {
        let plan = plan(100, &[(2, 3), (10, 1), (90, 10)]).unwrap();
        assert_eq!(plan.total_bytes(), 14);
        let bytes: Vec<u64> = (0..14)
            .map(|position| plan.places(position, 1).next().unwrap().offset)
            .collect();
        assert_eq!(bytes[..4], [2, 3, 4, 10]);
        assert_eq!(bytes[4..], (90..100).collect::<Vec<_>>());
        let piece: Vec<_> = plan
            .places(1, 5)
            .map(|range| (range.offset, range.bytes))
            .collect();
        assert_eq!(piece, [(3, 2), (10, 1), (90, 2)]);
        assert_eq!(
            plan.places(14, 5).count() + plan.places(u64::MAX, 1).count(),
            0
        );
        for received in 0..=14 {
            assert_eq!(plan.received_at(plan.length_at(received)), received);
        }
        assert_eq!(plan.received_at(50), 4);
        assert_eq!(plan.received_at(u64::MAX), 14);
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = plan(100, &[(2, 3), (10, 1)]).unwrap();
        let bytes = plan.encode();
        assert_eq!(UploadPlan::decode(&bytes).as_ref(), Some(&plan));
        for length in 0..bytes.len() {
            assert_eq!(UploadPlan::decode(&bytes[..length]), None);
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(UploadPlan::decode(&changed).as_ref(), Some(&plan));
        }
    }
}
