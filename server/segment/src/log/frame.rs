//! The header of a log, and its frames.
//!
//! A frame is found by its first bytes and proven by its checksum, so that frames behind damage are found too.

use crate::error::Malformed;

/// The format.
pub(crate) const VERSION: u32 = 1;

/// Begins each log.
const MAGIC: [u8; 8] = *b"PLBLKLOG";

/// Magic, version, start of the block, and a CRC32C of them.
pub(crate) const HEADER_BYTES: usize = MAGIC.len() + 4 + 8 + 4;

/// Begins each frame; the kind follows.
const FRAME_MAGIC: [u8; 3] = [0xf5, b'P', b'L'];

/// Magic, kind, packed length, length, and a CRC32C of them and of the packed bytes.
const FRAME_HEAD_BYTES: usize = FRAME_MAGIC.len() + 1 + 4 + 4 + 4;

/// Bytes of a record, unpacked: a checkpoint is as large as the dictionary of a builder, which is full at 256 MiB, and a record of
/// windows is cut at [`super::writer::RECORD_ROW_BYTES`] and the one window that passes it.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// Bytes that a record may have without regard to its packed length: [`RATIO_MAX`] of 16 KiB.
const RECORD_BYTES_FREE: usize = 1 << 20;

/// A record that packs better is stored as it is, so that a reader never needs more memory than this many times what it read. Records
/// pack 2 to 4 times.
const RATIO_MAX: usize = 64;

/// zstd's level. Higher ones pack records no better, and take longer.
const LEVEL: i32 = 1;

/// Content of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Windows, and the entries that they were the first to use.
    Windows,
    /// All entries: what follows can be read without what comes before.
    Checkpoint,
}

impl FrameKind {
    fn byte(self) -> u8 {
        match self {
            Self::Windows => b'W',
            Self::Checkpoint => b'C',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Windows, Self::Checkpoint]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// Writes the header of a log.
pub(crate) fn put_header(out: &mut Vec<u8>, block_ms: i64) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&block_ms.to_le_bytes());
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The beginning of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// The start of the block, in milliseconds since the Unix epoch.
    Whole(i64),
    /// It is a log of another version.
    Version(u32),
    /// The bytes end in it.
    Cut,
    /// Its checksum is wrong.
    Damaged,
}

/// Reads the header of a log.
pub(crate) fn read_header(bytes: &[u8]) -> Header {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return if MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())])
            || bytes.starts_with(&MAGIC)
        {
            Header::Cut
        } else {
            Header::Damaged
        };
    };
    let (body, crc) = header.split_at(HEADER_BYTES - 4);
    let is_whole = crc == crc32c::crc32c(body).to_le_bytes();
    let (magic, rest) = body.split_at(MAGIC.len());
    let (version, block) = rest.split_at(4);
    match (version.try_into(), block.try_into()) {
        (Ok(version), Ok(block)) if is_whole && magic == MAGIC => {
            match u32::from_le_bytes(version) {
                VERSION => Header::Whole(i64::from_le_bytes(block)),
                other => Header::Version(other),
            }
        }
        _ => Header::Damaged,
    }
}

/// A whole frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    /// Its position, and that of the next.
    pub(crate) start: usize,
    pub(crate) end: usize,
    length: usize,
    packed: &'a [u8],
}

/// Reads the frame at a position, if there is a whole one.
pub(crate) fn read_frame(bytes: &[u8], start: usize) -> Option<Frame<'_>> {
    let rest = bytes.get(start..)?;
    let (head, rest) = rest.split_first_chunk::<FRAME_HEAD_BYTES>()?;
    let [m0, m1, m2, kind, p0, p1, p2, p3, l0, l1, l2, l3, crc @ ..] = *head;
    if [m0, m1, m2] != FRAME_MAGIC {
        return None;
    }
    let kind = FrameKind::of(kind)?;
    let packed = rest.get(..u32::from_le_bytes([p0, p1, p2, p3]) as usize)?;
    let crc_of_head = crc32c::crc32c(&head[..FRAME_HEAD_BYTES - 4]);
    if crc32c::crc32c_append(crc_of_head, packed) != u32::from_le_bytes(crc) {
        return None;
    }
    Some(Frame {
        kind,
        start,
        end: start + FRAME_HEAD_BYTES + packed.len(),
        length: u32::from_le_bytes([l0, l1, l2, l3]) as usize,
        packed,
    })
}

