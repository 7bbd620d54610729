//! One sample's stack, located.

use std::sync::Arc;

use profiler_bpf::outcome::Outcome;

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
    /// A return address lies in nothing executable: what was followed was no
    /// chain of frame pointers. The frames before it are kept.
    BadReturnAddress,
    /// Nothing is known of the process: its addresses mean nothing.
    ProcessUnknown,
}

impl StackOutcome {
    /// Its name in metrics and in the profile's label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Walked(outcome) => outcome.name(),
            Self::BadReturnAddress => "bad_return_address",
            Self::ProcessUnknown => "process_unknown",
        }
    }

    /// Whether the stack has all the frames it should have.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Walked(outcome) if outcome.is_complete())
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
}

impl StandIns {
    /// The stand-ins of this table.
    pub fn new(table: &mut ProcessTable) -> Self {
        Self {
            kernel: table.kernel().clone(),
            no_mapping: table.stand_in(FileKind::NoMapping),
            no_process: table.stand_in(FileKind::NoProcess),
        }
    }
}

/// Locates a sample's frames.
///
/// The offset is that of an instruction in the frame's own code: a return address
/// is the one behind the call, which may belong to the next function already, so
/// that one is taken off.
pub fn locate_stack<'a>(
    batch: &Batch,
    sample: &Sample,
    process: Option<&'a Process>,
    kernel_text: KernelText,
    stand_ins: &'a StandIns,
) -> Located<'a> {
    let mut outcome = StackOutcome::Walked(sample.outcome);
    let user = batch.user_frames(sample);
    let kernel = batch.kernel_frames(sample);
    let mut frames = Vec::with_capacity(user.len() + kernel.len());
    match process {
        None if user.is_empty() => {}
        None => {
            outcome = StackOutcome::ProcessUnknown;
            frames.push(LocatedFrame::stand_in(&stand_ins.no_process, 0));
        }
        Some(process) => {
            for (depth, &address) in user.iter().enumerate() {
                let is_return = depth > 0 || !sample.user_leaf_exact;
                let address = address.wrapping_sub(u64::from(is_return));
                match process.mappings.find(address) {
                    Some(mapping) => frames.push(LocatedFrame {
                        file: &mapping.file,
                        offset: mapping.offset_of(address),
                        mapped_at: (mapping.start, mapping.end),
                    }),
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
    Located { frames, outcome }
}
