//! Unwind rules: where a frame's caller is, in the shapes that compilers and people write.
//!
//! Sources: DWARF 5, section 6.4; System V ABI for AMD64, section 3.4 and figure 3.36 (register
//! numbers). Of the 20.9 million rows of 2,500 files of a Debian all but 108 have one of these
//! shapes.
//!
//! Registers that a CFA comes from there; "with a call" are rows in which a call is made meanwhile, so that
//! frames below have to give the register back:
//!
//! | register | rows | with a call | where |
//! | --- | --- | --- | --- |
//! | rsp, rbp | 21.1 million | | |
//! | rbx | 38 | 38 | glibc's lazy binding, `_dl_runtime_resolve` and `_dl_tlsdesc_dynamic`, in each `ld.so` |
//! | r11, rax | 3,005 | 44 | OpenSSL's assembly: calls between its own parts, which keep them |
//! | r13 | 2,291 | 4 | `libmvec`, where it calls the scalar function |
//! | r10, rsi, rcx, r9, rdi, r15, rdx | 20,980 | 0 | |
//!
//! So `rbx` is followed through the frames beside `rsp` and `rbp`, and the others are known in the
//! innermost frame alone.

/// The number of [`Rule::NONE`] among all rules.
pub const NUMBER_OF_NONE: u16 = 0;

/// The number of [`Rule::UNSUPPORTED`] among all rules.
pub const NUMBER_OF_UNSUPPORTED: u16 = 1;

/// Kinds of rules for the canonical frame address (CFA), the stack pointer before the call.
pub mod kind {
    /// No unwind information here: the frame pointer is the best guess.
    pub const NONE: u8 = 0;
    /// CFA = register + `cfa_offset`.
    pub const REGISTER: u8 = 1;
    /// CFA = the word at register + `cfa_offset`, plus `cfa_add`: stacks that were realigned
    /// (`-mstackrealign`, AVX code), where the old stack pointer was put on the new stack.
    pub const DEREFERENCE: u8 = 2;
    /// CFA = `rsp` + `cfa_offset`, and 8 more from byte `cfa_add` of each 16 on: procedure
    /// linkage tables, whose entries push a word halfway.
    pub const LINKAGE: u8 = 3;
    /// The code that a signal handler returns to: all registers lie in the `ucontext` at `rsp`.
    pub const SIGNAL: u8 = 4;
    /// The return address is undefined: the outermost frame.
    pub const END: u8 = 5;
    /// Unwind information of a shape that is not here.
    pub const UNSUPPORTED: u8 = 6;
    /// Code without call frame information whose instructions do not tell where the caller is.
    pub const UNDECIDED: u8 = 7;
    /// As [`REGISTER`], but the caller may be on another stack, as those of Go's functions that run on the scheduler's stack are.
    pub const OTHER_STACK: u8 = 8;
}

/// Sources of rules, as bits.
pub mod source {
    /// Call frame information, or none.
    pub const CALL_FRAME_INFORMATION: u8 = 0;
    /// The code's instructions.
    pub const INSTRUCTIONS: u8 = 1;
    /// With [`INSTRUCTIONS`]: by a path that may not be the one that runs. Of such rows up to 5 % are wrong.
    pub const WEAK: u8 = 2;
}

/// The place of the caller's `rbp`.
pub mod rbp {
    /// In `rbp`: it was not changed.
    pub const SAME: u8 = 0;
    /// In memory at CFA + `rbp_offset`.
    pub const AT_CFA: u8 = 1;
    /// In memory at `rbp` + `rbp_offset`.
    pub const AT_RBP: u8 = 2;
    /// Not known.
    pub const UNKNOWN: u8 = 3;
}

/// The place of the caller's `rbx`. In 240 rows of Intel's vector functions and 10 more it is elsewhere.
pub mod rbx {
    /// In `rbx`: it was not changed.
    pub const SAME: u8 = 0;
    /// In memory at CFA + `rbx_offset`.
    pub const AT_CFA: u8 = 1;
    /// In memory at `rbp` + `rbx_offset`: in functions that realign the stack.
    pub const AT_RBP: u8 = 2;
    /// Not known.
    pub const UNKNOWN: u8 = 3;
}

/// [`Rule::return_register`]: the return address is in memory, at CFA - 8.
pub const RETURN_ON_STACK: u8 = u8::MAX;

/// DWARF number of `rbx`.
pub const RBX: u8 = 3;
/// DWARF number of `rbp`.
pub const RBP: u8 = 6;
/// DWARF number of `rsp`.
pub const RSP: u8 = 7;
/// DWARF number of the return address's column.
pub const RETURN_ADDRESS: u8 = 16;

