//! One sample's stack, located.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

use profiler_bpf::{
    outcome::Outcome,
    settings::{USER_FRAMES_HEAD, USER_FRAMES_MAX, USER_FRAMES_TAIL},
};

use crate::{
    file::FileFormat,
    process::{FileKind, KernelFrame, MappedFile, Process, ProcessTable},
    sample::{Batch, Sample},
};

/// The outcome of a stack walk, after its addresses were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackOutcome {
    /// The outcome of the kernel side.
    Walked(Outcome),
    /// The walk went through code that had just been replaced, while the kernel still had the old
    /// rows: further frames may be wrong.
    StaleRows,
    /// A return address is outside of all executable memory, so the walk did not follow a real
    /// chain of frame pointers. Keeps the frames before it.
    BadReturnAddress,
    /// The process is unknown, and so are its mappings.
    ProcessUnknown,
    /// The stack was copied, and the copy walked to its end in user space.
    Copied,
}

impl StackOutcome {
    /// The name in metrics and in the profile's label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Walked(outcome) => outcome.name(),
            Self::StaleRows => "stale_rows",
            Self::BadReturnAddress => "bad_return_address",
            Self::ProcessUnknown => "process_unknown",
            Self::Copied => "copied",
        }
    }

    /// Whether the stack was walked to its end.
    pub fn is_complete(self) -> bool {
        match self {
            Self::Walked(outcome) => outcome.is_complete(),
            Self::Copied => true,
            Self::StaleRows | Self::BadReturnAddress | Self::ProcessUnknown => false,
        }
    }

    /// Whether it is the usual outcome, which needs no label.
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Walked(Outcome::Complete | Outcome::KernelOnly))
    }
}

/// A located frame.
#[derive(Clone, Copy, Debug)]
pub struct LocatedFrame<'a> {
    /// The file that contains the code.
    pub file: &'a Arc<MappedFile>,
    /// Offset in that file; for the kernel relative to `_text`.
    pub offset: u64,
    /// Start and end of the mapping; 0 if there is none.
    pub mapped_at: (u64, u64),
    /// Address in the process minus offset, wrapping.
    pub bias: u64,
}

/// A located stack.
pub struct Located<'a> {
    /// Outermost first: user frames, then kernel frames.
    pub frames: Vec<LocatedFrame<'a>>,
    /// The outcome of the walk.
    pub outcome: StackOutcome,
    /// Parent of its process; 0 if unknown.
    pub parent: u32,
    /// The time since which the process id belongs to this process: see [`Process::since_ns`]; 0 if
    /// unknown.
    pub since_ns: u64,
    /// Time of the sample, in nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
}

impl<'a> LocatedFrame<'a> {
    /// A frame outside of all mappings of its process.
    pub fn stand_in(file: &'a Arc<MappedFile>, offset: u64) -> Self {
        Self {
            file,
            offset,
            mapped_at: (0, 0),
            bias: 0,
        }
    }

    /// Identifies a frame in JIT code by its address, so that one piece of memory is one file even
    /// if it has several mappings.
    pub fn in_made_memory(self) -> Self {
        if self.file.format.get() != Some(&FileFormat::Memory) {
            return self;
        }
        Self {
            offset: self.offset.wrapping_add(self.bias),
            bias: 0,
            ..self
        }
    }
}

/// Substitutes for the files of frames without one.
pub struct StandIns {
    no_mapping: Arc<MappedFile>,
    no_process: Arc<MappedFile>,
    left_out: Arc<MappedFile>,
}

impl StandIns {
    /// The stand-ins of this table.
    pub fn new(table: &mut ProcessTable) -> Self {
        Self {
            no_mapping: table.stand_in(FileKind::NoMapping),
            no_process: table.stand_in(FileKind::NoProcess),
            left_out: table.stand_in(FileKind::LeftOut),
        }
    }
}

/// A stack as addresses.
pub struct Addresses<'a> {
    /// User frames, innermost first.
    pub user: Cow<'a, [u64]>,
    /// Index in `user` after which frames are left out, if any are.
    pub left_out_after: Option<usize>,
    /// Whether the first address is the interrupted instruction itself, not a return address.
    pub is_leaf_exact: bool,
    /// Kernel frames, innermost first.
    pub kernel: Cow<'a, [u64]>,
    /// The outcome of the walk.
    pub outcome: StackOutcome,
    /// Whether the kernel side walked the stack by its rows.
    pub is_walked_in_kernel: bool,
}

impl<'a> Addresses<'a> {
    /// The kernel's frames as addresses of instructions, innermost first.
    pub fn kernel_instructions(&self) -> impl Iterator<Item = u64> {
        let is_return = (0..).map(|depth| u64::from(depth > 0));
        let frames = self.kernel.iter().zip(is_return);
        frames.map(|(address, is_return)| address.wrapping_sub(is_return))
    }

