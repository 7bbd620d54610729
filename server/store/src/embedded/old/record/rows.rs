//! The section of samples.

use model::Row;
use model::tables::{StackId, TagSetId};

#[cfg(any(test, feature = "test-support"))]
use super::super::columns::ColumnWriter;
use super::super::columns::{ColumnReader, Damaged};

#[cfg(any(test, feature = "test-support"))]
pub(super) fn encode_rows(rows: &[Row]) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    out.put(rows.len() as u64);
    out.put_deltas(rows.iter().map(|row| u64::from(row.series)));
    out.put_column(rows.iter().map(|row| u64::from(row.tags.0)));
    out.put_deltas(rows.iter().map(|row| u64::from(row.stack.0)));
    out.put_column(rows.iter().map(|row| row.samples));
    out.put_column(rows.iter().map(|row| row.ns));
    out.into_bytes()
}

/// Lengths of the tables that rows refer to.
#[derive(Clone, Copy, Debug)]
pub struct RowBounds {
    /// Series of the window.
    pub series: usize,
    /// Tag sets.
    pub tag_sets: usize,
    /// Stacks.
    pub stacks: usize,
}

/// Reads [`Section::Rows`](super::Section::Rows).
///
/// # Errors
/// The bytes are damaged, or a row refers to a missing entry.
pub fn decode_rows(bytes: &[u8], bounds: RowBounds) -> Result<Vec<Row>, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let count = from.take_count()?;
    let series = from.take_delta_references(count, bounds.series)?;
    let tags = from.take_references(count, bounds.tag_sets)?;
    let stacks = from.take_delta_references(count, bounds.stacks)?;
    let samples = from.take_column(count)?;
    let ns = from.take_column(count)?;
    from.finish()?;
    let row = |i: usize| Row {
        series: series[i],
        tags: TagSetId(tags[i]),
        stack: StackId(stacks[i]),
        samples: samples[i],
        ns: ns[i],
    };
    Ok((0..count).map(row).collect())
}
