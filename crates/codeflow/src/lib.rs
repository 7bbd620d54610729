//! Unwind rows for x86-64 code without call frame information, by reading its instructions.
//!
//! Assembler, C libraries such as musl, stripped code and code of JIT compilers have no call frame
//! information. Their instructions say where a caller's registers are nevertheless: each function
//! gives back the stack pointer and the registers that it changed before it returns. This crate
//! follows that backward. It needs no symbols, no functions' starts, and no frame pointer.
//!
//! ```
//! use codeflow::{Code, analyze};
//!
//! struct Function([u8; 5]);
//!
//! impl Code for Function {
//!     fn bytes(&self, address: u64) -> &[u8] {
//!         let offset = address.checked_sub(0x1000).map(|offset| offset as usize);
//!         offset.and_then(|offset| self.0.get(offset..)).unwrap_or_default()
//!     }
//! }
//!
//! // push rbx; mov ebx,edi; pop rbx; ret
//! let code = Function([0x53, 0x89, 0xfb, 0x5b, 0xc3]);
//! let row = analyze(&code, 0x1003).get(0x1003);
//! assert_eq!(row.unwrap().unwrap().to_string(), "rsp+16 rbp=same rbx=[cfa-16]");
//! ```
//!
//! # How a row is found
//!
//! | step | module |
//! | --- | --- |
//! | bytes to instructions: those that direct edges lead to from an address, or a whole region | `listing` |
//! | the effect of each instruction on registers and stack, and where it goes on | `operation`, `decode` |
//! | targets of jump tables | `jump_table` |
//! | blocks, the edges between them, and the effect of each block as a whole | `graph`, `state`, `summary` |
//! | calls that never return, by the import's name or the callee's code | `code`, `returns` |
//! | rules from returns backward: the caller's registers in terms of those here | `backward`, `rule` |
//! | states from functions' starts, and from rules, forward: code that never returns, and a second opinion | `forward`, `frame` |
//! | rows of ranges of addresses | `emit`, `rows` |
//!
//! [`measure`] answers another question by the first step alone: where a function without a known length ends.
//!
//! Registers and stack slots are symbolic: each is an earlier value of a register plus a constant,
//! a word that lay at such a place, or unknown. So `leave`, realigned stacks and saved copies of
//! the stack pointer need no cases of their own.
//!
//! Two checks keep out rules that come from code behind a call that does not return: the stack is
//! aligned to 16 bytes at calls, and a function gives back the registers that it must preserve. An
//! address has no row, but a [`Reason`], where two paths lead to different rules, or where the
//! function's start says otherwise than its end: a wrong caller is worse than none.
//!
//! # The caller
//!
//! - gives the bytes, and the names of imported functions, by [`Code`];
//! - calls [`analyze`] for an address that was sampled and keeps the rows of the ranges that it returns. A later address in such
//!   a range is a look-up. A range without a row says nothing of its other addresses, as they were not asked for;
//! - or calls [`analyze_region`] once, which decides more: rarely used parts of functions lie far from them;
//! - looks up a return address one byte lower, at the call, and begins its analysis there ([`find_call`]): a call that does not
//!   return may be the function's last instruction, and the code behind it another function;
//! - asks for rows of a JIT compiler's code again when its bytes have changed;
//! - requires [`Confidence::Certain`] of all rows where it calls a stack complete.
//!
//! # Limits of the crate
//!
//! It does no IO and does not panic on any bytes. Work and memory are bounded by
//! [`CLOSURE_INSTRUCTIONS_MAX`], [`SURROUNDINGS_BYTES`] and [`REGION_BYTES_MAX`].
//!
//! There are no rows for signal trampolines, for landing pads that only resume unwinding (only the
//! unwinder jumps to them), behind computed gotos of interpreters that no other edge leads to, nor
//! for code that takes its stack pointer from elsewhere. `rbp` and `rbx` are unknown behind
//! internal functions that do not preserve them. Memory that is written through pointers to other
//! objects is taken to leave the frame's saved registers alone.

mod analyze;
mod backward;
mod call;
mod code;
mod confidence;
mod decode;
mod emit;
mod extent;
mod forward;
mod frame;
mod function;
mod graph;
mod jump_table;
mod listing;
mod operation;
mod register;
mod returns;
mod rows;
mod rule;
mod slot;
mod state;
mod summary;
mod value;

pub use analyze::{CLOSURE_INSTRUCTIONS_MAX, SURROUNDINGS_BYTES, analyze, analyze_region};
pub use call::{find_call, find_first_call, find_run_end};
pub use code::Code;
pub use confidence::Confidence;
pub use extent::{Extent, measure};
pub use function::{Function, Opinion};
pub use listing::REGION_BYTES_MAX;
pub use register::Register;
pub use rows::{Cfa, Reason, Row, Rows, Saved};
