//! A list of blocks for each block, all in one allocation.

use super::BlockId;

/// A list of blocks for each block.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    ends: Vec<u32>,
    items: Vec<BlockId>,
}

impl Lists {
    /// Makes lists of (block, item), which `edges` gives twice in the same order.
    pub(crate) fn build(blocks: usize, edges: impl Fn(&mut dyn FnMut(BlockId, BlockId))) -> Self {
        let mut ends = vec![0; blocks + 1];
        edges(&mut |block, _| ends[block.index() + 1] += 1);
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        let mut items = vec![BlockId(0); sum as usize];
        // Each list's start grows to its end, which is the next one's start.
        edges(&mut |block, item| {
            let place = &mut ends[block.index()];
            items[*place as usize] = item;
            *place += 1;
        });
        Self { ends, items }
    }

    pub(crate) fn get(&self, block: BlockId) -> &[BlockId] {
        let start = match block.index() {
            0 => 0,
            index => self.ends[index - 1] as usize,
        };
        &self.items[start..self.ends[block.index()] as usize]
    }
}
