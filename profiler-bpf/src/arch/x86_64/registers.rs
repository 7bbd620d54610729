//! The registers that a walk starts from.

/// The registers of a frame that the unwinder knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// Instruction pointer: the interrupted instruction, or a return address.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// `rbp`: the frame pointer, if the code keeps one; or [`UNKNOWN_BP`].
    pub bp: u64,
    /// `rbx`, or with [`SAVED`] the address of the word that it was saved in.
    ///
    /// Most functions save it and few frames ask for it, so that a walk only keeps where it is: that
    /// takes an addition a frame, no read. A walk begins with the register's value, which needs no
    /// check: no stack pointer has [`SAVED`] set.
    pub bx: u64,
}

/// Bit of [`Registers::bx`]: no user address has it.
pub const SAVED: u64 = 1 << 63;

/// [`Registers::bx`] when it is not known: no stack is at 0.
pub const UNKNOWN: u64 = 0;

/// [`Registers::bp`] when it is not known: no frame is there, and 0 would be the end of a chain of frame pointers.
pub const UNKNOWN_BP: u64 = 1;

const _: () = assert!(size_of::<Registers>() == 32);
