//! The executable mappings of one process.

use std::{ops::Range, sync::Arc};

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
    /// The file that is mapped.
    pub file: Arc<MappedFile>,
    /// When it replaced other code, nanoseconds of CLOCK_MONOTONIC; 0 when it did not.
    replaced_ns: u64,
}

/// Time after a replacement in which another is expected: a program that loads and unloads its plugins in turn maps one where
/// the other was, for as long as it runs.
const STALE_ROWS_NS: u64 = 10_000_000_000;

impl Mapping {
    /// A mapping of a file at these addresses, which replaced no other code.
    pub fn new(addresses: Range<u64>, file_offset: u64, file: Arc<MappedFile>) -> Self {
        Self {
            start: addresses.start,
            end: addresses.end,
            file_offset,
            file,
            replaced_ns: 0,
        }
    }

    /// Until when the kernel's rows for this mapping may be stale; 0 if it replaced no other code. Unwinding with mappings
    /// 100 ms stale would use another file's rows.
    pub fn stale_rows_until_ns(&self) -> u64 {
        match self.replaced_ns {
            0 => 0,
            replaced_ns => replaced_ns.saturating_add(STALE_ROWS_NS),
        }
    }

    /// Whether `other`, which overlaps this one, has other bytes of code there.
    fn differs_from(&self, other: &Self) -> bool {
        let bias = |mapping: &Self| mapping.file_offset.wrapping_sub(mapping.start);
        let is_same_inode = self.file.identity.is_same_inode(&other.file.identity);
        (self.file != other.file && !is_same_inode) || bias(self) != bias(other)
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

    /// Whether there is memory that may hold JIT code.
    pub fn have_jit_memory(&self) -> bool {
        self.iter().any(|mapping| mapping.file.may_be_made())
    }

    /// Whether these map the same to the same addresses as `others`.
    pub fn are_same(&self, others: &Self) -> bool {
        let same = |(one, other): (&Mapping, &Mapping)| {
            let ends = one.start == other.start && one.end == other.end;
            ends && !one.differs_from(other)
        };
        self.len() == others.len() && self.iter().zip(others.iter()).all(same)
    }

    /// Adds a mapping that was made at `time_ns` and removes the mappings that it covers: there is no event for munmap.
    ///
    /// Returns `false`, and changes nothing, when the limit is reached or the mapping is empty.
    pub fn insert(&mut self, mapping: Mapping, time_ns: u64) -> bool {
        if mapping.start >= mapping.end {
            return false;
        }
        let first = self
            .sorted
            .partition_point(|mapped| mapped.end <= mapping.start);
        let last = self
            .sorted
            .partition_point(|mapped| mapped.start < mapping.end);
        let overlapped = &self.sorted[first..last.max(first)];
        if overlapped.is_empty() && self.sorted.len() >= Self::MAPPINGS_MAX {
            return false;
        }
        let replaced = overlapped
            .iter()
            .filter(|mapped| mapping.differs_from(mapped));
        let mapping = Mapping {
            replaced_ns: replaced
                .map(|_| time_ns)
                .next()
                .unwrap_or(mapping.replaced_ns),
            ..mapping
        };
        let before = overlapped
            .first()
            .filter(|mapped| mapped.start < mapping.start)
            .map(|mapped| Mapping {
                end: mapping.start,
                ..mapped.clone()
            });
        let after = overlapped
            .last()
            .filter(|mapped| mapped.end > mapping.end)
            .map(|mapped| Mapping {
                start: mapping.end,
                file_offset: mapped.offset_of(mapping.end),
                ..mapped.clone()
            });
        let range = first..first + overlapped.len();
        self.sorted
            .splice(range, before.into_iter().chain([mapping]).chain(after));
        true
    }

    /// The mapping in which an address lies.
    pub fn find(&self, address: u64) -> Option<&Mapping> {
        let place = self.sorted.partition_point(|mapped| mapped.end <= address);
        self.sorted
            .get(place)
            .filter(|mapped| mapped.start <= address)
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
            all.insert(Mapping::new(start..end, 0x1000, file), 1);
        }
        all.iter()
            .map(|mapping| {
                format!(
                    "{:x}-{:x} {}@{:x}",
                    mapping.start, mapping.end, mapping.file.path, mapping.file_offset
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
            let mapping = Mapping::new(start..start + 0x20, file_offset, file.clone());
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
            all.find(0x145).unwrap().stale_rows_until_ns(),
            5 + STALE_ROWS_NS
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
            assert!(all.insert(Mapping::new(start..end, 0, file), 1));
        }
        let found = |address| all.find(address).map(|mapping| mapping.start);
        assert_eq!(found(0xf), None);
        assert_eq!(found(0x10), Some(0x10));
        assert_eq!(found(0x1f), Some(0x10));
        assert_eq!(found(0x20), None);
        assert_eq!(found(0x3f), Some(0x30));
        assert_eq!(found(u64::MAX), None);
    }
}
