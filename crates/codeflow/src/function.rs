//! A function whose start is known: the second opinion on rows.

use crate::analyze::{CLOSURE_INSTRUCTIONS_MAX, propagate_starts};
use crate::backward::Parts;
use crate::code::Code;
use crate::forward::Frames;
use crate::graph::Graph;
use crate::listing::Listing;
use crate::register::Register;
use crate::rows::{Cfa, Row, Saved};
use crate::state::State;
use crate::summary::operations;
use crate::value::{Base, Value};

/// Result of the comparison of a row with its function's own analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It leads to the same value.
    Agrees,
    /// It leads to another value.
    Disagrees,
    /// Nothing is known of what the row is made of.
    Unknown,
}

/// The code of a function from its start on.
#[derive(Debug)]
pub struct Function {
    graph: Graph,
    frames: Frames,
}

impl Function {
    /// Reads the code that direct edges lead to from a function's start.
    pub fn read(code: &impl Code, start: u64) -> Self {
        let listing = Listing::of_closure(code, &[start], CLOSURE_INSTRUCTIONS_MAX);
        let parts = Parts::build(code, listing, &[start]);
        let entries: Vec<_> = parts.graph.find(start).into_iter().collect();
        let frames = propagate_starts(&parts, None, &entries);
        Self {
            graph: parts.graph,
            frames,
        }
    }

    /// Whether a CFA is that of the function.
    pub fn check_cfa(&self, address: u64, row: &Row) -> Opinion {
        self.state(address).map_or(Opinion::Unknown, |state| {
            opinion(cfa(&state, row), Value::at(Base::RSP, 8))
        })
    }

    /// Whether a row leads to the caller's `rbp`.
    pub fn check_rbp(&self, address: u64, row: &Row) -> Opinion {
        let Some(state) = self.state(address) else {
            return Opinion::Unknown;
        };
        let value = match row.rbp {
            Saved::Same => state.get(Register::RBP),
            Saved::AtCfa(offset) => state.read(cfa(&state, row).plus(offset)),
            Saved::At(register, offset) => state.read(state.get(register).plus(offset)),
            Saved::Unknown => Value::Unknown,
        };
        opinion(value, Value::of(Register::RBP))
    }

    /// The state in front of the instruction at an address.
    fn state(&self, address: u64) -> Option<State> {
        let id = self.graph.find_containing(address)?;
        let block = self.graph.block(id);
        let mut state = self.frames.get(id)?.state.clone();
        let before = operations(&self.graph, block).iter();
        for instruction in before.take_while(|instruction| instruction.end() <= address) {
            state.step(&instruction.operation);
        }
        Some(state)
    }
}

fn cfa(state: &State, row: &Row) -> Value {
    match row.cfa {
        Cfa::Register(register, offset) => state.get(register).plus(offset),
        Cfa::Word {
            register,
            offset,
            add,
        } => state.read(state.get(register).plus(offset)).plus(add),
    }
}

fn opinion(value: Value, expected: Value) -> Opinion {
    match value {
        Value::Sum { base, .. } if Some(base) != expected.base() => Opinion::Unknown,
        Value::Unknown | Value::Word { .. } => Opinion::Unknown,
        value if value == expected => Opinion::Agrees,
        _ => Opinion::Disagrees,
    }
}
