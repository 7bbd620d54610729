//! The walk of the user stack, frame by frame.

use profiler_bpf::{
    arch::x86_64::{
        context_offset, is_kept_by_agreement,
        rule::{RETURN_ON_STACK, kind},
        step_by_rule,
    },
    outcome::Outcome,
    record::Scratch,
    settings::{
        CHUNK_FRAMES, USER_FRAMES_HEAD, USER_FRAMES_MAX, USER_FRAMES_TAIL, WALKED_FRAMES_MAX,
    },
    unwind::Step,
};

use crate::{
    lookup::{Lookup, find_rule},
    scratch,
    stack_window::{read_alone, read_word},
};

/// Results of [`step`] while the walk goes on, and when it is over.
const GOES_ON: u32 = 0;
const IS_OVER: u32 = 1;

/// Walks up to [`CHUNK_FRAMES`] more frames. Gives whether there may be more to walk; else the
/// outcome is in the header.
///
/// # Safety
/// `scratch` is this CPU's record, to which nothing refers.
#[inline(always)]
pub(crate) unsafe fn walk_chunk(scratch: *const Scratch) -> bool {
    // SAFETY: guaranteed by the caller.
    let walked = unsafe { (*scratch).walk.walked } as usize;
    if walked > WALKED_FRAMES_MAX - CHUNK_FRAMES {
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
/// no pointers. (These kernels also compare all numbers exactly in programs with such functions: where
/// ways meet again with different numbers in hand, the rest is checked again for each. Code with many
/// ways through it is a function with a name too, or keeps its numbers in a map.)
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn step() -> u32 {
    let Some(scratch) = scratch() else {
        return IS_OVER;
    };
    // SAFETY: the record is this CPU's own. `find_rule` and `read_word` change its window, what of the
    // walk belongs to that, and the rule: to these nothing refers.
    unsafe { step_on(scratch) }
}

/// # Safety
/// `scratch` is this CPU's record.
#[inline(always)]
unsafe fn step_on(scratch: *mut Scratch) -> u32 {
    // SAFETY: guaranteed by the caller.
    let (header, registers, user_registers, walk) = unsafe {
        (
            &mut (*scratch).header,
            &mut (*scratch).registers,
            &(*scratch).user_registers,
            &raw mut (*scratch).walk,
        )
    };
    // SAFETY: guaranteed by the caller.
    let (walked, is_return, context) =
        unsafe { ((*walk).walked as usize, (*walk).is_return, (*walk).context) };
    let place = if walked < USER_FRAMES_HEAD {
        walked
    } else {
        USER_FRAMES_HEAD + walked % USER_FRAMES_TAIL
    };
    // SAFETY: guaranteed by the caller.
    unsafe {
        let frames = &mut (*scratch).frames;
        frames[place & (USER_FRAMES_MAX - 1)] = registers.ip;
        (*walk).walked = walked as u32 + 1;
    }

    // A return address may be the first of the next function: the call lies before it.
    let address = registers.ip.wrapping_sub(u64::from(is_return));
    // SAFETY: guaranteed by the caller.
    let rule = match unsafe { find_rule(walk, address) } {
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
    let has_all = walked == 0 || is_return == 0;
    // A frame that made a call has its return address on the stack.
    if !has_all && rule.return_register != RETURN_ON_STACK {
        header.outcome = Outcome::RuleUnsupported as u8;
        return IS_OVER;
    }
    let sp = registers.sp;
    let other = |register: u8| {
        // Code that is read by its instructions agreed to nothing.
        let is_agreed = is_kept_by_agreement(register) && rule.source == 0;
        if !has_all && !is_agreed {
            return None;
        }
        match context {
            0 => Some(user_registers[usize::from(register) & 15]),
            _ => read_alone(context.wrapping_add(context_offset(register))),
        }
    };
    // SAFETY: guaranteed by the caller.
    let read = |at| unsafe { read_word(scratch, at) };
    let step = step_by_rule(registers, &rule, other, read);
    // SAFETY: guaranteed by the caller.
    let walk = unsafe { &mut *walk };
    walk.is_guess = u32::from(rule.kind == kind::NONE);
    match step {
        Step::Caller => {
            walk.is_return = 1;
            walk.sources.add(&rule);
            GOES_ON
        }
        Step::Interrupted => {
            walk.is_return = 0;
            walk.context = sp;
            walk.sources.add(&rule);
            GOES_ON
        }
        Step::End => {
            header.outcome = walk.sources.end_at(&rule) as u8;
            IS_OVER
        }
        Step::Failed(outcome) => {
            header.outcome = outcome as u8;
            IS_OVER
        }
    }
}
