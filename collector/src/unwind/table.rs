//! The rows of one file.

use profiler_bpf::unwind::{BLOCK_BYTES, Row, find_rule};

/// The rows of one file by file offset, in blocks of [`BLOCK_BYTES`] of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    blocks: Vec<Block>,
    rows: Vec<Row>,
}

/// Rows of [`BLOCK_BYTES`] of a file: 16 bytes for each 64 KiB of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// File offset over [`BLOCK_BYTES`].
    pub number: u64,
    /// Index of its first row in [`Table::rows`].
    pub first: u32,
    /// Number of its rows, from 1 to one per byte.
    pub count: u32,
}

impl Table {
    /// From blocks in ascending order and their ascending rows, each block's after those of the
    /// previous one.
    pub(super) fn from_parts(blocks: Vec<Block>, rows: Vec<Row>) -> Self {
        Self { blocks, rows }
    }

    /// All blocks with rows, in the order of their numbers.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The rows of all blocks.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows of a block.
    pub fn rows_of(&self, block: &Block) -> &[Row] {
        let rows = self.rows.get(block.first as usize..);
        rows.and_then(|rows| rows.get(..block.count as usize))
            .unwrap_or_default()
    }

    /// The number of the rule at a file offset; `None` if there is no row.
    pub fn find(&self, offset: u64) -> Option<u16> {
        let number = offset / BLOCK_BYTES;
        let place = self
            .blocks
            .binary_search_by_key(&number, |block| block.number);
        find_rule(self.rows_of(&self.blocks[place.ok()?]), offset)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>() + self.rows.capacity() * size_of::<Row>()
    }
}

/// Makes a [`Table`] from rules in ascending order of their offsets.
#[derive(Debug)]
pub(super) struct TableBuilder {
    table: Table,
    rows_max: usize,
    /// The last rule, and its start.
    last: Option<(u64, u16)>,
}

/// The limit of rows is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyRows;

impl TableBuilder {
    pub(super) fn new(rows_max: usize) -> Self {
        Self {
            table: Table::default(),
            rows_max,
            last: None,
        }
    }

    /// Adds a rule that applies from `offset` on. An offset before the last one counts as the last
    /// one.
    pub(super) fn push(&mut self, offset: u64, rule: u16) -> Result<(), TooManyRows> {
        let Some((last_offset, last_rule)) = self.last else {
            self.last = Some((offset, rule));
            return Ok(());
        };
        if rule == last_rule {
            return Ok(());
        }
        if offset > last_offset {
            self.add(last_offset, last_rule, offset)?;
        }
        self.last = Some((offset.max(last_offset), rule));
        Ok(())
    }

    /// Ends the table; the last rule applies up to `end`.
    pub(super) fn finish(mut self, end: u64) -> Result<Table, TooManyRows> {
        if let Some((offset, rule)) = self.last {
            self.add(offset, rule, end)?;
        }
        self.table.blocks.shrink_to_fit();
        self.table.rows.shrink_to_fit();
        Ok(self.table)
    }

    /// Adds a rule from `start` to `end`: a row at its start, and one at the start of each further
    /// block, so that a search reads only one block. (Code without rules needs no block.)
    fn add(&mut self, start: u64, rule: u16, end: u64) -> Result<(), TooManyRows> {
        let mut at = start;
        while at < end {
            let next = (at / BLOCK_BYTES + 1).saturating_mul(BLOCK_BYTES);
            let is_whole = at.is_multiple_of(BLOCK_BYTES) && next <= end;
            if !(is_whole && rule == super::RuleSet::NONE) {
                self.add_row(at, rule)?;
            } else if end - at > 2 * BLOCK_BYTES {
                // Skips most of a large hole at once.
                at = (end / BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
                continue;
            }
            at = next;
        }
        Ok(())
    }

    fn add_row(&mut self, offset: u64, rule: u16) -> Result<(), TooManyRows> {
        if self.table.rows.len() >= self.rows_max {
            return Err(TooManyRows);
        }
        let number = offset / BLOCK_BYTES;
        let first = self.table.rows.len() as u32;
        match self.table.blocks.last_mut() {
            Some(block) if block.number == number => block.count += 1,
            _ => self.table.blocks.push(Block {
                number,
                first,
                count: 1,
            }),
        }
        self.table.rows.push(Row::new(offset, rule));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(rules: &[(u64, u16)], end: u64) -> Table {
        let mut builder = TableBuilder::new(1000);
        for (offset, rule) in rules {
            builder.push(*offset, *rule).unwrap();
        }
        builder.finish(end).unwrap()
    }

    /// Check that equal neighbours are merged into one row, and that each block has a row at its
    /// start.
    #[test]
    fn rows_and_blocks() {
        let table = build(
            &[(0x1000, 5), (0x1010, 5), (0x1020, 6), (0x2_8000, 7)],
            0x2_9000,
        );
        let rows: Vec<(u16, u16)> = table
            .rows()
            .iter()
            .map(|row| (row.offset(), row.rule()))
            .collect();
        assert_eq!(
            rows,
            [(0x1000, 5), (0x1020, 6), (0, 6), (0, 6), (0x8000, 7)]
        );
        assert_eq!(table.blocks().len(), 3);
        let find = |offset| table.find(offset);
        assert_eq!(
            (find(0xfff), find(0x1000), find(0x101f)),
            (None, Some(5), Some(5))
        );
        assert_eq!(
            (find(0x1_ffff), find(0x2_7fff), find(0x2_8000)),
            (Some(6), Some(6), Some(7))
        );
        assert_eq!(find(0x3_0000), None);
    }

    /// Check that a rule of zero bytes gives no row, and that offsets never decrease.
    #[test]
    fn empty_and_backward_rules() {
        let table = build(&[(0x10, 5), (0x20, 6), (0x20, 7), (0x18, 8)], 0x30);
        let rows: Vec<(u16, u16)> = table
            .rows()
            .iter()
            .map(|row| (row.offset(), row.rule()))
            .collect();
        assert_eq!(rows, [(0x10, 5), (0x20, 8)]);
        assert_eq!(build(&[], 0x30), Table::default());
    }

    /// Check that code without rules takes no rows, however large it is.
    #[test]
    fn holes_take_nothing() {
        let table = build(&[(0x10, 5), (0x20, 0), (1 << 50, 6)], (1 << 50) + 8);
        assert_eq!(table.rows().len(), 3);
        assert_eq!(
            (table.find(0x30), table.find(1 << 40), table.find(1 << 50)),
            (Some(0), None, Some(6))
        );
    }

    /// Check the limit of rows.
    #[test]
    fn too_many_rows() {
        let mut builder = TableBuilder::new(2);
        builder.push(0, 5).unwrap();
        assert_eq!(builder.finish(3 * BLOCK_BYTES), Err(TooManyRows));
    }
}
