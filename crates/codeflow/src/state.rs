//! Registers and stack slots at a point of the code, relative to an earlier one.

use crate::operation::Operation;
use crate::register::{Register, RegisterSet};
use crate::slot::{Memory, Slot, WORD_BYTES, read_slots};
use crate::value::{Base, Value};

/// Slots that a state keeps. Functions save at most 6 registers; the others are spilled values, of
/// which a block stores a few.
const SLOTS_MAX: usize = 24;

/// Values of all registers, and of the words stored since the earlier point.
#[derive(Clone, Debug)]
pub(crate) struct State {
    registers: [Value; 16],
    slots: Vec<Slot>,
    memory: Memory,
}

impl State {
    /// The state at the earlier point itself.
    pub(crate) fn identity() -> Self {
        let mut registers = [Value::Unknown; 16];
        for register in Register::all() {
            registers[register.index()] = Value::of(register);
        }
        Self::new(registers, Memory::Earlier)
    }

    pub(crate) fn new(registers: [Value; 16], memory: Memory) -> Self {
        Self {
            registers,
            slots: Vec::new(),
            memory,
        }
    }

    /// Goes back to the earlier point, and keeps the allocation.
    pub(crate) fn reset(&mut self) {
        for register in Register::all() {
            self.registers[register.index()] = Value::of(register);
        }
        self.slots.clear();
        self.memory = Memory::Earlier;
    }

