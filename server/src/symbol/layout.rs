//! Where a file's bytes are loaded: file offsets, as profiles have them, to addresses as linked, as symbols have them.
//! Pure.

use super::bytes::Reader;

/// Load segments that a layout may have. Linkers make 2 to 6; Linux takes as many as the header's 16 bits say, but no file
/// of a Debian has more than 9.
pub const SEGMENTS_MAX: usize = 64;

/// Bytes that one segment takes when it is written.
const SEGMENT_BYTES: usize = 24;

/// One stretch of a file that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Where it starts in the file.
    pub file_offset: u64,
    /// Where it is loaded, as linked.
    pub address: u64,
    /// Its length in the file.
    pub bytes: u64,
}

/// The load segments of a file, sorted by their place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout(Vec<Segment>);

impl Layout {
    /// Makes a layout; `None` if there are no segments or too many, or if a segment is empty or goes beyond 2^64.
    ///
    /// Segments may overlap: linkers put the end of one and the start of the next into the same page of the file.
    pub fn new(mut segments: Vec<Segment>) -> Option<Self> {
        let is_valid = |segment: &Segment| {
            segment.bytes > 0
                && segment.file_offset.checked_add(segment.bytes).is_some()
                && segment.address.checked_add(segment.bytes).is_some()
        };
        if !(1..=SEGMENTS_MAX).contains(&segments.len()) || !segments.iter().all(is_valid) {
            return None;
        }
        segments.sort();
        segments.dedup();
        Some(Self(segments))
    }

    /// The address at an offset of the file.
    pub fn address(&self, offset: u64) -> Option<u64> {
        let after = self
            .0
            .partition_point(|segment| segment.file_offset <= offset);
        let found = self.0[..after]
            .iter()
            .rev()
            .find(|segment| offset - segment.file_offset < segment.bytes)?;
        Some(found.address + (offset - found.file_offset))
    }

    /// The segments.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Writes it: the number of segments, then each.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend((self.0.len() as u32).to_le_bytes());
        for segment in &self.0 {
            for number in [segment.file_offset, segment.address, segment.bytes] {
                out.extend(number.to_le_bytes());
            }
        }
    }

    /// Reads what [`Self::encode`] has written; `None` within is "no layout", which is written as no segments.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let count = reader.u32()? as usize;
        if count > SEGMENTS_MAX || reader.remaining() < count * SEGMENT_BYTES {
            return None;
        }
        if count == 0 {
            return Some(None);
        }
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            segments.push(Segment {
                file_offset: reader.u64()?,
                address: reader.u64()?,
                bytes: reader.u64()?,
            });
        }
        Self::new(segments).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(file_offset: u64, address: u64, bytes: u64) -> Segment {
        Segment {
            file_offset,
            address,
            bytes,
        }
    }

    #[test]
    fn an_offset_is_found_in_its_segment() {
        let layout = Layout::new(vec![
            segment(0x2dd0, 0x3dd0, 0x100),
            segment(0, 0x40_0000, 0x1000),
            segment(0x1000, 0x40_2000, 0x800),
        ]);
        let layout = layout.unwrap();
        for (offset, address) in [
            (0, Some(0x40_0000)),
            (0xfff, Some(0x40_0fff)),
            (0x1000, Some(0x40_2000)),
            (0x17ff, Some(0x40_27ff)),
            (0x1800, None),
            (0x2dd0, Some(0x3dd0)),
            (0x2ed0, None),
            (u64::MAX, None),
        ] {
            assert_eq!(layout.address(offset), address, "{offset:#x}");
        }
    }

    /// Check that what a collector or a file may claim is refused when it cannot be.
    #[test]
    fn segments_that_cannot_be_are_refused() {
        assert_eq!(Layout::new(vec![]), None);
        assert_eq!(Layout::new(vec![segment(0, 0, 0)]), None);
        assert_eq!(Layout::new(vec![segment(u64::MAX, 0, 2)]), None);
        assert_eq!(Layout::new(vec![segment(0, u64::MAX, 2)]), None);
        let many: Vec<_> = (0..=SEGMENTS_MAX as u64)
            .map(|n| segment(n, n, 1))
            .collect();
        assert_eq!(Layout::new(many), None);
    }

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        let layout = Layout::new(vec![segment(1, 2, 3), segment(4, 5, 6)]).unwrap();
        let mut bytes = Vec::new();
        layout.encode(&mut bytes);
        let read = Layout::decode(&mut Reader::new(&bytes));
        assert_eq!(read, Some(Some(layout)));
        for length in 0..bytes.len() {
            assert_eq!(Layout::decode(&mut Reader::new(&bytes[..length])), None);
        }
    }
}
