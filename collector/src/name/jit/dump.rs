//! Jitdump: records of code that was loaded and moved, with lines, which a compiler adds as it goes.
//!
//! Format: the kernel's `tools/perf/Documentation/jitdump-specification.txt`. Only files of this machine's byte order.

use std::ops::Range;

use super::code::Code;
use super::v8::lines_behind;

const MAGIC: u32 = 0x4a69_5444;
const HEADER_BYTES: usize = 40;
const RECORD_HEAD_BYTES: usize = 16;
/// Bytes of a record that are looked at: those of a function of 40,000 lines. Code follows behind the name and is skipped.
pub(super) const RECORD_BYTES_MAX: usize = 1 << 20;

/// A jitdump as far as it was read.
#[derive(Debug, Default)]
pub struct JitDump {
    /// What it told of.
    pub code: Code,
    is_begun: bool,
    is_broken: bool,
    /// Lines of the code that is loaded next, whose address this is.
    lines_of: u64,
    lines: Vec<(u64, u32, u32)>,
    files: Vec<u8>,
    file_ranges: Vec<Range<usize>>,
}

impl JitDump {
    /// Reads the records that are whole in `bytes`, the file's next ones, and gives how many bytes of the file they take:
    /// more than there are when the last one's code reaches further. 0 is a record that is not whole yet, or a file
    /// that is none.
    pub fn read(&mut self, bytes: &[u8]) -> u64 {
        let mut done = 0_u64;
        while let Some(rest) = usize::try_from(done)
            .ok()
            .and_then(|done| bytes.get(done..))
        {
            let Some(len) = self.read_one(rest) else {
                break;
            };
            done = done.saturating_add(len);
        }
        done
    }

    /// Whether it is not a jitdump, or no more from some record on.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Reads the header or a record, and gives its length; `None` when it is not whole.
    fn read_one(&mut self, bytes: &[u8]) -> Option<u64> {
        if self.is_broken {
            return None;
        }
        if !self.is_begun {
            let header = bytes.get(..HEADER_BYTES)?;
            let len = u32_at(header, 8)?;
            self.is_broken = u32_at(header, 0)? != MAGIC || (len as usize) < HEADER_BYTES;
            self.is_begun = true;
            return (!self.is_broken).then_some(len.into());
        }
        let head = bytes.get(..RECORD_HEAD_BYTES)?;
        let len = u32_at(head, 4)? as usize;
        if len < RECORD_HEAD_BYTES {
            self.is_broken = true;
            return None;
        }
        const LOAD: u32 = 0;
        const MOVE: u32 = 1;
        const DEBUG_INFO: u32 = 2;
        let kind = u32_at(head, 0)?;
        // A record that is only partly here is read when it is whole, as far as it is looked at.
        let looked_at = match kind {
            LOAD | DEBUG_INFO | MOVE => len.min(RECORD_BYTES_MAX),
            _ => RECORD_HEAD_BYTES,
        };
        let record = bytes.get(RECORD_HEAD_BYTES..looked_at)?;
        // What a record lacks of its fields makes it none; the next one is found all the same.
        let _ = match kind {
            LOAD => self.load(record),
            MOVE => self.move_code(record),
            DEBUG_INFO => self.keep_lines(record),
            _ => None,
        };
        Some(len as u64)
    }

    /// Process, thread, address, address, bytes, number, name, code.
    fn load(&mut self, record: &[u8]) -> Option<()> {
        let (address, bytes) = (u64_at(record, 16)?, u64_at(record, 24)?);
        let name = record.get(40..)?;
        let name = &name[..name.iter().position(|byte| *byte == 0)?];
        if self.lines_of != address {
            self.forget_lines();
        }
        let behind = lines_behind(name, address, &self.lines);
        for (line, ..) in &mut self.lines {
            *line = line.wrapping_sub(behind);
        }
        // Node 20 writes a freed buffer for the file of baseline code, so that nothing behind it is what it should be.
        if !self
            .lines
            .iter()
            .all(|it| it.0.wrapping_sub(address) <= bytes)
        {
            self.forget_lines();
        }
        let (files, ranges) = (&self.files, &self.file_ranges);
        let lines = &self.lines;
        self.code
            .add_with_lines(address, bytes, name, lines, |file| {
                let range = ranges.get(file as usize).cloned();
                range.and_then(|range| files.get(range)).unwrap_or_default()
            });
        self.forget_lines();
        Some(())
    }

