//! Reads the detail of a chunk of rows.

use std::ops::Range;

use crate::codec::column::{ChunkReader, Numbers, Unpacker, check_below};
use crate::error::Malformed;

use super::{
    BITMAP_CLASSES, CHUNK_ROWS_MAX, PACKED_CLASSES, PairTotals, RANK_CLASSES, RankCode, SampleCode,
    SeriesHead, with_rest,
};

/// The rows of one pair.
#[derive(Debug, Default)]
pub(crate) struct PairRows {
    /// The rank of each row's window.
    pub(crate) ranks: Vec<u32>,
    /// The samples of each row.
    pub(crate) samples: Vec<u64>,
    /// The nanoseconds of each row.
    pub(crate) ns: Vec<u64>,
}

/// Some ranks of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RankSet {
    has_rank: Vec<bool>,
    /// From the first rank of the set to the last.
    range: Range<u32>,
    count: u32,
}

impl RankSet {
    /// A set of those of `windows` ranks that pass a test.
    pub(crate) fn new(windows: usize, has_rank: impl FnMut(usize) -> bool) -> Self {
        let has_rank: Vec<bool> = (0..windows).map(has_rank).collect();
        let is_in = |has_rank: &bool| *has_rank;
        let first = has_rank.iter().position(is_in).unwrap_or(0);
        let end = has_rank.iter().rposition(is_in).map_or(0, |last| last + 1);
        Self {
            range: first as u32..end as u32,
            count: has_rank.iter().filter(|has_rank| **has_rank).count() as u32,
            has_rank,
        }
    }

    /// Number of ranks in the set.
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// The ranks, if there is none between them that is not in the set: those of most questions, which ask for a range of time.
    fn as_range(&self) -> Option<&Range<u32>> {
        (self.range.len() == self.len()).then_some(&self.range)
    }

    fn contains(&self, rank: u32) -> bool {
        self.has_rank.get(rank as usize).copied().unwrap_or(false)
    }
}

/// Reads the detail of a chunk, pair by pair beside [`TotalsReader`](super::TotalsReader).
pub(crate) struct DetailReader {
    singles: Numbers,
    bitmaps: [RawCursor; BITMAP_CLASSES],
    gaps: [Numbers; RANK_CLASSES],
    packed: [PackedReader; PACKED_CLASSES],
    long: Numbers,
    plain: Numbers,
    rest_ns: Numbers,
    /// For each row of a pair, whether its rank is wanted.
    mask: Vec<bool>,
}

impl DetailReader {
    /// Begins to read a chunk.
    pub(crate) fn new(bytes: &[u8], unpacker: &mut Unpacker) -> Result<Self, Malformed> {
        let mut from = ChunkReader::new(bytes, unpacker);
        let rows = from.take_at_most(CHUNK_ROWS_MAX)?;
        let singles = from.take_numbers(rows)?;
        let mut bitmaps: [RawCursor; BITMAP_CLASSES] = Default::default();
        for bitmap in &mut bitmaps {
            // Up to 4 windows a row, and up to 7 bits that a pair does not use.
            bitmap.bytes = from.take_raw(2 * rows)?;
        }
        let mut gaps: [Numbers; RANK_CLASSES] = Default::default();
        for gaps in &mut gaps[BITMAP_CLASSES..] {
            *gaps = from.take_numbers(rows)?;
        }
        let mut packed: [PackedReader; PACKED_CLASSES] = Default::default();
        for packed in &mut packed {
            packed.bytes = from.take_raw(rows.div_ceil(4))?;
        }
        let reader = Self {
            singles,
            bitmaps,
            gaps,
            packed,
            long: from.take_numbers(rows)?,
            plain: from.take_numbers(rows)?,
            rest_ns: from.take_numbers(rows)?,
            mask: Vec::new(),
        };
        from.finish()?;
        Ok(reader)
    }

    /// Reads the rows of the next pair.
    pub(crate) fn next_pair(
        &mut self,
        head: &SeriesHead,
        pair: &PairTotals,
        into: &mut PairRows,
    ) -> Result<(), Malformed> {
        into.ranks.clear();
        into.samples.clear();
        into.ns.clear();
        self.read_ranks(pair.rows, head.windows, |rank| into.ranks.push(rank))?;
        self.read_samples(pair, |samples| into.samples.push(samples))?;
        let last = into.samples.len() - 1;
        let mut left = pair.rest_ns;
        for samples in &into.samples[..last] {
            let rest = self.rest_ns.next_signed()? as u64;
            left = left.wrapping_sub(rest);
            into.ns.push(with_rest(*samples, rest, head.unit_ns));
        }
        into.ns
            .push(with_rest(into.samples[last], left, head.unit_ns));
        Ok(())
    }

