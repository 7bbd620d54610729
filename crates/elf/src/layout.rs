//! Load segments: file offsets <-> addresses as linked.

use serde::{Deserialize, Serialize};

use crate::limits::SEGMENTS_MAX;

/// A range of a file that is loaded (`PT_LOAD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Segment {
    /// File offset of its first byte.
    pub file_offset: u64,
    /// Address as linked of its first byte.
    pub address: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

impl Segment {
    /// File offset after its last byte.
    pub fn file_end(&self) -> u64 {
        self.file_offset.saturating_add(self.bytes)
    }

    /// The address of a file offset within the segment.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let into = offset.checked_sub(self.file_offset)?;
        (into < self.bytes).then(|| self.address.checked_add(into))?
    }

    /// The file offset of an address within the segment.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let into = address.checked_sub(self.address)?;
        (into < self.bytes).then(|| self.file_offset.checked_add(into))?
    }

    /// Whether the segment has bytes and ends below 2^64, by offset and by address. Linkers write no others; hostile files may.
    pub fn is_possible(&self) -> bool {
        let ends_below = |start: u64| start.checked_add(self.bytes).is_some();
        self.bytes > 0 && ends_below(self.file_offset) && ends_below(self.address)
    }
}

/// The load segments of a file, sorted by file offset: at most [`SEGMENTS_MAX`], all of them possible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Segment>")]
pub struct Layout(Vec<Segment>);

impl TryFrom<Vec<Segment>> for Layout {
    type Error = &'static str;

    fn try_from(segments: Vec<Segment>) -> Result<Self, Self::Error> {
        Self::new(segments).ok_or("segments cannot be those of a file")
    }
}

impl Layout {
    /// Makes a layout of untrusted segments. `None` if there are none or too many, or one is not
    /// [possible](Segment::is_possible).
    ///
    /// Segments may overlap: linkers put the end of one and the start of the next into the same page of the file.
    pub fn new(mut segments: Vec<Segment>) -> Option<Self> {
        let has_valid_count = (1..=SEGMENTS_MAX).contains(&segments.len());
        if !has_valid_count || !segments.iter().all(Segment::is_possible) {
            return None;
        }
        segments.sort();
        segments.dedup();
        Some(Self(segments))
    }

    /// The segments, by file offset.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The address of a file offset. Of several segments that contain it, the one that starts last counts.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let mut segments = self.0.iter().rev();
        segments.find_map(|segment| segment.address_of(offset))
    }

    /// The file offset of an address.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        self.0.iter().find_map(|segment| segment.offset_of(address))
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
            assert_eq!(layout.address_of(offset), address, "{offset:#x}");
            if let Some(address) = address {
                assert_eq!(layout.offset_of(address), Some(offset));
            }
        }
        assert_eq!(layout.offset_of(0), None);
        assert_eq!(layout.offset_of(u64::MAX), None);
        assert_eq!(Layout::default().address_of(0), None);
    }

    /// Check that impossible segments are refused.
    #[test]
    fn segments_that_cannot_be_are_refused() {
        assert_eq!(Layout::new(vec![]), None);
        assert_eq!(Layout::new(vec![segment(0, 0, 0)]), None);
        assert_eq!(Layout::new(vec![segment(u64::MAX, 0, 2)]), None);
        assert_eq!(Layout::new(vec![segment(0, u64::MAX, 2)]), None);
        let many: Vec<_> = (0..=SEGMENTS_MAX as u64)
            .map(|n| segment(n, n, 1))
            .collect();
        assert!(Layout::new(many[1..].to_vec()).is_some());
        assert_eq!(Layout::new(many), None);
    }
}
