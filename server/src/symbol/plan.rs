//! Which parts of a file a collector sends, and where each byte that comes belongs. Pure.
//!
//! The parts come one after the other and are kept at their own places in a file that is otherwise empty, so that the file
//! on the disk says by its length how much has come, and reads as the collector's own where nothing came: as zeros.

use super::bytes::Reader;

/// Parts of one file. Linkers write some 40 sections, of which at most 25 are for names; with headers and notes these are
/// fewer than 40 parts.
pub const RANGES_MAX: usize = 1024;

/// Bytes that one part takes when it is written.
const RANGE_BYTES: usize = 16;

/// The last byte is the format's version.
const MAGIC: [u8; 8] = *b"PLPLAN_\x01";

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

impl FileRange {
    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.bytes)
    }
}

/// The parts of a file that come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPlan {
    file_bytes: u64,
    ranges: Vec<FileRange>,
    total_bytes: u64,
}

impl UploadPlan {
    /// Takes parts in the order of their places, apart from each other, within the file and not empty; says what is wrong
    /// with others.
    ///
    /// # Errors
    /// The parts cannot be.
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
            end = range.end().ok_or("a range goes beyond 2^64")?;
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

    /// The stretches of the file that `bytes` bytes from a position on belong to; they end where the parts end.
    pub fn places(&self, position: u64, bytes: u64) -> impl Iterator<Item = FileRange> + '_ {
        let (mut skip, mut left) = (position, bytes);
        self.ranges.iter().filter_map(move |range| {
            let skipped = skip.min(range.bytes);
            skip -= skipped;
            let taken = (range.bytes - skipped).min(left);
            left -= taken;
            (taken > 0).then_some(FileRange {
                offset: range.offset + skipped,
                bytes: taken,
            })
        })
    }

    /// How much has come of the parts when the file on the disk has this length.
    pub fn received_at(&self, length: u64) -> u64 {
        let before = |range: &FileRange| length.saturating_sub(range.offset).min(range.bytes);
        self.ranges.iter().map(before).sum()
    }

    /// The length of the file on the disk when so much has come: the reverse of [`Self::received_at`].
    pub fn length_at(&self, received: u64) -> u64 {
        let last = self.places(0, received).last();
        last.map_or(0, |range| range.offset + range.bytes)
    }

    /// Writes it, with a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAGIC.len() + 16 + RANGE_BYTES * self.ranges.len());
        out.extend(MAGIC);
        out.extend(self.file_bytes.to_le_bytes());
        out.extend((self.ranges.len() as u32).to_le_bytes());
        for range in &self.ranges {
            out.extend(range.offset.to_le_bytes());
            out.extend(range.bytes.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Reads what [`Self::encode`] has written; `None` if it is something else or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(checked).to_le_bytes() != *crc {
            return None;
        }
        let mut reader = Reader::new(checked.strip_prefix(&MAGIC)?);
        let file_bytes = reader.u64()?;
        let count = reader.u32()? as usize;
        if count > RANGES_MAX || reader.remaining() != count * RANGE_BYTES {
            return None;
        }
        let range = |reader: &mut Reader<'_>| {
            Some(FileRange {
                offset: reader.u64()?,
                bytes: reader.u64()?,
            })
        };
        let ranges: Option<Vec<_>> = (0..count).map(|_| range(&mut reader)).collect();
        Self::new(file_bytes, ranges?).ok()
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
        // As much as there can be is added up without an overflow.
        let all = plan(u64::MAX, &[(0, u64::MAX - 1), (u64::MAX - 1, 1)]).unwrap();
        assert_eq!(all.total_bytes(), u64::MAX);
    }

    /// Check that each position has its place, and that the file's length leads back to the position.
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
        assert_eq!(UploadPlan::decode(&bytes), Some(plan));
        for length in 0..bytes.len() {
            assert_eq!(UploadPlan::decode(&bytes[..length]), None);
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(UploadPlan::decode(&changed), None);
        }
    }
}
