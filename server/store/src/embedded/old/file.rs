//! Format of a segment file. Pure: bytes in, bytes out.
//!
//! ```text
//! "PLSEG\0\0\1" | block i64                      header
//! "PLRC" | length u32 | CRC32C u32 | record      one for each window
//! "PLFT" | length u32 | CRC32C u32 | index       the footer of a sealed segment: what is in it, and where
//! footer's offset u64 | "PLSEGEND"               so that it is found from the end
//! ```
//! Numbers are little-endian. The checksum covers the length and what follows it. A segment that is not sealed may
//! end anywhere: recovery cuts off a record that was unfinished when the machine stopped.

use model::WindowKey;

#[cfg(any(test, feature = "test-support"))]
use super::columns::ColumnWriter;
use super::columns::{ColumnReader, Damaged};

/// Length of the header.
pub const HEADER_BYTES: usize = 16;

/// Length of the frame before a record.
pub const FRAME_BYTES: usize = 12;

/// Bytes of a record, so that a damaged length does not ask for more: two messages of the largest size that the
/// configuration takes.
pub const RECORD_BYTES_MAX: usize = 512 << 20;

const MAGIC: &[u8; 8] = b"PLSEG\0\0\x01";
const RECORD: [u8; 4] = *b"PLRC";
const FOOTER: [u8; 4] = *b"PLFT";
const END: &[u8; 8] = b"PLSEGEND";

/// A window in a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterEntry {
    /// The window.
    pub key: WindowKey,
    /// Offset of its record in the file, after the frame.
    pub offset: u64,
    /// Length of its record.
    pub length: u32,
}

/// The header of a segment.
#[cfg(any(test, feature = "test-support"))]
pub fn encode_header(block: i64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..].copy_from_slice(&block.to_le_bytes());
    header
}

/// Appends a record in its frame.
#[cfg(any(test, feature = "test-support"))]
pub fn put_record(out: &mut Vec<u8>, record: &[u8]) {
    put_frame(out, RECORD, record);
}

/// The footer, for a file that has `length` bytes so far.
#[cfg(any(test, feature = "test-support"))]
pub fn encode_footer(entries: &[FooterEntry], length: u64) -> Vec<u8> {
    let mut columns = ColumnWriter::default();
    columns.put(entries.len() as u64);
    columns.put_deltas(entries.iter().map(|entry| entry.key.start_ms as u64));
    columns.put_column(entries.iter().map(|entry| entry.key.sequence));
    columns.put_deltas(entries.iter().map(|entry| entry.offset));
    columns.put_column(entries.iter().map(|entry| u64::from(entry.length)));
    entries
        .iter()
        .for_each(|entry| columns.put_raw(&entry.key.instance));
    let mut out = Vec::new();
    put_frame(&mut out, FOOTER, &columns.into_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(END);
    out
}

/// Bytes at the end of a sealed file.
pub const END_BYTES: usize = 16;

/// The footer's offset, from the last bytes of a file; `None` if it is not sealed.
pub fn read_end(bytes: &[u8; END_BYTES]) -> Option<u64> {
    let (offset, end) = bytes.split_first_chunk::<8>()?;
    (end == END).then(|| u64::from_le_bytes(*offset))
}

/// Reads a footer.
///
/// # Errors
/// It is damaged.
pub fn read_footer(bytes: &[u8]) -> Result<Vec<FooterEntry>, Damaged> {
    let frame = read_frame(bytes)
        .filter(|frame| frame.kind == FOOTER)
        .ok_or(Damaged("the footer is not where the end says"))?;
    decode_index(frame.payload)
}

fn decode_index(bytes: &[u8]) -> Result<Vec<FooterEntry>, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let count = from.take_count()?;
    let starts = from.take_deltas(count)?;
    let sequences = from.take_column(count)?;
    let offsets = from.take_deltas(count)?;
    let lengths = from.take_column(count)?;
    let mut entries = Vec::with_capacity(count);
    for i in 0..count {
        let instance = from
            .take_raw(16)?
            .try_into()
            .map_err(|_| Damaged("the instance is cut"))?;
        let key = WindowKey {
            start_ms: starts[i] as i64,
            instance,
            sequence: sequences[i],
        };
        let length = u32::try_from(lengths[i]).map_err(|_| Damaged("a record is too long"))?;
        entries.push(FooterEntry {
            key,
            offset: offsets[i],
            length,
        });
    }
    from.finish()?;
    Ok(entries)
}

/// The content of a segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// Offset and length of each whole record.
    pub records: Vec<(u64, u32)>,
    /// Number of damaged stretches between complete records.
    pub damaged_stretches: u64,
    /// End of the last complete record; later bytes were unfinished when the machine stopped.
    pub end: u64,
    /// A footer follows.
    pub sealed: bool,
}

