//! Contents of sections, which may be compressed.

use object::elf::{
    CompressionHeader32, CompressionHeader64, ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, SHF_COMPRESSED,
};
use object::pod::from_bytes;
use object::read::elf::CompressionHeader;
use object::{CompressedData, CompressionFormat, Endianness};

use crate::headers::{Headers, SectionHeader};
use crate::read::{FileRange, ReadAt};

/// Place and size of a section's contents.
#[derive(Clone, Copy, Debug)]
pub struct SectionData {
    /// The bytes in the file, without a compression header.
    pub range: FileRange,
    format: CompressionFormat,
    /// Bytes of the contents, decompressed.
    pub bytes: u64,
}

impl Headers {
    /// Finds the contents of a section. `None` if it has none, or its compression is unknown.
    pub fn data_of(
        &self,
        file: &(impl ReadAt + ?Sized),
        section: &SectionHeader,
    ) -> Option<SectionData> {
        let range = section.file_range()?;
        if section.flags.contains(SHF_COMPRESSED) {
            return if self.format.is_64 {
                read_header::<CompressionHeader64<Endianness>>(file, range, self.format.endian)
            } else {
                read_header::<CompressionHeader32<Endianness>>(file, range, self.format.endian)
            };
        }
        let is_old = self.name_of(section).starts_with(b".zdebug");
        let old = is_old.then(|| read_old_header(file, range)).flatten();
        Some(old.unwrap_or(SectionData {
            range,
            format: CompressionFormat::None,
            bytes: range.bytes,
        }))
    }
}

impl SectionData {
    /// Whether the contents are compressed.
    pub fn is_compressed(&self) -> bool {
        self.format != CompressionFormat::None
    }

    /// The format in which the contents are compressed.
    pub fn format(&self) -> CompressionFormat {
        self.format
    }

    /// Bytes of memory that [`Self::read`] takes: of compressed contents, both forms.
    pub fn memory_bytes(&self) -> u64 {
        if self.is_compressed() {
            self.range.bytes.saturating_add(self.bytes)
        } else {
            self.bytes
        }
    }

    /// Reads and decompresses the contents, whose size the caller has checked. `None` if they cannot be read.
    pub fn read(&self, file: &(impl ReadAt + ?Sized)) -> Option<Vec<u8>> {
        let stored = file.read_range(self.range)?;
        if !self.is_compressed() {
            return Some(stored);
        }
        let compressed = CompressedData {
            format: self.format,
            data: &stored,
            uncompressed_size: self.bytes,
        };
        Some(compressed.decompress().ok()?.into_owned())
    }
}

fn read_header<H: CompressionHeader<Endian = Endianness>>(
    file: &(impl ReadAt + ?Sized),
    range: FileRange,
    endian: Endianness,
) -> Option<SectionData> {
    let (head, range) = split_head(range, size_of::<H>() as u64)?;
    let head = file.read_range(head)?;
    let (header, _) = from_bytes::<H>(&head).ok()?;
    Some(SectionData {
        range,
        format: match header.ch_type(endian) {
            ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
            ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
            _ => return None,
        },
        bytes: header.ch_size(endian).into(),
    })
}

/// Reads the header of `.zdebug_*`, older than `SHF_COMPRESSED`: `ZLIB`, and the decompressed size in eight bytes, big-endian.
fn read_old_header(file: &(impl ReadAt + ?Sized), range: FileRange) -> Option<SectionData> {
    let (head, range) = split_head(range, 12)?;
    let head = file.read_range(head)?;
    let size = head.strip_prefix(b"ZLIB")?.first_chunk()?;
    Some(SectionData {
        range,
        format: CompressionFormat::Zlib,
        bytes: u64::from_be_bytes(*size),
    })
}

/// Splits a range after its first bytes.
fn split_head(range: FileRange, bytes: u64) -> Option<(FileRange, FileRange)> {
    let rest = FileRange {
        offset: range.offset.checked_add(bytes)?,
        bytes: range.bytes.checked_sub(bytes)?,
    };
    Some((FileRange { bytes, ..range }, rest))
}
