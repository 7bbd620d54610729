//! Chunks of cells: the sums of a series, or the account of a container, in one window.
//!
//! A chunk has whole series, or a part of one that is large. The windows of a series ascend, and their positions are the ranks that
//! rows refer to.

use model::ContainerUsage;

use crate::chunk::EncodedChunk;
use crate::chunk::rows::{CHUNK_SERIES, rest_ns, with_rest};
use crate::codec::column::{ChunkReader, Column, Numbers, Packer, Unpacker};
use crate::codec::varint;
use crate::error::Malformed;

/// Cells of a chunk.
const CHUNK_CELLS: usize = 1 << 16;

/// A series in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Number of the window in the segment.
    pub window: u32,
    /// Its samples.
    pub samples: u64,
    /// Their CPU time, in nanoseconds.
    pub ns: u64,
}

/// A container in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageCell {
    /// Number of the window in the segment.
    pub window: u32,
    /// CPU time and samples.
    pub usage: ContainerUsage,
}

impl UsageCell {
    /// Adds the account of the same container and window. False if it is another one.
    pub(crate) fn add_equal(&mut self, other: &Self) -> bool {
        let is_same = self.window == other.window;
        if is_same {
            let ContainerUsage {
                kernel_ns,
                throttled_ns,
                unread_ns,
                excluded_samples,
            } = other.usage;
            let own = &mut self.usage;
            for (sum, number) in [
                (&mut own.kernel_ns, kernel_ns),
                (&mut own.throttled_ns, throttled_ns),
                (&mut own.unread_ns, unread_ns),
                (&mut own.excluded_samples, excluded_samples),
            ] {
                *sum = sum.saturating_add(number);
            }
        }
        is_same
    }
}

/// A cell of either kind.
pub(crate) trait AnyCell: Copy {
    /// Numbers of a cell, beside its window.
    const NUMBERS: usize;

    fn window(&self) -> u32;

    /// The numbers in the order of their columns; most are near 0 with the right unit.
    fn numbers(&self, unit_ns: u64) -> [u64; 4];

    fn from_numbers(window: u32, numbers: [u64; 4], unit_ns: u64) -> Self;
}

impl AnyCell for Cell {
    const NUMBERS: usize = 2;

    fn window(&self) -> u32 {
        self.window
    }

    fn numbers(&self, unit_ns: u64) -> [u64; 4] {
        let rest = rest_ns(self.samples, self.ns, unit_ns) as i64;
        [self.samples, varint::zigzag(rest), 0, 0]
    }

    fn from_numbers(window: u32, [samples, rest, ..]: [u64; 4], unit_ns: u64) -> Self {
        let rest = varint::unzigzag(rest) as u64;
        Self {
            window,
            samples,
            ns: with_rest(samples, rest, unit_ns),
        }
    }
}

impl AnyCell for UsageCell {
    const NUMBERS: usize = 4;

    fn window(&self) -> u32 {
        self.window
    }

    fn numbers(&self, _: u64) -> [u64; 4] {
        let ContainerUsage {
            kernel_ns,
            throttled_ns,
            unread_ns,
            excluded_samples,
        } = self.usage;
        [kernel_ns, throttled_ns, unread_ns, excluded_samples]
    }

    fn from_numbers(
        window: u32,
        [kernel_ns, throttled_ns, unread_ns, excluded_samples]: [u64; 4],
        _: u64,
    ) -> Self {
        let usage = ContainerUsage {
            kernel_ns,
            throttled_ns,
            unread_ns,
            excluded_samples,
        };
        Self { window, usage }
    }
}

/// Writes the cells of all series. Its chunks are kept, packed, until their section's turn.
#[derive(Default)]
pub(crate) struct CellWriter {
    chunk: CellChunk,
    first: u32,
    chunks: Vec<EncodedChunk>,
}

impl CellWriter {
    /// Adds the cells of the next series, sorted by window.
    pub(crate) fn push<C: AnyCell>(&mut self, cells: &[C], unit_ns: u64, packer: &mut Packer) {
        let series = self.chunk.series as usize;
        if self.chunk.cells + cells.len() > CHUNK_CELLS || series == CHUNK_SERIES {
            self.finish_chunk::<C>(packer);
        }
        let mut parts = cells.chunks(CHUNK_CELLS);
        self.chunk.push(parts.next().unwrap_or_default(), unit_ns);
        for part in parts {
            self.finish_chunk::<C>(packer);
            // The series goes on in the next chunk.
            self.first -= 1;
            self.chunk.push(part, unit_ns);
        }
    }

    fn finish_chunk<C: AnyCell>(&mut self, packer: &mut Packer) {
        let items = self.chunk.series;
        if items > 0 {
            let bytes = self.chunk.finish::<C>(packer);
            let first = self.first;
            self.chunks.push(EncodedChunk {
                bytes,
                first,
                items,
            });
            self.first += items;
        }
    }