/// Finds all complete records, also behind damaged bytes.
///
/// # Errors
/// The header is not one of a segment.
pub fn scan_segment(bytes: &[u8]) -> Result<Scan, Damaged> {
    let header = bytes
        .get(..HEADER_BYTES)
        .ok_or(Damaged("the header is cut"))?;
    if !header.starts_with(MAGIC) {
        return Err(Damaged(
            "the header is not one of a segment of this version",
        ));
    }
    let mut scan = Scan {
        records: Vec::new(),
        damaged_stretches: 0,
        end: HEADER_BYTES as u64,
        sealed: false,
    };
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let Some(frame) = read_frame(&bytes[at..]) else {
            match find_frame(&bytes[at + 1..]) {
                Some(skipped) => {
                    scan.damaged_stretches += 1;
                    at += 1 + skipped;
                    continue;
                }
                None => break,
            }
        };
        if frame.kind == FOOTER {
            scan.sealed = true;
            break;
        }
        scan.records
            .push(((at + FRAME_BYTES) as u64, frame.payload.len() as u32));
        at += FRAME_BYTES + frame.payload.len();
        scan.end = at as u64;
    }
    Ok(scan)
}

struct Frame<'a> {
    kind: [u8; 4],
    payload: &'a [u8],
}

#[cfg(any(test, feature = "test-support"))]
fn put_frame(out: &mut Vec<u8>, kind: [u8; 4], payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    out.extend_from_slice(&kind);
    out.extend_from_slice(&length);
    out.extend_from_slice(&frame_crc(length, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

fn frame_crc(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// Reads the frame that starts at the first byte, if it is complete.
fn read_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (kind, rest) = bytes.split_first_chunk::<4>()?;
    if *kind != RECORD && *kind != FOOTER {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let whole = payload.len() <= RECORD_BYTES_MAX
        && frame_crc(*length, payload) == u32::from_le_bytes(*crc);
    whole.then_some(Frame {
        kind: *kind,
        payload,
    })
}

/// Position of the next complete frame.
fn find_frame(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|&at| bytes[at] == b'P' && read_frame(&bytes[at..]).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = encode_header(5).to_vec();
        records
            .iter()
            .for_each(|record| put_record(&mut bytes, record));
        bytes
    }

    fn end_of(bytes: &[u8]) -> Option<u64> {
        read_end(bytes.last_chunk().unwrap())
    }

    fn contents<'a>(scan: &Scan, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        scan.records
            .iter()
            .map(|&(offset, length)| &bytes[offset as usize..][..length as usize])
            .collect()
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte() {
        let records: [&[u8]; 3] = [b"first", b"second one", b"third"];
        let whole = segment(&records);
        let before_last = segment(&records[..2]).len();
        for end in before_last..whole.len() {
            let scan = scan_segment(&whole[..end]).unwrap();
            assert_eq!(contents(&scan, &whole), records[..2], "cut at {end}");
            assert_eq!(scan.end, before_last as u64);
            assert_eq!(scan.damaged_stretches, 0);
        }
        assert_eq!(contents(&scan_segment(&whole).unwrap(), &whole), records);
    }

    #[test]
    fn records_behind_damaged_bytes_are_found() {
        let records: [&[u8]; 3] = [b"first", b"second one", b"third"];
        let whole = segment(&records);
        let first_end = segment(&records[..1]).len();
        let second_end = segment(&records[..2]).len();
        for at in first_end..second_end {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let scan = scan_segment(&damaged).unwrap();
            assert_eq!(
                contents(&scan, &whole),
                [records[0], records[2]],
                "damaged at {at}"
            );
            assert_eq!(scan.damaged_stretches, 1);
            assert_eq!(scan.end, whole.len() as u64);
        }
    }

    #[test]
    fn a_sealed_segment_describes_itself() {
        let mut bytes = segment(&[b"first", b"second"]);
        let entry = |sequence, offset, length| FooterEntry {
            key: WindowKey {
                start_ms: 10_000 * sequence as i64,
                instance: [sequence as u8; 16],
                sequence,
            },
            offset,
            length,
        };
        let entries = [entry(1, 28, 5), entry(2, 45, 6)];
        assert_eq!(end_of(&bytes), None);
        let footer = encode_footer(&entries, bytes.len() as u64);
        bytes.extend_from_slice(&footer);
        let offset = end_of(&bytes).unwrap() as usize;
        assert_eq!(read_footer(&bytes[offset..]).unwrap(), entries);
        let scan = scan_segment(&bytes).unwrap();
        assert!(scan.sealed);
        assert_eq!(scan.records, [(28, 5), (45, 6)]);
        // An unfinished footer is a torn tail like any other.
        let torn = scan_segment(&bytes[..bytes.len() - footer.len() + 20]).unwrap();
        assert!(!torn.sealed);
        assert_eq!(torn.records.len(), 2);
    }

    #[test]
    fn foreign_files_are_refused() {
        assert!(scan_segment(b"").is_err());
        assert!(scan_segment(b"\x7fELF............").is_err());
        assert!(read_footer(b"PLSEGEND").is_err());
    }
}
