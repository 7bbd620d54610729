//! Which code lies where in a process, as far as its compiler told. Code that is written over other code takes its place.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::dump::RECORD_BYTES_MAX;

/// Pieces of code. A Java server has 30,000 methods, a large Node program 100,000 functions; with the tree's slack a piece
/// takes about 60 bytes, so 8 MB.
const PIECES_MAX: usize = (128 << 10) / SMALLER;
/// Bytes of names: a piece's takes 50 to 120.
const NAME_BYTES_MAX: usize = (12 << 20) / SMALLER;
/// Lines, 24 bytes each: 6 MB.
const LINES_MAX: usize = (256 << 10) / SMALLER;
/// A piece and its place in the tree.
const PIECE_BYTES: usize = size_of::<u64>() + size_of::<Piece>();
/// Under the fuzzer, whose files are small, limits are reached too.
const SMALLER: usize = if cfg!(fuzzing) { 1 << 10 } else { 1 };

/// A piece of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    end: u64,
    name_at: u32,
    name_bytes: u32,
    /// Where in the table of lines its own are, sorted by address.
    lines: (u32, u32),
    /// What was added to its addresses by moves, after its lines were told.
    moved_by: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    address: u64,
    line: u32,
    /// Where its file's name is in the names, and its length at most 65,535.
    file_at: u32,
    file_bytes: u16,
}

/// A name, and where it comes from if that is known.
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
    names: Vec<u8>,
    lines: Vec<Line>,
    is_full: bool,
}

impl Code {
    /// What [`bytes`](Self::bytes) may reach: each limit, and the files' names of one record, which are kept when its name
    /// still fits.
    pub const BYTES_MAX: usize = (PIECES_MAX + 1) * PIECE_BYTES
        + NAME_BYTES_MAX
        + RECORD_BYTES_MAX
        + LINES_MAX * size_of::<Line>();

    /// Adds a piece, which is newer than all others. Empty pieces and such that end behind the last address are none.
    pub fn add(&mut self, start: u64, bytes: u64, name: &[u8]) {
        self.add_with_lines(start, bytes, name, &[], |_| b"");
    }

