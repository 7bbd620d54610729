//! The executable mappings of one process.

use std::sync::Arc;

use super::MappedFile;

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset in the file of the byte at `start`.
    pub file_offset: u64,
    /// What is mapped.
    pub file: Arc<MappedFile>,
}

impl Mapping {
    /// Offset in the file of the byte at `address`, which lies in the mapping.
    pub fn offset_of(&self, address: u64) -> u64 {
        (address - self.start).wrapping_add(self.file_offset)
    }
}

/// Mappings in ascending order that do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    sorted: Vec<Mapping>,
}

impl Mappings {
    /// Executable mappings kept of one process. Large Java or Node processes have
    /// some thousands; the kernel's own limit of all mappings is 65,530
    /// (vm.max_map_count). 16,384 × 32 bytes = 512 KiB.
    pub const MAPPINGS_MAX: usize = 16_384;

    /// Adds a mapping and removes what it covers: the kernel tells of no munmap.
    ///
    /// Gives `false`, and changes nothing, when the limit is reached or the mapping is empty.
    pub fn insert(&mut self, mapping: Mapping) -> bool {
        if mapping.start >= mapping.end {
            return false;
        }
        let first = self.sorted.partition_point(|it| it.end <= mapping.start);
        let last = self.sorted.partition_point(|it| it.start < mapping.end);
        let overlapped = &self.sorted[first..last.max(first)];
        if overlapped.is_empty() && self.sorted.len() >= Self::MAPPINGS_MAX {
            return false;
        }
        let before = overlapped
            .first()
            .filter(|it| it.start < mapping.start)
            .map(|it| Mapping {
                end: mapping.start,
                ..it.clone()
            });
        let after = overlapped
            .last()
            .filter(|it| it.end > mapping.end)
            .map(|it| Mapping {
                start: mapping.end,
                file_offset: it.offset_of(mapping.end),
                ..it.clone()
            });
        let range = first..first + overlapped.len();
        self.sorted
            .splice(range, before.into_iter().chain([mapping]).chain(after));
        true
    }

    /// The mapping in which an address lies.
    pub fn find(&self, address: u64) -> Option<&Mapping> {
        let place = self.sorted.partition_point(|it| it.end <= address);
        self.sorted.get(place).filter(|it| it.start <= address)
    }

    /// Number of mappings.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The mappings in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.sorted.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{FileIdentity, FileKind, Files};

    /// Inserts mappings given as (start, end, file) with file offset 0x1000 and
    /// shows the result as "start-end file@offset".
    fn map(mappings: &[(u64, u64, &str)]) -> Vec<String> {
        let mut files = Files::new();
        let mut all = Mappings::default();
        for &(start, end, file) in mappings {
            let file = files.intern(FileKind::File, file.as_bytes(), FileIdentity::Path);
            all.insert(Mapping {
                start,
                end,
                file_offset: 0x1000,
                file,
            });
        }
        all.iter()
            .map(|it| {
                format!(
                    "{:x}-{:x} {}@{:x}",
                    it.start, it.end, it.file.path, it.file_offset
                )
            })
            .collect()
    }

    /// Check that mappings are kept in order, whatever the order they came in.
    #[test]
    fn ordered() {
        assert_eq!(
            map(&[(0x30, 0x40, "c"), (0x10, 0x20, "a"), (0x20, 0x30, "b")]),
            ["10-20 a@1000", "20-30 b@1000", "30-40 c@1000"]
        );
    }

    /// Check that a later mapping takes its place from earlier ones, and that what
    /// is left of them still points to the right bytes of their files.
    #[test]
    fn later_covers_earlier() {
        assert_eq!(
            map(&[(0x10, 0x20, "a"), (0x10, 0x20, "b")]),
            ["10-20 b@1000"]
        );
        assert_eq!(
            map(&[(0x10, 0x40, "a"), (0x20, 0x30, "b")]),
            ["10-20 a@1000", "20-30 b@1000", "30-40 a@1020"]
        );
        assert_eq!(
            map(&[
                (0x10, 0x20, "a"),
                (0x20, 0x30, "b"),
                (0x30, 0x40, "c"),
                (0x18, 0x38, "d")
            ]),
            ["10-18 a@1000", "18-38 d@1000", "38-40 c@1008"]
        );
    }

    /// Check that addresses find their mapping, and gaps find none.
    #[test]
    fn find() {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"a", FileIdentity::Path);
        let mut all = Mappings::default();
        for (start, end) in [(0x10, 0x20), (0x30, 0x40)] {
            let file = file.clone();
            assert!(all.insert(Mapping {
                start,
                end,
                file_offset: 0,
                file
            }));
        }
        let found = |address| all.find(address).map(|it| it.start);
        assert_eq!(found(0xf), None);
        assert_eq!(found(0x10), Some(0x10));
        assert_eq!(found(0x1f), Some(0x10));
        assert_eq!(found(0x20), None);
        assert_eq!(found(0x3f), Some(0x30));
        assert_eq!(found(u64::MAX), None);
    }
}
