//! Encodes windows as earlier versions did, for tests.

use model::{ContainerAccount, LabelSet, SeriesId, Window, WindowHead};

use super::labels::encode_labels;
use super::rows::encode_rows;
use super::tables::encode_tables;
use super::totals::encode_totals;
use super::{HEADER_BYTES, VERSION};

/// zstd's default.
const ZSTD_LEVEL: i32 = 3;

/// A window, encoded as far as possible without the numbers of its series.
pub struct PreparedWindow {
    /// Node and time.
    pub head: WindowHead,
    /// The label sets.
    pub series: Vec<LabelSet>,
    /// The kernel's accounts of containers.
    pub containers: Vec<ContainerAccount>,
    pub(super) samples: Vec<u64>,
    pub(super) ns: Vec<u64>,
    packed: [Packed; 3],
}

impl PreparedWindow {
    /// The label sets that get numbers: those of the series, then those of the containers.
    pub fn label_sets(&self) -> impl Iterator<Item = &LabelSet> {
        let containers = self.containers.iter();
        self.series
            .iter()
            .chain(containers.map(|account| &account.labels))
    }

    /// Bytes of its record, without the small part that is not encoded yet.
    pub fn packed_bytes(&self) -> usize {
        self.packed.iter().map(|section| section.bytes.len()).sum()
    }
}

struct Packed {
    bytes: Vec<u8>,
    unpacked_len: u32,
}

/// Encodes a window: the expensive part, on the thread that received it.
///
/// # Errors
/// zstd has no memory.
pub fn prepare_window(window: Window) -> std::io::Result<PreparedWindow> {
    let Window {
        head,
        series,
        tables,
        rows,
        containers,
    } = window;
    let mut samples = vec![0; series.len()];
    let mut ns = vec![0; series.len()];
    for row in &rows {
        samples[row.series as usize] += row.samples;
        ns[row.series as usize] += row.ns;
    }
    let packed = [
        pack(encode_labels(&series, &containers))?,
        pack(encode_rows(&rows))?,
        pack(encode_tables(&tables))?,
    ];
    Ok(PreparedWindow {
        head,
        series,
        containers,
        samples,
        ns,
        packed,
    })
}

/// Finishes a record with the numbers of its [label sets](PreparedWindow::label_sets), one for each.
///
/// # Errors
/// zstd has no memory.
pub fn finish_record(prepared: &PreparedWindow, ids: &[SeriesId]) -> std::io::Result<Vec<u8>> {
    let (series, containers) = ids.split_at(prepared.series.len());
    let totals = pack(encode_totals(prepared, series, containers))?;
    let [labels, rows, stacks] = &prepared.packed;
    let sections = [&totals, labels, rows, stacks];
    let mut record =
        Vec::with_capacity(HEADER_BYTES + sections.iter().map(|s| s.bytes.len()).sum::<usize>());
    record.push(VERSION);
    for section in sections {
        record.extend_from_slice(&(section.bytes.len() as u32).to_le_bytes());
        record.extend_from_slice(&section.unpacked_len.to_le_bytes());
        record.extend_from_slice(&crc32c::crc32c(&section.bytes).to_le_bytes());
    }
    record.extend_from_slice(&crc32c::crc32c(&record).to_le_bytes());
    for section in sections {
        record.extend_from_slice(&section.bytes);
    }
    Ok(record)
}

fn pack(bytes: Vec<u8>) -> std::io::Result<Packed> {
    let unpacked_len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    Ok(Packed {
        bytes: zstd::bulk::compress(&bytes, ZSTD_LEVEL)?,
        unpacked_len,
    })
}
