//! A file that a compiler appends to. Pure.
//!
//! In: the file's size and a way to read it. Out: the code that it reports. A file that was truncated or rewritten is read again
//! from its start.

use std::io;

use serde::{Deserialize, Serialize};

use super::code::{Code, CodeAt};
use super::dump::{JitDump, RECORD_BYTES_MAX};
use super::map::PerfMap;
use super::when::When;

/// Bytes read at once: the longest record.
const CHUNK_BYTES: u64 = RECORD_BYTES_MAX as u64;
/// Bytes read at one time, which takes half a second. The rest is read the next time.
const READ_BYTES_MAX: u64 = 64 << 20;
/// The last bytes before the position are read again to recognize a rewritten file: in a perf map, at least a line.
const SEEN_BYTES: usize = 64;

/// The code of a file before it was rewritten is kept for a window and the time of its naming. For so long a file may take twice its
/// memory.
const BEFORE_KEPT_NS: u64 = 30_000_000_000;

/// Format of a compiler's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JitFormat {
    /// `perf-PID.map`: text.
    PerfMap,
    /// `jit-PID.dump`: records.
    Dump,
}

/// A file, read up to a position.
#[derive(Debug)]
pub struct GrowingFile {
    format: JitFormat,
    parser: Parser,
    code: Code,
    size: u64,
    position: u64,
    seen: Seen,
    /// When the bytes that are read now were written.
    reading: When,
    /// The code before the file was rewritten, and the time of that, as long as samples of that time are named.
    before: Option<(Code, When)>,
}

/// The last bytes before the position, and their offset.
#[derive(Debug, Default)]
struct Seen {
    at: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Parser {
    Map(PerfMap),
    Dump(JitDump),
}

impl GrowingFile {
    /// A file at position 0.
    pub fn new(format: JitFormat) -> Self {
        Self {
            format,
            parser: Parser::new(format),
            code: Code::default(),
            size: 0,
            position: 0,
            seen: Seen::default(),
            reading: When::default(),
            before: None,
        }
    }

    /// Sets the time of a reading of the file that begins.
    pub fn set_time(&mut self, now_ns: u64) {
        self.reading = When {
            earliest_ns: self.reading.latest_ns,
            latest_ns: now_ns,
        };
        self.before
            .take_if(|(_, until)| now_ns.saturating_sub(until.latest_ns) > BEFORE_KEPT_NS);
    }

    /// Reads the bytes that were appended to the file, which has `size` bytes now. Returns `false` if some are left.
    ///
    /// A short read is one of a file that was truncated meanwhile.
    pub fn read_new(
        &mut self,
        size: u64,
        mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> bool {
        // `jcmd PID Compiler.perfmap` rewrites the whole file, which may be longer than before.
        if size < self.size || !self.seen.is_there(&mut read_at) {
            let before = std::mem::replace(self, Self::new(self.format));
            self.reading = before.reading;
            self.before = Some((before.code, before.reading));
        }
        self.size = size;
        let end = self.position.saturating_add(READ_BYTES_MAX);
        let left = size.saturating_sub(self.position);
        let mut chunk = vec![0; left.min(CHUNK_BYTES) as usize];
        while self.position < size {
            if self.position >= end {
                return false;
            }
            let Ok(read) = read_at(&mut chunk, self.position) else {
                break;
            };
            let done = self
                .parser
                .read(&chunk[..read], &mut self.code, self.reading);
            if done == 0 {
                break;
            }
            let seen = done.min(read as u64) as usize;
            self.seen.keep(self.position, &chunk[..seen]);
            self.position = self.position.saturating_add(done);
        }
        true
    }

    /// The code at an address between two times.
    pub fn find_between(&self, address: u64, first_ns: u64, last_ns: u64) -> CodeAt<'_> {
        let found = self.code.find_between(address, first_ns, last_ns);
        let before = self.before.as_ref();
        let before = before.filter(|(_, until)| first_ns < until.latest_ns);
        match (&found, before.and_then(|(code, _)| code.find(address))) {
            (CodeAt::Same(code), Some(before)) if code.name != before.name => CodeAt::Changed,
            _ => found,
        }
    }

    /// The code that the file reports.
    pub fn code(&self) -> &Code {
        &self.code
    }
}

impl Seen {
    fn keep(&mut self, at: u64, bytes: &[u8]) {
        let start = bytes.len().saturating_sub(SEEN_BYTES);
        self.at = at.saturating_add(start as u64);
        self.bytes.clear();
        self.bytes.extend_from_slice(&bytes[start..]);
    }

