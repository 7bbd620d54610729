//! The walk of the user stack, frame by frame.

use profiler_bpf::{
    arch::x86_64::{
        context_offset, is_kept_by_agreement,
        rule::{RETURN_ON_STACK, kind},
        step_by_rule,
    },
    outcome::Outcome,
    record::Scratch,
    settings::{CHUNK_FRAMES, USER_FRAMES_HEAD, USER_FRAMES_TAIL, WALKED_FRAMES_MAX},
    unwind::Step,
};

use crate::{
    lookup::{Lookup, find_rule},
    scratch,
    stack_window::StackWindow,
};

/// What [`step`] gives while the walk goes on, and when it is over.
const GOES_ON: u32 = 0;
const IS_OVER: u32 = 1;

/// Walks up to [`CHUNK_FRAMES`] more frames. Gives whether there may be more to walk; else the
/// outcome is in the header.
#[inline(always)]
pub(crate) fn walk_chunk(scratch: &mut Scratch) -> bool {
    if scratch.walk.walked as usize > WALKED_FRAMES_MAX - CHUNK_FRAMES {
        return false;
    }
    for _ in 0..CHUNK_FRAMES {
        if step() != GOES_ON {
            return false;
        }
    }
    true
}

/// Keeps the frame where the walk is, and goes to its caller.
///
/// A function with a name of its own, which the verifier checks once and not for each frame. All
/// that it works on is in the scratch record, since on kernels before 5.12 such a function takes
/// no pointers.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn step() -> u32 {
    let Some(scratch) = scratch() else {
        return IS_OVER;
    };
    let Scratch {
        header,
        frames,
        stack_window,
        registers,
        user_registers,
        walk,
        ..
    } = scratch;
    let walked = walk.walked as usize;
    let place = match walked < USER_FRAMES_HEAD {
        true => walked,
        false => USER_FRAMES_HEAD + walked % USER_FRAMES_TAIL,
    };
    frames[place & (USER_FRAMES_HEAD + USER_FRAMES_TAIL - 1)] = registers.ip;
    walk.walked = walked as u32 + 1;

    // A return address may be the first of the next function: the call lies before it.
    let address = registers.ip.wrapping_sub(u64::from(walk.is_return));
    let rule = match find_rule(walk, address) {
        Lookup::Rule(rule) => rule,
        Lookup::Missing => {
            header.outcome = Outcome::NoRows as u8;
            return IS_OVER;
        }
        Lookup::NoCode => {
            header.outcome = Outcome::BadFrame as u8;
            return IS_OVER;
        }
    };
    let has_all = walked == 0 || walk.is_return == 0;
    // A frame that made a call has its return address on the stack.
    if !has_all && rule.return_register != RETURN_ON_STACK {
        header.outcome = Outcome::RuleUnsupported as u8;
        return IS_OVER;
    }
    walk.is_guess = u32::from(rule.kind == kind::NONE);
    let mut stack = StackWindow::new(stack_window, &mut walk.window_base, &mut walk.window_bytes);
    let sp = registers.sp;
    let context = walk.context;
    let other = |register: u8| {
        if !has_all && !is_kept_by_agreement(register) {
            return None;
        }
        match context {
            0 => Some(user_registers[usize::from(register) & 15]),
            _ => StackWindow::read_alone(context.wrapping_add(context_offset(register))),
        }
    };
    match step_by_rule(registers, &rule, other, |at| stack.read_word(at)) {
        Step::Caller => {
            walk.is_return = 1;
            GOES_ON
        }
        Step::Interrupted => {
            walk.is_return = 0;
            walk.context = sp;
            GOES_ON
        }
        Step::End => {
            header.outcome = Outcome::Complete as u8;
            IS_OVER
        }
        Step::Failed(outcome) => {
            header.outcome = outcome as u8;
            IS_OVER
        }
    }
}
