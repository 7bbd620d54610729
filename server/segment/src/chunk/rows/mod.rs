//! Rows of series: sums of each (stack, tag set) over all windows apart from the detail of each window.
//!
//! Within a series, rows are sorted by stack, tag set and window. The rows of one stack and tag set are a *pair*. A window is coded
//! by its *rank*: its position among the windows that the series has cells for. So a series that lived for a minute has ranks of
//! three bits, in whatever segment it is.
//!
//! The detail of a pair is coded by what its sums tell: a pair with one sample a row needs no samples, a pair with a row in each
//! window no ranks, and the last row is what the others leave of the sum.

mod detail;
mod totals;
mod write;

pub(crate) use self::detail::{DetailReader, PairRows, RankSet};
pub(crate) use self::totals::{RowLimits, TotalsReader};
pub(crate) use self::write::RowChunk;

/// Rows of a chunk, if more than one series is in it: 65,536 rows of generated load take 40 KB, and a question for one series reads
/// one chunk.
pub(crate) const CHUNK_ROWS: usize = 1 << 16;

/// Rows at which a series goes on in another chunk: four times as many, so that only a series that fills more than a few chunks has
/// several.
pub(crate) const SERIES_ROWS: usize = 4 * CHUNK_ROWS;

/// Series of a chunk of rows or cells: one without rows takes a few bits.
pub(crate) const CHUNK_SERIES: usize = CHUNK_ROWS;

/// Windows of a segment: a day of 480 nodes at ten seconds.
pub(crate) const WINDOWS_MAX: usize = 1 << 22;

/// Rows of a chunk: it is full with the pair that reaches [`SERIES_ROWS`], which has at most a row a window.
const CHUNK_ROWS_MAX: usize = SERIES_ROWS + WINDOWS_MAX;

/// Classes of pairs by windows a row, in powers of two: a class has a column of its own, since its gaps have their own frequencies.
/// That saves 5 % of the ranks.
const RANK_CLASSES: usize = 8;

/// Pairs of these classes have a bit a window in place of gaps: up to 4 windows a row. That is 5 % smaller than gaps, and 8 ranks
/// are read at once.
const BITMAP_CLASSES: usize = 2;

/// Samples of a pair, and nanoseconds: less than what 64 bits hold by two bits of the encoding. A window has at most 2^53.
const PAIR_MAX: u64 = 1 << 62;

/// A row of a series. Ordered by stack, tag set and window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeriesRow {
    pub(crate) stack: u32,
    pub(crate) tags: u32,
    /// Number of the window, or its rank.
    pub(crate) window: u32,
    pub(crate) samples: u64,
    pub(crate) ns: u64,
}

impl SeriesRow {
    pub(crate) fn key(&self) -> (u32, u32, u32) {
        (self.stack, self.tags, self.window)
    }
}

/// Fields of a series before its pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeriesHead {
    /// Nanoseconds of most of its samples.
    pub(crate) unit_ns: u64,
    /// Windows that it has cells for.
    pub(crate) windows: u32,
    /// Its pairs in this chunk.
    pub(crate) pairs: u32,
}

/// The sums of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PairTotals {
    pub(crate) stack: u32,
    pub(crate) tags: u32,
    pub(crate) rows: u32,
    pub(crate) samples: u64,
    pub(crate) ns: u64,
    /// Samples that each row has at least: 1, or 0 if a row has none.
    floor: u64,
    /// The difference of `ns` to `samples` times the unit.
    rest_ns: u64,
}

impl PairTotals {
    /// Samples above the floor.
    fn excess(&self) -> u64 {
        self.samples
            .wrapping_sub(self.floor.wrapping_mul(u64::from(self.rows)))
    }
}

/// The nanoseconds that most samples of these rows have.
pub(crate) fn find_unit(rows: impl Iterator<Item = (u64, u64)>) -> u64 {
    // The majority vote of Boyer and Moore.
    let (mut unit, mut votes) = (0_u64, 0_u32);
    for (samples, ns) in rows {
        if samples.checked_mul(unit) == Some(ns) {
            votes += 1;
        } else if votes > 0 {
            votes -= 1;
        } else if let Some(own) = ns.checked_div(samples) {
            (unit, votes) = (own, 1);
        }
    }
    unit
}

/// How the ranks of a pair are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RankCode {
    /// A row in each window.
    All,
    /// One row: its rank.
    Single,
    /// A bit for each window.
    Bitmap(usize),
    /// The number of windows without a row before each row.
    Gaps(usize),
}

impl RankCode {
    fn of(rows: u32, windows: u32) -> Self {
        if rows == windows {
            return Self::All;
        }
        if rows == 1 {
            return Self::Single;
        }
        let class = (windows / rows).checked_ilog2().unwrap_or(0) as usize;
        match class.min(RANK_CLASSES - 1) {
            class @ ..BITMAP_CLASSES => Self::Bitmap(class),
            class => Self::Gaps(class),
        }
    }
}

/// How the samples of a pair are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SampleCode {
    /// All rows have the floor, or the only row has all.
    Known,
    /// Two bits a row: 0 to 2 above the floor, or 3 and more in the column of long ones.
    Packed(usize),
    /// A number a row.
    Plain,
}

/// Classes of packed samples.
const PACKED_CLASSES: usize = 2;

