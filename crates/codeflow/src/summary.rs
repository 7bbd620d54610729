//! The effect of a whole block on registers and stack slots.

use std::ops::Range;

use crate::graph::{Block, Exit, Graph};
use crate::register::{Register, RegisterSet};
use crate::slot::{Memory, Slot, read_slots};
use crate::state::{State, resolve};
use crate::value::Value;

/// Effects of all blocks, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    blocks: Vec<Summary>,
    values: Vec<(Register, Value)>,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Summary {
    written: RegisterSet,
    /// Registers with unknown values at the end.
    unknown: RegisterSet,
    memory: Memory,
    values: Range<u32>,
    slots: Range<u32>,
}

/// The effect of one block: values at its end in terms of its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effect<'a> {
    written: RegisterSet,
    unknown: RegisterSet,
    memory: Memory,
    values: &'a [(Register, Value)],
    slots: &'a [Slot],
}

impl Summaries {
    pub(crate) fn build(graph: &Graph) -> Self {
        let mut summaries = Self::default();
        let blocks = graph.blocks().len();
        summaries.blocks.reserve(blocks);
        summaries.values.reserve(blocks);
        summaries.slots.reserve(blocks);
        let mut state = State::identity();
        for block in graph.blocks() {
            state.reset();
            let mut written = RegisterSet::EMPTY;
            for instruction in operations(graph, block) {
                state.step(&instruction.operation);
                written = written.or(instruction.operation.written());
            }
            summaries.push(&state, written);
        }
        summaries
    }

    fn push(&mut self, state: &State, written: RegisterSet) {
        let (values, slots) = (self.values.len() as u32, self.slots.len() as u32);
        let mut unknown = RegisterSet::EMPTY;
        for register in written.iter() {
            match state.get(register) {
                Value::Unknown => unknown = unknown.with(register),
                value => self.values.push((register, value)),
            }
        }
        self.slots.extend_from_slice(state.slots());
        self.blocks.push(Summary {
            written,
            unknown,
            memory: state.memory(),
            values: values..self.values.len() as u32,
            slots: slots..self.slots.len() as u32,
        });
    }

    #[inline]
    pub(crate) fn effect(&self, block: usize) -> Effect<'_> {
        let summary = &self.blocks[block];
        let indexes = |range: &Range<u32>| range.start as usize..range.end as usize;
        Effect {
            written: summary.written,
            unknown: summary.unknown,
            memory: summary.memory,
            values: &self.values[indexes(&summary.values)],
            slots: &self.slots[indexes(&summary.slots)],
        }
    }
}

/// The instructions of a block whose effects hold on each of its edges: not that of a branch.
pub(crate) fn operations<'a>(graph: &'a Graph, block: &Block) -> &'a [crate::decode::Instruction] {
    let instructions = graph.instructions(block);
    match (block.exit, instructions) {
        (Exit::Branch { .. }, [others @ .., _]) => others,
        _ => instructions,
    }
}

impl Effect<'_> {
    /// Whether only registers other than these get other values, which are unknown.
    pub(crate) fn only_clobbers_others(&self, registers: RegisterSet) -> bool {
        self.values.is_empty() && !self.changes(registers)
    }

    /// Whether a value that depends on these registers may change.
    #[inline]
    pub(crate) fn changes(&self, bases: RegisterSet) -> bool {
        !self.slots.is_empty()
            || self.memory == Memory::Unknown
            || !self.written.and(bases).is_empty()
    }

    #[inline]
    pub(crate) fn get(&self, register: Register) -> Value {
        if self.unknown.contains(register) {
            return Value::Unknown;
        }
        let found = self.values.iter().find(|(changed, _)| *changed == register);
        found.map_or(Value::of(register), |(_, value)| *value)
    }

    #[inline]
    fn read(&self, address: Value) -> Value {
        let Value::Sum { base, add } = address else {
            return Value::Unknown;
        };
        read_slots(self.slots, self.memory, base, add)
    }

    /// A value in terms of the block's start, of one in terms of its end.
    #[inline]
    pub(crate) fn resolve(&self, value: Value) -> Value {
        resolve(
            value,
            |register| self.get(register),
            |address| self.read(address),
        )
    }
}
