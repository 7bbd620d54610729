//! One sample's stack, located.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

use profiler_bpf::{
    outcome::Outcome,
    settings::{USER_FRAMES_HEAD, USER_FRAMES_MAX, USER_FRAMES_TAIL},
};

use super::KernelText;
use crate::{
    process::{FileKind, MappedFile, Process, ProcessTable},
    sample::{Batch, Sample},
};

/// How a stack ended, after its addresses were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackOutcome {
    /// As the kernel side said.
    Walked(Outcome),
    /// The walk went through code that had just taken the place of other code, of which the kernel
    /// had the rows still: frames from there on may be wrong.
    StaleRows,
    /// A return address lies in nothing executable: what was followed was no
    /// chain of frame pointers. The frames before it are kept.
    BadReturnAddress,
    /// Nothing is known of the process: its addresses mean nothing.
    ProcessUnknown,
    /// The stack was copied, and walked to its end in user space.
    Copied,
}

impl StackOutcome {
    /// Its name in metrics and in the profile's label `outcome`.
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

    /// Whether there is nothing to say of it: it is what every stack should be.
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Walked(Outcome::Complete | Outcome::KernelOnly))
    }
}

/// A located frame.
#[derive(Clone, Copy, Debug)]
pub struct LocatedFrame<'a> {
    /// The file that its code is in.
    pub file: &'a Arc<MappedFile>,
    /// Offset in that file; for the kernel relative to `_text`.
    pub offset: u64,
    /// First address of the mapping, and the first behind it; 0 where there is none.
    pub mapped_at: (u64, u64),
}

/// A located stack.
pub struct Located<'a> {
    /// Outermost first: user frames, then kernel frames.
    pub frames: Vec<LocatedFrame<'a>>,
    /// How it ended.
    pub outcome: StackOutcome,
    /// Number of the process that made the one it is of; 0 if not known.
    pub parent: u32,
}

impl<'a> LocatedFrame<'a> {
    /// A frame that lies in no mapping of a process.
    pub fn stand_in(file: &'a Arc<MappedFile>, offset: u64) -> Self {
        Self {
            file,
            offset,
            mapped_at: (0, 0),
        }
    }
}

/// What stands for frames without a file.
pub struct StandIns {
    kernel: Arc<MappedFile>,
    no_mapping: Arc<MappedFile>,
    no_process: Arc<MappedFile>,
    left_out: Arc<MappedFile>,
}

impl StandIns {
    /// The stand-ins of this table.
    pub fn new(table: &mut ProcessTable) -> Self {
        Self {
            kernel: table.kernel().clone(),
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
    /// After how many of them some were left out, if so.
    pub left_out_after: Option<usize>,
    /// Whether the first of them is the interrupted instruction itself.
    pub is_leaf_exact: bool,
    /// Kernel frames, innermost first.
    pub kernel: &'a [u64],
    /// How the walk ended.
    pub outcome: StackOutcome,
    /// Whether the kernel's rows led to the frames.
    pub is_walked_in_kernel: bool,
}

impl<'a> Addresses<'a> {
    /// The stack as the kernel walked it.
    pub fn of_sample(batch: &'a Batch, sample: &Sample) -> Self {
        let user = batch.user_frames(sample);
        let left_out_after = (sample.user_walked > user.len()).then_some(USER_FRAMES_HEAD);
        let user = match left_out_after {
            None => Cow::Borrowed(user),
            Some(_) => {
                // The last frames lie as in a ring, whose oldest is where the next would be.
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
            kernel: batch.kernel_frames(sample),
            outcome: StackOutcome::Walked(sample.outcome),
            // A walk that ended for want of rows ended where the kernel knew of the change.
            is_walked_in_kernel: sample.version != 0 && sample.outcome != Outcome::NoRows,
        }
    }

    /// A stack that was walked in user space, all frames of it.
    pub fn of_copy(
        mut user: Vec<u64>,
        outcome: Outcome,
        is_leaf_exact: bool,
        kernel: &'a [u64],
    ) -> Self {
        let is_deep = user.len() > USER_FRAMES_MAX;
        if is_deep {
            user.drain(USER_FRAMES_HEAD..user.len() - USER_FRAMES_TAIL);
        }
        Self {
            user: Cow::Owned(user),
            left_out_after: is_deep.then_some(USER_FRAMES_HEAD),
            is_leaf_exact,
            kernel,
            outcome: match outcome {
                Outcome::Complete if is_deep => StackOutcome::Walked(Outcome::MiddleLeftOut),
                Outcome::Complete => StackOutcome::Copied,
                outcome => StackOutcome::Walked(outcome),
            },
            is_walked_in_kernel: false,
        }
    }
}

/// Locates a sample's frames, taken at `time_ns`.
///
/// The offset is that of an instruction in the frame's own code: a return address
/// is the one behind the call, which may belong to the next function already, so
/// that one is taken off.
pub fn locate_stack<'a>(
    addresses: &Addresses<'_>,
    time_ns: u64,
    process: Option<&'a Process>,
    kernel_text: KernelText,
    stand_ins: &'a StandIns,
) -> Located<'a> {
    let Addresses {
        user,
        left_out_after,
        is_leaf_exact,
        kernel,
        outcome,
        is_walked_in_kernel,
    } = addresses;
    let mut outcome = *outcome;
    let mut frames = Vec::with_capacity(user.len() + kernel.len() + 1);
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
                        if *is_walked_in_kernel && time_ns < mapping.unsteady_until_ns() {
                            outcome = StackOutcome::StaleRows;
                        }
                        frames.push(LocatedFrame {
                            file: &mapping.file,
                            offset: mapping.offset_of(address),
                            mapped_at: (mapping.start, mapping.end),
                        });
                    }
                    // The processor did execute there: its callers may be right all the same.
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
    for (depth, &address) in kernel.iter().enumerate().rev() {
        let address = address.wrapping_sub(u64::from(depth > 0));
        let offset = address.wrapping_sub(kernel_text.0);
        frames.push(LocatedFrame::stand_in(&stand_ins.kernel, offset));
    }
    Located {
        frames,
        outcome,
        parent: process.map_or(0, |it| it.parent),
    }
}