    /// The stack as the kernel walked it.
    pub fn of_sample(batch: &'a Batch, sample: &Sample) -> Self {
        let user = batch.user_frames(sample);
        let left_out_after = (sample.user_walked > user.len()).then_some(USER_FRAMES_HEAD);
        let user = match left_out_after {
            None => Cow::Borrowed(user),
            Some(_) => {
                // The last frames form a ring buffer: the oldest is at the position of the next
                // write.
                let mut user = user.to_vec();
                if let Some(tail) = user.get_mut(USER_FRAMES_HEAD..) {
                    let oldest = sample.user_walked % USER_FRAMES_TAIL;
                    tail.rotate_left(oldest.min(tail.len()));
                }
                Cow::Owned(user)
            }
        };
        Self {
            user,
            left_out_after,
            is_leaf_exact: sample.user_leaf_exact,
            kernel: batch.kernel_frames(sample).into(),
            outcome: StackOutcome::Walked(sample.outcome),
            // A walk that ended because rows were missing noticed the change in the kernel.
            is_walked_in_kernel: sample.version != 0 && sample.outcome != Outcome::NoRows,
        }
    }

    /// A stack that was walked completely in user space.
    pub fn of_copy(
        mut user: Vec<u64>,
        outcome: Outcome,
        is_leaf_exact: bool,
        kernel: Vec<u64>,
    ) -> Self {
        let is_deep = user.len() > USER_FRAMES_MAX;
        if is_deep {
            user.drain(USER_FRAMES_HEAD..user.len() - USER_FRAMES_TAIL);
        }
        Self {
            user: Cow::Owned(user),
            left_out_after: is_deep.then_some(USER_FRAMES_HEAD),
            is_leaf_exact,
            kernel: Cow::Owned(kernel),
            outcome: match outcome {
                Outcome::Complete | Outcome::ByInstructions if is_deep => {
                    StackOutcome::Walked(Outcome::MiddleLeftOut)
                }
                Outcome::Complete => StackOutcome::Copied,
                outcome => StackOutcome::Walked(outcome),
            },
            is_walked_in_kernel: false,
        }
    }
}

/// Locates a sample's frames at `time_ns`; kernel frames are located already.
///
/// The offset is that of an instruction in the frame's own function: a return address is the
/// address after the call, which may belong to the next function, so it is decremented by one.
pub fn locate_stack<'a>(
    addresses: &Addresses<'_>,
    time_ns: u64,
    process: Option<&'a Process>,
    kernel_frames: &'a [KernelFrame],
    stand_ins: &'a StandIns,
) -> Located<'a> {
    let Addresses {
        user,
        left_out_after,
        is_leaf_exact,
        kernel: _,
        outcome,
        is_walked_in_kernel,
    } = addresses;
    let mut outcome = *outcome;
    let mut frames = Vec::with_capacity(user.len() + kernel_frames.len() + 1);
    match process {
        None if user.is_empty() => {}
        None => {
            outcome = StackOutcome::ProcessUnknown;
            frames.push(LocatedFrame::stand_in(&stand_ins.no_process, 0));
        }
        Some(process) => {
            for (depth, &address) in user.iter().enumerate() {
                if *left_out_after == Some(depth) {
                    frames.push(LocatedFrame::stand_in(&stand_ins.left_out, 0));
                }
                let is_return = depth > 0 || !is_leaf_exact;
                let address = address.wrapping_sub(u64::from(is_return));
                match process.mappings.find(address) {
                    Some(mapping) => {
                        mapping.file.used_ns.store(time_ns, Ordering::Relaxed);
                        if *is_walked_in_kernel && time_ns < mapping.stale_rows_until_ns() {
                            outcome = StackOutcome::StaleRows;
                        }
                        frames.push(LocatedFrame {
                            file: &mapping.file,
                            offset: mapping.offset_of(address),
                            mapped_at: (mapping.start, mapping.end),
                            bias: mapping.start.wrapping_sub(mapping.file_offset),
                        });
                    }
                    // The processor did execute at this address, so the callers may still be right.
                    None if depth == 0 => {
                        frames.push(LocatedFrame::stand_in(&stand_ins.no_mapping, 0));
                    }
                    None => {
                        outcome = StackOutcome::BadReturnAddress;
                        break;
                    }
                }
            }
            frames.reverse();
        }
    }
    let kernel = kernel_frames.iter().rev();
    frames.extend(kernel.map(|frame| LocatedFrame::stand_in(&frame.file, frame.offset)));
    Located {
        frames,
        outcome,
        parent: process.map_or(0, |process| process.parent),
        since_ns: process.map_or(0, |process| process.since_ns),
        time_ns,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A complete stack of these frames, outermost first, of an unknown process.
    pub(crate) fn complete(frames: Vec<LocatedFrame<'_>>) -> Located<'_> {
        Located {
            frames,
            outcome: StackOutcome::Walked(Outcome::Complete),
            parent: 0,
            since_ns: 0,
            time_ns: 0,
        }
    }
}
