//! Rules from returns backward along the edges.

use rustc_hash::FxHashMap;

use crate::code::Code;
use crate::confidence::Confidence;
use crate::decode::Kind;
use crate::graph::{Block, BlockId, Call, Exit, Graph};
use crate::listing::Listing;
use crate::operation::Operation;
use crate::register::Register;
use crate::returns::Returning;
use crate::rows::Reason;
use crate::rule::{Defect, Rule};
use crate::summary::Summaries;

/// Evaluations of a block in one phase. A rule changes at most when that of a successor does; one
/// that does so again and again is that of a loop that moves the stack.
const EVALUATIONS_MAX: u8 = 4;

/// The number of a rule among all that were found.
type RuleId = u32;

/// Rule of a block, or the reason why it has none.
type Decision = Result<RuleId, Reason>;

/// The code, and what all analyses need of it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) graph: Graph,
    pub(crate) summaries: Summaries,
    pub(crate) returning: Returning,
}

impl Parts {
    /// Builds the graph of a listing, with blocks that begin at `starts`.
    pub(crate) fn build(code: &impl Code, listing: Listing, starts: &[u64]) -> Self {
        let graph = Graph::build(code, listing, starts);
        Self {
            summaries: Summaries::build(&graph),
            returning: Returning::find(code, &graph),
            graph,
        }
    }
}

/// Rules at the starts of all blocks. Most blocks have that of the block behind.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    ids: FxHashMap<Rule, RuleId>,
    decisions: Vec<Decision>,
}

impl Rules {
    pub(crate) fn find(parts: &Parts) -> Self {
        let mut rules = Self {
            rules: Vec::new(),
            ids: FxHashMap::default(),
            decisions: vec![Err(Reason::NoReturn); parts.graph.blocks().len()],
        };
        for phase in [Confidence::Certain, Confidence::Tail, Confidence::Weak] {
            rules.propagate(parts, phase);
        }
        rules
    }

    /// The rule of a block, or why it has none.
    pub(crate) fn get(&self, id: BlockId) -> Result<&Rule, Reason> {
        self.decisions[id.index()].map(|rule| &self.rules[rule as usize])
    }

    /// All rules; a block has one of them by [`Self::number`].
    pub(crate) fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// The number of a block's rule, or why it has none.
    pub(crate) fn number(&self, id: BlockId) -> Result<usize, Reason> {
        self.decisions[id.index()].map(|rule| rule as usize)
    }

    fn add(&mut self, rule: Rule) -> RuleId {
        let id = self.rules.len() as RuleId;
        let id = *self.ids.entry(rule).or_insert(id);
        if id as usize == self.rules.len() {
            self.rules.push(rule);
        }
        id
    }

    /// Evaluates the blocks without a rule, the last one first, and those in front of each that got
    /// another rule. Rules of earlier phases stay.
    fn propagate(&mut self, parts: &Parts, phase: Confidence) {
        let mut open: Vec<BlockId> = parts
            .graph
            .ids()
            .filter(|id| self.get(*id).is_err())
            .collect();
        let mut is_open: Vec<bool> = self.decisions.iter().map(Result::is_err).collect();
        let mut is_fixed: Vec<bool> = self.decisions.iter().map(Result::is_ok).collect();
        let mut evaluations = vec![0; self.decisions.len()];
        while let Some(id) = open.pop() {
            let index = id.index();
            is_open[index] = false;
            if is_fixed[index] {
                continue;
            }
            evaluations[index] += 1;
            is_fixed[index] = evaluations[index] > EVALUATIONS_MAX;
            let decision = if is_fixed[index] {
                Err(Reason::Conflict)
            } else {
                self.evaluate(parts, phase, id)
            };
            let before = std::mem::replace(&mut self.decisions[index], decision);
            if before.ok() == decision.ok() {
                continue;
            }
            for predecessor in parts.graph.predecessors(id) {
                if !std::mem::replace(&mut is_open[predecessor.index()], true) {
                    open.push(*predecessor);
                }
            }
        }
    }

    fn evaluate(&mut self, parts: &Parts, phase: Confidence, id: BlockId) -> Decision {
        let block = parts.graph.block(id);
        let effect = parts.summaries.effect(id.index());
        let at_end = self.at_end(parts, phase, block)?;
        let behind = &self.rules[at_end as usize];
        if !effect.changes(behind.bases()) {
            return Ok(at_end);
        }
        let rule = behind.before(&effect);
        match rule.check() {
            Ok(()) => Ok(self.add(rule)),
            Err(Defect::Cfa) => Err(Reason::LostFrame),
            Err(Defect::Registers) if phase == Confidence::Weak => Ok(self.add(rule.weakened())),
            Err(Defect::Registers) => Err(Reason::NotRestored),
        }
    }