    /// Becomes a copy of another state, and keeps the allocation.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.registers = other.registers;
        self.slots.clear();
        self.slots.extend_from_slice(&other.slots);
        self.memory = other.memory;
    }

    #[inline]
    pub(crate) fn get(&self, register: Register) -> Value {
        self.registers[register.index()]
    }

    /// Registers of which something is known.
    pub(crate) fn known(&self) -> RegisterSet {
        let known = Register::all().filter(|register| self.get(*register) != Value::Unknown);
        known.fold(RegisterSet::EMPTY, RegisterSet::with)
    }

    pub(crate) fn set(&mut self, register: Register, value: Value) {
        self.registers[register.index()] = value;
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Executes an instruction. Whether any value or slot is another one now.
    #[inline]
    pub(crate) fn step(&mut self, operation: &Operation) -> bool {
        match *operation {
            Operation::None => false,
            Operation::Clobber(registers) => self.clobber(registers),
            Operation::Copy {
                to: Register::RSP,
                from: Register::RSP,
                add,
            } => self.move_stack(add),
            Operation::Copy { to, from, add } => self.assign(to, self.get(from).plus(add)),
            Operation::Address { to, .. } => self.assign(to, Value::Unknown),
            Operation::Load { to, base, offset } => self.assign(to, self.load(base, offset)),
            Operation::Store { base, offset, from } => {
                self.store(self.get(base).plus(offset), WORD_BYTES, self.get(from))
            }
            Operation::Overwrite {
                base,
                offset,
                bytes,
            } => self.store(self.get(base).plus(offset), bytes, Value::Unknown),
            Operation::Push(from) => {
                let value = self.get(from);
                self.move_stack(-8);
                self.store(self.get(Register::RSP), WORD_BYTES, value);
                true
            }
            Operation::MoveStack { add } => {
                self.move_stack(add);
                let pushed = u16::try_from(add.saturating_neg()).unwrap_or(0);
                self.store(self.get(Register::RSP), pushed, Value::Unknown);
                true
            }
            Operation::Pop(to) => self.pop(to),
            Operation::Leave => {
                self.assign(Register::RSP, self.get(Register::RBP));
                self.pop(Register::RBP)
            }
            // The callee's frame is below the stack pointer now.
            Operation::Call => self.clobber(RegisterSet::VOLATILE) | self.forget_freed(),
        }
    }

    fn clobber(&mut self, registers: RegisterSet) -> bool {
        let mut is_changed = false;
        for register in registers.iter() {
            is_changed |= self.assign(register, Value::Unknown);
        }
        is_changed
    }

    fn pop(&mut self, to: Register) -> bool {
        let value = self.load(Register::RSP, 0);
        self.move_stack(8);
        self.assign(to, value);
        true
    }

    fn move_stack(&mut self, add: i32) -> bool {
        self.assign(Register::RSP, self.get(Register::RSP).plus(add));
        if add > 0 {
            self.forget_freed();
        }
        true
    }

    /// Forgets the contents of slots below the stack pointer.
    fn forget_freed(&mut self) -> bool {
        let Value::Sum { base, add } = self.get(Register::RSP) else {
            return false;
        };
        let is_freed = |slot: &Slot| slot.base == base && slot.offset < add;
        if !self.slots.iter().any(is_freed) {
            return false;
        }
        match self.memory {
            Memory::Unknown => self.slots.retain(|slot| !is_freed(slot)),
            Memory::Earlier => {
                for slot in self.slots.iter_mut().filter(|slot| is_freed(slot)) {
                    slot.value = Value::Unknown;
                }
            }
        }
        true
    }

    #[inline]
    fn assign(&mut self, register: Register, value: Value) -> bool {
        let mut value = value;
        if register == Register::RSP && value == Value::Unknown {
            self.forget(Base::MOVED);
            value = Value::at(Base::MOVED, 0);
        }
        std::mem::replace(&mut self.registers[register.index()], value) != value
    }

    /// Forgets all values relative to `base`, which gets another meaning.
    fn forget(&mut self, base: Base) {
        self.slots.retain(|slot| slot.base != base);
        let values = self.slots.iter_mut().map(|slot| &mut slot.value);
        for value in self.registers.iter_mut().chain(values) {
            if value.base() == Some(base) {
                *value = Value::Unknown;
            }
        }
    }

    #[inline]
    fn load(&self, base: Register, offset: i32) -> Value {
        self.read(self.get(base).plus(offset))
    }

    /// The word at an address.
    #[inline]
    pub(crate) fn read(&self, address: Value) -> Value {
        let Value::Sum { base, add } = address else {
            return Value::Unknown;
        };
        read_slots(&self.slots, self.memory, base, add)
    }

    fn store(&mut self, address: Value, bytes: u16, value: Value) -> bool {
        let Value::Sum { base, add: offset } = address else {
            return false;
        };
        if !base.is_stack() || bytes == 0 {
            return false;
        }
        let stored = Slot {
            base,
            bytes,
            offset,
            value,
        };
        let slots = self.slots.len();
        self.slots.retain(|slot| !slot.overlaps(&stored));
        if self.memory == Memory::Unknown && !is_useful(base, value) {
            return self.slots.len() != slots;
        }
        if self.slots.len() < SLOTS_MAX {
            self.slots.push(stored);
        } else {
            self.memory = Memory::Unknown;
        }
        true
    }

    /// Adds the contents of a slot that is known otherwise than by a store.
    pub(crate) fn add_slot(&mut self, slot: Slot) {
        if self.slots.len() < SLOTS_MAX {
            self.slots.push(slot);
        }
    }

    /// Whether all that is known in this state holds in the other one too.
    pub(crate) fn holds_in(&self, other: &Self) -> bool {
        let mut registers = self.registers.iter().zip(&other.registers);
        registers.all(|(value, theirs)| *value == Value::Unknown || value == theirs)
            && self.slots.iter().all(|slot| other.slots.contains(slot))
    }

    /// Keeps only what holds in both states.
    pub(crate) fn meet(&mut self, other: &Self) {
        for (value, theirs) in self.registers.iter_mut().zip(&other.registers) {
            if *value != *theirs {
                *value = Value::Unknown;
            }
        }
        self.slots.retain(|slot| other.slots.contains(slot));
    }

    /// A value in terms of the earlier point, of one in terms of this point.
    #[inline]
    pub(crate) fn resolve(&self, value: Value) -> Value {
        resolve(
            value,
            |register| self.get(register),
            |address| self.read(address),
        )
    }
}

/// Whether a stored value can lead to the caller's registers, in a state that begins at a
/// function's start.
fn is_useful(base: Base, value: Value) -> bool {
    match value {
        // Where the slot's own place leads to the frame, a pointer to the frame is of no more use.
        Value::Sum {
            base: Base::RSP, ..
        } => base != Base::RSP,
        Value::Sum { base, add: 0 } => base.register().is_some(),
        _ => false,
    }
}

#[inline]
pub(crate) fn resolve(
    value: Value,
    get: impl Fn(Register) -> Value,
    read: impl Fn(Value) -> Value,
) -> Value {
    let of = |base: Base| base.register().map_or(Value::Unknown, &get);
    match value {
        Value::Unknown => Value::Unknown,
        Value::Sum { base, add } => of(base).plus(add),
        Value::Word { base, offset, add } => read(of(base).plus(offset)).plus(add),
    }
}
