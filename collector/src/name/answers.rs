//! Collects the answers of one request in the child.
//!
//! In: functions as the sources find them. Out: answers that share their strings and fit into one
//! frame. Never exceeds a frame.

use rustc_hash::FxHashMap;
use symbolize::{FUNCTIONS_MAX, Frame, demangle};

use super::protocol::{Answer, FRAME_BYTES_MAX, Function, STRINGS_MAX, cut_string};
use crate::file::UnnamedReason;

/// Bytes that one function takes in a frame.
const FUNCTION_BYTES: usize = 24;
/// Maximum bytes of an answer or a string in a frame, in addition to functions or text: its variant and a number.
const ENTRY_BYTES: usize = 1 + 5;

/// Answers and the strings that they share.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) strings: Vec<String>,
    pub(super) answers: Vec<Answer>,
    by_string: FxHashMap<String, u32>,
    bytes: usize,
}

impl Answers {
    /// Adds an address with its functions, innermost first. Of too many functions the outermost are
    /// kept. An address that does not fit into the frame gets the reason `limit`.
    pub(super) fn push_named(&mut self, found: &[Frame]) {
        let found = &found[found.len().saturating_sub(FUNCTIONS_MAX)..];
        // Two strings of maximum length per function, and room for the frame's head.
        if found.is_empty()
            || self.bytes + found.len() * FUNCTION_BYTES > FRAME_BYTES_MAX / 2
            || self.strings.len() + 3 * found.len() > STRINGS_MAX
        {
            return self.push_unnamed(UnnamedReason::Limit);
        }
        let answer = Answer::Named(found.iter().map(|found| self.function(found)).collect());
        self.bytes += ENTRY_BYTES + found.len() * FUNCTION_BYTES;
        self.answers.push(answer);
    }

    /// Adds an address without a name.
    pub(super) fn push_unnamed(&mut self, reason: UnnamedReason) {
        self.bytes += ENTRY_BYTES;
        self.answers.push(Answer::Unnamed(reason));
    }

    /// Adds an unnamed address with its distance from the start of its function.
    pub(super) fn push_in_function(&mut self, distance: u32) {
        self.bytes += ENTRY_BYTES;
        self.answers.push(Answer::InFunction(distance));
    }

    fn function(&mut self, found: &Frame) -> Function {
        let demangled = demangle(&found.symbol);
        let (function, system_name) = match &demangled {
            Some(name) => (name.as_str(), found.symbol.as_str()),
            None => (found.symbol.as_str(), ""),
        };
        Function {
            function: self.string(function),
            system_name: self.string(system_name),
            file: self.string(&found.file),
            line: found.line,
            column: found.column,
            start_line: found.start_line,
        }
    }

    fn string(&mut self, string: &str) -> u32 {
        if let Some(index) = self.by_string.get(string) {
            return *index;
        }
        let cut = cut_string(string);
        // At most `STRINGS_MAX`, see `push_named`.
        let index = self.strings.len() as u32;
        self.bytes += ENTRY_BYTES + cut.len();
        self.strings.push(cut);
        self.by_string.insert(string.to_owned(), index);
        index
    }
}
