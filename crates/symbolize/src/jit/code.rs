//! The code at each address of a process, as its compiler reports it. Newer code replaces older code at its addresses.
//!
//! Names are looked up some time after the samples, and other code may lie at the address by then. So each piece of code has the time
//! when it was written: a jitdump has times, and a line of a perf map was written between two readings of the file. Replaced code
//! is remembered for a while. An address has a name if the same code lay there from the first to the last sample, and otherwise none.

use std::collections::BTreeMap;

use super::{
    replaced::{self, REPLACED_MAX, Replaced, ReplacedCode, SMALLER},
    when::When,
};

/// Bytes of the pieces. A Java server has 30,000 methods, a large Node program 100,000 functions; each has a name of 50 to 120 bytes,
/// and Node's have some lines.
const PIECES_BYTES_MAX: usize = (24 << 20) / SMALLER;
/// A piece of code.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    end: u64,
    name: Box<[u8]>,
    lines: Option<Box<Lines>>,
    /// Difference to the addresses in `lines`.
    moved_by: u64,
    since: When,
}

/// Lines of a piece of code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) rows: Vec<Line>,
    /// Names of files.
    pub(super) files: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) address: u64,
    pub(super) line: u32,
    /// Index into [`Lines::files`].
    pub(super) file: u32,
}

impl Piece {
    /// With its address, without its heap's overhead.
    fn bytes(&self) -> usize {
        let lines = self.lines.as_ref().map_or(0, |lines| {
            let files = lines
                .files
                .iter()
                .map(|file| size_of_val(file) + file.len());
            size_of::<Lines>() + size_of_val(&*lines.rows) + files.sum::<usize>()
        });
        size_of::<(u64, Self)>() + self.name.len() + lines
    }

    fn code_name(&self, address: u64) -> CodeName<'_> {
        let mut found = CodeName {
            name: &self.name,
            file: b"",
            line: 0,
        };
        if let Some(lines) = &self.lines {
            let reported = address.wrapping_sub(self.moved_by);
            let after = lines.rows.partition_point(|line| line.address <= reported);
            if let Some(line) = lines.rows[..after].last() {
                found.line = line.line;
                found.file = lines.files.get(line.file as usize).map_or(b"", |file| file);
            }
        }
        found
    }
}

/// The code at an address from one time to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeAt<'a> {
    /// The same code all the time.
    Same(CodeName<'a>),
    /// It was replaced, or may have been.
    Changed,
    /// None was reported.
    None,
}

/// A name, and its source line if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeName<'a> {
    /// As the compiler wrote it.
    pub name: &'a [u8],
    /// Source file, or empty.
    pub file: &'a [u8],
    /// Line, or 0.
    pub line: u32,
}

/// The code of one process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// By first address; they do not overlap.
    pieces: BTreeMap<u64, Piece>,
    /// Bytes of `pieces`.
    bytes: usize,
    is_full: bool,
    replaced: ReplacedCode,
    /// When code that is added now was written.
    now: When,
}

impl Code {
    /// The most that [`bytes`](Self::bytes) returns.
    pub const BYTES_MAX: usize =
        PIECES_BYTES_MAX + REPLACED_MAX * (size_of::<Replaced>() + replaced::NAME_BYTES_MAX);

    /// Sets the time when code that is added from now on was written.
    pub fn set_time(&mut self, now: When) {
        self.now = now;
    }

    /// Adds code, which is newer than all other. Code that is empty or reaches beyond the last address is ignored.
    pub fn add(&mut self, start: u64, bytes: u64, name: &[u8]) {
        self.add_with_lines(start, bytes, name, Lines::default());
    }

    /// As [`add`](Self::add), with lines in any order.
    pub(super) fn add_with_lines(&mut self, start: u64, bytes: u64, name: &[u8], mut lines: Lines) {
        let Some(end) = start.checked_add(bytes).filter(|end| *end > start) else {
            return;
        };
        self.clear(start, end);
        lines.rows.sort_by_key(|line| line.address);
        let piece = Piece {
            end,
            name: name.into(),
            lines: (!lines.rows.is_empty()).then(|| Box::new(lines)),
            moved_by: 0,
            since: self.now,
        };
        self.insert(start, piece);
    }

    /// Moves the piece that starts at `from`, if there is one.
    pub(super) fn move_to(&mut self, from: u64, to: u64) {
        let Some(piece) = self.remove(from) else {
            return;
        };
        self.remember(from, &piece, (from, piece.end));
        let by = to.wrapping_sub(from);
        let end = piece.end.wrapping_add(by);
        if end > to {
            self.clear(to, end);
            let piece = Piece {
                end,
                moved_by: piece.moved_by.wrapping_add(by),
                since: self.now,
                ..piece
            };
            self.insert(to, piece);
        }
    }

