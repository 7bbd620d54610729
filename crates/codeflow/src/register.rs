//! General-purpose registers, and sets of them.

use std::fmt;

/// A general-purpose register by its DWARF number, below 16 (System V ABI for AMD64, figure 3.36).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(u8);

impl Register {
    /// `rax`
    pub const RAX: Self = Self(0);
    /// `rdx`
    pub const RDX: Self = Self(1);
    /// `rcx`
    pub const RCX: Self = Self(2);
    /// `rbx`
    pub const RBX: Self = Self(3);
    /// `rsi`
    pub const RSI: Self = Self(4);
    /// `rdi`
    pub const RDI: Self = Self(5);
    /// `rbp`
    pub const RBP: Self = Self(6);
    /// `rsp`
    pub const RSP: Self = Self(7);

    pub(crate) const R12: Self = Self(12);
    pub(crate) const R13: Self = Self(13);
    pub(crate) const R14: Self = Self(14);
    pub(crate) const R15: Self = Self(15);

    /// The register of a DWARF number.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The DWARF number.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether a call keeps the register: `rbx`, `rbp`, `rsp`, `r12` to `r15`.
    #[inline]
    pub(crate) const fn is_preserved(self) -> bool {
        !RegisterSet::VOLATILE.contains(self)
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// All registers in the order of their numbers.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..16).map(Self)
    }

    /// The whole register of which `register` is a part, if it is a general-purpose one.
    #[inline]
    pub(crate) fn of(register: iced_x86::Register) -> Option<Self> {
        /// DWARF numbers in the order of instructions: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi.
        const NUMBERS: [u8; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
        let full = register.full_register();
        if !full.is_gpr64() {
            return None;
        }
        let number = full as usize - iced_x86::Register::RAX as usize;
        NUMBERS.get(number).copied().map(Self)
    }
}

impl fmt::Display for Register {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"];
        match NAMES.get(self.index()) {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "r{}", self.0),
        }
    }
}

/// A set of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegisterSet(u16);

impl RegisterSet {
    pub(crate) const EMPTY: Self = Self(0);
    /// Registers that a call does not preserve: `rax`, `rdx`, `rcx`, `rsi`, `rdi`, `r8` to `r11`.
    pub(crate) const VOLATILE: Self = Self(0b0000_1111_0011_0111);

    #[inline]
    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    #[inline]
    pub(crate) const fn of(register: Register) -> Self {
        Self(1 << register.0)
    }

    #[inline]
    pub(crate) const fn with(self, register: Register) -> Self {
        Self(self.0 | 1 << register.0)
    }

    #[inline]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[inline]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline]
    pub(crate) const fn contains(self, register: Register) -> bool {
        self.0 >> register.0 & 1 == 1
    }

    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Register> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let number = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            (number < 16).then_some(Register(number as u8))
        })
    }
}
