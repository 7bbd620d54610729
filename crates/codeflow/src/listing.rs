//! Code that is read: a whole region from its start to its end, or what can be reached from an
//! address.

use std::ops::Range;

use rustc_hash::FxHashSet;

use crate::code::Code;
use crate::decode::{Callee, Flow, Instruction, Run};
use crate::jump_table::{Indirect, find_targets};
use crate::operation::OperationReader;

/// Bytes of a region that are read. Its analysis takes 30 bytes of memory for each, 4 GB in all;
/// callers with less pass a smaller range.
pub const REGION_BYTES_MAX: u64 = 128 << 20;

/// Instructions of a region that begin inside of others.
const HIDDEN_INSTRUCTIONS_MAX: usize = 1 << 20;

/// Where instructions begin in 64 bytes of code.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// A bit for each byte.
    starts: u64,
    /// The number of the line's first instruction.
    first: u32,
}

/// Instructions in the order of addresses, and the flow of those that do not go on to the next one.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) flows: Vec<(u64, Flow)>,
    indirect: Vec<(u64, Indirect)>,
    /// Empty where instructions are far between.
    lines: Vec<Line>,
}

impl Listing {
    /// Reads a region in the order of addresses, and again from each target of a jump or a call
    /// that data in front of it has hidden.
    pub(crate) fn of_region(code: &impl Code, range: Range<u64>) -> Self {
        let bytes = code.bytes(range.start);
        // The last byte of the address space is left out, so that each instruction has an end.
        let end = range.end.min(range.start.saturating_add(REGION_BYTES_MAX));
        let length = end.saturating_sub(range.start).min(bytes.len() as u64);
        let bytes = &bytes[..length as usize];
        let mut operations = OperationReader::new();
        let mut listing = Self::default();
        // The means of a distribution's code are 3.9 bytes an instruction, and 18 a branch, a call
        // or a return.
        listing.instructions.reserve(bytes.len() / 3);
        listing.flows.reserve(bytes.len() / 12);
        let mut offset = 0;
        while offset < bytes.len() {
            let start = range.start + offset as u64;
            let end = listing.read_run(code, &bytes[offset..], start, &mut operations);
            offset += (end - start) as usize;
            // Sections are filled up with zeros, which would be instructions of two bytes.
            offset += bytes[offset..]
                .iter()
                .take_while(|byte| **byte == 0)
                .count();
        }
        listing.lines = listing.find_lines();
        listing.read_hidden(code, bytes, range.start, &mut operations);
        listing
    }

    /// Reads up to the first instruction that does not go on and has a zero behind it. Where that
    /// one ends.
    fn read_run(
        &mut self,
        code: &impl Code,
        bytes: &[u8],
        start: u64,
        operations: &mut OperationReader,
    ) -> u64 {
        let mut end = start;
        for (instruction, flow) in Run::new(bytes, start, operations) {
            end = instruction.end();
            self.push(instruction, flow);
            if flow == Flow::JumpIndirect {
                self.add_targets(code, instruction.address, 0);
            }
            let is_last = !matches!(flow, Flow::Next | Flow::Branch(_) | Flow::Call(_));
            if is_last && bytes.get((end - start) as usize) == Some(&0) {
                break;
            }
        }
        end
    }

    /// Reads code that begins inside of other instructions.
    fn read_hidden(
        &mut self,
        code: &impl Code,
        bytes: &[u8],
        start: u64,
        operations: &mut OperationReader,
    ) {
        let mut hidden = FxHashSet::default();
        let mut open: Vec<u64> = self
            .all_targets()
            .filter(|to| self.find(*to).is_none())
            .collect();
        if open.is_empty() {
            return;
        }
        while let Some(address) = open.pop() {
            let Some(bytes) = bytes.get(address.wrapping_sub(start) as usize..) else {
                continue;
            };
            let run_start = self.instructions.len();
            for (instruction, flow) in Run::new(bytes, address, operations) {
                let address = instruction.address;
                if self.find(address).is_some()
                    || hidden.len() >= HIDDEN_INSTRUCTIONS_MAX
                    || !hidden.insert(address)
                {
                    break;
                }
                self.push(instruction, flow);
                match flow {
                    Flow::Next | Flow::Call(_) | Flow::Branch(_) => continue,
                    Flow::JumpIndirect => {
                        self.add_targets(code, address, run_start);
                    }
                    _ => {}
                }
                break;
            }
        }
        self.sort();
    }