    /// Adds up the rows of the next pair whose ranks are wanted: samples and nanoseconds.
    pub(crate) fn sum_pair(
        &mut self,
        head: &SeriesHead,
        pair: &PairTotals,
        wanted: &RankSet,
    ) -> Result<(u64, u64), Malformed> {
        if let Some(ranks) = wanted.as_range() {
            let rows = self.find_rows(pair.rows, head.windows, ranks)?;
            if SampleCode::of(pair) == SampleCode::Known && !self.has_rest(pair) {
                // All rows have the same samples.
                let samples = pair.samples / u64::from(pair.rows) * rows.len() as u64;
                return Ok((samples, with_rest(samples, 0, head.unit_ns)));
            }
            return self.sum_rows(head, pair, |row| rows.contains(&row));
        }
        let mut mask = std::mem::take(&mut self.mask);
        mask.clear();
        self.read_ranks(pair.rows, head.windows, |rank| {
            mask.push(wanted.contains(rank))
        })?;
        let sums = self.sum_rows(head, pair, |row| mask[row as usize]);
        self.mask = mask;
        sums
    }

    /// Whether the unit does not explain the nanoseconds of some row.
    fn has_rest(&self, pair: &PairTotals) -> bool {
        pair.rest_ns != 0 || !self.rest_ns.is_zero()
    }

    /// The rows whose ranks are in a range.
    fn find_rows(
        &mut self,
        rows: u32,
        windows: u32,
        ranks: &Range<u32>,
    ) -> Result<Range<u32>, Malformed> {
        match RankCode::of(rows, windows) {
            RankCode::All => Ok(ranks.clone()),
            RankCode::Bitmap(class) => {
                let bytes = self.bitmaps[class].take(windows.div_ceil(8) as usize)?;
                check_bitmap(bytes, rows, windows)?;
                Ok(count_ones(bytes, ranks.start)..count_ones(bytes, ranks.end))
            }
            RankCode::Single | RankCode::Gaps(_) => {
                let (mut start, mut end) = (0, 0);
                self.read_ranks(rows, windows, |rank| {
                    start += u32::from(rank < ranks.start);
                    end += u32::from(rank < ranks.end);
                })?;
                Ok(start..end)
            }
        }
    }

    /// Adds up the rows that are wanted.
    #[inline]
    fn sum_rows(
        &mut self,
        head: &SeriesHead,
        pair: &PairTotals,
        is_wanted: impl Fn(u32) -> bool,
    ) -> Result<(u64, u64), Malformed> {
        let mut row = 0;
        let mut samples = 0_u64;
        self.read_samples(pair, |own| {
            samples = samples.wrapping_add(own * u64::from(is_wanted(row)));
            row += 1;
        })?;
        let mut rest = 0_u64;
        if self.has_rest(pair) {
            let mut left = pair.rest_ns;
            for row in 0..pair.rows - 1 {
                let own = self.rest_ns.next_signed()? as u64;
                left = left.wrapping_sub(own);
                rest = rest.wrapping_add(own.wrapping_mul(u64::from(is_wanted(row))));
            }
            rest = rest.wrapping_add(left.wrapping_mul(u64::from(is_wanted(pair.rows - 1))));
        }
        Ok((samples, with_rest(samples, rest, head.unit_ns)))
    }