    /// The newest code at an address.
    pub fn find(&self, address: u64) -> Option<CodeName<'_>> {
        Some(self.find_piece(address)?.code_name(address))
    }

    fn find_piece(&self, address: u64) -> Option<&Piece> {
        let (_, piece) = self.pieces.range(..=address).next_back()?;
        (address < piece.end).then_some(piece)
    }

    /// The code at an address between two times.
    pub fn find_between(&self, address: u64, first_ns: u64, last_ns: u64) -> CodeAt<'_> {
        let newest = self.find_piece(address);
        let mut name = newest.map(|piece| &*piece.name);
        let mut since = newest.map(|piece| piece.since);
        for older in self.replaced.find(address) {
            if name == Some(&*older.name) || last_ns < older.until.earliest_ns {
                name = Some(&older.name);
                since = Some(older.since);
            } else if first_ns >= since.unwrap_or(older.until).latest_ns {
                break;
            } else {
                return CodeAt::Changed;
            }
        }
        match (newest, name) {
            (Some(newest), Some(name)) if *newest.name == *name => {
                CodeAt::Same(newest.code_name(address))
            }
            (_, Some(name)) => CodeAt::Same(CodeName {
                name,
                file: b"",
                line: 0,
            }),
            (_, None) => CodeAt::None,
        }
    }

    fn remember(&mut self, start: u64, piece: &Piece, part: (u64, u64)) {
        if self.now == When::default() {
            // No times are known.
            return;
        }
        self.replaced.push(Replaced {
            start: part.0.max(start),
            end: part.1.min(piece.end),
            name: piece.name[..piece.name.len().min(replaced::NAME_BYTES_MAX)].into(),
            since: piece.since,
            until: self.now,
        });
    }

    /// Whether some code was left out for lack of room.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Memory in bytes, without the slack of collections.
    pub fn bytes(&self) -> usize {
        self.bytes + self.replaced.bytes()
    }

    /// Pieces of code.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether no code is known.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Takes `start..end` from the pieces there.
    fn clear(&mut self, start: u64, end: u64) {
        let below = self.pieces.range(..end).rev();
        let overlapping = below.take_while(|(_, piece)| piece.end > start);
        let starts: Vec<u64> = overlapping.map(|(start, _)| *start).collect();
        for at in starts {
            let Some(piece) = self.remove(at) else {
                continue;
            };
            self.remember(at, &piece, (start, end));
            let tail = (piece.end > end).then(|| piece.clone());
            if at < start {
                self.insert(
                    at,
                    Piece {
                        end: start,
                        ..piece
                    },
                );
            }
            if let Some(tail) = tail {
                self.insert(end, tail);
            }
        }
    }

    /// Inserts a piece where there is none, if there is room for it.
    fn insert(&mut self, start: u64, piece: Piece) {
        let bytes = piece.bytes();
        if self.bytes + bytes > PIECES_BYTES_MAX {
            self.is_full = true;
            return;
        }
        self.bytes += bytes;
        self.pieces.insert(start, piece);
    }

    fn remove(&mut self, start: u64) -> Option<Piece> {
        let piece = self.pieces.remove(&start)?;
        self.bytes -= piece.bytes();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(code: &Code, address: u64) -> String {
        let name = code.find(address).map_or(&b"-"[..], |code| code.name);
        String::from_utf8_lossy(name).into_owned()
    }

    /// The name at each address, `-` where there is none.
    fn names(code: &Code, addresses: &[u64]) -> String {
        let names = addresses.iter().map(|address| name(code, *address));
        names.collect()
    }

    /// Check that newer code takes the place of older code, and no more than its own.
    #[test]
    fn newest_code_wins() {
        let mut code = Code::default();
        code.add(0x100, 0x100, b"a");
        assert_eq!(names(&code, &[0xff, 0x100, 0x1ff, 0x200]), "-aa-");
        code.add(0x140, 0x10, b"b");
        assert_eq!(names(&code, &[0x13f, 0x140, 0x14f, 0x150]), "abba");
        code.add(0xf0, 0x200, b"c");
        assert_eq!(names(&code, &[0xef, 0xf0, 0x148, 0x2ef, 0x2f0]), "-ccc-");
        assert_eq!(code.len(), 1);
        code.add(0x80, 0x80, b"d");
        code.add(0x2e0, 0x20, b"e");
        let addresses = [0x80, 0xff, 0x100, 0x2df, 0x2e0, 0x2ff];
        assert_eq!(names(&code, &addresses), "ddccee");
    }

    /// Check that empty code and code beyond the last address is none.
    #[test]
    fn odd_code_is_none() {
        let mut code = Code::default();
        code.add(5, 0, b"a");
        code.add(u64::MAX, 1, b"b");
        code.add(2, u64::MAX, b"c");
        assert!(code.is_empty());
        code.add(0, u64::MAX, b"d");
        assert_eq!(names(&code, &[0, 7, u64::MAX - 1, u64::MAX]), "ddd-");
    }

    /// Check that lines move with their code, in both directions, and that code at the new place is gone.
    #[test]
    fn moved_code_keeps_its_lines() {
        let mut code = Code::default();
        let rows = [(0x110, 2, 1), (0x100, 1, 0)];
        let rows = rows.map(|(address, line, file)| Line {
            address,
            line,
            file,
        });
        let files = [b"x.js", b"y.js"].map(|file| file[..].into()).to_vec();
        let rows = rows.to_vec();
        code.add_with_lines(0x100, 0x20, b"f", Lines { rows, files });
        code.add(0x500, 0x100, b"old");
        for (from, to) in [(0x100, 0x508), (0x508, 0x90)] {
            code.move_to(from, to);
            let found = code.find(to + 0x11).unwrap();
            let expected = (&b"f"[..], &b"y.js"[..], 2);
            assert_eq!((found.name, found.file, found.line), expected);
            assert_eq!(code.find(to + 0xf).unwrap().line, 1);
        }
        assert_eq!(name(&code, 0x100), "-");
        assert_eq!(names(&code, &[0x507, 0x508, 0x528]), "old-old");
        code.move_to(0x77, 0x500);
        code.move_to(0x90, u64::MAX - 1);
    }

    /// Check that replaced code frees its memory, with its lines.
    #[test]
    fn replaced_code_is_freed() {
        let mut code = Code::default();
        code.add(0, 0x10_0000, b"f");
        let bytes = code.bytes();
        let files = vec![[b'x'; 60_000][..].into(), [b'y'; 60_000][..].into()];
        let rows = (0..20_000_u32).map(|n| Line {
            address: u64::from(n % 10_000 * 2 + n / 10_000),
            line: n,
            file: n / 10_000,
        });
        let rows = rows.collect();
        let lines = Lines { rows, files };
        code.add_with_lines(0, 0x10_0000, b"f", lines.clone());
        for (address, file) in [(0, 0), (1, 1), (19_998, 0)] {
            assert_eq!(code.find(address).unwrap().file, &*lines.files[file]);
        }
        assert!(!code.is_full() && code.bytes() > bytes + 440_000);
        code.add(0, 0x10_0000, b"g");
        assert_eq!(code.bytes(), bytes);
    }

    fn name_between(code: &Code, address: u64, first_ns: u64, last_ns: u64) -> String {
        match code.find_between(address, first_ns, last_ns) {
            CodeAt::Same(code) => String::from_utf8_lossy(code.name).into_owned(),
            CodeAt::Changed => "changed".into(),
            CodeAt::None => "-".into(),
        }
    }

    /// Check that samples are named by the code of their time if the times are known, and not at all on both sides of a change.
    #[test]
    fn samples_have_the_code_of_their_time() {
        let mut code = Code::default();
        for (time_ns, name) in [(10, "a"), (20, "b"), (30, "b"), (40, "c")] {
            code.set_time(When::at(time_ns));
            code.add(0x100, 0x100, name.as_bytes());
        }
        code.set_time(When::at(50));
        code.move_to(0x100, 0x1000);
        for (first_ns, last_ns, expected) in [
            // Nothing else is known before the first.
            (5, 15, "a"),
            (10, 19, "a"),
            (19, 20, "changed"),
            (20, 39, "b"),
            (25, 45, "changed"),
            (40, 49, "c"),
            (49, 50, "changed"),
            (50, 60, "-"),
        ] {
            let found = name_between(&code, 0x180, first_ns, last_ns);
            assert_eq!(found, expected, "{first_ns} to {last_ns}");
        }
        assert_eq!(name_between(&code, 0x1080, 45, 60), "c");
        assert_eq!(name(&code, 0x180), "-");
    }

    /// Check that samples between two readings have no name if code was replaced between them, and that later ones are named by
    /// the newer code.
    #[test]
    fn changes_between_two_readings_are_not_guessed() {
        let mut code = Code::default();
        let reading = |earliest_ns, latest_ns| When {
            earliest_ns,
            latest_ns,
        };
        code.set_time(reading(0, 10));
        code.add(0x100, 0x100, b"a");
        assert_eq!(name_between(&code, 0x100, 1, 9), "a");
        code.set_time(reading(10, 20));
        code.add(0x180, 0x10, b"b");
        code.add(0x188, 0x10, b"c");
        for (address, first_ns, last_ns, expected) in [
            (0x100, 1, 19, "a"),
            (0x180, 1, 9, "a"),
            (0x180, 11, 19, "changed"),
            (0x188, 11, 19, "changed"),
            (0x180, 20, 25, "b"),
            (0x188, 20, 25, "c"),
        ] {
            let found = name_between(&code, address, first_ns, last_ns);
            assert_eq!(found, expected, "{address:x} from {first_ns} to {last_ns}");
        }
    }

    /// Check that code that is replaced again and again does not fill the memory, and that code over the limit is left out.
    #[test]
    fn memory_is_bounded() {
        let mut code = Code::default();
        let name = [b'n'; 4000];
        for round in 0..20_000 {
            code.add(round % 100 * 16, 16, &name);
        }
        assert!(!code.is_full() && code.bytes() <= PIECES_BYTES_MAX);
        code.set_time(When::at(5));
        for round in 0..20_000 {
            code.add(round * 16, 16, &name);
            code.add(round % 100 * 16, 16, b"n");
        }
        assert_eq!(code.replaced.len(), REPLACED_MAX);
        assert!(code.bytes() <= Code::BYTES_MAX);
        assert!(code.is_full() && code.bytes <= PIECES_BYTES_MAX);
        assert!(code.find(19_999 * 16).is_none());
    }
}
