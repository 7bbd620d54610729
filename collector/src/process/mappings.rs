//! The executable mappings of one process.

use std::sync::Arc;

use super::{FileKind, MappedFile};

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
    /// When it took the place of other code, nanoseconds of CLOCK_MONOTONIC; 0 when it did not.
    pub replaced_ns: u64,
}

/// How long after a replacement another is expected: a program that loads and unloads its plugins in
/// turn puts one where the other was, for as long as it runs.
const UNSTEADY_NS: u64 = 10_000_000_000;

impl Mapping {
    /// Until when what is known of the mapping may be out of date when it is used; 0 when it never was.
    /// (Who unwinds with mappings that are a tenth of a second old takes the rows of another file.)
    pub fn unsteady_until_ns(&self) -> u64 {
        match self.replaced_ns {
            0 => 0,
            replaced_ns => replaced_ns.saturating_add(UNSTEADY_NS),
        }
    }

    /// Whether `other`, which overlaps this one, has other bytes of code there.
    fn differs_from(&self, other: &Self) -> bool {
        let bias = |it: &Self| it.file_offset.wrapping_sub(it.start);
        self.file != other.file || bias(self) != bias(other)
    }

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

    /// Whether there is memory for code that the process makes.
    pub fn have_made(&self) -> bool {
        self.iter().any(|it| it.file.kind == FileKind::Anonymous)
    }

    /// Adds a mapping that was made at `time_ns` and removes what it covers: the kernel tells of no
    /// munmap.
    ///
    /// Gives `false`, and changes nothing, when the limit is reached or the mapping is empty.
    pub fn insert(&mut self, mapping: Mapping, time_ns: u64) -> bool {
        if mapping.start >= mapping.end {
            return false;
        }
        let first = self.sorted.partition_point(|it| it.end <= mapping.start);
        let last = self.sorted.partition_point(|it| it.start < mapping.end);
        let overlapped = &self.sorted[first..last.max(first)];
        if overlapped.is_empty() && self.sorted.len() >= Self::MAPPINGS_MAX {
            return false;
        }
        let replaced = overlapped.iter().filter(|it| mapping.differs_from(it));
        let mapping = Mapping {
            replaced_ns: replaced
                .map(|_| time_ns)
                .next()
                .unwrap_or(mapping.replaced_ns),
            ..mapping
        };
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
            all.insert(
                Mapping {
                    start,
                    end,
                    file_offset: 0x1000,
                    file,
                    replaced_ns: 0,
                },
                1,
            );
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

    /// Check that code which took the place of other code is known for it, and that what was mapped
    /// again, or beside it, is not.
    #[test]
    fn replaced() {
        let mut files = Files::new();
        let [a, b] =
            [b"a", b"b"].map(|name| files.intern(FileKind::File, name, FileIdentity::Path));
        let mut all = Mappings::default();
        let mut time_ns = 0;
        let mut insert = |start: u64, file_offset, file: &Arc<MappedFile>| {
            time_ns += 1;
            let mapping = Mapping {
                start,
                end: start + 0x20,
                file_offset,
                file: file.clone(),
                replaced_ns: 0,
            };
            assert!(all.insert(mapping, time_ns));
            all.find(start).unwrap().replaced_ns
        };
        assert_eq!(insert(0x100, 0, &a), 0);
        assert_eq!(insert(0x100, 0, &a), 0);
        // Another piece of what is mapped already.
        assert_eq!(insert(0x110, 0x10, &a), 0);
        assert_eq!(insert(0x130, 0, &b), 0);
        assert_eq!(insert(0x140, 0, &b), 5);
        assert_eq!(insert(0x110, 0, &b), 6);
        assert_eq!(insert(0x100, 0, &b), 7);
        assert_eq!(
            all.find(0x145).unwrap().unsteady_until_ns(),
            5 + UNSTEADY_NS
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
            assert!(all.insert(
                Mapping {
                    start,
                    end,
                    file_offset: 0,
                    file,
                    replaced_ns: 0,
                },
                1
            ));
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