    /// Shows the rank of each row.
    #[inline]
    fn read_ranks(
        &mut self,
        rows: u32,
        windows: u32,
        mut visit: impl FnMut(u32),
    ) -> Result<(), Malformed> {
        match RankCode::of(rows, windows) {
            RankCode::All => (0..windows).for_each(visit),
            RankCode::Single => visit(self.singles.next_below(windows as usize)?),
            RankCode::Bitmap(class) => {
                let bytes = self.bitmaps[class].take(windows.div_ceil(8) as usize)?;
                check_bitmap(bytes, rows, windows)?;
                for (at, byte) in bytes.iter().enumerate() {
                    let mut bits = *byte;
                    while bits != 0 {
                        visit(8 * at as u32 + bits.trailing_zeros());
                        bits &= bits - 1;
                    }
                }
            }
            RankCode::Gaps(class) => {
                let mut next = 0_u64;
                self.gaps[class].take(rows, |gap| {
                    let rank = check_below(next.saturating_add(gap), windows as usize)?;
                    next = u64::from(rank) + 1;
                    visit(rank);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Shows the samples of each row.
    #[inline]
    fn read_samples(
        &mut self,
        pair: &PairTotals,
        mut visit: impl FnMut(u64),
    ) -> Result<(), Malformed> {
        let (floor, mut left) = (pair.floor, pair.excess());
        let mut rows_left = pair.rows;
        // Whether the samples of the next row are written; they are taken from what is left of the sum.
        let mut take = |above: u64| {
            left = left
                .checked_sub(above)
                .ok_or(Malformed("rows have more samples than their sum"))?;
            visit(above + floor);
            rows_left -= 1;
            Ok(left > 0 && rows_left > 1)
        };
        match SampleCode::of(pair) {
            SampleCode::Known => {}
            SampleCode::Packed(class) => {
                let long = &mut self.long;
                self.packed[class].take_while(|short| match short {
                    3 => take(long.next()?.saturating_add(3)),
                    short => take(u64::from(short)),
                })?;
            }
            SampleCode::Plain => while take(self.plain.next()?)? {},
        }
        // The next row has what is left, and those behind it nothing above the least.
        if rows_left > 0 {
            visit(left + floor);
            (1..rows_left).for_each(|_| visit(floor));
        }
        Ok(())
    }

    /// Checks that all rows were read.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        let Self {
            singles,
            bitmaps,
            gaps,
            packed,
            long,
            plain,
            rest_ns,
            mask: _,
        } = self;
        for column in gaps.iter().chain([&singles, &long, &plain, &rest_ns]) {
            column.finish()?;
        }
        let bitmaps = bitmaps.iter().all(|raw| raw.at == raw.bytes.len());
        let packed = packed
            .iter()
            .all(|packed| packed.at.div_ceil(4) == packed.bytes.len());
        if bitmaps && packed {
            Ok(())
        } else {
            Err(Malformed("a column has more bytes than entries"))
        }
    }
}

/// Counts the bits of the lowest `count` bits of a bitmap.
fn count_ones(bytes: &[u8], count: u32) -> u32 {
    let (whole, rest) = (count as usize / 8, count % 8);
    let ones: u32 = bytes.iter().take(whole).map(|byte| byte.count_ones()).sum();
    let last = bytes.get(whole).copied().unwrap_or(0);
    ones + (last & ((1 << rest) - 1)).count_ones()
}

/// Checks that a bitmap has as many rows as its sums, and none past its windows.
fn check_bitmap(bytes: &[u8], rows: u32, windows: u32) -> Result<(), Malformed> {
    let count: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
    let past = windows % 8;
    let is_past = past != 0 && bytes.last().is_some_and(|last| last >> past != 0);
    if count == rows && !is_past {
        Ok(())
    } else {
        Err(Malformed("a bitmap has other rows than its sums"))
    }
}

/// Bytes that are read from front to back.
#[derive(Default)]
struct RawCursor {
    bytes: Vec<u8>,
    at: usize,
}

impl RawCursor {
    fn take(&mut self, count: usize) -> Result<&[u8], Malformed> {
        let taken = self.bytes[self.at..].get(..count);
        self.at += count;
        taken.ok_or(Malformed("a column ends too early"))
    }
}

/// Reads numbers of two bits.
#[derive(Default)]
struct PackedReader {
    bytes: Vec<u8>,
    at: usize,
}

impl PackedReader {
    /// Shows numbers until told to stop.
    #[inline]
    fn take_while(
        &mut self,
        mut visit: impl FnMut(u8) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        // In a register while it is in the loop.
        let mut at = self.at;
        loop {
            let byte = self.bytes.get(at / 4);
            let byte = byte.ok_or(Malformed("a column ends too early"))?;
            let number = byte >> (2 * (at % 4)) & 3;
            at += 1;
            if !visit(number)? {
                break;
            }
        }
        self.at = at;
        Ok(())
    }
}
