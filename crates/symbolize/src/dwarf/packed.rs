//! A compressed section, in pieces that can be read alone.
//!
//! Linkers compress a section as a whole, so that reading a byte of it means decompressing all bytes before. Here it is
//! decompressed once. Pieces stay decompressed as long as there is room for them, and are compressed again then: libc's 6 MB of
//! `.debug_info` take 3 MB.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use elf::{FileRange, ReadAt, SectionData};
use flate2::read::ZlibDecoder;
use object::CompressionFormat;
use zstd::bulk::{Compressor, Decompressor};

/// Bytes of a piece. Decompressing one takes 50 us.
const PIECE_BYTES: usize = 32 << 10;

/// zstd's fastest level but the negative ones. It takes twice as long as decompressing the section.
const LEVEL: i32 = 1;

/// Bytes of decompressed pieces of all sections: those of libc's debug file have 8 MB, and would have 4 MB compressed.
const PLAIN_BYTES_MAX: usize = 8 << 20;

thread_local! {
    /// Bytes of decompressed pieces.
    static PLAIN_BYTES: Cell<usize> = const { Cell::new(0) };

    /// Takes 150 KB, whatever it decompressed.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
}

/// A section in pieces.
#[derive(Default)]
pub(super) struct PackedSection {
    pieces: Vec<Piece>,
    bytes: usize,
    /// The compressed piece that was read last, and its number.
    last: RefCell<(Option<usize>, Vec<u8>)>,
}

enum Piece {
    Plain(Rc<[u8]>),
    Compressed(Box<[u8]>),
}

impl PackedSection {
    /// Reads a compressed section of a file. `None` when it is damaged.
    pub(super) fn read(data: &SectionData, file: &File) -> Option<Self> {
        let stored = StoredBytes {
            file,
            left: data.range,
        };
        match data.format() {
            CompressionFormat::Zlib => Self::pack(ZlibDecoder::new(stored), data.bytes),
            CompressionFormat::Zstandard => {
                Self::pack(zstd::Decoder::new(stored).ok()?, data.bytes)
            }
            _ => None,
        }
    }

    /// Reads all of `contents`, which has so many bytes.
    pub(super) fn pack(mut contents: impl Read, bytes: u64) -> Option<Self> {
        let bytes = usize::try_from(bytes).ok()?;
        let mut compressor = Compressor::new(LEVEL).ok()?;
        let mut section = Self {
            pieces: Vec::with_capacity(bytes.div_ceil(PIECE_BYTES)),
            bytes,
            last: RefCell::default(),
        };
        let mut piece = [0; PIECE_BYTES];
        let mut left = bytes;
        while left > 0 {
            let piece = &mut piece[..left.min(PIECE_BYTES)];
            contents.read_exact(piece).ok()?;
            let plain = PLAIN_BYTES.get() + piece.len();
            section.pieces.push(if plain <= PLAIN_BYTES_MAX {
                PLAIN_BYTES.set(plain);
                Piece::Plain((&*piece).into())
            } else {
                Piece::Compressed(compressor.compress(piece).ok()?.into())
            });
            left -= piece.len();
        }
        let is_all = contents.read(&mut [0]).ok()? == 0;
        is_all.then_some(section)
    }

    /// Bytes of the section, decompressed.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// The piece with an offset, and where it starts, if it is decompressed.
    pub(super) fn plain_piece(&self, offset: usize) -> Option<(usize, &Rc<[u8]>)> {
        let number = offset / PIECE_BYTES;
        match self.pieces.get(number)? {
            Piece::Plain(bytes) => Some((number * PIECE_BYTES, bytes)),
            Piece::Compressed(_) => None,
        }
    }
}

impl PackedSection {
    /// Reads from one piece.
    fn read_piece(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let number = offset / PIECE_BYTES;
        let (last, bytes) = &mut *self.last.borrow_mut();
        let bytes = match self.pieces.get(number) {
            None => return 0,
            Some(Piece::Plain(bytes)) => bytes,
            Some(Piece::Compressed(piece)) => {
                if *last != Some(number) {
                    bytes.clear();
                    bytes.reserve_exact(PIECE_BYTES);
                    let is_read = DECOMPRESSOR.with_borrow_mut(|decompressor| {
                        let decompressor = decompressor.as_mut()?;
                        decompressor.decompress_to_buffer(piece, bytes).ok()
                    });
                    *last = is_read.map(|_| number);
                }
                &bytes[..]
            }
        };
        let bytes = bytes.get(offset % PIECE_BYTES..).unwrap_or_default();
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        read
    }
}

impl Drop for PackedSection {
    fn drop(&mut self) {
        let plain = self.pieces.iter().map(|piece| match piece {
            Piece::Plain(bytes) => bytes.len(),
            Piece::Compressed(_) => 0,
        });
        PLAIN_BYTES.set(PLAIN_BYTES.get() - plain.sum::<usize>());
    }
}

impl ReadAt for PackedSection {
    fn pread(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let Ok(offset) = usize::try_from(offset) else {
            return 0;
        };
        let mut filled = 0;
        while filled < buffer.len() {
            let read = self.read_piece(offset.saturating_add(filled), &mut buffer[filled..]);
            if read == 0 {
                break;
            }
            filled += read;
        }
        filled
    }
}

/// Bytes of a file that are left to read.
struct StoredBytes<'a> {
    file: &'a File,
    left: FileRange,
}

impl Read for StoredBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (buffer.len() as u64).min(self.left.bytes) as usize;
        let read = self.file.pread(self.left.offset, &mut buffer[..wanted]);
        self.left.offset += read as u64;
        self.left.bytes -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that pieces give the bytes of the section, and that a section of another size is refused.
    #[test]
    fn pieces_give_the_bytes_of_the_section() {
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 5).map(|at| (at / 7) as u8).collect();
        let section = PackedSection::pack(&*bytes, bytes.len() as u64).unwrap();
        for at in [PIECE_BYTES * 2, 0, PIECE_BYTES, 77, bytes.len() - 1] {
            let mut buffer = vec![0; PIECE_BYTES + 100];
            let read = section.pread(at as u64, &mut buffer);
            assert_eq!(read, (bytes.len() - at).min(buffer.len()));
            assert_eq!(buffer[..read], bytes[at..at + read]);
        }
        assert_eq!(section.pread(bytes.len() as u64, &mut [0; 8]), 0);
        assert_eq!(section.pread(u64::MAX, &mut [0; 8]), 0);
        for other in [bytes.len() - 1, bytes.len() + 1] {
            assert!(PackedSection::pack(&*bytes, other as u64).is_none());
        }
    }
}