    /// Encodes what is left. Returns all chunks.
    pub(crate) fn finish<C: AnyCell>(mut self, packer: &mut Packer) -> Vec<EncodedChunk> {
        self.finish_chunk::<C>(packer);
        self.chunks
    }
}

/// Encodes a chunk of cells.
#[derive(Default)]
struct CellChunk {
    cells: usize,
    counts: Column,
    units: Column,
    windows: Column,
    numbers: [Column; 4],
    series: u32,
}

impl CellChunk {
    fn push<C: AnyCell>(&mut self, cells: &[C], unit_ns: u64) {
        self.counts.push(cells.len() as u64);
        self.units.push(unit_ns);
        let mut next = 0;
        for cell in cells {
            self.windows.push(u64::from(cell.window() - next));
            next = cell.window() + 1;
            let numbers = cell.numbers(unit_ns);
            for (column, number) in self.numbers.iter_mut().zip(numbers).take(C::NUMBERS) {
                column.push(number);
            }
        }
        self.series += 1;
        self.cells += cells.len();
    }

    fn finish<C: AnyCell>(&mut self, packer: &mut Packer) -> Vec<u8> {
        let mut out = Vec::new();
        for column in [&mut self.counts, &mut self.units, &mut self.windows] {
            packer.put(&mut out, column);
        }
        for column in &mut self.numbers[..C::NUMBERS] {
            packer.put(&mut out, column);
        }
        (self.cells, self.series) = (0, 0);
        out
    }
}

/// Reads a chunk of cells, series by series.
pub(crate) struct CellReader {
    units: Numbers,
    counts: Vec<u32>,
    position: usize,
    windows: Numbers,
    numbers: [Numbers; 4],
    window_count: usize,
}

impl CellReader {
    /// Begins to read a chunk of `series` series, of which no cell is in a window from `window_count` on.
    pub(crate) fn new<C: AnyCell>(
        bytes: &[u8],
        series: usize,
        window_count: usize,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        let cells_max = CHUNK_CELLS;
        let mut from = ChunkReader::new(bytes, unpacker);
        let mut count_column = from.take_numbers(series)?;
        let mut counts = Vec::new();
        let mut cells = 0;
        for _ in 0..series {
            let count = count_column.next_below(cells_max + 1 - cells)?;
            cells += count as usize;
            counts.push(count);
        }
        count_column.finish()?;
        let mut reader = Self {
            units: from.take_numbers(series)?,
            counts,
            position: 0,
            windows: from.take_numbers(cells)?,
            numbers: Default::default(),
            window_count,
        };
        for column in &mut reader.numbers[..C::NUMBERS] {
            *column = from.take_numbers(cells)?;
        }
        from.finish()?;
        Ok(reader)
    }

    /// Adds the cells of the next series. False after the last.
    pub(crate) fn next<C: AnyCell>(&mut self, into: &mut Vec<C>) -> Result<bool, Malformed> {
        let Some(count) = self.counts.get(self.position) else {
            for column in self.numbers.iter().chain([&self.units, &self.windows]) {
                column.finish()?;
            }
            return Ok(false);
        };
        self.position += 1;
        let unit_ns = self.units.next()?;
        let mut next = 0;
        for _ in 0..*count {
            let window = self.windows.next_gap_below(next, self.window_count)?;
            next = window + 1;
            let mut numbers = [0; 4];
            for (number, column) in numbers.iter_mut().zip(&mut self.numbers).take(C::NUMBERS) {
                *number = column.next()?;
            }
            into.push(C::from_numbers(window, numbers, unit_ns));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that cells come back, and that damaged bytes never panic.
    #[test]
    fn cells_come_back() {
        let cell = |window: u32| Cell {
            window: 3 * window,
            samples: u64::from(window),
            ns: u64::from(window) * 10 + u64::from(window / 7),
        };
        let series: [Vec<Cell>; 3] = [(0..50).map(cell).collect(), vec![], vec![cell(33)]];
        let mut chunk = CellChunk::default();
        series.iter().for_each(|cells| chunk.push(cells, 10));
        let bytes = chunk.finish::<Cell>(&mut Packer::new(1));
        let mut unpacker = Unpacker::default();
        let mut read = |bytes: &[u8]| {
            let mut reader = CellReader::new::<Cell>(bytes, 3, 150, &mut unpacker)?;
            let mut read: Vec<Cell> = Vec::new();
            while reader.next(&mut read)? {}
            Ok::<_, Malformed>(read)
        };
        assert_eq!(read(&bytes).unwrap(), series.concat());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                drop(read(&damaged));
            }
        }
    }
}
