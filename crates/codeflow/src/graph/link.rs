//! Instructions to blocks, and addresses to edges.

use super::{Block, BlockId, Call, Callee, Exit, Graph, Lists};
use crate::code::{Code, never_returns};
use crate::decode::{Callee as Called, Flow, Instruction, Kind};
use crate::jump_table::Indirect;
use crate::listing::Listing;
use crate::operation::Operation;
use crate::register::Register;

impl Graph {
    /// Makes blocks of a listing. `starts` are addresses at which blocks begin too.
    pub(crate) fn build(code: &impl Code, listing: Listing, starts: &[u64]) -> Self {
        let (mut blocks, block_of) = make_blocks(&find_leaders(&listing, starts));
        let mut linker = Linker {
            code,
            listing: &listing,
            block_of: &block_of,
            targets: Vec::new(),
            entries: Vec::new(),
        };
        let mut flows = listing.flows.iter().peekable();
        for block in &mut blocks {
            let last = block.end as usize - 1;
            let address = listing.instructions[last].address;
            let flow = flows.next_if(|(at, _)| *at == address);
            block.exit = linker.link(last, flow.map_or(Flow::Next, |(_, flow)| *flow));
        }
        let addresses = listing
            .instructions
            .iter()
            .filter_map(Instruction::taken_address);
        let taken = sort(
            addresses
                .filter_map(|address| linker.find(address))
                .collect(),
        );
        let mut graph = Self {
            targets: linker.targets,
            entries: sort(linker.entries),
            taken,
            instructions: listing.instructions,
            blocks,
            predecessors: Lists::default(),
        };
        graph.predecessors = graph.find_predecessors();
        graph
    }

    fn find_predecessors(&self) -> Lists {
        let edges = |add: &mut dyn FnMut(BlockId, BlockId)| {
            for (number, block) in self.blocks.iter().enumerate() {
                for successor in self.successors(block) {
                    add(successor, BlockId(number as u32));
                }
            }
        };
        Lists::build(self.blocks.len(), edges)
    }
}

/// Sorts blocks, and drops repetitions.
fn sort(mut blocks: Vec<BlockId>) -> Vec<BlockId> {
    blocks.sort_unstable_by_key(|block| block.0);
    blocks.dedup();
    blocks
}

/// Makes blocks that begin at the leaders among the instructions. For each instruction, its block.
fn make_blocks(leaders: &[bool]) -> (Vec<Block>, Vec<BlockId>) {
    let mut blocks: Vec<Block> = Vec::new();
    let mut block_of = Vec::with_capacity(leaders.len());
    for (number, is_leader) in leaders.iter().enumerate() {
        if *is_leader {
            blocks.push(Block {
                first: number as u32,
                end: number as u32,
                exit: Exit::Stop,
            });
        }
        if let Some(block) = blocks.last_mut() {
            block.end += 1;
        }
        block_of.push(BlockId(blocks.len().saturating_sub(1) as u32));
    }
    (blocks, block_of)
}

/// Marks the instructions at which blocks begin.
fn find_leaders(listing: &Listing, starts: &[u64]) -> Vec<bool> {
    let mut leaders = vec![false; listing.instructions.len()];
    let mut mark = |number: Option<usize>| {
        if let Some(leader) = number.and_then(|number| leaders.get_mut(number)) {
            *leader = true;
        }
    };
    mark(Some(0));
    let mut flows = listing.flows.iter().peekable();
    for (number, pair) in listing.instructions.windows(2).enumerate() {
        let is_end = flows
            .next_if(|(address, _)| *address == pair[0].address)
            .is_some();
        if pair[0].end() != pair[1].address {
            mark(Some(number + 1));
            mark(listing.find(pair[0].end()));
        } else if is_end {
            mark(Some(number + 1));
        }
    }
    for (address, flow) in &listing.flows {
        match flow {
            Flow::Jump(target) | Flow::Branch(target) | Flow::Call(Called::Address(target)) => {
                mark(listing.find(*target));
            }
            Flow::JumpIndirect => {
                for target in listing.targets(*address) {
                    mark(listing.find(*target));
                }
            }
            _ => {}
        }
    }
    let taken = listing
        .instructions
        .iter()
        .filter_map(Instruction::taken_address);
    for start in starts.iter().copied().chain(taken) {
        mark(listing.find(start));
    }
    leaders
}

