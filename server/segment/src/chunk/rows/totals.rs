//! Reads the sums of a chunk of rows.

use crate::codec::column::{ChunkReader, Numbers, Unpacker, check_below};
use crate::error::Malformed;

use super::{CHUNK_ROWS_MAX, PairTotals, SeriesHead, with_rest};

/// Number of entries that rows refer to, of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowLimits {
    pub(crate) stacks: usize,
    pub(crate) tag_sets: usize,
    pub(crate) windows: usize,
}

/// Reads the sums of a chunk.
pub(crate) struct TotalsReader {
    limits: RowLimits,
    rows_left: usize,
    pub(super) heads: Vec<SeriesHead>,
    /// Position of the next series.
    next: usize,
    first_stack: u32,
    last_stack: u32,
    stacks: Numbers,
    tags: Numbers,
    row_counts: Numbers,
    excess: Numbers,
    rest_ns: Numbers,
}

impl TotalsReader {
    /// Begins to read a chunk of `series` series.
    pub(crate) fn new(
        bytes: &[u8],
        series: usize,
        limits: RowLimits,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        let mut from = ChunkReader::new(bytes, unpacker);
        let rows = from.take_at_most(CHUNK_ROWS_MAX)?;
        let mut units = from.take_numbers(series)?;
        let mut windows = from.take_numbers(series)?;
        let mut pair_counts = from.take_numbers(series)?;
        let mut heads = Vec::new();
        let mut pairs = 0;
        for _ in 0..series {
            let head = SeriesHead {
                unit_ns: units.next()?,
                windows: windows.next_below(limits.windows + 1)?,
                pairs: pair_counts.next_below(rows + 1 - pairs)?,
            };
            pairs += head.pairs as usize;
            heads.push(head);
        }
        for column in [units, windows, pair_counts] {
            column.finish()?;
        }
        let mut column = || from.take_numbers(pairs);
        let reader = Self {
            limits,
            rows_left: rows,
            heads,
            next: 0,
            first_stack: 0,
            last_stack: 0,
            stacks: column()?,
            tags: column()?,
            row_counts: column()?,
            excess: column()?,
            rest_ns: column()?,
        };
        from.finish()?;
        Ok(reader)
    }

    /// Shows each pair of the next series. False after the last series.
    pub(crate) fn next_series(
        &mut self,
        mut visit: impl FnMut(&SeriesHead, &PairTotals) -> Result<(), Malformed>,
    ) -> Result<bool, Malformed> {
        let Some(head) = self.heads.get(self.next).copied() else {
            return Ok(false);
        };
        self.next += 1;
        for number in 0..head.pairs {
            let pair = self.next_pair(&head, number == 0)?;
            self.rows_left = self
                .rows_left
                .checked_sub(pair.rows as usize)
                .ok_or(Malformed("a chunk has more rows than it says"))?;
            visit(&head, &pair)?;
        }
        Ok(true)
    }

    /// Shows each pair of the chunk, with the position of its series in the chunk.
    pub(crate) fn read(
        mut self,
        mut visit: impl FnMut(usize, &SeriesHead, &PairTotals) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut position = 0;
        while self.next_series(|head, pair| visit(position, head, pair))? {
            position += 1;
        }
        self.finish()
    }

    /// Checks that all pairs were read.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rows_left > 0 {
            return Err(Malformed("a chunk has fewer rows than it says"));
        }
        for column in [
            &self.stacks,
            &self.tags,
            &self.row_counts,
            &self.excess,
            &self.rest_ns,
        ] {
            column.finish()?;
        }
        Ok(())
    }

    #[inline]
    fn next_pair(&mut self, head: &SeriesHead, is_first: bool) -> Result<PairTotals, Malformed> {
        let RowLimits {
            stacks, tag_sets, ..
        } = self.limits;
        let stack = if is_first {
            self.first_stack = self.stacks.next_delta_below(self.first_stack, stacks)?;
            self.first_stack
        } else {
            let delta = self.stacks.next_below(stacks)?;
            check_below(u64::from(self.last_stack) + u64::from(delta), stacks)?
        };
        self.last_stack = stack;
        let tags = self.tags.next_below(tag_sets)?;
        let rows = self.row_counts.next_below(head.windows as usize)? + 1;
        let excess = self.excess.next()?;
        let floor = 1 - (excess & 1);
        let samples = (excess >> 1)
            .checked_add(floor * u64::from(rows))
            .ok_or(Malformed("a sum is too large"))?;
        let rest_ns = self.rest_ns.next_signed()? as u64;
        Ok(PairTotals {
            stack,
            tags,
            rows,
            samples,
            ns: with_rest(samples, rest_ns, head.unit_ns),
            floor,
            rest_ns,
        })
    }
}
