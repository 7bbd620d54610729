//! Where the caller of a Go function is, by the depths of the stack in Go's own table (`pcsp`): x86-64, Go 1.18 to 1.26.
//!
//! The table has a function's depth at every instruction: the bytes between the stack pointer and the return address. So the rows are
//! exact in prologues and epilogues too. Stripping leaves them, and the linker makes `.debug_frame` of them: at each of the 2,554,907
//! instructions of Go's compiler (1.26) both have the same canonical frame address (CFA), and so have programs of Go 1.18, 1.20 and
//! 1.21. The instructions themselves ([`codeflow::Function`]) decide 1,702,975 of them, and say otherwise at 3 that end the program.
//!
//! Each function with a frame saves the frame pointer below the return address, which neither `pcsp` nor `.debug_frame` says. From
//! where on is read from its first instructions.
//!
//! # Functions that switch stacks
//!
//! `systemstack`, `asmcgocall`, `cgocallback`, calls of the vDSO and some others load another stack pointer: their depths hold on no
//! stack. The linker marks them (`SPWRITE`). Those with a frame leave its pointer alone, and it leads back to the stack that they came
//! from: over `systemstack` to the goroutine that allocates, over `asmcgocall` to the caller of C code, over `cgocallback` to the C code
//! that called back. So neither `g0.sched` nor `m.curg` is needed, which lie elsewhere in each version.
//!
//! Without a frame there is no row: `systemstack`, `asmcgocall` and `mcall` up to Go 1.20, and in all versions `morestack`, `gogo` and
//! `clone`. `mcall` clears the frame pointer. The goroutine that called it is put aside, and what runs on the scheduler's stack then has
//! no caller: it is an end.
//!
//! # Ends
//!
//! The runtime marks its own outermost functions (`TOPFRAME`): `goexit`, `mstart`, `rt0_go`. The program's entry jumps to the last. `sigtramp` is marked and is none: the kernel
//! calls it with a signal's frame, and `sigreturn` has that.

use std::ops::Range;

use elf::ReadAt;

use super::GoFile;
use super::prologue::{CODE_BYTES, Prologue, release_bytes};
use super::table::{StackRecord, Version};

/// Functions that are read: ten times those of Kubernetes.
const FUNCTIONS_MAX: u64 = 2 << 20;

/// Steps of the tables of all functions, each one depth: a program has 8 a function. More are not read.
const STEPS_MAX: usize = 16 << 20;

/// Flag of a function at which the runtime's own unwinder ends.
const TOPFRAME: u8 = 1;
/// Flag of a function that loads the stack pointer.
const SPWRITE: u8 = 2;

/// The system call that ends a signal's handler: `mov rax, 15; syscall`.
const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// Entries of a program, which jump to `rt0_go`.
const ENTRIES: [&str; 2] = ["_rt0_amd64", "_rt0_amd64_linux"];

/// Where the caller of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The CFA is `rsp` plus so many bytes; the return address is below it.
    AtStackPointer {
        /// Bytes up to the CFA.
        cfa: u32,
        /// Whether the caller's `rbp` is at the CFA - 16, and not in `rbp`.
        is_pointer_saved: bool,
    },
    /// The CFA is `rbp` + 16, which may be on another stack, and the caller's `rbp` is where `rbp` points to.
    AtFramePointer,
    /// `rsp` points to the registers of the code that a signal interrupted.
    Signal,
    /// There is none: it is the outermost frame.
    End,
    /// On another stack, which no register leads to.
    Unknown,
}

/// Kinds of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It stays on its stack.
    Ordinary,
    /// It loads another stack pointer.
    SwitchesStacks,
    /// It loads the scheduler's stack pointer, and the goroutine that called it is put aside.
    LeavesGoroutine,
    /// The outermost one of a stack.
    Outermost,
    /// A signal's handler returns to it.
    SignalReturn,
}

/// The rows of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionFrames {
    /// Addresses as linked.
    pub range: Range<u64>,
    /// Its kind.
    pub kind: Kind,
    /// Addresses in ascending order, and the caller from each on.
    pub rows: Vec<(u64, Caller)>,
}

/// A stretch of code with one depth.
#[derive(Clone, Copy, Debug)]
struct Step {
    start: u64,
    end: u64,
    depth: u32,
}

impl<R: ReadAt> GoFile<R> {
    /// The rows of all functions, in the order of the table. Functions whose depths cannot be read are left out; there are none in
    /// tables of other versions.
    pub fn frames(&self) -> impl Iterator<Item = FunctionFrames> {
        let functions = match self.table.version {
            Version::Go12 | Version::Go116 => 0,
            Version::Go118 | Version::Go120 => self.table.functions.min(FUNCTIONS_MAX),
        };
        let mut steps_left = STEPS_MAX;
        (0..functions).filter_map(move |index| self.read_frames(index, &mut steps_left))
    }

