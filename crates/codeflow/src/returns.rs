//! Calls that cannot return: those of functions from whose start no path leads to a return.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::code::{Code, never_returns};
use crate::decode::{Callee as Called, Flow, Run};
use crate::graph::{BlockId, Call, Callee, Exit, Graph, Lists};
use crate::operation::OperationReader;

/// Instructions that are looked at for a function outside of the graph, its callees included: most
/// have a return among their first hundred. A closure of 16,000 calls takes 3.2 million, a tenth of
/// a second, in the worst case.
const PROBED_INSTRUCTIONS_MAX: usize = 200;

/// Functions below a function outside of the graph that are looked at: an error function calls
/// another one that calls `abort`.
const PROBED_DEPTH: u32 = 2;

/// Whether a called function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returns {
    Never,
    Maybe,
    /// Its code has a return.
    Surely,
}

/// Blocks from which a return may be reached.
#[derive(Debug)]
pub(crate) struct Returning {
    blocks: Vec<bool>,
    outside: FxHashMap<u64, Returns>,
}

impl Returning {
    pub(crate) fn find(code: &impl Code, graph: &Graph) -> Self {
        let mut outside = FxHashMap::default();
        for block in graph.blocks() {
            if let Exit::Call(Call {
                callee: Callee::Address(address),
                ..
            }) = block.exit
            {
                outside.entry(address).or_insert_with(|| {
                    probe(
                        code,
                        address,
                        PROBED_DEPTH,
                        &mut PROBED_INSTRUCTIONS_MAX.clone(),
                    )
                });
            }
        }
        let blocks = reach(graph, &find_callers(graph), &outside);
        Self { blocks, outside }
    }

    /// Whether a function that is called may return.
    pub(crate) fn may_return(&self, callee: Callee) -> bool {
        match callee {
            Callee::Block(block) => self.blocks[block.index()],
            Callee::Address(address) => self.outside.get(&address) != Some(&Returns::Never),
            Callee::Unknown => true,
            Callee::NeverReturns => false,
        }
    }

    /// Whether the code of a function that is called has a return.
    pub(crate) fn has_return(&self, graph: &Graph, callee: Callee) -> bool {
        match callee {
            Callee::Block(block) => self.blocks[block.index()] && graph.has_return_near(block),
            Callee::Address(address) => self.outside.get(&address) == Some(&Returns::Surely),
            Callee::Unknown | Callee::NeverReturns => false,
        }
    }
}

/// Whether a block with this exit may return, or lead to code that was not read and may.
fn may_return(exit: &Exit) -> bool {
    match exit {
        Exit::Return
        | Exit::TailCall
        | Exit::LoadedJump
        | Exit::RegisterJump
        | Exit::ComputedJump { .. }
        | Exit::Jump(None) => true,
        Exit::Branch { target, next, .. } => target.is_none() || next.is_none(),
        Exit::Jump(Some(_)) | Exit::Call(_) | Exit::Switch { .. } | Exit::Stop => false,
    }
}

/// For each block that is called, the blocks that end with the call.
fn find_callers(graph: &Graph) -> Lists {
    Lists::build(graph.blocks().len(), |add| {
        for caller in graph.ids() {
            if let Exit::Call(Call {
                callee: Callee::Block(callee),
                ..
            }) = graph.block(caller).exit
            {
                add(callee, caller);
            }
        }
    })
}

/// Blocks from which a return may be reached, where a call goes on only if its callee may return.
fn reach(graph: &Graph, callers: &Lists, outside: &FxHashMap<u64, Returns>) -> Vec<bool> {
    let mut reached = vec![false; graph.blocks().len()];
    let mut open: Vec<BlockId> = Vec::new();
    for id in graph.ids() {
        if may_return(&graph.block(id).exit) {
            reached[id.index()] = true;
            open.push(id);
        }
    }
    while let Some(id) = open.pop() {
        for before in graph.predecessors(id).iter().chain(callers.get(id)) {
            if reached[before.index()] {
                continue;
            }
            let goes_on = match graph.block(*before).exit {
                Exit::Call(Call { callee, next, .. }) => {
                    let returns = match callee {
                        Callee::Block(block) => reached[block.index()],
                        Callee::Address(address) => outside.get(&address) != Some(&Returns::Never),
                        Callee::Unknown => true,
                        Callee::NeverReturns => false,
                    };
                    returns && next.is_none_or(|next| reached[next.index()])
                }
                _ => true,
            };
            if goes_on {
                reached[before.index()] = true;
                open.push(*before);
            }
        }
    }
    reached
}

/// Whether the function at an address returns, by its instructions and those of the functions that
/// it calls, `left` in all.
fn probe(code: &impl Code, address: u64, depth: u32, left: &mut usize) -> Returns {
    let mut operations = OperationReader::new();
    let mut seen = FxHashSet::default();
    let mut open = vec![address];
    let mut returns = Returns::Never;
    while let Some(start) = open.pop() {
        if code.bytes(start).is_empty() {
            returns = Returns::Maybe;
        }
        for (instruction, flow) in Run::new(code.bytes(start), start, &mut operations) {
            if !seen.insert(instruction.address) {
                break;
            }
            *left = match left.checked_sub(1) {
                Some(left) => left,
                None => return Returns::Maybe,
            };
            match flow {
                Flow::Next => continue,
                Flow::Branch(target) => {
                    open.push(target);
                    continue;
                }
                Flow::Call(called) if !never_comes_back(code, called, depth, left) => continue,
                Flow::Call(_) | Flow::Stop => {}
                Flow::Jump(target) => open.push(target),
                Flow::JumpSlot(slot) if code.import(slot).is_some_and(never_returns) => {}
                Flow::JumpSlot(_) | Flow::JumpIndirect => returns = Returns::Maybe,
                Flow::Return => return Returns::Surely,
            }
            break;
        }
    }
    returns
}

fn never_comes_back(code: &impl Code, called: Called, depth: u32, left: &mut usize) -> bool {
    match called {
        Called::Address(address) => {
            depth > 0 && probe(code, address, depth - 1, left) == Returns::Never
        }
        Called::Slot(slot) => code.import(slot).is_some_and(never_returns),
        Called::Unknown => false,
    }
}
