//! Jitdump: records of code that was loaded or moved, with lines, which a compiler appends as it works.
//!
//! Format: the kernel's `tools/perf/Documentation/jitdump-specification.txt`. Only files of this machine's byte order.

use super::code::{Code, Line, Lines};
use super::v8::line_offset;
use super::when::When;

const MAGIC: u32 = 0x4a69_5444;
const HEADER_BYTES: usize = 40;
const RECORD_HEAD_BYTES: usize = 16;
/// Bytes of a record that are read: a function of 40,000 lines has so many. The code after the name is skipped.
pub(super) const RECORD_BYTES_MAX: usize = 1 << 20;

/// The state between two records of a jitdump.
#[derive(Debug, Default)]
pub(super) struct JitDump {
    is_begun: bool,
    /// It is not a jitdump, or damaged from some record on.
    is_broken: bool,
    /// Its times are not those of the samples' clock.
    has_other_clock: bool,
    /// Address of the code that is loaded next, and its lines.
    lines_of: u64,
    lines: Lines,
}

impl JitDump {
    /// Adds the code of the whole records in `bytes`, the next ones of the file, which were written at `reading`. Returns the
    /// records' bytes, including skipped ones beyond `bytes`. 0 means an incomplete record, or a file that is no jitdump.
    pub(super) fn read(&mut self, bytes: &[u8], code: &mut Code, reading: When) -> u64 {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..)
            && let Some(length) = self.read_one(rest, code, reading)
        {
            done = done.saturating_add(length);
        }
        done as u64
    }

    /// Reads the header or a record, and returns its length; `None` if it is incomplete.
    fn read_one(&mut self, bytes: &[u8], code: &mut Code, reading: When) -> Option<usize> {
        if self.is_broken {
            return None;
        }
        if !self.is_begun {
            let header = bytes.get(..HEADER_BYTES)?;
            let length = u32_at(header, 8)? as usize;
            // JITDUMP_FLAGS_ARCH_TIMESTAMP: the processor's counter. All others take CLOCK_MONOTONIC, as `perf record -k mono`.
            self.has_other_clock = u64_at(header, 32)? & 1 != 0;
            self.is_broken = u32_at(header, 0)? != MAGIC || length < HEADER_BYTES;
            self.is_begun = true;
            return (!self.is_broken).then_some(length);
        }
        let head = bytes.get(..RECORD_HEAD_BYTES)?;
        let length = u32_at(head, 4)? as usize;
        if length < RECORD_HEAD_BYTES {
            self.is_broken = true;
            return None;
        }
        const LOAD: u32 = 0;
        const MOVE: u32 = 1;
        const DEBUG_INFO: u32 = 2;
        let kind = u32_at(head, 0)?;
        // An incomplete record is read later.
        let read = match kind {
            LOAD | DEBUG_INFO | MOVE => length.min(RECORD_BYTES_MAX),
            _ => RECORD_HEAD_BYTES,
        };
        let record = bytes.get(RECORD_HEAD_BYTES..read)?;
        code.set_time(self.time_of(u64_at(head, 8)?, reading));
        // A record without all its fields is ignored, and the next one is read.
        let _ = match kind {
            LOAD => self.load(record, code),
            // Process, thread, address, old address, new address, bytes, number.
            MOVE => u64_at(record, 16)
                .zip(u64_at(record, 24))
                .map(|(from, to)| code.move_to(from, to)),
            DEBUG_INFO => self.keep_lines(record),
            _ => None,
        };
        Some(length)
    }

    /// The time when a record was written. Some records have none, and a time namespace's clock may be ahead.
    fn time_of(&self, record_ns: u64, reading: When) -> When {
        let is_possible = record_ns != 0 && record_ns <= reading.latest_ns;
        if is_possible && !self.has_other_clock {
            When::at(record_ns)
        } else {
            reading
        }
    }

    /// Process, thread, address, address, bytes, number, name, code.
    fn load(&mut self, record: &[u8], code: &mut Code) -> Option<()> {
        let (address, bytes) = (u64_at(record, 16)?, u64_at(record, 24)?);
        let name = record.get(40..)?;
        let name = &name[..name.iter().position(|byte| *byte == 0)?];
        let mut lines = std::mem::take(&mut self.lines);
        let offset = line_offset(name, address, &lines.rows);
        for line in &mut lines.rows {
            line.address = line.address.wrapping_sub(offset);
        }
        // Node 20 writes a freed buffer for the file of baseline code, so that the rest of the record is wrong.
        let is_within = |line: &Line| line.address.wrapping_sub(address) <= bytes;
        if self.lines_of != address || !lines.rows.iter().all(is_within) {
            lines = Lines::default();
        }
        code.add_with_lines(address, bytes, name, lines);
        Some(())
    }

    /// Address, number of entries, and for each an address, a line, a discriminator, and a file. The record comes before that of
    /// the code.
    fn keep_lines(&mut self, record: &[u8]) -> Option<()> {
        self.lines = Lines::default();
        self.lines_of = u64_at(record, 0)?;
        let entries = u64_at(record, 8)?;
        let mut at = 16;
        for _ in 0..entries {
            let entry = record.get(at..)?;
            let (address, line) = (u64_at(entry, 0)?, u32_at(entry, 8)?);
            let file = entry.get(16..)?;
            let file = &file[..file.iter().position(|byte| *byte == 0)?];
            at += 16 + file.len() + 1;
            let Lines { rows, files } = &mut self.lines;
            // 0xff stands for the file of the entry before; some compilers write its name again.
            if file != [0xff] && files.last().map(|last| &**last) != Some(file) {
                files.push(file.into());
            }
            let file = files.len().saturating_sub(1) as u32;
            rows.push(Line {
                address,
                line,
                file,
            });
        }
        Some(())
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
    use super::super::code::CodeAt;
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

    fn check(code: &Code) {
        let found = code.find(0x5018).unwrap();
        let expected = (&b"first"[..], &b"/a.lua"[..], 8);
        assert_eq!((found.name, found.file, found.line), expected);
        assert_eq!(code.find(0x5008).unwrap().line, 7);
        assert!(code.find(0x1000).is_none());
        assert_eq!(code.find(0x203f).unwrap().name, b"second");
        assert_eq!(code.find(0x2000).unwrap().line, 0);
    }

    /// Check all records in one piece, and in as many as there are bytes.
    #[test]
    fn records_are_read_as_they_come() {
        let bytes = whole();
        let (mut dump, mut code) = (JitDump::default(), Code::default());
        let read = dump.read(&bytes, &mut code, When::default());
        assert_eq!(read, bytes.len() as u64);
        check(&code);
        let (mut dump, mut code) = (JitDump::default(), Code::default());
        let mut done = 0;
        for end in 0..=bytes.len() {
            let bytes = &bytes[done.min(end)..end];
            done += dump.read(bytes, &mut code, When::default()) as usize;
        }
        check(&code);
    }

    /// Check that code exists since the time of its record, or since a time between two readings if the record's is of no use.
    #[test]
    fn records_have_times() {
        let at = |time_ns: u64, mut record: Vec<u8>| {
            record[8..16].copy_from_slice(&time_ns.to_ne_bytes());
            record
        };
        let names = |flags: u64, times: [u64; 2]| {
            let mut header = header();
            header[32..].copy_from_slice(&flags.to_ne_bytes());
            let first = at(times[0], load(0x1000, 0x40, "first"));
            let second = at(times[1], load(0x1000, 0x40, "second"));
            let mut code = Code::default();
            let reading = When {
                earliest_ns: 100,
                latest_ns: 200,
            };
            JitDump::default().read(&[header, first, second].concat(), &mut code, reading);
            [(50, 60), (120, 130), (170, 180), (200, 210)].map(|(first_ns, last_ns)| {
                match code.find_between(0x1000, first_ns, last_ns) {
                    CodeAt::Same(code) => String::from_utf8_lossy(code.name).into_owned(),
                    other => format!("{other:?}"),
                }
            })
        };
        assert_eq!(names(0, [110, 150]), ["first", "first", "second", "second"]);
        for (flags, times) in [(1, [110, 150]), (0, [0, 0]), (0, [1 << 40, 1 << 41])] {
            let expected = ["first", "Changed", "Changed", "second"];
            assert_eq!(names(flags, times), expected, "{flags} {times:?}");
        }
    }

    /// Check files that are no jitdumps, and records with wrong lengths.
    #[test]
    fn odd_files_give_nothing() {
        let (mut dump, mut code) = (JitDump::default(), Code::default());
        assert_eq!(dump.read(&[0; 100], &mut code, When::default()), 0);
        assert!(dump.is_broken);
        let mut bytes = whole();
        bytes[HEADER_BYTES + 4] = 3;
        bytes[HEADER_BYTES + 5] = 0;
        let mut dump = JitDump::default();
        dump.read(&bytes, &mut code, When::default());
        assert!(dump.is_broken && code.is_empty());
    }
}