    /// The rule at the end of a block.
    fn at_end(&mut self, parts: &Parts, phase: Confidence, block: &Block) -> Decision {
        match block.exit {
            Exit::Return => Ok(self.add(Rule::of_return(0, Confidence::Certain))),
            Exit::TailCall => {
                let offset = if is_lazy_binding(&parts.graph, block) {
                    16
                } else {
                    0
                };
                Ok(self.add(Rule::of_return(offset, Confidence::Certain)))
            }
            Exit::LoadedJump if phase <= Confidence::Tail && !begins_stack(&parts.graph, block) => {
                Ok(self.add(Rule::of_return(0, Confidence::Tail)))
            }
            Exit::RegisterJump
                if phase <= Confidence::Tail && restores_stack(&parts.graph, block) =>
            {
                Ok(self.add(Rule::of_return(0, Confidence::Tail)))
            }
            Exit::LoadedJump | Exit::RegisterJump | Exit::Stop => Err(Reason::NoReturn),
            Exit::Jump(target) => self.at(target),
            Exit::Branch {
                target,
                next,
                equal,
            } => self.at_branch(target, next, equal),
            Exit::Call(call) => self.behind_call(parts, &call, phase),
            Exit::Switch { first, count } => {
                let targets = parts.graph.switch_targets(first, count).iter();
                let mut rules = targets.filter_map(|target| self.decisions[target.index()].ok());
                rules.next().ok_or(Reason::NoReturn)
            }
            Exit::ComputedJump { next } => match next {
                Some(next) if phase == Confidence::Weak && !is_start(&parts.graph, next) => {
                    let rule = self.get(next).map_err(|_| Reason::ComputedJump)?;
                    Ok(self.add(rule.weakened()))
                }
                _ => Err(Reason::ComputedJump),
            },
        }
    }

    fn at(&self, id: Option<BlockId>) -> Decision {
        id.map_or(Err(Reason::NotRead), |id| self.decisions[id.index()])
    }

    fn at_branch(
        &mut self,
        target: Option<BlockId>,
        next: Option<BlockId>,
        equal: Option<Register>,
    ) -> Decision {
        let next = match (self.at(next), equal) {
            (Ok(next), Some(register)) => {
                let rule = self.rules[next as usize].where_equal(register);
                Ok(self.add(rule))
            }
            (next, _) => next,
        };
        match (next, self.at(target)) {
            (Ok(next), Ok(target)) if next == target => Ok(next),
            (Ok(next), Ok(target)) => {
                let next = &self.rules[next as usize];
                let merged = next.merge(&self.rules[target as usize]);
                let merged = merged.ok_or(Reason::Conflict)?;
                Ok(self.add(merged))
            }
            (Ok(rule), Err(_)) | (Err(_), Ok(rule)) => Ok(rule),
            (Err(one), Err(other)) => Err(one.min(other)),
        }
    }

    fn behind_call(&mut self, parts: &Parts, call: &Call, phase: Confidence) -> Decision {
        let is_entry = call.next.is_some_and(|next| parts.graph.is_entry(next));
        if is_entry || !parts.returning.may_return(call.callee) {
            return Err(Reason::NoReturn);
        }
        let is_loop = |next| aligns_loop(&parts.graph, next);
        let is_suspicious = call.is_suspicious && !call.next.is_some_and(is_loop);
        if is_suspicious && phase > Confidence::Weak {
            return Err(Reason::NoReturn);
        }
        let id = self.at(call.next)?;
        let rule = &self.rules[id as usize];
        match (rule.is_aligned(), is_suspicious) {
            (true, false) => Ok(id),
            (true, true) => {
                let rule = rule.with_confidence(Confidence::Weak);
                Ok(self.add(rule))
            }
            // Parts of assembler functions call each other without regard to the alignment.
            (false, false) if parts.returning.has_return(&parts.graph, call.callee) => Ok(id),
            (false, _) => Err(Reason::Alignment),
        }
    }
}

/// Whether a block is the first entry of a procedure linkage table: it pushes a word more before it
/// jumps to the dynamic linker.
fn is_lazy_binding(graph: &Graph, block: &Block) -> bool {
    let instructions = graph.instructions(block);
    let operations = instructions
        .iter()
        .filter(|instruction| instruction.kind == Kind::Other);
    let mut operations = operations.map(|instruction| instruction.operation);
    operations.next() == Some(Operation::MoveStack { add: -8 }) && operations.count() == 1
}

/// The last operation of a block that changes the stack pointer.
fn last_move(graph: &Graph, block: &Block) -> Option<Operation> {
    let instructions = graph.instructions(block).iter().rev();
    let mut operations = instructions.map(|instruction| instruction.operation);
    operations.find(|operation| operation.writes(Register::RSP))
}

/// Whether a block frees a part of the stack, as functions do before their last jump.
fn restores_stack(graph: &Graph, block: &Block) -> bool {
    match last_move(graph, block) {
        Some(Operation::Pop(_) | Operation::Leave) => true,
        Some(Operation::Copy { from, add, .. }) => {
            !begins_stack(graph, block) && (from != Register::RSP || add > 0)
        }
        _ => false,
    }
}

/// Whether a block has `mov rsp,register` in front of its jump: dynamic linkers and `longjmp` go to another stack, where nothing
/// returns to the caller.
fn begins_stack(graph: &Graph, block: &Block) -> bool {
    let last = last_move(graph, block);
    matches!(last, Some(Operation::Copy { from, add: 0, .. }) if from != Register::RSP)
}

/// Whether a block is padding that aligns a loop: a jump leads back to what is behind it.
fn aligns_loop(graph: &Graph, id: BlockId) -> bool {
    let block = graph.block(id);
    let mut instructions = graph.instructions(block).iter();
    if !instructions.all(|instruction| instruction.kind == Kind::Padding) {
        return false;
    }
    graph.successors(block).any(|next| {
        let mut before = graph.predecessors(next).iter();
        // Blocks are in the order of their addresses.
        before.any(|before| before.index() >= next.index())
    })
}

/// Whether a block looks like a function's start.
fn is_start(graph: &Graph, id: BlockId) -> bool {
    let first = graph.instructions(graph.block(id)).first();
    graph.is_entry(id)
        || first.is_some_and(|first| {
            first.kind != Kind::Other || matches!(first.operation, Operation::Push(_))
        })
}