    fn read_frames(&self, index: u64, steps_left: &mut usize) -> Option<FunctionFrames> {
        let record = self.table.stack_record(&self.file, index)?;
        let steps = self.read_steps(&record, steps_left)?;
        let range = steps.first()?.start..steps.last()?.end;
        let kind = self.find_kind(&record, &steps);
        let prologue = self.read_prologue(&steps);
        let rows = match kind {
            Kind::Outermost => vec![(range.start, Caller::End)],
            Kind::SignalReturn => vec![(range.start, Caller::Signal)],
            Kind::Ordinary => rows_on_stack(&steps, prologue),
            Kind::SwitchesStacks => self.rows_of_switch(&steps, prologue),
            Kind::LeavesGoroutine => end_deepest(&steps, self.rows_of_switch(&steps, prologue)),
        };
        Some(FunctionFrames { range, kind, rows })
    }

    fn read_steps(&self, record: &StackRecord, steps_left: &mut usize) -> Option<Vec<Step>> {
        let mut start = self.module.text.checked_add(record.entry)?;
        let mut steps = Vec::new();
        for (bytes, depth) in self.table.depths(&self.file, record) {
            *steps_left = steps_left.checked_sub(1)?;
            let end = start.checked_add(bytes)?;
            let depth = u32::try_from(depth).ok()?;
            if end > start {
                steps.push(Step { start, end, depth });
            }
            start = end;
        }
        Some(steps)
    }

    fn find_kind(&self, record: &StackRecord, steps: &[Step]) -> Kind {
        let is_flat = steps.iter().all(|step| step.depth == 0);
        let start = steps.first().map_or(0, |step| step.start);
        if is_flat && self.read_code(start) == Some(SIGRETURN) {
            return Kind::SignalReturn;
        }
        let name = || self.table.read_function_name(&self.file, record.name);
        if is_flat && name().is_some_and(|name| ENTRIES.contains(&&*name)) {
            return Kind::Outermost;
        }
        let is_named = |part| name().is_some_and(|name| name.to_ascii_lowercase().contains(part));
        match record.flags {
            flags if flags & TOPFRAME != 0 && !is_named("sigtramp") => Kind::Outermost,
            flags if flags & SPWRITE != 0 && is_named("runtime.mcall") => Kind::LeavesGoroutine,
            flags if flags & SPWRITE != 0 => Kind::SwitchesStacks,
            _ => Kind::Ordinary,
        }
    }

    fn read_prologue(&self, steps: &[Step]) -> Option<Prologue> {
        let frame = steps.iter().find(|step| step.depth > 0)?;
        let code: [u8; CODE_BYTES] = self.read_code(frame.start.checked_sub(1)?)?;
        Prologue::decode(&code, frame.start, frame.depth)
    }

    fn read_code<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.file.read_array(self.program.offset_of(address)?)
    }

    /// In the frame of such a function, only the frame pointer leads to its caller.
    fn rows_of_switch(&self, steps: &[Step], prologue: Option<Prologue>) -> Vec<(u64, Caller)> {
        let start = steps.first().map_or(0, |step| step.start);
        let Some((prologue, pointer_from)) =
            prologue.and_then(|prologue| Some((prologue, prologue.pointer_from?)))
        else {
            return vec![(start, Caller::Unknown)];
        };
        let mut rows = Vec::new();
        for step in steps {
            let has_frame = step.depth > 0 && step.end > pointer_from;
            if !has_frame || step.start < pointer_from {
                rows.extend(row_on_stack(step, Some(prologue)));
            }
            if has_frame {
                rows.push((step.start.max(pointer_from), Caller::AtFramePointer));
                if prologue.is_restored_early {
                    rows.extend(self.find_release(step));
                }
            }
        }
        rows
    }

    /// The row of the instruction that gives a frame back: the frame pointer is the caller's again, and the stack is the function's.
    fn find_release(&self, step: &Step) -> Option<(u64, Caller)> {
        let bytes = release_bytes(&self.read_code(step.end.checked_sub(7)?)?)?;
        let start = step.end.checked_sub(bytes)?;
        (start > step.start).then_some((start, on_stack(step.depth, true)))
    }
}

const fn on_stack(depth: u32, is_pointer_saved: bool) -> Caller {
    Caller::AtStackPointer {
        cfa: depth.saturating_add(8),
        is_pointer_saved,
    }
}

fn rows_on_stack(steps: &[Step], prologue: Option<Prologue>) -> Vec<(u64, Caller)> {
    steps
        .iter()
        .flat_map(|step| row_on_stack(step, prologue))
        .collect()
}

/// One row, or two where the frame pointer is saved within a step.
fn row_on_stack(step: &Step, prologue: Option<Prologue>) -> impl Iterator<Item = (u64, Caller)> {
    let saved_from = match prologue {
        Some(prologue) if step.depth > 0 => prologue.saved_from.max(step.start),
        _ => u64::MAX,
    };
    let before = (step.start < saved_from).then_some((step.start, on_stack(step.depth, false)));
    let after = (saved_from < step.end).then_some((saved_from, on_stack(step.depth, true)));
    before.into_iter().chain(after)
}

/// Where the stack is deepest, the function calls what never returns.
fn end_deepest(steps: &[Step], mut rows: Vec<(u64, Caller)>) -> Vec<(u64, Caller)> {
    if let Some(deepest) = steps.iter().max_by_key(|step| step.depth) {
        let is_in = |start: u64| (deepest.start..deepest.end).contains(&start);
        for (_, caller) in rows
            .iter_mut()
            .filter(|row| row.0 > steps[0].start && is_in(row.0))
        {
            *caller = Caller::End;
        }
    }
    rows
}
