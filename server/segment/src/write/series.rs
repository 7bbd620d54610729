//! Writes the rows of series and their sums, series by series in the order of the file.

use std::io::Write;

use crate::chunk::EncodedChunk;
use crate::chunk::cells::{Cell, CellWriter};
use crate::chunk::rows::{CHUNK_ROWS, CHUNK_SERIES, RowChunk, SERIES_ROWS, SeriesRow, find_unit};
use crate::codec::column::Packer;
use crate::error::Error;
use crate::file::footer::Summary;
use crate::file::output::Output;
use crate::section::Section;

/// Writes series. Their detail is written at once; sums and cells are kept, packed, until the end: 0.1 bytes a row.
pub(crate) struct SeriesWriter {
    rows: RowChunk,
    rows_first: u32,
    totals: Vec<EncodedChunk>,
    cells: CellWriter,
    sums: SeriesSums,
    /// For each window, the rank among the windows of the series that is written now, or [`NO_RANK`].
    ranks: Vec<u32>,
}

/// Sums over all series.
#[derive(Clone, Copy, Debug, Default)]
struct SeriesSums {
    pairs: u64,
    rows: u64,
    samples: u64,
    ns: u64,
}

const NO_RANK: u32 = u32::MAX;

impl SeriesWriter {
    pub(crate) fn new(windows: usize) -> Self {
        Self {
            rows: RowChunk::default(),
            rows_first: 0,
            totals: Vec::new(),
            cells: CellWriter::default(),
            sums: SeriesSums::default(),
            ranks: vec![NO_RANK; windows],
        }
    }

    /// Writes the next series: its rows, in any order, and the windows that list it, which may have no row of it.
    pub(crate) fn push<W: Write>(
        &mut self,
        rows: &mut Vec<SeriesRow>,
        listed: &[u32],
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        // Quick for rows that are in runs.
        rows.sort_by_key(SeriesRow::key);
        combine_equal(rows);
        let mut cells = self.add_cells(rows, listed);
        let unit_ns = find_unit(rows.iter().map(|row| (row.samples, row.ns)));
        if self.rows.rows() + rows.len() > CHUNK_ROWS || self.rows.series() == CHUNK_SERIES {
            self.finish_rows(packer, out)?;
        }
        self.rows.begin_series(unit_ns, cells.len() as u32);
        for pair in rows.chunk_by_mut(|a, b| (a.stack, a.tags) == (b.stack, b.tags)) {
            if self.rows.rows() >= SERIES_ROWS {
                self.finish_rows(packer, out)?;
                // The series goes on in the next chunk.
                self.rows_first -= 1;
                self.rows.begin_series(unit_ns, cells.len() as u32);
            }
            for row in pair.iter_mut() {
                row.window = self.ranks[row.window as usize];
            }
            self.rows.push_pair(pair);
            self.sums.pairs += 1;
            for row in pair {
                let cell = &mut cells[row.window as usize];
                cell.samples = cell.samples.saturating_add(row.samples);
                cell.ns = cell.ns.saturating_add(row.ns);
            }
        }
        for cell in &cells {
            self.ranks[cell.window as usize] = NO_RANK;
            self.sums.samples = self.sums.samples.saturating_add(cell.samples);
            self.sums.ns = self.sums.ns.saturating_add(cell.ns);
        }
        self.sums.rows += rows.len() as u64;
        self.cells.push(&cells, unit_ns, packer);
        Ok(())
    }

    /// The windows of a series, by time and with their ranks set; still without sums.
    fn add_cells(&mut self, rows: &[SeriesRow], listed: &[u32]) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        let windows = rows.iter().map(|row| row.window);
        for window in windows.chain(listed.iter().copied()) {
            let rank = &mut self.ranks[window as usize];
            if *rank == NO_RANK {
                *rank = 0;
                cells.push(Cell {
                    window,
                    ..Cell::default()
                });
            }
        }
        cells.sort_unstable_by_key(|cell| cell.window);
        for (rank, cell) in cells.iter().enumerate() {
            self.ranks[cell.window as usize] = rank as u32;
        }
        cells
    }

    fn finish_rows<W: Write>(
        &mut self,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        let items = self.rows.series() as u32;
        if items == 0 {
            return Ok(());
        }
        let first = self.rows_first;
        let chunk = |bytes| EncodedChunk {
            bytes,
            first,
            items,
        };
        let (totals, detail) = self.rows.finish(packer);
        self.totals.push(chunk(totals));
        out.put(Section::Detail, &chunk(detail))?;
        self.rows_first += items;
        Ok(())
    }

    /// Writes what is left, and the sums. Adds to the summary.
    pub(crate) fn finish<W: Write>(
        mut self,
        summary: &mut Summary,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        self.finish_rows(packer, out)?;
        for chunk in &self.totals {
            out.put(Section::Totals, chunk)?;
        }
        for chunk in &self.cells.finish::<Cell>(packer) {
            out.put(Section::Cells, chunk)?;
        }
        let SeriesSums {
            pairs,
            rows,
            samples,
            ns,
        } = self.sums;
        (summary.pairs, summary.rows) = (pairs, rows);
        (summary.samples, summary.ns) = (samples, ns);
        Ok(())
    }
}

/// Adds up rows of one stack, tag set and window; these are next to each other.
pub(crate) fn combine_equal(rows: &mut Vec<SeriesRow>) {
    rows.dedup_by(|row, kept| {
        let is_same = row.key() == kept.key();
        if is_same {
            kept.samples = kept.samples.saturating_add(row.samples);
            kept.ns = kept.ns.saturating_add(row.ns);
        }
        is_same
    });
}
