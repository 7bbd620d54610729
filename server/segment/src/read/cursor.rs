//! The rows and cells of a segment as streams, for what needs all of them.

use crate::chunk::cells::{AnyCell, Cell, CellReader};
use crate::chunk::rows::{DetailReader, PairRows, SeriesRow, TotalsReader};
use crate::error::{Damage, Malformed};
use crate::file::footer::Chunk;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

/// The rows of a segment, series by series in ascending order.
pub(crate) struct RowCursor<'a, R> {
    segment: &'a Segment<R>,
    scratch: Scratch,
    cells: CellCursor<'a, R>,
    windows: Vec<Cell>,
    next_chunk: usize,
    /// The chunk that is read now, and the number of its next series.
    chunk: Option<(TotalsReader, DetailReader, u32)>,
    rows: PairRows,
}

impl<'a, R: ReadAt> RowCursor<'a, R> {
    pub(crate) fn new(segment: &'a Segment<R>) -> Self {
        Self {
            segment,
            scratch: Scratch::default(),
            cells: CellCursor::new(segment, Section::Cells),
            windows: Vec::new(),
            next_chunk: 0,
            chunk: None,
            rows: PairRows::default(),
        }
    }

    /// Shows the rows of a series. Returns its cells.
    pub(crate) fn read_series(
        &mut self,
        series: u32,
        mut visit: impl FnMut(SeriesRow),
    ) -> Result<&[Cell], Damage> {
        self.windows.clear();
        self.cells.read_series(series, &mut self.windows)?;
        loop {
            if self.chunk.is_none() && !self.open_chunk(series)? {
                break;
            }
            let chunk_number = self.next_chunk - 1;
            let Some((totals, detail, next)) = &mut self.chunk else {
                break;
            };
            if *next > series {
                break;
            }
            let is_wanted = *next == series;
            let (rows, windows) = (&mut self.rows, &self.windows);
            let read = totals.next_series(|head, pair| {
                detail.next_pair(head, pair, rows)?;
                if !is_wanted {
                    return Ok(());
                }
                if head.windows as usize != windows.len() {
                    return Err(Malformed("a series has another number of cells"));
                }
                for (at, rank) in rows.ranks.iter().enumerate() {
                    let window = windows.get(*rank as usize);
                    let window = window.ok_or(Malformed("a row is in no cell"))?.window;
                    visit(SeriesRow {
                        stack: pair.stack,
                        tags: pair.tags,
                        window,
                        samples: rows.samples[at],
                        ns: rows.ns[at],
                    });
                }
                Ok(())
            });
            let malformed = |what| self.segment.malformed(Section::Totals, chunk_number, what);
            if read.map_err(malformed)? {
                *next += 1;
            } else if let Some((totals, detail, _)) = self.chunk.take() {
                totals.finish().map_err(malformed)?;
                detail.finish().map_err(malformed)?;
            }
        }
        Ok(&self.windows)
    }

    /// Opens the next chunk that has a series of this number or a later one, if it begins with it.
    fn open_chunk(&mut self, series: u32) -> Result<bool, Damage> {
        let chunks = self.segment.chunks(Section::Totals);
        let is_before = |chunk: &&Chunk| chunk.first + chunk.items <= series;
        self.next_chunk += chunks[self.next_chunk..]
            .iter()
            .take_while(is_before)
            .count();
        let Some(chunk) = chunks
            .get(self.next_chunk)
            .filter(|chunk| chunk.first <= series)
        else {
            return Ok(false);
        };
        let totals = self
            .segment
            .open_totals(self.next_chunk, &mut self.scratch)?;
        let detail = self
            .segment
            .read_detail(self.next_chunk, &mut self.scratch)?;
        self.chunk = Some((totals, detail, chunk.first));
        self.next_chunk += 1;
        Ok(true)
    }
}

/// The cells of a segment, series by series in ascending order.
pub(crate) struct CellCursor<'a, R> {
    segment: &'a Segment<R>,
    section: Section,
    scratch: Scratch,
    next_chunk: usize,
    chunk: Option<(CellReader, u32)>,
}

impl<'a, R: ReadAt> CellCursor<'a, R> {
    pub(crate) fn new(segment: &'a Segment<R>, section: Section) -> Self {
        Self {
            segment,
            section,
            scratch: Scratch::default(),
            next_chunk: 0,
            chunk: None,
        }
    }

    /// Adds the cells of a series.
    pub(crate) fn read_series<C: AnyCell>(
        &mut self,
        series: u32,
        into: &mut Vec<C>,
    ) -> Result<(), Damage> {
        loop {
            if self.chunk.is_none() && !self.open_chunk::<C>(series)? {
                return Ok(());
            }
            let Some((reader, next)) = &mut self.chunk else {
                return Ok(());
            };
            if *next > series {
                return Ok(());
            }
            let before = into.len();
            let read = reader.next(into);
            let malformed = |what| {
                self.segment
                    .malformed(self.section, self.next_chunk - 1, what)
            };
            if !read.map_err(malformed)? {
                self.chunk = None;
                continue;
            }
            if *next < series {
                into.truncate(before);
            }
            *next += 1;
        }
    }

    fn open_chunk<C: AnyCell>(&mut self, series: u32) -> Result<bool, Damage> {
        let chunks = self.segment.chunks(self.section);
        let is_before = |chunk: &&Chunk| chunk.first + chunk.items <= series;
        self.next_chunk += chunks[self.next_chunk..]
            .iter()
            .take_while(is_before)
            .count();
        let Some(chunk) = chunks
            .get(self.next_chunk)
            .filter(|chunk| chunk.first <= series)
        else {
            return Ok(false);
        };
        let windows = self.segment.window_count();
        let reader = self.segment.read(
            self.section,
            self.next_chunk,
            &mut self.scratch,
            |bytes, chunk, unpacker| {
                CellReader::new::<C>(bytes, chunk.items as usize, windows, unpacker)
            },
        )?;
        self.chunk = Some((reader, chunk.first));
        self.next_chunk += 1;
        Ok(true)
    }
}