/// Turns addresses into blocks.
struct Linker<'a, C> {
    code: &'a C,
    listing: &'a Listing,
    block_of: &'a [BlockId],
    targets: Vec<BlockId>,
    entries: Vec<BlockId>,
}

impl<C: Code> Linker<'_, C> {
    fn link(&mut self, last: usize, flow: Flow) -> Exit {
        let next = self.listing.next(last).map(|number| self.block_of[number]);
        match flow {
            Flow::Next => Exit::Jump(next),
            Flow::Jump(target) => Exit::Jump(self.find(target)),
            Flow::Branch(target) => Exit::Branch {
                target: self.find(target),
                next,
                equal: match self.listing.instructions[last].operation {
                    Operation::Copy { from, .. } => Some(from),
                    _ => None,
                },
            },
            Flow::Call(called) => Exit::Call(Call {
                callee: self.link_callee(called),
                next,
                is_suspicious: self.is_suspicious(last),
            }),
            Flow::JumpSlot(slot) => self.link_slot(slot),
            Flow::JumpIndirect => self.link_indirect(last, next),
            Flow::Return => Exit::Return,
            Flow::Stop => Exit::Stop,
        }
    }

    fn find(&self, address: u64) -> Option<BlockId> {
        self.listing
            .find(address)
            .map(|number| self.block_of[number])
    }

    fn link_callee(&mut self, called: Called) -> Callee {
        match called {
            Called::Address(address) => match self.find(address) {
                Some(block) => {
                    self.entries.push(block);
                    Callee::Block(block)
                }
                None => Callee::Address(address),
            },
            Called::Slot(slot) if self.code.import(slot).is_some_and(never_returns) => {
                Callee::NeverReturns
            }
            Called::Slot(_) | Called::Unknown => Callee::Unknown,
        }
    }

    fn link_slot(&self, slot: u64) -> Exit {
        if self.code.import(slot).is_some_and(never_returns) {
            Exit::Stop
        } else {
            Exit::TailCall
        }
    }

    fn link_indirect(&mut self, last: usize, next: Option<BlockId>) -> Exit {
        let jump = &self.listing.instructions[last];
        match self.listing.indirect(jump.address) {
            Some(Indirect::Table(addresses)) => self.link_table(addresses, next),
            Some(Indirect::Loaded) => Exit::LoadedJump,
            Some(Indirect::Register) => Exit::RegisterJump,
            Some(Indirect::Computed) | None => Exit::ComputedJump { next },
        }
    }

    fn link_table(&mut self, addresses: &[u64], next: Option<BlockId>) -> Exit {
        let first = self.targets.len() as u32;
        // Behind the table's end are other things.
        let targets = addresses.iter().map_while(|address| {
            let number = self.listing.find(*address)?;
            Some(self.block_of[number])
        });
        self.targets.extend(targets);
        match self.targets.len() as u32 - first {
            0 => Exit::ComputedJump { next },
            count => Exit::Switch { first, count },
        }
    }

    /// Whether the code behind a call looks like a function's start.
    fn is_suspicious(&self, last: usize) -> bool {
        let Some(next) = self.listing.next(last) else {
            return false;
        };
        let next = &self.listing.instructions[next];
        match next.operation {
            _ if next.kind != Kind::Other => true,
            Operation::Push(register) => register.is_preserved(),
            Operation::Copy { to, from, add } => {
                to == Register::RSP && from == Register::RSP && add < 0
            }
            _ => false,
        }
    }
}
