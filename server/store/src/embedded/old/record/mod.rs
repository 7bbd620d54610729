//! A window as bytes, and back. Pure.
//!
//! ```text
//! version u8 | 4 x (packed length u32, length u32, CRC32C of the packed bytes u32) | CRC32C of all that u32
//! totals | labels | rows | stacks          each one zstd frame of columns
//! ```
//! `totals` has node, time, series and their sums. The numbers of series and of the labels of containers were those of a catalog.

#[cfg(any(test, feature = "test-support"))]
pub mod encode;
mod labels;
mod rows;
mod tables;
mod totals;

#[cfg(test)]
mod tests;

use model::{ContainerAccount, Window, WindowKey};

use super::columns::Damaged;

pub use self::labels::{WindowLabels, decode_labels};
pub use self::rows::{RowBounds, decode_rows};
pub use self::tables::decode_tables;
pub use self::totals::decode_totals;

/// Version of this layout.
const VERSION: u8 = 4;

/// Version 3 has no accounts of containers and no stolen time. Versions 1 and 2 also lack file ids. In version 1, locations without a
/// name lack the start of their function.
const VERSIONS_BEFORE: [u8; 3] = [1, 2, 3];

/// Version, four sections of three numbers, checksum.
pub const HEADER_BYTES: usize = 1 + SECTIONS * 12 + 4;

const SECTIONS: usize = 4;

/// Bytes of an uncompressed section. Profiles have at most 256 MiB by default, and columns are smaller.
const SECTION_BYTES_MAX: usize = 1 << 30;

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Head, series and their sums.
    Totals = 0,
    /// Label sets.
    Labels = 1,
    /// Samples.
    Rows = 2,
    /// Tables that samples refer to.
    Stacks = 3,
}

/// Positions of a record's sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    sections: [SectionRange; SECTIONS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SectionRange {
    start: usize,
    packed_len: usize,
    unpacked_len: usize,
    crc: u32,
}

impl RecordHeader {
    /// Reads the header from the first [`HEADER_BYTES`] of a record.
    ///
    /// # Errors
    /// The bytes are damaged, or of a newer version.
    pub fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let header = bytes
            .get(..HEADER_BYTES)
            .ok_or(Damaged("the header is cut"))?;
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if number(HEADER_BYTES - 4) != crc32c::crc32c(&header[..HEADER_BYTES - 4]) {
            return Err(Damaged("the header's checksum is wrong"));
        }
        if header[0] != VERSION && !VERSIONS_BEFORE.contains(&header[0]) {
            return Err(Damaged(
                "the record has a version that this server does not know",
            ));
        }
        let mut start = HEADER_BYTES;
        let mut sections = [SectionRange::default(); SECTIONS];
        for (i, section) in sections.iter_mut().enumerate() {
            let at = 1 + 12 * i;
            let packed_len = number(at) as usize;
            *section = SectionRange {
                start,
                packed_len,
                unpacked_len: number(at + 4) as usize,
                crc: number(at + 8),
            };
            start += packed_len;
        }
        Ok(Self { sections })
    }

    /// Offset and length of a section in the record.
    pub fn place(&self, section: Section) -> (usize, usize) {
        let place = &self.sections[section as usize];
        (place.start, place.packed_len)
    }

    /// Checks and decompresses a section.
    ///
    /// # Errors
    /// They are damaged.
    pub fn unpack(&self, section: Section, packed: &[u8]) -> Result<Vec<u8>, Damaged> {
        let place = &self.sections[section as usize];
        if packed.len() != place.packed_len || crc32c::crc32c(packed) != place.crc {
            return Err(Damaged("a section's checksum is wrong"));
        }
        if place.unpacked_len > SECTION_BYTES_MAX {
            return Err(Damaged("a section is too large"));
        }
        match zstd::bulk::decompress(packed, place.unpacked_len) {
            Ok(bytes) if bytes.len() == place.unpacked_len => Ok(bytes),
            _ => Err(Damaged("a section does not decompress")),
        }
    }

    /// Takes a section out of a whole record.
    ///
    /// # Errors
    /// It is damaged.
    pub fn unpack_from(&self, section: Section, record: &[u8]) -> Result<Vec<u8>, Damaged> {
        let (start, length) = self.place(section);
        let packed = record
            .get(start..start + length)
            .ok_or(Damaged("the record is cut"))?;
        self.unpack(section, packed)
    }
}

/// Reads a whole record.
///
/// # Errors
/// It is damaged.
pub fn read_window(record: &[u8]) -> Result<Window, Damaged> {
    let header = RecordHeader::read(record)?;
    let totals = decode_totals(&header.unpack_from(Section::Totals, record)?)?;
    let labels = decode_labels(&header.unpack_from(Section::Labels, record)?)?;
    let WindowLabels { series, containers } = labels;
    let tables = decode_tables(&header.unpack_from(Section::Stacks, record)?)?;
    let bounds = RowBounds {
        series: series.len(),
        tag_sets: tables.tag_set_count(),
        stacks: tables.stacks.len(),
    };
    let rows = decode_rows(&header.unpack_from(Section::Rows, record)?, bounds)?;
    if totals.series.len() != series.len() || totals.containers.len() != containers.len() {
        return Err(Damaged("totals and labels differ"));
    }
    let containers = containers.into_iter().zip(totals.containers);
    let containers = containers.map(|(labels, (_, usage))| ContainerAccount { labels, usage });
    Ok(Window {
        head: totals.head,
        series,
        tables,
        rows,
        containers: containers.collect(),
    })
}

/// Reads the identity of a record's window.
///
/// # Errors
/// It is damaged.
pub fn read_key(record: &[u8]) -> Result<WindowKey, Damaged> {
    let header = RecordHeader::read(record)?;
    let totals = decode_totals(&header.unpack_from(Section::Totals, record)?)?;
    Ok(totals.head.key)
}
