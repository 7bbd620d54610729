//! Encodes chunks of rows.

use crate::codec::column::{Column, Packer};
use crate::codec::varint;

use super::{
    BITMAP_CLASSES, PACKED_CLASSES, PAIR_MAX, PairTotals, RANK_CLASSES, RankCode, SampleCode,
    SeriesHead, SeriesRow, rest_ns,
};

/// Encodes a chunk of rows.
#[derive(Default)]
pub(crate) struct RowChunk {
    series: Vec<SeriesHead>,
    rows: usize,
    first_stack: u32,
    last_stack: u32,
    stacks: Column,
    tags: Column,
    row_counts: Column,
    excess: Column,
    rest_ns: Column,
    detail: Detail,
}

#[derive(Default)]
struct Detail {
    singles: Column,
    bitmaps: [Vec<u8>; BITMAP_CLASSES],
    gaps: [Column; RANK_CLASSES],
    packed: [PackedWriter; PACKED_CLASSES],
    long: Column,
    plain: Column,
    rest_ns: Column,
}

impl RowChunk {
    /// Rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Series so far.
    pub(crate) fn series(&self) -> usize {
        self.series.len()
    }

    /// Begins a series.
    pub(crate) fn begin_series(&mut self, unit_ns: u64, windows: u32) {
        self.series.push(SeriesHead {
            unit_ns,
            windows,
            pairs: 0,
        });
    }

    /// Adds the rows of one pair to the last series; `window` is the rank. Returns the pair's sums.
    ///
    /// Sums beyond [`PAIR_MAX`] are cut in the row that passes it, so that the rows always add up to the sums.
    pub(crate) fn push_pair(&mut self, rows: &mut [SeriesRow]) -> PairTotals {
        let Some(head) = self.series.last_mut() else {
            return PairTotals::default();
        };
        let is_first = head.pairs == 0;
        head.pairs += 1;
        let SeriesHead {
            unit_ns, windows, ..
        } = *head;
        let pair = add_up(rows, unit_ns);

        if is_first {
            let before = std::mem::replace(&mut self.first_stack, pair.stack);
            self.stacks
                .push_signed(i64::from(pair.stack) - i64::from(before));
        } else {
            self.stacks.push(u64::from(pair.stack - self.last_stack));
        }
        self.last_stack = pair.stack;
        self.tags.push(u64::from(pair.tags));
        self.row_counts.push(u64::from(pair.rows - 1));
        self.excess.push(pair.excess() << 1 | (1 - pair.floor));
        self.rest_ns.push_signed(pair.rest_ns as i64);

        self.detail.push_ranks(rows, windows);
        self.detail.push_samples(rows, &pair);
        self.detail.push_rest_ns(rows, unit_ns);
        self.rows += rows.len();
        pair
    }

    /// Encodes the sums, then the detail, and begins anew.
    pub(crate) fn finish(&mut self, packer: &mut Packer) -> (Vec<u8>, Vec<u8>) {
        let mut totals = Vec::new();
        varint::put(&mut totals, self.rows as u64);
        packer.put_numbers(&mut totals, self.series.iter().map(|head| head.unit_ns));
        let windows = |head: &SeriesHead| u64::from(head.windows);
        packer.put_numbers(&mut totals, self.series.iter().map(windows));
        let pairs = |head: &SeriesHead| u64::from(head.pairs);
        packer.put_numbers(&mut totals, self.series.iter().map(pairs));
        for column in [
            &mut self.stacks,
            &mut self.tags,
            &mut self.row_counts,
            &mut self.excess,
            &mut self.rest_ns,
        ] {
            packer.put(&mut totals, column);
        }
        let detail = self.detail.finish(self.rows, packer);
        self.series.clear();
        (self.rows, self.first_stack, self.last_stack) = (0, 0, 0);
        (totals, detail)
    }
}

/// Adds up the rows of a pair, and cuts them at [`PAIR_MAX`].
fn add_up(rows: &mut [SeriesRow], unit_ns: u64) -> PairTotals {
    let mut pair = PairTotals {
        stack: rows[0].stack,
        tags: rows[0].tags,
        rows: rows.len() as u32,
        floor: 1,
        ..PairTotals::default()
    };
    for row in rows {
        row.samples = row.samples.min(PAIR_MAX - pair.samples);
        row.ns = row.ns.min(PAIR_MAX - pair.ns);
        pair.samples += row.samples;
        pair.ns += row.ns;
        pair.floor = pair.floor.min(row.samples);
    }
    pair.rest_ns = rest_ns(pair.samples, pair.ns, unit_ns);
    pair
}

impl Detail {
    fn push_ranks(&mut self, rows: &[SeriesRow], windows: u32) {
        match RankCode::of(rows.len() as u32, windows) {
            RankCode::All => {}
            RankCode::Single => self.singles.push(u64::from(rows[0].window)),
            RankCode::Bitmap(class) => {
                let bitmap = &mut self.bitmaps[class];
                let start = bitmap.len();
                bitmap.resize(start + windows.div_ceil(8) as usize, 0);
                for row in rows {
                    bitmap[start + row.window as usize / 8] |= 1 << (row.window % 8);
                }
            }
            RankCode::Gaps(class) => {
                let mut next = 0;
                for row in rows {
                    self.gaps[class].push(u64::from(row.window - next));
                    next = row.window + 1;
                }
            }
        }
    }

    fn push_samples(&mut self, rows: &[SeriesRow], pair: &PairTotals) {
        let code = SampleCode::of(pair);
        let mut left = pair.excess();
        // The last row has what is left, and nothing may be left before.
        for row in &rows[..rows.len() - 1] {
            if left == 0 {
                break;
            }
            let above = row.samples - pair.floor;
            left -= above;
            match code {
                SampleCode::Known => {}
                SampleCode::Packed(class) => {
                    self.packed[class].push(above.min(3) as u8);
                    if above >= 3 {
                        self.long.push(above - 3);
                    }
                }
                SampleCode::Plain => self.plain.push(above),
            }
        }
    }

    fn push_rest_ns(&mut self, rows: &[SeriesRow], unit_ns: u64) {
        for row in &rows[..rows.len() - 1] {
            self.rest_ns
                .push_signed(rest_ns(row.samples, row.ns, unit_ns) as i64);
        }
    }

    fn finish(&mut self, rows: usize, packer: &mut Packer) -> Vec<u8> {
        let mut out = Vec::new();
        varint::put(&mut out, rows as u64);
        packer.put(&mut out, &mut self.singles);
        for bitmap in &mut self.bitmaps {
            packer.put_raw(&mut out, bitmap);
            bitmap.clear();
        }
        for gaps in &mut self.gaps[BITMAP_CLASSES..] {
            packer.put(&mut out, gaps);
        }
        for packed in &mut self.packed {
            packer.put_raw(&mut out, &packed.take());
        }
        packer.put(&mut out, &mut self.long);
        packer.put(&mut out, &mut self.plain);
        packer.put(&mut out, &mut self.rest_ns);
        out
    }
}

/// Collects numbers of two bits.
#[derive(Default)]
struct PackedWriter {
    bytes: Vec<u8>,
    count: usize,
}

impl PackedWriter {
    fn push(&mut self, number: u8) {
        let shift = 2 * (self.count % 4);
        if shift == 0 {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= number << shift;
        }
        self.count += 1;
    }

    fn take(&mut self) -> Vec<u8> {
        self.count = 0;
        std::mem::take(&mut self.bytes)
    }
}