    /// As [`add`](Self::add), with lines `(address, line, file)`, where `file_of` gives the name of the file.
    pub(super) fn add_with_lines<'a>(
        &mut self,
        start: u64,
        bytes: u64,
        name: &[u8],
        lines: &[(u64, u32, u32)],
        file_of: impl Fn(u32) -> &'a [u8],
    ) {
        let Some(end) = start.checked_add(bytes).filter(|end| *end > start) else {
            return;
        };
        if self.pieces.len() >= PIECES_MAX || !self.make_room(name.len(), lines.len()) {
            self.is_full = true;
            // What lay there is no more, all the same.
            self.clear(start, end);
            return;
        }
        let name_at = self.push_name(name);
        let lines_start = self.lines.len() as u32;
        let mut file_before = None;
        for &(address, line, file) in lines {
            let (file_at, file_bytes) = match file_before {
                Some((number, at, bytes)) if number == file => (at, bytes),
                _ => {
                    let name = file_of(file);
                    let name = &name[..name.len().min(usize::from(u16::MAX))];
                    (self.push_name(name), name.len() as u16)
                }
            };
            file_before = Some((file, file_at, file_bytes));
            self.lines.push(Line {
                address,
                line,
                file_at,
                file_bytes,
            });
        }
        self.lines[lines_start as usize..].sort_by_key(|line| line.address);
        let piece = Piece {
            end,
            name_at,
            name_bytes: name.len() as u32,
            lines: (lines_start, self.lines.len() as u32),
            moved_by: 0,
        };
        self.clear(start, end);
        self.pieces.insert(start, piece);
    }

    /// The piece that starts at `from` now starts at `to`. One that is not known is ignored.
    pub fn move_to(&mut self, from: u64, to: u64) {
        let Some(mut piece) = self.pieces.remove(&from) else {
            return;
        };
        let by = to.wrapping_sub(from);
        if let Some(end) = piece.end.checked_add(by).filter(|end| *end > to) {
            piece.end = end;
            piece.moved_by = piece.moved_by.wrapping_add(by);
            self.clear(to, end);
            self.pieces.insert(to, piece);
        } else if to < from {
            piece.end = piece.end.wrapping_add(by);
            piece.moved_by = piece.moved_by.wrapping_add(by);
            self.clear(to, piece.end);
            self.pieces.insert(to, piece);
        }
    }

    /// The newest piece at an address.
    pub fn find(&self, address: u64) -> Option<CodeName<'_>> {
        let (_, piece) = self.pieces.range(..=address).next_back()?;
        if address >= piece.end {
            return None;
        }
        let lines = &self.lines[piece.lines.0 as usize..piece.lines.1 as usize];
        let told = address.wrapping_sub(piece.moved_by);
        let line = lines
            .partition_point(|line| line.address <= told)
            .checked_sub(1);
        let line = line.map(|index| lines[index]);
        Some(CodeName {
            name: self.name(piece.name_at, piece.name_bytes as usize),
            file: line.map_or(b"", |it| self.name(it.file_at, usize::from(it.file_bytes))),
            line: line.map_or(0, |line| line.line),
        })
    }

    /// Whether some code was left out for want of room.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Bytes that its parts take, without their slack.
    pub fn bytes(&self) -> usize {
        self.pieces.len() * PIECE_BYTES + self.names.len() + self.lines.len() * size_of::<Line>()
    }

    /// Pieces of code.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether no code is known.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn name(&self, at: u32, bytes: usize) -> &[u8] {
        let at = at as usize;
        self.names.get(at..at + bytes).unwrap_or_default()
    }

    /// At most [`NAME_BYTES_MAX`] and a piece's own, so that places fit.
    fn push_name(&mut self, name: &[u8]) -> u32 {
        let at = self.names.len() as u32;
        self.names.extend_from_slice(name);
        at
    }

    /// Takes `start..end` from the pieces that lie there.
    fn clear(&mut self, start: u64, end: u64) {
        let before = self.pieces.range_mut(..start).next_back();
        if let Some((_, piece)) = before.filter(|(_, piece)| piece.end > start) {
            let rest = *piece;
            piece.end = start;
            if rest.end > end {
                // One more than before: what lies behind the hole is lost when there is no room for it.
                match self.pieces.len() < PIECES_MAX {
                    true => drop(self.pieces.insert(end, rest)),
                    false => self.is_full = true,
                }
            }
        }
        while let Some((&at, &piece)) = self.pieces.range(start..end).next() {
            self.pieces.remove(&at);
            if piece.end > end {
                self.pieces.insert(end, piece);
            }
        }
    }

    /// Whether a name and lines fit, if need be after what no piece uses any more is gone.
    fn make_room(&mut self, name_bytes: usize, lines: usize) -> bool {
        let fits = |it: &Self| {
            it.names.len() + name_bytes <= NAME_BYTES_MAX && it.lines.len() + lines <= LINES_MAX
        };
        if !fits(self) && !self.is_full {
            self.forget_unused();
            // When little was left to forget, to look again for each piece would take all time.
            self.is_full |=
                self.names.len() > NAME_BYTES_MAX / 8 * 7 || self.lines.len() > LINES_MAX / 8 * 7;
        }
        fits(self)
    }

    fn forget_unused(&mut self) {
        let mut kept = Self::default();
        // Where files' names were, and are: each once, whatever the order of the lines. 262,144 at most, 5 MB for a moment.
        let mut files = FxHashMap::default();
        for (start, piece) in &self.pieces {
            let lines = &self.lines[piece.lines.0 as usize..piece.lines.1 as usize];
            let name_at = kept.push_name(self.name(piece.name_at, piece.name_bytes as usize));
            let lines_start = kept.lines.len() as u32;
            for line in lines {
                let name = || self.name(line.file_at, usize::from(line.file_bytes));
                let place = files.entry((line.file_at, line.file_bytes));
                let file_at = *place.or_insert_with(|| kept.push_name(name()));
                kept.lines.push(Line { file_at, ..*line });
            }
            let lines = (lines_start, kept.lines.len() as u32);
            let piece = Piece {
                name_at,
                lines,
                ..*piece
            };
            kept.pieces.insert(*start, piece);
            if kept.names.len() > NAME_BYTES_MAX || kept.lines.len() > LINES_MAX {
                // Pieces that were cut in two share their names, and no more when they are copied.
                kept.is_full = true;
                break;
            }
        }
        *self = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(code: &Code, address: u64) -> String {
        let name = code.find(address).map_or(&b"-"[..], |it| it.name);
        String::from_utf8_lossy(name).into_owned()
    }

    /// Names at each of the addresses, `-` where there is none.
    fn names(code: &Code, addresses: &[u64]) -> String {
        addresses
            .iter()
            .map(|address| name(code, *address))
            .collect()
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
        assert_eq!(
            names(&code, &[0x80, 0xff, 0x100, 0x2df, 0x2e0, 0x2ff]),
            "ddccee"
        );
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
        let lines = [(0x110, 2, 1), (0x100, 1, 0)];
        let file_of = |number| if number == 0 { &b"x.js"[..] } else { b"y.js" };
        code.add_with_lines(0x100, 0x20, b"f", &lines, file_of);
        code.add(0x500, 0x100, b"old");
        for (from, to) in [(0x100, 0x508), (0x508, 0x90)] {
            code.move_to(from, to);
            let found = code.find(to + 0x11).unwrap();
            assert_eq!(
                (found.name, found.file, found.line),
                (&b"f"[..], &b"y.js"[..], 2)
            );
            assert_eq!(code.find(to + 0xf).unwrap().line, 1);
        }
        assert_eq!(name(&code, 0x100), "-");
        assert_eq!(names(&code, &[0x507, 0x508, 0x528]), "old-old");
        code.move_to(0x77, 0x500);
        code.move_to(0x90, u64::MAX - 1);
    }

    /// Check that what is still used takes no more memory after the rest is forgotten, when the lines of two files alternate.
    #[test]
    fn files_are_kept_once() {
        let mut code = Code::default();
        let files = [[b'x'; 60_000], [b'y'; 60_000]];
        let lines: Vec<_> = (0..20_000)
            .map(|it| {
                (
                    it % 10_000 * 2 + it / 10_000,
                    it as u32,
                    (it / 10_000) as u32,
                )
            })
            .collect();
        code.add_with_lines(0, 0x10_0000, b"f", &lines, |it| &files[it as usize]);
        let bytes = code.bytes();
        code.forget_unused();
        assert_eq!(code.bytes(), bytes);
        for (address, file) in [(0, &files[0]), (1, &files[1]), (19_998, &files[0])] {
            assert_eq!(code.find(address).unwrap().file, file);
        }
        assert!(!code.is_full());
    }

    /// Check that what is rewritten again and again does not fill the memory, and what is too much is left out.
    #[test]
    fn memory_is_bounded() {
        let mut code = Code::default();
        let name = [b'n'; 4000];
        for round in 0..20_000 {
            code.add(round % 100 * 16, 16, &name);
        }
        assert!(!code.is_full() && code.names.len() <= NAME_BYTES_MAX);
        for round in 0..20_000 {
            code.add(round * 16, 16, &name);
        }
        assert!(code.is_full() && code.names.len() <= NAME_BYTES_MAX);
        assert!(code.find(19_999 * 16).is_none());
    }
}