/// One rule, 16 bytes. Rules are shared: a row names one by its number.
///
/// Offsets from the CFA are small, -344 to 176 bytes in that Debian, but the CFA itself lies up to
/// 524,544 bytes (an array on the stack) from the stack pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Rule {
    /// One of [`kind`].
    pub kind: u8,
    /// DWARF number of the register that the CFA comes from, below 16.
    pub register: u8,
    /// One of [`rbp`].
    pub rbp: u8,
    /// One of [`rbx`].
    pub rbx: u8,
    /// Added to the register, in bytes.
    pub cfa_offset: i32,
    /// DWARF number of the register that holds the return address, or [`RETURN_ON_STACK`].
    pub return_register: u8,
    /// Bits of [`source`].
    pub source: u8,
    /// See [`kind`].
    pub cfa_add: i16,
    /// See [`rbp`].
    pub rbp_offset: i16,
    /// See [`rbx`].
    pub rbx_offset: i16,
}

impl Rule {
    /// The rule of code without unwind information.
    pub const NONE: Self = Self::of_kind(kind::NONE);
    /// The rule of the outermost frame.
    pub const END: Self = Self::of_kind(kind::END);
    /// The rule of the outermost frame in code without call frame information.
    pub const END_BY_INSTRUCTIONS: Self = Self {
        source: source::INSTRUCTIONS,
        ..Self::END
    };
    /// The rule of a signal trampoline.
    pub const SIGNAL: Self = Self::of_kind(kind::SIGNAL);
    /// The rule of call frame information that is not supported.
    pub const UNSUPPORTED: Self = Self::of_kind(kind::UNSUPPORTED);
    /// The rule of code whose instructions do not tell the caller.
    pub const UNDECIDED: Self = Self {
        source: source::INSTRUCTIONS,
        ..Self::of_kind(kind::UNDECIDED)
    };

    const fn of_kind(kind: u8) -> Self {
        Self {
            kind,
            register: 0,
            rbp: rbp::SAME,
            rbx: rbx::SAME,
            cfa_offset: 0,
            return_register: RETURN_ON_STACK,
            source: source::CALL_FRAME_INFORMATION,
            cfa_add: 0,
            rbp_offset: 0,
            rbx_offset: 0,
        }
    }

    /// As two words, which are a rule's form in the kernel's maps.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 2] {
        [
            self.kind as u64
                | (self.register as u64) << 8
                | (self.rbp as u64) << 16
                | (self.rbx as u64) << 24
                | (self.cfa_offset as u32 as u64) << 32,
            self.return_register as u64
                | (self.source as u64) << 8
                | (self.cfa_add as u16 as u64) << 16
                | (self.rbp_offset as u16 as u64) << 32
                | (self.rbx_offset as u16 as u64) << 48,
        ]
    }

    /// The rule of two words. Any words are a rule, if not one that means anything.
    #[inline(always)]
    pub const fn from_words([first, second]: [u64; 2]) -> Self {
        Self {
            kind: first as u8,
            register: (first >> 8) as u8,
            rbp: (first >> 16) as u8,
            rbx: (first >> 24) as u8,
            cfa_offset: (first >> 32) as i32,
            return_register: second as u8,
            source: (second >> 8) as u8,
            cfa_add: (second >> 16) as i16,
            rbp_offset: (second >> 32) as i16,
            rbx_offset: (second >> 48) as i16,
        }
    }

    /// CFA = register + offset, with `rbp` as it is and the return address on the stack.
    pub const fn at_register(register: u8, cfa_offset: i32) -> Self {
        Self {
            register,
            cfa_offset,
            ..Self::of_kind(kind::REGISTER)
        }
    }
}

const _: () = assert!(size_of::<Rule>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each field goes to the words and comes back, negative ones too.
    #[test]
    fn words_and_back() {
        let rule = Rule {
            kind: 1,
            register: 2,
            rbp: 3,
            rbx: 4,
            cfa_offset: i32::MIN + 5,
            return_register: 6,
            source: 7,
            cfa_add: -8,
            rbp_offset: -9,
            rbx_offset: 10,
        };
        assert_eq!(
            rule.to_words(),
            [0x8000_0005_0403_0201, 0x000a_fff7_fff8_0706]
        );
        for words in [rule.to_words(), [0; 2], [u64::MAX; 2], [1 << 63, 1 << 15]] {
            assert_eq!(Rule::from_words(words).to_words(), words);
        }
        assert_eq!(Rule::from_words(rule.to_words()), rule);
    }
}
