//! An open ELF file, and the parts that are read once.

use std::fs::File;
use std::path::PathBuf;

use elf::{BuildId, Headers, HeadersError, Layout, Limits, ReadAt};

use crate::boundaries::Boundaries;
use crate::facts::{FileFacts, debug_info_sections, read_facts};
use crate::symbols::SymbolTables;

/// Bytes of a file that are read at once for its checksum.
const CHECKSUM_BYTES: usize = 64 << 10;

/// An open ELF file, and the places of its symbols.
pub struct ObjectFile {
    /// Keeps `path` valid, which has the number of this descriptor.
    pub(crate) file: File,
    /// blazesym opens the file again by this path.
    pub(crate) path: PathBuf,
    pub(crate) build_id: Option<BuildId>,
    pub(crate) layout: Layout,
    pub(crate) tables: SymbolTables,
    pub(crate) boundaries: Boundaries,
    pub(crate) facts: FileFacts,
    /// Bytes of `.debug_info`, decompressed. Read with the facts, since the file may change: what reads it is decided once.
    pub(crate) debug_info_bytes: u64,
    /// The checksum that its debug link demands.
    pub(crate) debug_checksum: Option<u32>,
}

impl ObjectFile {
    /// Reads the headers of an open file. `path` leads to it as long as it is open.
    ///
    /// # Errors
    /// The file is not a 64-bit little-endian ELF file, is truncated, or is over [`Limits::MAPPED`].
    pub fn read(file: File, path: PathBuf) -> Result<Self, HeadersError> {
        let headers = Headers::read(&file, Limits::MAPPED)?;
        if !headers.is_64_bit_little_endian() {
            return Err(HeadersError::NotElf);
        }
        let (facts, debug_checksum) = read_facts(&headers, &file);
        Ok(Self {
            path,
            build_id: headers.build_id(&file),
            layout: headers.layout(),
            tables: SymbolTables::read(&headers),
            boundaries: Boundaries::read(&headers),
            debug_info_bytes: debug_info_bytes(&headers, &file),
            file,
            facts,
            debug_checksum,
        })
    }

    /// The file's build id.
    pub fn build_id(&self) -> Option<BuildId> {
        self.build_id
    }

    /// The CRC-32 of the whole file, for debug links. A gigabyte takes about a second.
    pub(crate) fn read_checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; CHECKSUM_BYTES];
        let mut offset = 0;
        loop {
            let read = self.file.pread(offset, &mut buffer);
            if read == 0 {
                return hasher.finalize();
            }
            hasher.update(&buffer[..read]);
            offset += read as u64;
        }
    }
}

/// Bytes of `.debug_info`, decompressed: 0 without any, all bits set if its compression is unknown.
fn debug_info_bytes(headers: &Headers, file: &(impl ReadAt + ?Sized)) -> u64 {
    debug_info_sections(headers)
        .map(|section| {
            let data = headers.data_of(file, section);
            data.map_or(u64::MAX, |data| data.bytes)
        })
        .max()
        .unwrap_or(0)
}