    /// Targets of all jumps and calls.
    fn all_targets(&self) -> impl Iterator<Item = u64> {
        self.flows.iter().filter_map(|(_, flow)| match flow {
            Flow::Jump(target) | Flow::Branch(target) => Some(*target),
            Flow::Call(Callee::Address(target)) => Some(*target),
            _ => None,
        })
    }

    /// Reads the code that direct edges lead to from `starts`, at most `limit` instructions. It
    /// does not enter functions that are called.
    pub(crate) fn of_closure(code: &impl Code, starts: &[u64], limit: usize) -> Self {
        let mut operations = OperationReader::new();
        let mut listing = Self::default();
        let mut seen = FxHashSet::default();
        let mut open = starts.to_vec();
        while let Some(start) = open.pop() {
            let run_start = listing.instructions.len();
            for (instruction, flow) in Run::new(code.bytes(start), start, &mut operations) {
                if seen.len() >= limit || !seen.insert(instruction.address) {
                    break;
                }
                listing.push(instruction, flow);
                match flow {
                    Flow::Next | Flow::Call(_) => continue,
                    Flow::Branch(target) => {
                        open.push(target);
                        continue;
                    }
                    Flow::Jump(target) => open.push(target),
                    Flow::JumpIndirect => {
                        open.extend(listing.add_targets(code, instruction.address, run_start));
                    }
                    Flow::JumpSlot(_) | Flow::Return | Flow::Stop => {}
                }
                break;
            }
        }
        listing.sort();
        listing
    }

    fn push(&mut self, instruction: Instruction, flow: Flow) {
        if flow != Flow::Next {
            self.flows.push((instruction.address, flow));
        }
        self.instructions.push(instruction);
    }

    /// Finds the targets of the last instruction by those since `run_start`.
    fn add_targets(&mut self, code: &impl Code, address: u64, run_start: usize) -> &[u64] {
        let run = &self.instructions[run_start..];
        self.indirect.push((address, find_targets(code, run)));
        match self.indirect.last() {
            Some((_, Indirect::Table(targets))) => targets,
            _ => &[],
        }
    }

    fn sort(&mut self) {
        self.instructions
            .sort_by_key(|instruction| instruction.address);
        self.flows.sort_by_key(|(address, _)| *address);
        self.indirect.sort_by_key(|(address, _)| *address);
        self.lines = self.find_lines();
    }

    fn find_lines(&self) -> Vec<Line> {
        let (Some(first), Some(last)) = (self.instructions.first(), self.instructions.last())
        else {
            return Vec::new();
        };
        let count = (last.address - first.address) / 64 + 1;
        // Code of a closure may lie in two ends of a file.
        if count > self.instructions.len() as u64 {
            return Vec::new();
        }
        let mut lines = vec![Line::default(); count as usize];
        for (number, instruction) in self.instructions.iter().enumerate() {
            let offset = instruction.address - first.address;
            let line = &mut lines[(offset / 64) as usize];
            if line.starts == 0 {
                line.first = number as u32;
            }
            line.starts |= 1 << (offset % 64);
        }
        lines
    }

    /// The number of the instruction at an address.
    pub(crate) fn find(&self, address: u64) -> Option<usize> {
        if self.lines.is_empty() {
            let by_address = |instruction: &Instruction| instruction.address;
            return self
                .instructions
                .binary_search_by_key(&address, by_address)
                .ok();
        }
        let offset = address.checked_sub(self.instructions.first()?.address)?;
        let line = self.lines.get(usize::try_from(offset / 64).ok()?)?;
        let bit = 1 << (offset % 64);
        let before = (line.starts & (bit - 1)).count_ones();
        (line.starts & bit != 0).then_some((line.first + before) as usize)
    }

    /// The number of the instruction behind that of a number.
    pub(crate) fn next(&self, number: usize) -> Option<usize> {
        let end = self.instructions.get(number)?.end();
        match self.instructions.get(number + 1) {
            Some(next) if next.address == end => Some(number + 1),
            _ => self.find(end),
        }
    }

    /// Where the indirect jump at an address goes to.
    pub(crate) fn indirect(&self, address: u64) -> Option<&Indirect> {
        let number = self
            .indirect
            .binary_search_by_key(&address, |(at, _)| *at)
            .ok()?;
        Some(&self.indirect[number].1)
    }

    /// Targets of the indirect jump at an address, by its table.
    pub(crate) fn targets(&self, address: u64) -> &[u64] {
        match self.indirect(address) {
            Some(Indirect::Table(targets)) => targets,
            _ => &[],
        }
    }
}