    /// Whether the file still has these bytes. An unreadable file does not count as rewritten.
    fn is_there(&self, read_at: &mut impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> bool {
        let mut now = [0; SEEN_BYTES];
        let now = &mut now[..self.bytes.len()];
        match read_at(now, self.at) {
            Ok(read) => now[..read.min(self.bytes.len())] == self.bytes,
            Err(_) => true,
        }
    }
}

impl Parser {
    fn new(format: JitFormat) -> Self {
        match format {
            JitFormat::PerfMap => Self::Map(PerfMap::default()),
            JitFormat::Dump => Self::Dump(JitDump::default()),
        }
    }

    /// Adds the code in the next bytes of the file, and returns how many of them are done.
    fn read(&mut self, bytes: &[u8], code: &mut Code, reading: When) -> u64 {
        code.set_time(reading);
        match self {
            Self::Map(map) => map.read(bytes, code) as u64,
            Self::Dump(dump) => dump.read(bytes, code, reading),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way to read a file with this text.
    fn text(text: &[u8]) -> impl Fn(&mut [u8], u64) -> io::Result<usize> {
        move |out, at| {
            let rest = text.get(at as usize..).unwrap_or_default();
            let read = rest.len().min(out.len());
            out[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        }
    }

    /// Reads a map that has this text now, and returns the names at 0x1000 and 0x2000.
    fn read(file: &mut GrowingFile, bytes: &[u8]) -> [String; 2] {
        assert!(file.read_new(bytes.len() as u64, text(bytes)));
        [0x1000, 0x2000].map(|address| {
            let name = file
                .code()
                .find(address)
                .map_or(&b"-"[..], |code| code.name);
            String::from_utf8_lossy(name).into_owned()
        })
    }

    /// Check that a growing file is read from its position, and one that was truncated, or rewritten and longer, from its start.
    #[test]
    fn files_that_were_written_anew_are_read_again() {
        let mut file = GrowingFile::new(JitFormat::PerfMap);
        assert_eq!(read(&mut file, b"1000 10 a\n2000 1"), ["a", "-"]);
        assert_eq!(read(&mut file, b"1000 10 a\n2000 10 b\n"), ["a", "b"]);
        assert_eq!(read(&mut file, b"2000 10 c\n"), ["-", "c"]);
        assert_eq!(
            read(&mut file, b"1000 10 another\n9000 10 d\n"),
            ["another", "-"]
        );
        assert_eq!(read(&mut file, b""), ["-", "-"]);
        assert_eq!(read(&mut file, b"1000 10 a\n"), ["a", "-"]);
    }

    /// Check that samples before a map was rewritten have no name where the old one had another, and that later samples have.
    #[test]
    fn maps_that_were_written_anew_are_of_their_time() {
        let mut file = GrowingFile::new(JitFormat::PerfMap);
        let mut read_at = |now_ns, bytes: &[u8], times: (u64, u64)| {
            file.set_time(now_ns);
            read(&mut file, bytes);
            [0x1000, 0x2000].map(
                |address| match file.find_between(address, times.0, times.1) {
                    CodeAt::Same(code) => String::from_utf8_lossy(code.name).into_owned(),
                    CodeAt::Changed => "changed".into(),
                    CodeAt::None => "-".into(),
                },
            )
        };
        let found = read_at(10, b"1000 10 a\n2000 10 b\n", (1, 9));
        assert_eq!(found, ["a", "b"]);
        let anew = b"1000 10 another\n2000 10 b\n";
        assert_eq!(read_at(20, anew, (11, 19)), ["changed", "b"]);
        assert_eq!(read_at(21, anew, (11, 19)), ["changed", "b"]);
        assert_eq!(read_at(30, anew, (21, 29)), ["another", "b"]);
        read_at(2 * BEFORE_KEPT_NS, anew, (0, 0));
        assert!(file.before.is_none());
    }

    /// Check a file that is truncated while it is read, and one that cannot be read.
    #[test]
    fn files_that_are_cut_meanwhile_end_early() {
        let whole = b"1000 10 a\n2000 10 b\n";
        let mut file = GrowingFile::new(JitFormat::PerfMap);
        for end in [0, 12, whole.len()] {
            assert!(file.read_new(whole.len() as u64, text(&whole[..end])));
            assert_eq!(file.code().len(), end / 10);
        }
        let mut file = GrowingFile::new(JitFormat::Dump);
        assert!(file.read_new(100, |_, _| Err(io::ErrorKind::PermissionDenied.into())));
        assert!(file.code().is_empty());
    }
}
