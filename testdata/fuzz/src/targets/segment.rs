//! Segment files of earlier versions as they are after a crash or on a bad disk.
//!
//! Random bytes hardly ever pass a checksum, so besides whole files what lies behind the checksums is drawn: the sections
//! of a record one by one, and records whose checksums are set right before they are read.

use model::{SeriesId, WindowKey, text};
use store::embedded::old::file::{FRAME_BYTES, FooterEntry, encode_footer, encode_header, put_record, read_footer, scan_segment};
use store::embedded::old::record::encode::{finish_record, prepare_window};
use store::embedded::old::record::{
    HEADER_BYTES, RecordHeader, RowBounds, Section, decode_labels, decode_rows, decode_tables, decode_totals, read_window,
};

use crate::of_kind;

const BOUNDS: RowBounds = RowBounds { series: 2, tag_sets: 3, stacks: 6 };

pub(crate) fn run(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    match kind % 8 {
        0 => drop(scan_segment(input)),
        1 => drop(read_footer(input)),
        2 => drop(read_window(input)),
        3 => drop(decode_totals(input)),
        4 => drop(decode_labels(input)),
        5 => drop(decode_tables(input)),
        6 => drop(decode_rows(input, BOUNDS)),
        _ => drop(read_window(&mend_checksums(input))),
    }
}

/// Sets the checksums of a record right: those of its sections, as far as they are there, and the header's.
fn mend_checksums(record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    if record.len() < HEADER_BYTES {
        return record;
    }
    let mut start = HEADER_BYTES;
    for at in [1, 13, 25, 37] {
        let length = u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let end = start.saturating_add(length as usize);
        if let Some(section) = record.get(start..end) {
            let crc = crc32c::crc32c(section);
            record[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        }
        start = end;
    }
    let crc = crc32c::crc32c(&record[..HEADER_BYTES - 4]);
    record[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    record
}

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
    comm=sort,node=a | main 0x1f@/lib/b.so | 5
";

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let window = text::window_at(TEXT, 10_000, 1);
    let key = window.head.key;
    let ids: Vec<_> = (0..window.series.len() as u64).map(SeriesId).collect();
    let record = finish_record(&prepare_window(window).expect("memory is compressed"), &ids).expect("memory is compressed");
    let header = RecordHeader::read(&record).expect("the record is whole");
    let section = |section| header.unpack_from(section, &record).expect("the record is whole");
    let segment = make_segment(&record, key);
    vec![
        of_kind(0, &segment),
        of_kind(1, &segment),
        of_kind(2, &record),
        of_kind(3, &section(Section::Totals)),
        of_kind(4, &section(Section::Labels)),
        of_kind(5, &section(Section::Stacks)),
        of_kind(6, &section(Section::Rows)),
        of_kind(7, &record),
    ]
}

/// A sealed segment of two records.
fn make_segment(record: &[u8], key: WindowKey) -> Vec<u8> {
    let mut segment = encode_header(0).to_vec();
    let mut entries = Vec::new();
    for sequence in 1..=2 {
        entries.push(FooterEntry {
            key: WindowKey { sequence, ..key },
            offset: (segment.len() + FRAME_BYTES) as u64,
            length: record.len() as u32,
        });
        put_record(&mut segment, record);
    }
    let footer = encode_footer(&entries, segment.len() as u64);
    segment.extend(footer);
    segment
}
