//! Values of registers and stack slots, relative to an earlier point of the code.

use crate::register::Register;

/// Bytes between the stack pointer at a function's start and the CFA: the return address.
pub(crate) const RETURN_ADDRESS_BYTES: i32 = 8;

/// A value that was there at an earlier point: of a register, or of a stack pointer that has moved
/// by an unknown distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Base(u8);

impl Base {
    /// The stack pointer after it was moved by an unknown distance (`and rsp, -32`, `sub rsp,
    /// rax`).
    pub(crate) const MOVED: Self = Self(32);
    pub(crate) const RSP: Self = Self::of(Register::RSP);
    pub(crate) const RBP: Self = Self::of(Register::RBP);

    /// The register at the earlier point.
    #[inline]
    pub(crate) const fn of(register: Register) -> Self {
        Self(register.number())
    }

    /// The register at a point in the middle of a function, where its relation to the function's
    /// start is not known.
    #[inline]
    pub(crate) const fn midway(register: Register) -> Self {
        Self(16 + register.number())
    }

    /// The register at the earlier point that this is.
    #[inline]
    pub(crate) const fn register(self) -> Option<Register> {
        Register::new(self.0)
    }

    /// Whether memory relative to it is a stack frame.
    #[inline]
    pub(crate) fn is_stack(self) -> bool {
        const MIDWAY_RSP: Base = Base::midway(Register::RSP);
        const MIDWAY_RBP: Base = Base::midway(Register::RBP);
        [Self::RSP, Self::RBP, Self::MOVED, MIDWAY_RSP, MIDWAY_RBP].contains(&self)
    }
}

/// A value, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Unknown,
    /// `base` + `add`.
    Sum {
        base: Base,
        add: i32,
    },
    /// The word that was at `base` + `offset` at the earlier point, plus `add`.
    Word {
        base: Base,
        offset: i32,
        add: i32,
    },
}

impl Value {
    #[inline]
    pub(crate) const fn of(register: Register) -> Self {
        Self::at(Base::of(register), 0)
    }

    #[inline]
    pub(crate) const fn at(base: Base, add: i32) -> Self {
        Self::Sum { base, add }
    }

    #[inline]
    pub(crate) fn plus(self, more: i32) -> Self {
        let sum = |add: i32| add.checked_add(more);
        match self {
            Self::Unknown => Self::Unknown,
            Self::Sum { base, add } => match sum(add) {
                Some(add) => Self::Sum { base, add },
                None => Self::Unknown,
            },
            Self::Word { base, offset, add } => match sum(add) {
                Some(add) => Self::Word { base, offset, add },
                None => Self::Unknown,
            },
        }
    }

    /// The CFA's offset from the value, in a function's own terms, where `rsp` is that of its start.
    pub(crate) fn distance_to_cfa(self) -> Option<i32> {
        match self {
            Self::Sum {
                base: Base::RSP,
                add,
            } => RETURN_ADDRESS_BYTES.checked_sub(add),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn base(self) -> Option<Base> {
        match self {
            Self::Unknown => None,
            Self::Sum { base, .. } | Self::Word { base, .. } => Some(base),
        }
    }
}
