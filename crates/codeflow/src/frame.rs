//! States of a function relative to its start, where `rsp` is 8 bytes below the canonical frame
//! address (CFA): from rules, to rows.

use crate::confidence::Confidence;
use crate::register::Register;
use crate::rows::{Cfa, Row, Saved};
use crate::rule::{PRESERVED, Rule};
use crate::slot::{Memory, Slot};
use crate::state::State;
use crate::value::{Base, RETURN_ADDRESS_BYTES, Value};

/// The state at a function's start. Of the caller's registers `rbp` and `rbx` are followed, which
/// rows have.
pub(crate) fn at_start() -> State {
    let mut registers = [Value::Unknown; 16];
    for register in [Register::RSP, Register::RBP, Register::RBX] {
        registers[register.index()] = Value::of(register);
    }
    State::new(registers, Memory::Unknown)
}

/// The state at an address with a rule. Registers that the rule does not tell of have values of
/// their own, to which slots may be relative.
pub(crate) fn of_rule(rule: &Rule) -> State {
    let mut registers = [Value::Unknown; 16];
    for register in [Register::RSP, Register::RBP] {
        registers[register.index()] = Value::at(Base::midway(register), 0);
    }
    let mut state = State::new(registers, Memory::Unknown);
    match rule.cfa {
        Value::Sum { base, add } => {
            set_base(&mut state, base, below_cfa(add));
        }
        Value::Word { base, offset, add } => {
            add_word(&mut state, base, offset, below_cfa(add));
        }
        Value::Unknown => {}
    }
    for (register, value) in PRESERVED.into_iter().zip(rule.saved).take(2) {
        match value {
            Value::Sum { base, add: 0 } => set_base(&mut state, base, Value::of(register)),
            Value::Word {
                base,
                offset,
                add: 0,
            } => {
                add_word(&mut state, base, offset, Value::of(register));
            }
            _ => {}
        }
    }
    state
}

/// The value that is `distance` bytes below the CFA.
fn below_cfa(distance: i32) -> Value {
    match RETURN_ADDRESS_BYTES.checked_sub(distance) {
        Some(add) => Value::at(Base::RSP, add),
        None => Value::Unknown,
    }
}

fn set_base(state: &mut State, base: Base, value: Value) {
    if let Some(register) = base.register() {
        state.set(register, value);
    }
}

/// Notes that the word at a register + `offset` has this value.
fn add_word(state: &mut State, base: Base, offset: i32, value: Value) {
    let Some(register) = base.register() else {
        return;
    };
    if state.get(register) == Value::Unknown {
        state.set(register, Value::at(Base::midway(register), 0));
    }
    if let Value::Sum { base, add } = state.get(register).plus(offset) {
        state.add_slot(Slot::word(base, add, value));
    }
}

/// The row of a state, if the state leads to the CFA.
pub(crate) fn row(state: &State, confidence: Confidence) -> Option<Row> {
    Some(Row {
        cfa: find_cfa(state)?,
        rbp: find_saved(state, Register::RBP),
        rbx: find_saved(state, Register::RBX),
        confidence,
    })
}

/// Registers in the order in which a CFA is taken from them.
fn by_preference() -> impl Iterator<Item = Register> {
    let first = [Register::RSP, Register::RBP, Register::RBX];
    let others = Register::all().filter(move |register| !first.contains(register));
    first.into_iter().chain(others)
}

fn find_cfa(state: &State) -> Option<Cfa> {
    let from_register = by_preference().find_map(|register| {
        let offset = state.get(register).distance_to_cfa()?;
        // The return address is between.
        let is_frame = register != Register::RSP || offset >= RETURN_ADDRESS_BYTES;
        is_frame.then_some(Cfa::Register(register, offset))
    });
    from_register.or_else(|| {
        state.slots().iter().find_map(|slot| {
            let add = slot.value.distance_to_cfa()?;
            let (register, offset) = find_place(state, slot)?;
            Some(Cfa::Word {
                register,
                offset,
                add,
            })
        })
    })
}

/// A register from which a slot can be reached, and the offset.
fn find_place(state: &State, slot: &Slot) -> Option<(Register, i32)> {
    by_preference().find_map(|register| match state.get(register) {
        Value::Sum { base, add } if base == slot.base => {
            Some((register, slot.offset.checked_sub(add)?))
        }
        _ => None,
    })
}

fn find_saved(state: &State, register: Register) -> Saved {
    if state.get(register) == Value::of(register) {
        return Saved::Same;
    }
    let is_saved = |slot: &&Slot| slot.value == Value::of(register);
    let place = state.slots().iter().filter(is_saved).find_map(|slot| {
        if slot.base == Base::RSP {
            let offset = slot.offset.checked_sub(RETURN_ADDRESS_BYTES)?;
            return Some(Saved::AtCfa(offset));
        }
        let (register, offset) = find_place(state, slot)?;
        Some(Saved::At(register, offset))
    });
    place.unwrap_or(Saved::Unknown)
}