/// The next whole frame at or behind a position.
pub(crate) fn find_frame(bytes: &[u8], from: usize) -> Option<Frame<'_>> {
    let rest = bytes.get(from..)?;
    let starts = rest.windows(FRAME_MAGIC.len()).enumerate();
    let mut starts = starts.filter(|(_, window)| *window == FRAME_MAGIC);
    starts.find_map(|(at, _)| read_frame(bytes, from + at))
}

/// Packs records into frames.
pub(crate) struct FramePacker {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl Default for FramePacker {
    fn default() -> Self {
        Self {
            // It fails when there is no memory; records are stored as they are then.
            compressor: zstd::bulk::Compressor::new(LEVEL).ok(),
            packed: Vec::new(),
        }
    }
}

impl FramePacker {
    /// Writes a record as a frame.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, kind: FrameKind, record: &[u8]) {
        let packed = match self.pack(record) {
            Some(length) if is_within_ratio(record.len(), length) && length < record.len() => {
                &self.packed[..length]
            }
            _ => record,
        };
        let start = out.len();
        out.extend_from_slice(&FRAME_MAGIC);
        out.push(kind.byte());
        out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), packed);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(packed);
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.packed.capacity()
    }

    fn pack(&mut self, record: &[u8]) -> Option<usize> {
        self.packed.clear();
        self.packed
            .reserve(zstd::zstd_safe::compress_bound(record.len()));
        self.compressor
            .as_mut()?
            .compress_to_buffer(record, &mut self.packed)
            .ok()
    }
}

fn is_within_ratio(length: usize, packed: usize) -> bool {
    length <= RECORD_BYTES_FREE || length / RATIO_MAX <= packed
}

/// Unpacks frames.
pub(crate) struct FrameUnpacker {
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    record: Vec<u8>,
}

impl Default for FrameUnpacker {
    fn default() -> Self {
        Self {
            decompressor: zstd::bulk::Decompressor::new().ok(),
            record: Vec::new(),
        }
    }
}

impl FrameUnpacker {
    /// The record of a frame.
    pub(crate) fn unpack<'a>(&'a mut self, frame: &Frame<'a>) -> Result<&'a [u8], Malformed> {
        let Frame { length, packed, .. } = *frame;
        if length == packed.len() {
            return Ok(packed);
        }
        if length > RECORD_BYTES_MAX || !is_within_ratio(length, packed.len()) {
            return Err(Malformed("a record is too long"));
        }
        self.record.clear();
        self.record.reserve(length);
        let decompressor = self.decompressor.as_mut();
        let unpacked = decompressor
            .ok_or(Malformed("zstd has no memory"))?
            .decompress_to_buffer(packed, &mut self.record);
        match unpacked {
            Ok(unpacked) if unpacked == length => Ok(&self.record),
            _ => Err(Malformed("a record does not unpack")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let records = [vec![], vec![7; 3], vec![7; 5_000], vec![0; 4 << 20]];
        let mut out = b"left over".to_vec();
        let mut packer = FramePacker::default();
        for record in &records {
            packer.put(&mut out, FrameKind::Windows, record);
        }
        assert!(
            out.len() > 4 << 20,
            "a record that packs too well is packed"
        );
        let mut unpacker = FrameUnpacker::default();
        let mut at = 0;
        for record in &records {
            let frame = find_frame(&out, at).unwrap();
            assert_eq!(frame.kind, FrameKind::Windows);
            assert!(unpacker.unpack(&frame).unwrap() == record);
            at = frame.end;
        }
        assert_eq!(at, out.len());
    }

    #[test]
    fn a_changed_frame_is_none() {
        let mut out = Vec::new();
        FramePacker::default().put(
            &mut out,
            FrameKind::Checkpoint,
            b"some text, some text, some text",
        );
        for at in 0..8 * out.len() {
            let mut damaged = out.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(read_frame(&damaged, 0).is_none(), "bit {at}");
        }
        for length in 0..out.len() {
            assert!(read_frame(&out[..length], 0).is_none());
        }
    }

    #[test]
    fn headers_come_back() {
        let mut out = Vec::new();
        put_header(&mut out, -7);
        assert_eq!(out.len(), HEADER_BYTES);
        assert_eq!(read_header(&out), Header::Whole(-7));
        for length in 0..out.len() {
            assert_eq!(read_header(&out[..length]), Header::Cut);
        }
        for at in 0..8 * out.len() {
            let mut damaged = out.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert_eq!(read_header(&damaged), Header::Damaged);
        }
        assert_eq!(read_header(b"PLCOLSEG"), Header::Damaged);
    }
}