impl SampleCode {
    fn of(pair: &PairTotals) -> Self {
        let (excess, rows) = (pair.excess(), u64::from(pair.rows));
        if excess == 0 || rows == 1 {
            Self::Known
        } else if excess < rows {
            Self::Packed(usize::from(excess >= rows / 2))
        } else {
            Self::Plain
        }
    }
}

/// The part of `ns` that the unit does not explain; as [`with_rest`], modulo 2^64.
pub(crate) fn rest_ns(samples: u64, ns: u64, unit_ns: u64) -> u64 {
    ns.wrapping_sub(samples.wrapping_mul(unit_ns))
}

/// The reverse of [`rest_ns`].
pub(crate) fn with_rest(samples: u64, rest_ns: u64, unit_ns: u64) -> u64 {
    rest_ns.wrapping_add(samples.wrapping_mul(unit_ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::column::{Packer, Unpacker};
    use crate::error::Malformed;

    /// Series of rows that are sorted and have ranks below `windows`.
    type Series = Vec<(u32, Vec<SeriesRow>)>;

    fn row(stack: u32, tags: u32, window: u32, samples: u64, ns: u64) -> SeriesRow {
        SeriesRow {
            stack,
            tags,
            window,
            samples,
            ns,
        }
    }

    fn encode(series: &Series) -> (Vec<u8>, Vec<u8>) {
        let mut chunk = RowChunk::default();
        for (windows, rows) in series {
            let unit = find_unit(rows.iter().map(|row| (row.samples, row.ns)));
            chunk.begin_series(unit, *windows);
            for pair in rows
                .clone()
                .chunk_by_mut(|a, b| (a.stack, a.tags) == (b.stack, b.tags))
            {
                chunk.push_pair(pair);
            }
        }
        chunk.finish(&mut Packer::new(1))
    }

    const LIMITS: RowLimits = RowLimits {
        stacks: 1 << 20,
        tag_sets: 100,
        windows: 2000,
    };

    fn decode(series: usize, totals: &[u8], detail: &[u8]) -> Result<Series, Malformed> {
        let mut unpacker = Unpacker::default();
        let totals = TotalsReader::new(totals, series, LIMITS, &mut unpacker)?;
        let mut detail = DetailReader::new(detail, &mut unpacker)?;
        let heads = totals.heads.iter().map(|head| (head.windows, Vec::new()));
        let mut read: Series = heads.collect();
        let mut rows = PairRows::default();
        totals.read(|position, head, pair| {
            detail.next_pair(head, pair, &mut rows)?;
            let numbers = rows.ranks.iter().zip(&rows.samples).zip(&rows.ns);
            let rows = numbers
                .map(|((rank, samples), ns)| row(pair.stack, pair.tags, *rank, *samples, *ns));
            read[position].1.extend(rows);
            let sums = read[position].1.iter().rev().take(pair.rows as usize);
            let sums = sums.fold((0_u64, 0_u64), |(samples, ns), row| {
                (samples + row.samples, ns.wrapping_add(row.ns))
            });
            assert_eq!(sums, (pair.samples, pair.ns));
            Ok(())
        })?;
        detail.finish()?;
        Ok(read)
    }

    /// Check that rows of all densities and sizes come back, and that damaged bytes never panic.
    #[test]
    fn rows_come_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..60 {
            let mut series = Series::new();
            for _ in 0..random.usize(0..6) {
                let windows = random.u32(1..[2, 9, 100, 2000][round % 4]);
                let mut rows = Vec::new();
                let mut stack = 0;
                for _ in 0..random.u32(0..20) {
                    stack += random.u32(0..3);
                    let tags = stack % 2 * random.u32(0..100);
                    let density = random.f64();
                    let samples_max = [2, 3, 9, 1 << 50][random.usize(0..4)];
                    for window in 0..windows {
                        if random.f64() > density * density {
                            continue;
                        }
                        let samples_min = u64::from(random.u8(..) > 3);
                        let samples = random.u64(samples_min..samples_max);
                        let ns = match random.u8(..) {
                            0 => random.u64(0..1 << 50),
                            _ => samples.saturating_mul(10_000_000).min(1 << 50),
                        };
                        rows.push(row(stack, tags, window, samples, ns));
                    }
                }
                rows.sort_unstable();
                rows.dedup_by_key(|row| row.key());
                series.push((windows, rows));
            }
            let (totals, detail) = encode(&series);
            assert!(
                decode(series.len(), &totals, &detail).unwrap() == series,
                "round {round}"
            );
            for (is_detail, length) in [(false, totals.len()), (true, detail.len())] {
                let mut damaged = [totals.clone(), detail.clone()];
                let at = random.usize(0..length);
                damaged[usize::from(is_detail)][at] ^= 1 << random.u32(0..8);
                drop(decode(series.len(), &damaged[0], &damaged[1]));
            }
        }
    }

    /// Check that sums that do not fit are cut, and that the rows still add up to them.
    #[test]
    fn sums_are_cut_at_their_limit() {
        let rows = vec![
            row(1, 0, 0, PAIR_MAX - 1, 5),
            row(1, 0, 1, 7, u64::MAX),
            row(1, 0, 2, 7, 9),
        ];
        let (totals, detail) = encode(&vec![(4, rows)]);
        let read = decode(1, &totals, &detail).unwrap();
        assert_eq!(
            read[0].1,
            [
                row(1, 0, 0, PAIR_MAX - 1, 5),
                row(1, 0, 1, 1, PAIR_MAX - 5),
                row(1, 0, 2, 0, 0)
            ]
        );
    }
}