    /// Process, thread, address, old address, new address, bytes, number.
    fn move_code(&mut self, record: &[u8]) -> Option<()> {
        let (from, to) = (u64_at(record, 16)?, u64_at(record, 24)?);
        self.code.move_to(from, to);
        Some(())
    }

    /// Address, number of entries, and for each an address, a line, a discriminator, and a file. These come before
    /// the code that they belong to.
    fn keep_lines(&mut self, record: &[u8]) -> Option<()> {
        self.forget_lines();
        self.lines_of = u64_at(record, 0)?;
        let entries = u64_at(record, 8)?;
        let mut at = 16;
        for _ in 0..entries {
            let entry = record.get(at..)?;
            let (address, line) = (u64_at(entry, 0)?, u32_at(entry, 8)?);
            let file = entry.get(16..)?;
            let file = &file[..file.iter().position(|byte| *byte == 0)?];
            at += 16 + file.len() + 1;
            // The file of the entry before; some write its name again.
            let before = self
                .file_ranges
                .last()
                .and_then(|it| self.files.get(it.clone()));
            if file != [0xff] && before != Some(file) {
                let start = self.files.len();
                self.files.extend_from_slice(file);
                self.file_ranges.push(start..self.files.len());
            }
            let file = self.file_ranges.len().saturating_sub(1) as u32;
            self.lines.push((address, line, file));
        }
        Some(())
    }

    fn forget_lines(&mut self) {
        self.lines.clear();
        self.files.clear();
        self.file_ranges.clear();
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut header = MAGIC.to_ne_bytes().to_vec();
        header.extend([1, 40, 62, 0, 7].map(u32::to_ne_bytes).concat());
        header.resize(HEADER_BYTES, 0);
        header
    }

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = (RECORD_HEAD_BYTES + body.len()) as u32;
        [&kind.to_ne_bytes(), &len.to_ne_bytes(), &[0; 8][..], body].concat()
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn load(address: u64, bytes: u64, name: &str) -> Vec<u8> {
        let mut body = words(&[0, address, address, bytes, 1]);
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(vec![0x90; bytes as usize]);
        record(0, &body)
    }

    fn whole() -> Vec<u8> {
        let mut lines = words(&[0x1000, 2, 0x1000]);
        lines.extend([7_u32, 0].map(u32::to_ne_bytes).concat());
        lines.extend(b"/a.lua\0");
        lines.extend(words(&[0x1010]));
        lines.extend([8_u32, 0].map(u32::to_ne_bytes).concat());
        lines.extend(b"\xff\0");
        [
            header(),
            record(2, &lines),
            load(0x1000, 0x40, "first"),
            load(0x2000, 0x40, "second"),
            record(9, b"unknown"),
            record(1, &words(&[0, 0x1000, 0x1000, 0x5000, 0x40, 1])),
            record(3, &[]),
        ]
        .concat()
    }

    fn check(dump: &JitDump) {
        let found = dump.code.find(0x5018).unwrap();
        assert_eq!(
            (found.name, found.file, found.line),
            (&b"first"[..], &b"/a.lua"[..], 8)
        );
        assert_eq!(dump.code.find(0x5008).unwrap().line, 7);
        assert!(dump.code.find(0x1000).is_none());
        assert_eq!(dump.code.find(0x203f).unwrap().name, b"second");
        assert_eq!(dump.code.find(0x2000).unwrap().line, 0);
    }

    /// Check all records in one piece, and in as many as there are bytes.
    #[test]
    fn records_are_read_as_they_come() {
        let bytes = whole();
        let mut dump = JitDump::default();
        assert_eq!(dump.read(&bytes), bytes.len() as u64);
        check(&dump);
        let mut dump = JitDump::default();
        let mut done = 0;
        for end in 0..=bytes.len() {
            done += dump.read(&bytes[done.min(end)..end]) as usize;
        }
        check(&dump);
    }

    /// Check that what is no jitdump gives nothing, and records that lie about their length are survived.
    #[test]
    fn odd_files_give_nothing() {
        let mut dump = JitDump::default();
        assert_eq!(dump.read(&[0; 100]), 0);
        assert!(dump.is_broken());
        let mut bytes = whole();
        bytes[HEADER_BYTES + 4] = 3;
        bytes[HEADER_BYTES + 5] = 0;
        let mut dump = JitDump::default();
        dump.read(&bytes);
        assert!(dump.is_broken() && dump.code.is_empty());
    }
}
