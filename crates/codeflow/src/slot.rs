//! Parts of the stack that were stored to.

use crate::value::{Base, Value};

/// Bytes below the stack pointer that signal handlers leave alone (System V ABI for AMD64, section
/// 3.2.2).
const RED_ZONE_BYTES: i32 = 128;

/// Bytes of a word.
pub(crate) const WORD_BYTES: u16 = 8;

/// A part of the stack that was stored to since the earlier point: a word, or other bytes with
/// unknown values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) base: Base,
    pub(crate) bytes: u16,
    pub(crate) offset: i32,
    pub(crate) value: Value,
}

impl Slot {
    /// A word at `base` + `offset`.
    pub(crate) fn word(base: Base, offset: i32, value: Value) -> Self {
        Self {
            base,
            bytes: WORD_BYTES,
            offset,
            value,
        }
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.base == other.base
            && self.offset < other.offset.saturating_add(other.bytes.into())
            && other.offset < self.offset.saturating_add(self.bytes.into())
    }
}

/// Contents of memory without a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// As it was at the earlier point.
    Earlier,
    Unknown,
}

/// The word at a place, by the slots.
enum Found {
    Value(Value),
    Overwritten,
    Absent,
}

/// The word at `base` + `offset`.
#[inline]
pub(crate) fn read_slots(slots: &[Slot], memory: Memory, base: Base, offset: i32) -> Value {
    match find_slot(slots, base, offset) {
        Found::Value(value) => value,
        Found::Absent if memory == Memory::Earlier && base.register().is_some() => {
            // Below the stack pointer nothing was saved, but in the red zone.
            if base == Base::RSP && offset < -RED_ZONE_BYTES {
                return Value::Unknown;
            }
            Value::Word {
                base,
                offset,
                add: 0,
            }
        }
        Found::Absent | Found::Overwritten => Value::Unknown,
    }
}

#[inline]
fn find_slot(slots: &[Slot], base: Base, offset: i32) -> Found {
    let word = Slot::word(base, offset, Value::Unknown);
    match slots.iter().find(|slot| slot.overlaps(&word)) {
        Some(slot) if slot.offset == offset && slot.bytes == WORD_BYTES => Found::Value(slot.value),
        Some(_) => Found::Overwritten,
        None => Found::Absent,
    }
}
