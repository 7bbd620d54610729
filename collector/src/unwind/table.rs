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
    /// Place of its first row in [`Table::rows`].
    pub first: u32,
    /// Number of its rows, at least one and at most one a byte.
    pub count: u32,
}

impl Table {
    /// Of blocks in ascending order, each with its rows, ascending too, behind those of the one before.
    pub(super) fn from_parts(blocks: Vec<Block>, rows: Vec<Row>) -> Self {
        Self { blocks, rows }
    }

    /// All blocks that have rows, in the order of their numbers.
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

    /// The number of the rule that holds at a file offset; `None` without any row there.
    pub fn find(&self, offset: u64) -> Option<u16> {
        let number = offset / BLOCK_BYTES;
        let place = self.blocks.binary_search_by_key(&number, |it| it.number);
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
    /// The rule that was given last, and from where on it holds.
    last: Option<(u64, u16)>,
}

/// There are more rows than may be.
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

    /// From `offset` on `rule` holds. An offset below the last one is taken for the last one.
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

    /// Ends the table; the last rule holds up to `end`.
    pub(super) fn finish(mut self, end: u64) -> Result<Table, TooManyRows> {
        if let Some((offset, rule)) = self.last {
            self.add(offset, rule, end)?;
        }
        self.table.blocks.shrink_to_fit();
        self.table.rows.shrink_to_fit();
        Ok(self.table)
    }

    /// Adds one rule from `start` to `end`: a row where it begins, and one at the start of each
    /// further block, so that a search needs to look at one block only. (What has no rule at all
    /// needs no block.)
    fn add(&mut self, start: u64, rule: u16, end: u64) -> Result<(), TooManyRows> {
        let mut at = start;
        while at < end {
            let next = (at / BLOCK_BYTES + 1).saturating_mul(BLOCK_BYTES);
            let is_whole = at.is_multiple_of(BLOCK_BYTES) && next <= end;
            if !(is_whole && rule == super::RuleSet::NONE) {
                self.add_row(at, rule)?;
            } else if end - at > 2 * BLOCK_BYTES {
                // Most of a large hole is skipped at once.
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

    /// Check that equal neighbours are one row, and that each block has a row at its start.
    #[test]
    fn rows_and_blocks() {
        let table = build(
            &[(0x1000, 5), (0x1010, 5), (0x1020, 6), (0x2_8000, 7)],
            0x2_9000,
        );
        let rows: Vec<(u16, u16)> = table
            .rows()
            .iter()
            .map(|it| (it.offset(), it.rule()))
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

    /// Check that a rule of no bytes leaves no row, and that offsets never go back.
    #[test]
    fn empty_and_backward_rules() {
        let table = build(&[(0x10, 5), (0x20, 6), (0x20, 7), (0x18, 8)], 0x30);
        let rows: Vec<(u16, u16)> = table
            .rows()
            .iter()
            .map(|it| (it.offset(), it.rule()))
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

    /// Check that the limit of rows is one.
    #[test]
    fn too_many_rows() {
        let mut builder = TableBuilder::new(2);
        builder.push(0, 5).unwrap();
        assert_eq!(builder.finish(3 * BLOCK_BYTES), Err(TooManyRows));
    }
}
