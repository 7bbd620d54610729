//! The registers that a walk starts from.

/// What the unwinder knows about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// Instruction pointer: the interrupted instruction, or a return address.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// `rbp`: the frame pointer, if the code keeps one.
    pub bp: u64,
}
