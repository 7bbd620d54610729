//! A file that a compiler adds to, as far as it was read; pure.
//!
//! In: the file's size and a way to read it. Out: the code that it tells of. It is read from its start again when it was
//! cut or written anew.

use std::io;

use super::super::protocol::JitFormat;
use super::code::Code;
use super::dump::JitDump;
use super::map::PerfMap;

/// Bytes read at once: those of the longest record.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes read at one time: half a second. What is behind them is read the next time.
const READ_BYTES_MAX: u64 = 64 << 20;
/// Bytes before the place that was read to, by which a file that was written anew is known: of a map at least a line.
const SEEN_BYTES: usize = 64;

/// A file as far as it was read.
#[derive(Debug)]
pub struct GrowingFile {
    format: JitFormat,
    contents: Contents,
    size: u64,
    position: u64,
    seen: Seen,
}

/// The last bytes that were read and taken, and where they lie.
#[derive(Debug, Default)]
struct Seen {
    at: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Contents {
    Map(PerfMap),
    Dump(JitDump),
}

impl GrowingFile {
    /// A file of which nothing was read.
    pub fn new(format: JitFormat) -> Self {
        Self {
            format,
            contents: Contents::new(format),
            size: 0,
            position: 0,
            seen: Seen::default(),
        }
    }

    /// Reads what was added to the file, which has `size` bytes now. `false`: there is more.
    ///
    /// A read of fewer bytes than asked for, or of none, is one of a file that was cut meanwhile.
    pub fn read_new(
        &mut self,
        size: u64,
        mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> bool {
        // `jcmd PID Compiler.perfmap` writes all of its file again, and it may be longer than before.
        if size < self.size || !self.seen.is_there(&mut read_at) {
            *self = Self::new(self.format);
        }
        self.size = size;
        let end = self.position.saturating_add(READ_BYTES_MAX);
        let left = size.saturating_sub(self.position);
        let mut chunk =
            vec![0; usize::try_from(left).map_or(CHUNK_BYTES, |it| it.min(CHUNK_BYTES))];
        while self.position < size {
            if self.position >= end {
                return false;
            }
            let Ok(read) = read_at(&mut chunk, self.position) else {
                break;
            };
            let taken = self.contents.read(&chunk[..read]);
            if taken == 0 {
                break;
            }
            let known = usize::try_from(taken).map_or(read, |taken| taken.min(read));
            self.seen.keep(self.position, &chunk[..known]);
            self.position = self.position.saturating_add(taken);
        }
        true
    }

    /// What it told of.
    pub fn code(&self) -> &Code {
        match &self.contents {
            Contents::Map(map) => &map.code,
            Contents::Dump(dump) => &dump.code,
        }
    }
}

impl Seen {
    fn keep(&mut self, at: u64, bytes: &[u8]) {
        let start = bytes.len().saturating_sub(SEEN_BYTES);
        self.at = at.saturating_add(start as u64);
        self.bytes.clear();
        self.bytes.extend_from_slice(&bytes[start..]);
    }

    /// Whether the file still has these bytes there. A file that cannot be read is none that was written anew.
    fn is_there(&self, read_at: &mut impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> bool {
        let mut now = [0; SEEN_BYTES];
        let now = &mut now[..self.bytes.len()];
        match read_at(now, self.at) {
            Ok(read) => now[..read.min(self.bytes.len())] == self.bytes,
            Err(_) => true,
        }
    }
}

impl Contents {
    fn new(format: JitFormat) -> Self {
        match format {
            JitFormat::PerfMap => Self::Map(PerfMap::default()),
            JitFormat::Dump => Self::Dump(JitDump::default()),
        }
    }

    /// Reads the file's next bytes, and gives how many they take.
    fn read(&mut self, bytes: &[u8]) -> u64 {
        match self {
            Self::Map(map) => map.read(bytes) as u64,
            Self::Dump(dump) => dump.read(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this text, as it is read.
    fn text(text: &[u8]) -> impl Fn(&mut [u8], u64) -> io::Result<usize> {
        move |out, at| {
            let rest = text.get(at as usize..).unwrap_or_default();
            let read = rest.len().min(out.len());
            out[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        }
    }

    /// Reads a map that has this text now, and gives the names at 0x1000 and 0x2000.
    fn read(file: &mut GrowingFile, bytes: &[u8]) -> [String; 2] {
        assert!(file.read_new(bytes.len() as u64, text(bytes)));
        [0x1000, 0x2000].map(|address| {
            let name = file.code().find(address).map_or(&b"-"[..], |it| it.name);
            String::from_utf8_lossy(name).into_owned()
        })
    }

    /// Check that a file that grows is read on, and that one that was cut, or written anew and is longer since, is read from
    /// its start.
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

    /// Check that a file that is cut while it is read, or cannot be read, gives what was read.
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
