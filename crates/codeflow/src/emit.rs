//! Rules and frames of blocks to rows of instructions.

use crate::backward::{Parts, Rules};
use crate::forward::{Frame, Frames};
use crate::frame;
use crate::graph::BlockId;
use crate::rows::{Reason, Rows};
use crate::state::State;
use crate::summary::operations;

/// Rules and frames of all blocks.
pub(crate) struct Knowledge<'a> {
    pub(crate) rules: &'a Rules,
    /// From functions' starts.
    pub(crate) from_starts: &'a Frames,
    /// From blocks with rules.
    pub(crate) from_rules: &'a Frames,
}

/// Makes rows of all instructions.
pub(crate) fn emit(parts: &Parts, knowledge: &Knowledge<'_>) -> Rows {
    let mut rows = Rows::default();
    // Hundreds of blocks share a rule.
    let of_rules: Vec<Frame> = knowledge.rules.all().iter().map(Frame::of_rule).collect();
    let mut scratch = State::identity();
    for id in parts.graph.ids() {
        match knowledge.frame(id, &of_rules) {
            Ok(frame) => emit_block(parts, id, frame, &mut scratch, &mut rows),
            Err(reason) => {
                let (start, end) = parts.graph.addresses(parts.graph.block(id));
                rows.push(start, end, Err(reason));
            }
        }
    }
    rows
}

fn emit_block(parts: &Parts, id: BlockId, frame: &Frame, state: &mut State, rows: &mut Rows) {
    let block = parts.graph.block(id);
    let row_of = |state: &State| frame::row(state, frame.confidence).ok_or(Reason::LostFrame);
    let mut row = row_of(&frame.state);
    let (mut start, end) = parts.graph.addresses(block);
    if parts.summaries.effect(id.index()).changes(frame.known) {
        state.copy_from(&frame.state);
        for instruction in operations(&parts.graph, block) {
            if !state.step(&instruction.operation) {
                continue;
            }
            let next = row_of(state);
            if next != row {
                rows.push(start, instruction.end(), row);
                (start, row) = (instruction.end(), next);
            }
        }
    }
    rows.push(start, end, row);
}

impl Knowledge<'_> {
    /// The frame at the start of a block, by the rule and by the function's start, which is the
    /// second opinion.
    fn frame<'a>(&'a self, id: BlockId, of_rules: &'a [Frame]) -> Result<&'a Frame, Reason> {
        let from_start = self.from_starts.get(id);
        match (self.rules.number(id), from_start) {
            (Ok(number), Some(frame)) => match self.rules.all()[number].distance(&frame.state) {
                Some(0) => Ok(frame),
                Some(_) => Err(Reason::Conflict),
                None => Ok(&of_rules[number]),
            },
            (Ok(number), None) => Ok(&of_rules[number]),
            (Err(_), Some(frame)) if frame.is_disputed => Err(Reason::Conflict),
            (Err(_), Some(frame)) => Ok(frame),
            (Err(reason), None) => self.from_rules.get(id).ok_or(reason),
        }
    }
}
