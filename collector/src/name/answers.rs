//! The answers of one request, while the child collects them.
//!
//! In: functions as the sources find them. Out: answers that share their
//! strings and fit into one frame. Never grows beyond a frame.

use rustc_hash::FxHashMap;

use super::demangle::demangle;
use super::naming::UnnamedReason;
use super::protocol::{Answer, FRAME_BYTES_MAX, FUNCTIONS_MAX, Function, STRINGS_MAX, cut_string};

/// Bytes that one function takes in a frame.
const FUNCTION_BYTES: usize = 24;
/// Bytes that an answer and a string each take in a frame beside their contents.
const ENTRY_BYTES: usize = 5;

/// A function as a source finds it.
#[derive(Debug)]
pub struct Found {
    /// Name in the symbol table or in the debug information, not demangled.
    pub symbol: String,
    /// Source file, or empty.
    pub file: String,
    /// Line, or 0.
    pub line: u32,
    /// Column, or 0.
    pub column: u32,
    /// Line where the function starts, or 0.
    pub start_line: u32,
}

impl Found {
    /// A name of which nothing else is known.
    pub(super) fn bare(symbol: String) -> Self {
        Self {
            symbol,
            file: String::new(),
            line: 0,
            column: 0,
            start_line: 0,
        }
    }
}

/// Answers and the strings that they share.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) strings: Vec<String>,
    pub(super) answers: Vec<Answer>,
    by_string: FxHashMap<String, u32>,
    bytes: usize,
}

impl Answers {
    /// Adds an address with its functions, the innermost first. The outermost
    /// ones stay when there are too many, and an address that no longer fits
    /// into the frame has the reason for its answer.
    pub(super) fn push_named(&mut self, found: &[Found]) {
        let found = &found[found.len().saturating_sub(FUNCTIONS_MAX)..];
        // Two strings a function at their longest, and room for the frame's head.
        if found.is_empty()
            || self.bytes + found.len() * FUNCTION_BYTES > FRAME_BYTES_MAX / 2
            || self.strings.len() + 3 * found.len() > STRINGS_MAX
        {
            return self.push_unnamed(UnnamedReason::Limit);
        }
        let functions = found.iter().map(|found| self.function(found)).collect();
        self.bytes += ENTRY_BYTES + found.len() * FUNCTION_BYTES;
        self.answers.push(Answer::Named(functions));
    }

    /// Adds an address without a name.
    pub(super) fn push_unnamed(&mut self, reason: UnnamedReason) {
        self.bytes += 1;
        self.answers.push(Answer::Unnamed(reason));
    }

    /// Adds an address without a name, so many bytes into its function.
    pub(super) fn push_in_function(&mut self, distance: u32) {
        self.bytes += ENTRY_BYTES;
        self.answers.push(Answer::InFunction(distance));
    }

    fn function(&mut self, found: &Found) -> Function {
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
