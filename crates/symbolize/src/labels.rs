//! Ends of labels: symbols of code without a length, as assemblers write them.
//!
//! In: an untrusted file with its code, and a label. Out: the address where the label's function ends. Symbols that were stripped
//! leave no trace: without an end, a label names all code up to the next symbol that is left, 225 KB in one encoder.
//!
//! Call frame information knows the length of a function that it has, and where others start. Else the function's instructions tell
//! ([`codeflow::measure`]). The next symbol is known to the caller.

use codeflow::Code;
use elf::{Layout, ReadAt};

use crate::boundaries::Boundaries;

/// Bytes of a function that are read: its instructions are followed up to 16,000, and those of AVX-512 take 8 bytes each.
const CODE_BYTES_MAX: u64 = 128 << 10;

/// The ends of labels in one file.
pub(crate) struct LabelEnds<'a, R: ?Sized> {
    file: &'a R,
    layout: &'a Layout,
    boundaries: &'a Boundaries,
    /// Instructions that may still be read. Then labels name nothing.
    instructions_left: usize,
    /// The last label and its end: the addresses in a function come one after the other.
    last: Option<(u64, u64)>,
}

impl<'a, R: ReadAt + ?Sized> LabelEnds<'a, R> {
    /// Ends in the file that has the code.
    pub(crate) fn new(
        file: &'a R,
        layout: &'a Layout,
        boundaries: &'a Boundaries,
        instructions_max: usize,
    ) -> Self {
        Self {
            file,
            layout,
            boundaries,
            instructions_left: instructions_max,
            last: None,
        }
    }

    /// Where the function ends that starts at `label`, at the latest at `limit`.
    pub(crate) fn find(&mut self, label: u64, limit: u64) -> u64 {
        match self.last {
            Some((known, end)) if known == label => end,
            _ => {
                let end = self.measure(label, limit);
                self.last = Some((label, end));
                end
            }
        }
    }

    fn measure(&mut self, label: u64, limit: u64) -> u64 {
        let function = self.boundaries.find_function(self.file, self.layout, label);
        if let Some(function) = function {
            return function.end.min(limit);
        }
        let next = self.boundaries.find_next(self.file, label);
        let limit = next.map_or(limit, |next| next.min(limit));
        if self.instructions_left == 0 {
            return label;
        }
        let extent = codeflow::measure(&self.read_code(label, limit), label);
        self.instructions_left = self.instructions_left.saturating_sub(extent.instructions);
        extent.end.min(limit)
    }

    fn read_code(&self, start: u64, limit: u64) -> FunctionCode {
        let wanted = limit.saturating_sub(start).min(CODE_BYTES_MAX);
        let mut bytes = vec![0; wanted as usize];
        let offset = self.layout.offset_of(start);
        let read = offset.map_or(0, |offset| self.file.pread(offset, &mut bytes));
        bytes.truncate(read);
        FunctionCode { start, bytes }
    }
}

/// The bytes from a function's start on.
struct FunctionCode {
    start: u64,
    bytes: Vec<u8>,
}

impl Code for FunctionCode {
    fn bytes(&self, address: u64) -> &[u8] {
        let offset = address.checked_sub(self.start);
        let offset = offset.and_then(|offset| usize::try_from(offset).ok());
        offset
            .and_then(|offset| self.bytes.get(offset..))
            .unwrap_or_default()
    }
}
