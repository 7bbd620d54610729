//! The rows of a series in an open block: some six bytes each.

use crate::chunk::rows::{SeriesRow, find_unit, rest_ns, with_rest};
use crate::codec::varint::{self, Bytes, unzigzag, zigzag};

/// Rows of a series, a run for each window.
#[derive(Default)]
pub(crate) struct RowBuffer {
    bytes: Vec<u8>,
    rows: usize,
}

/// The rows of a series in a window, sorted by stack; none if the window lists the series without rows.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) window: u32,
    /// Number of rows.
    pub(crate) count: usize,
    /// Nanoseconds of most samples.
    pub(crate) unit_ns: u64,
    /// Samples of all rows.
    pub(crate) samples: u64,
    /// Nanoseconds of all rows.
    pub(crate) ns: u64,
    rows: &'a [u8],
}

impl RowBuffer {
    /// Adds a run, with rows sorted by stack. Returns its position.
    pub(crate) fn push(&mut self, window: u32, rows: &[SeriesRow], scratch: &mut Vec<u8>) -> u32 {
        let start = self.bytes.len() as u32;
        self.rows += rows.len();
        let unit_ns = find_unit(rows.iter().map(|row| (row.samples, row.ns)));
        scratch.clear();
        let (mut samples, mut ns) = (0_u64, 0_u64);
        let mut stack = 0;
        for row in rows {
            varint::put(scratch, u64::from(row.stack - stack));
            stack = row.stack;
            varint::put(scratch, u64::from(row.tags));
            varint::put(scratch, row.samples);
            let rest = rest_ns(row.samples, row.ns, unit_ns);
            varint::put(scratch, zigzag(rest as i64));
            samples = samples.saturating_add(row.samples);
            ns = ns.saturating_add(row.ns);
        }
        let rest = zigzag(rest_ns(samples, ns, unit_ns) as i64);
        let (count, length) = (rows.len() as u64, scratch.len() as u64);
        for number in [u64::from(window), count, unit_ns, samples, rest, length] {
            varint::put(&mut self.bytes, number);
        }
        self.bytes.extend_from_slice(scratch);
        start
    }

    /// The runs, in the order in which they were added.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        read_runs(&self.bytes)
    }

    /// The run at a position.
    pub(crate) fn run_at(&self, start: u32) -> Option<Run<'_>> {
        read_runs(&self.bytes[start as usize..]).next()
    }

    /// Drops the run at a position, and all after it.
    pub(crate) fn truncate(&mut self, start: u32) {
        let dropped = read_runs(&self.bytes[start as usize..]);
        self.rows -= dropped.map(|run| run.count).sum::<usize>();
        self.bytes.truncate(start as usize);
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether no window lists the series.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}

fn read_runs(bytes: &[u8]) -> impl Iterator<Item = Run<'_>> {
    let mut from = Bytes::new(bytes);
    std::iter::from_fn(move || {
        // SANITY: `push` wrote these bytes, so that only their end has no number.
        let window = from.take().ok()? as u32;
        let mut take = || from.take().unwrap_or_default();
        let (count, unit_ns, samples, rest, length) = (take(), take(), take(), take(), take());
        Some(Run {
            window,
            count: count as usize,
            unit_ns,
            samples,
            ns: with_rest(samples, unzigzag(rest) as u64, unit_ns),
            rows: from.take_raw(length as usize).unwrap_or_default(),
        })
    })
}

impl Run<'_> {
    /// Bytes of its rows in memory.
    pub(crate) fn row_bytes(&self) -> usize {
        self.rows.len()
    }

    /// Shows each row.
    pub(crate) fn read(&self, mut visit: impl FnMut(SeriesRow)) {
        let mut from = Bytes::new(self.rows);
        let mut take = || from.take().unwrap_or_default();
        let mut stack = 0;
        for _ in 0..self.count {
            stack += take() as u32;
            let (tags, samples) = (take() as u32, take());
            let rest = unzigzag(take()) as u64;
            visit(SeriesRow {
                stack,
                tags,
                window: self.window,
                samples,
                ns: with_rest(samples, rest, self.unit_ns),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that runs come back with their sums, also after the last ones were dropped.
    #[test]
    fn runs_come_back() {
        let row = |stack, tags, samples, ns| SeriesRow {
            stack,
            tags,
            samples,
            ns,
            ..SeriesRow::default()
        };
        let runs = [
            vec![row(3, 0, 1, 10), row(3, 1, 2, 20), row(900, 0, 5, 7)],
            vec![],
            vec![row(1, 0, 0, u64::MAX)],
        ];
        let mut buffer = RowBuffer::default();
        let mut starts = Vec::new();
        for (window, rows) in runs.iter().enumerate() {
            starts.push(buffer.push(2 * window as u32, rows, &mut Vec::new()));
        }
        let mut count = runs.len();
        loop {
            assert_eq!(
                buffer.rows(),
                runs[..count].iter().map(Vec::len).sum::<usize>()
            );
            assert_eq!(buffer.runs().count(), count);
            assert_eq!(buffer.is_empty(), count == 0);
            for (number, run) in buffer.runs().enumerate() {
                let mut rows = Vec::new();
                run.read(|row| rows.push(SeriesRow { window: 0, ..row }));
                assert_eq!(rows, runs[number]);
                let samples: u64 = rows.iter().map(|row| row.samples).sum();
                let ns: u64 = rows.iter().map(|row| row.ns).sum();
                assert_eq!((run.samples, run.ns), (samples, ns));
                assert_eq!(run.window, 2 * number as u32);
                let found = buffer
                    .run_at(starts[number])
                    .map(|run| (run.window, run.ns));
                assert_eq!(found, Some((run.window, run.ns)));
            }
            let Some(start) = starts.pop() else { break };
            buffer.truncate(start);
            count -= 1;
        }
    }
}
