//! States from functions' starts, and from rules, forward along the edges.

use std::borrow::Cow;

use crate::backward::Parts;
use crate::confidence::Confidence;
use crate::frame;
use crate::graph::{Block, BlockId, Exit};
use crate::operation::Operation;
use crate::register::{Register, RegisterSet};
use crate::rule::{Rule, STACK_ALIGNMENT};
use crate::slot::Memory;
use crate::state::State;
use crate::summary::operations;
use crate::value::{Base, Value};

/// A state, and how sure it is.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) state: State,
    /// Registers of which the state knows something.
    pub(crate) known: RegisterSet,
    pub(crate) confidence: Confidence,
    /// On the way there is a block whose rule disagrees.
    pub(crate) is_disputed: bool,
}

impl Frame {
    fn new(state: State, confidence: Confidence) -> Self {
        Self {
            known: state.known(),
            state,
            confidence,
            is_disputed: false,
        }
    }

    /// The frame at a function's start.
    pub(crate) fn at_start(confidence: Confidence) -> Self {
        Self::new(frame::at_start(), confidence)
    }

    /// The frame where a rule holds.
    pub(crate) fn of_rule(rule: &Rule) -> Self {
        Self::new(frame::of_rule(rule), rule.confidence)
    }

    /// Whether all that is known in this frame holds in the other one too.
    fn holds_in(&self, other: &Self) -> bool {
        self.confidence <= other.confidence
            && other.is_disputed <= self.is_disputed
            && self.state.holds_in(&other.state)
    }

    /// Keeps only what holds in both frames.
    fn meet(&mut self, other: &Self) {
        self.state.meet(&other.state);
        self.known = self.state.known();
        self.confidence = self.confidence.min(other.confidence);
        self.is_disputed |= other.is_disputed;
    }
}

/// Frames at the starts of blocks.
#[derive(Debug)]
pub(crate) struct Frames {
    frames: Vec<Frame>,
    of_block: Vec<Option<u32>>,
}

/// Frames a block. Most blocks share one with others; a block that is reached by frames that differ
/// ever more gets more of them.
const FRAMES_PER_BLOCK_MAX: usize = 4;

/// The number of the frame that knows nothing.
const NOTHING: u32 = 0;

impl Frames {
    pub(crate) fn new(blocks: usize) -> Self {
        let nothing = State::new([Value::Unknown; 16], Memory::Unknown);
        Self {
            frames: vec![Frame::new(nothing, Confidence::Weak)],
            of_block: vec![None; blocks],
        }
    }

    pub(crate) fn get(&self, id: BlockId) -> Option<&Frame> {
        let number = self.of_block[id.index()]?;
        self.frames.get(number as usize)
    }

    /// Propagates the frames of `seeds` into all blocks that `accepts` accepts. A block that is
    /// reached with two frames has what both have in common.
    pub(crate) fn propagate(
        &mut self,
        parts: &Parts,
        seeds: impl IntoIterator<Item = (BlockId, Frame)>,
        accepts: impl Fn(BlockId) -> bool,
        disputes: impl Fn(BlockId, &State) -> bool,
    ) {
        let mut open = Vec::new();
        for (id, frame) in seeds {
            self.of_block[id.index()] = Some(self.add(frame));
            open.push(id);
        }
        while let Some(id) = open.pop() {
            let Some(number) = self.of_block[id.index()] else {
                continue;
            };
            let block = parts.graph.block(id);
            let frame = &self.frames[number as usize];
            let changed = frame_behind(parts, id, frame, disputes(id, &frame.state));
            let behind = changed.as_ref().unwrap_or(frame);
            if !goes_on(parts, block, &behind.state) {
                continue;
            }
            for next in parts.graph.successors(block).filter(|next| accepts(*next)) {
                let is_news = match &changed {
                    Some(frame) => self.enter(next, &on_edge(block, next, frame)),
                    None => self.enter_unchanged(next, number),
                };
                if is_news {
                    open.push(next);
                }
            }
        }
    }

    /// Enters a block with the frame of a number. Whether that is news.
    fn enter_unchanged(&mut self, id: BlockId, number: u32) -> bool {
        match self.of_block[id.index()] {
            Some(there) if there == number => false,
            Some(there) => {
                let frame = &self.frames[number as usize];
                !self.frames[there as usize].holds_in(frame) && self.enter(id, &frame.clone())
            }
            None => {
                self.of_block[id.index()] = Some(number);
                true
            }
        }
    }

    /// Enters a block with a frame. Whether that is news.
    fn enter(&mut self, id: BlockId, frame: &Frame) -> bool {
        let number = self.of_block[id.index()];
        if number.is_some_and(|number| self.frames[number as usize].holds_in(frame)) {
            return false;
        }
        let mut met = frame.clone();
        if let Some(number) = number {
            met.meet(&self.frames[number as usize]);
        }
        self.of_block[id.index()] = Some(self.add(met));
        true
    }

    /// Adds a frame, unless there are too many.
    fn add(&mut self, frame: Frame) -> u32 {
        if self.frames.len() > FRAMES_PER_BLOCK_MAX * self.of_block.len() {
            return NOTHING;
        }
        self.frames.push(frame);
        self.frames.len() as u32 - 1
    }
}

/// The frame behind a block, if it is another one than that in front.
fn frame_behind(parts: &Parts, id: BlockId, frame: &Frame, is_disputed: bool) -> Option<Frame> {
    let block = parts.graph.block(id);
    let is_equal = matches!(block.exit, Exit::Branch { equal: Some(_), .. });
    let effect = parts.summaries.effect(id.index());
    if !is_equal && effect.only_clobbers_others(frame.known) && is_disputed <= frame.is_disputed {
        return None;
    }
    let mut state = frame.state.clone();
    for instruction in operations(&parts.graph, block) {
        state.step(&instruction.operation);
    }
    let mut behind = Frame::new(state, frame.confidence);
    behind.is_disputed = is_disputed || frame.is_disputed;
    Some(behind)
}

/// The frame on the edge from a block to the next one. Where a loop that touches pages is left, the
/// stack pointer is that of the loop's end.
fn on_edge<'a>(block: &Block, next: BlockId, frame: &'a Frame) -> Cow<'a, Frame> {
    match block.exit {
        Exit::Branch {
            next: Some(not_taken),
            equal: Some(from),
            ..
        } if not_taken == next && frame.known.contains(from) => {
            let mut frame = frame.clone();
            frame.state.step(&Operation::Copy {
                to: Register::RSP,
                from,
                add: 0,
            });
            Cow::Owned(frame)
        }
        _ => Cow::Borrowed(frame),
    }
}

/// Whether the code behind a block runs in the same frame.
fn goes_on(parts: &Parts, block: &Block, state: &State) -> bool {
    let Exit::Call(call) = block.exit else {
        return true;
    };
    let is_entry = call.next.is_some_and(|next| parts.graph.is_entry(next));
    let may_return = !is_entry && !call.is_suspicious && parts.returning.may_return(call.callee);
    may_return && (is_aligned(state) || parts.returning.has_return(&parts.graph, call.callee))
}

/// Whether the stack pointer can be that of a call: where it is known, it is aligned.
fn is_aligned(state: &State) -> bool {
    match state.get(Register::RSP) {
        Value::Sum {
            base: Base::RSP, ..
        } => {
            let distance = state.get(Register::RSP).distance_to_cfa();
            distance.is_some_and(|distance| distance % STACK_ALIGNMENT == 0)
        }
        _ => true,
    }
}
