//! Blocks of instructions, and the edges between them.

mod link;
mod lists;

pub(crate) use lists::Lists;

use crate::decode::Instruction;
use crate::register::Register;

/// Blocks in which a return is looked for: assembler functions that call each other without
/// aligning the stack are small.
const NEAR_BLOCKS_MAX: usize = 64;

/// The number of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId(u32);

impl BlockId {
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The function that a call calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    Block(BlockId),
    /// Code that was not read.
    Address(u64),
    Unknown,
    /// An import that never returns.
    NeverReturns,
}

/// A call at the end of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) callee: Callee,
    /// The code behind the call, which runs if the callee returns.
    pub(crate) next: Option<BlockId>,
    /// That code looks like a function's start.
    pub(crate) is_suspicious: bool,
}

/// How a block ends. A missing block is code that was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Jump(Option<BlockId>),
    Branch {
        target: Option<BlockId>,
        next: Option<BlockId>,
        /// Where the branch is not taken, `rsp` is equal to this register.
        equal: Option<Register>,
    },
    Call(Call),
    /// By a jump table: a range of [`Graph::targets`].
    Switch {
        first: u32,
        count: u32,
    },
    Return,
    /// A jump through a word that the dynamic linker writes.
    TailCall,
    /// A jump to an address from memory.
    LoadedJump,
    /// A jump to an address in a register.
    RegisterJump,
    /// A jump by a table that was not found.
    ComputedJump {
        next: Option<BlockId>,
    },
    Stop,
}

/// Instructions that follow one another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) first: u32,
    pub(crate) end: u32,
    pub(crate) exit: Exit,
}

/// Code that was read.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    instructions: Vec<Instruction>,
    blocks: Vec<Block>,
    /// Targets of all jump tables.
    targets: Vec<BlockId>,
    /// Blocks that calls call, in order and without repetition.
    entries: Vec<BlockId>,
    /// Blocks whose addresses are taken.
    taken: Vec<BlockId>,
    predecessors: Lists,
}

impl Graph {
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = BlockId> + use<> {
        (0..self.blocks.len() as u32).map(BlockId)
    }

    #[inline]
    pub(crate) fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.index()]
    }

    #[inline]
    pub(crate) fn instructions(&self, block: &Block) -> &[Instruction] {
        &self.instructions[block.first as usize..block.end as usize]
    }

    /// The address of a block's first instruction, and that behind its last one.
    pub(crate) fn addresses(&self, block: &Block) -> (u64, u64) {
        let first = &self.instructions[block.first as usize];
        let last = &self.instructions[block.end as usize - 1];
        (first.address, last.end())
    }

    pub(crate) fn entries(&self) -> &[BlockId] {
        &self.entries
    }

    pub(crate) fn is_entry(&self, id: BlockId) -> bool {
        self.entries
            .binary_search_by_key(&id.0, |entry| entry.0)
            .is_ok()
    }

    pub(crate) fn switch_targets(&self, first: u32, count: u32) -> &[BlockId] {
        &self.targets[first as usize..(first + count) as usize]
    }

    #[inline]
    pub(crate) fn predecessors(&self, id: BlockId) -> &[BlockId] {
        self.predecessors.get(id)
    }

    /// The block that begins at an address.
    pub(crate) fn find(&self, address: u64) -> Option<BlockId> {
        let by_address = |block: &Block| self.instructions[block.first as usize].address;
        let number = self
            .blocks
            .binary_search_by_key(&address, by_address)
            .ok()?;
        Some(BlockId(number as u32))
    }

    /// The block that has the instruction at an address.
    pub(crate) fn find_containing(&self, address: u64) -> Option<BlockId> {
        let first = |block: &Block| self.instructions[block.first as usize].address;
        let number = self.blocks.partition_point(|block| first(block) <= address);
        let id = BlockId(number.checked_sub(1)? as u32);
        let last = self.instructions(self.block(id)).last()?;
        (address < last.end()).then_some(id)
    }

    /// Whether a return is near a block, without regard to calls that do not return.
    pub(crate) fn has_return_near(&self, id: BlockId) -> bool {
        let mut near = vec![id];
        let mut next = 0;
        while let Some(id) = near.get(next).copied() {
            let block = self.block(id);
            if block.exit == Exit::Return {
                return true;
            }
            for successor in self.successors(block) {
                if near.len() < NEAR_BLOCKS_MAX && !near.contains(&successor) {
                    near.push(successor);
                }
            }
            next += 1;
        }
        false
    }

    /// Blocks that may follow a block, without regard to whether a call returns.
    /// Blocks whose addresses are taken.
    pub(crate) fn taken(&self) -> &[BlockId] {
        &self.taken
    }

    #[inline]
    pub(crate) fn successors(&self, block: &Block) -> impl Iterator<Item = BlockId> {
        let (one, other, switch) = match block.exit {
            Exit::Jump(target) => (target, None, &[][..]),
            Exit::Branch { target, next, .. } => (target, next, &[][..]),
            Exit::Call(Call { next, .. }) | Exit::ComputedJump { next } => (next, None, &[][..]),
            Exit::Switch { first, count } => (None, None, self.switch_targets(first, count)),
            _ => (None, None, &[][..]),
        };
        one.into_iter().chain(other).chain(switch.iter().copied())
    }
}
