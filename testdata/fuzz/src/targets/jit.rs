//! Perf maps and jitdumps: any bytes, and valid files that grow, are truncated and restarted, against a plain model of the newest code
//! at an address.

use symbolize::jit::{Code, GrowingFile, JitFormat};

/// Bits of the first byte: the format, and whether the rest are bytes of a file or [`Step`]s.
const IS_DUMP: u8 = 1;
const IS_MODELLED: u8 = 2;
/// Pieces in which any bytes are read.
const PIECES: usize = 32;
/// All modelled code lies below, in steps of 4 bytes.
const ADDRESSES: u64 = 0x800;

/// Tries an input by its first byte.
pub(crate) fn run(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let format = match kind & IS_DUMP {
        0 => JitFormat::PerfMap,
        _ => JitFormat::Dump,
    };
    match kind & IS_MODELLED {
        0 => try_bytes(format, rest),
        _ => try_steps(format, rest),
    }
}

/// Any bytes: read at once or in pieces, they report the same code.
fn try_bytes(format: JitFormat, bytes: &[u8]) {
    let mut at_once = GrowingFile::new(format);
    read(&mut at_once, bytes);
    let mut in_pieces = GrowingFile::new(format);
    let piece = bytes.len() / PIECES + 1;
    for end in (piece..bytes.len()).step_by(piece).chain([bytes.len()]) {
        read(&mut in_pieces, &bytes[..end]);
    }
    assert!(at_once.code() == in_pieces.code());
    check_memory(at_once.code());
    for at in 0..bytes.len().saturating_sub(8).min(256) {
        let _ = at_once.code().find(u64::from_le_bytes(
            bytes[at..at + 8].try_into().expect("8 bytes"),
        ));
    }
}

fn read(file: &mut GrowingFile, bytes: &[u8]) {
    let is_read = file.read_new(bytes.len() as u64, |out, at| {
        let rest = usize::try_from(at)
            .ok()
            .and_then(|at| bytes.get(at..))
            .unwrap_or_default();
        let read = rest.len().min(out.len());
        out[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    });
    assert!(is_read, "it is a small file");
}

fn check_memory(code: &Code) {
    assert!(code.bytes() <= Code::BYTES_MAX, "{} bytes", code.bytes());
}

/// A change of a file, 6 bytes each.
#[derive(Clone)]
enum Step {
    Load(Load),
    Move {
        from: u64,
        to: u64,
    },
    /// A record or line without code.
    Nothing,
    /// The file is read, without its last bytes.
    Read {
        without: usize,
    },
    /// The file is truncated to its first entries, and read.
    Cut {
        entries: usize,
    },
    /// The process restarts.
    Restart,
}

#[derive(Clone)]
struct Load {
    start: u64,
    bytes: u64,
    name: String,
    /// Offsets, in any order, and lines; the file is `/F.js`, F being a digit of the line.
    lines: Vec<(u64, u32)>,
}

fn parse_step(step: &[u8; 6], format: JitFormat) -> Step {
    let [kind, a, b, c, d, e] = *step;
    let address = |at: u8| u64::from(at) * 4 % ADDRESSES;
    match kind % 16 {
        0 => Step::Nothing,
        1 => Step::Read { without: a.into() },
        2 if b < 32 => Step::Cut { entries: a.into() },
        3 if b < 8 => Step::Restart,
        4 | 5 if format == JitFormat::Dump => Step::Move {
            from: address(a),
            to: address(b),
        },
        _ => {
            let bytes = u64::from(b % 64);
            let lines = (0..c % 8).map(|n| {
                (
                    u64::from(d.wrapping_mul(n + 1)) % (bytes + 1),
                    u32::from(e.wrapping_add(n)),
                )
            });
            let name = match c & 0x80 {
                0 => format!("f{d}{}", "x".repeat(usize::from(e))),
                _ => format!("JS:*f{d} /a.js:1:2"),
            };
            let lines = if format == JitFormat::Dump {
                lines.collect()
            } else {
                Vec::new()
            };
            Step::Load(Load {
                start: address(a),
                bytes,
                name,
                lines,
            })
        }
    }
}

/// A file, and its entries with their ends.
struct Written {
    format: JitFormat,
    bytes: Vec<u8>,
    entries: Vec<(Step, usize)>,
}

impl Written {
    fn new(format: JitFormat) -> Self {
        let mut bytes = Vec::new();
        if format == JitFormat::Dump {
            bytes.extend(
                [0x4a69_5444_u32, 1, 40, 62, 0, 1, 0, 0, 0, 0]
                    .map(u32::to_ne_bytes)
                    .concat(),
            );
        }
        Self {
            format,
            bytes,
            entries: Vec::new(),
        }
    }

    fn add(&mut self, step: Step) {
        match (self.format, &step) {
            (JitFormat::PerfMap, Step::Load(load)) => {
                self.bytes
                    .extend(format!("{:x} {:x} {}\n", load.start, load.bytes, load.name).bytes());
            }
            (JitFormat::PerfMap, _) => self.bytes.extend(b"what is this?\n"),
            (JitFormat::Dump, Step::Load(load)) => self.add_load(load),
            (JitFormat::Dump, Step::Move { from, to }) => {
                self.add_record(1, &words(&[0, *from, *from, *to, 0, 0]))
            }
            (JitFormat::Dump, _) => self.add_record(77, b"?"),
        }
        self.entries.push((step, self.bytes.len()));
    }

    fn add_load(&mut self, load: &Load) {
        if !load.lines.is_empty() {
            let behind = if load.name.starts_with("JS:") { 64 } else { 0 };
            let mut lines = words(&[load.start, load.lines.len() as u64]);
            let mut before = None;
            for (offset, line) in &load.lines {
                lines.extend(words(&[load.start + offset + behind]));
                lines.extend([*line, 0].map(u32::to_ne_bytes).concat());
                let file = file_of(*line);
                if before == Some(file.clone()) && line % 2 == 0 {
                    lines.extend(b"\xff\0")
                } else {
                    lines.extend(format!("{file}\0").bytes())
                }
                before = Some(file);
            }
            self.add_record(2, &lines);
        }
        let mut body = words(&[0, load.start, load.start, load.bytes, 1]);
        body.extend(load.name.bytes());
        body.push(0);
        body.resize(body.len() + load.bytes as usize, 0x90);
        self.add_record(0, &body);
    }

    fn add_record(&mut self, kind: u32, body: &[u8]) {
        self.bytes.extend(
            [kind, 16 + body.len() as u32, 0, 0]
                .map(u32::to_ne_bytes)
                .concat(),
        );
        self.bytes.extend(body);
    }

    fn cut(&mut self, entries: usize) {
        self.entries.truncate(entries);
        let start = Self::new(self.format).bytes.len();
        self.bytes
            .truncate(self.entries.last().map_or(start, |(_, end)| *end));
    }
}

fn file_of(line: u32) -> String {
    format!("/{}.js", line / 4 % 10)
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn try_steps(format: JitFormat, input: &[u8]) {
    let mut written = Written::new(format);
    let mut file = GrowingFile::new(format);
    for step in input.as_chunks().0 {
        match parse_step(step, format) {
            Step::Read { without } => read(
                &mut file,
                &written.bytes[..written.bytes.len().saturating_sub(without)],
            ),
            Step::Cut { entries } => {
                // Read before and after, or the file could have been rewritten with the same end.
                read(&mut file, &written.bytes);
                written.cut(entries);
                read(&mut file, &written.bytes);
            }
            Step::Restart => {
                written = Written::new(format);
                file = GrowingFile::new(format);
            }
            entry => written.add(entry),
        }
    }
    read(&mut file, &written.bytes);
    check_names(file.code(), &written);
}

/// A part of a piece of code that was not replaced.
#[derive(Clone, Copy)]
struct Part<'a> {
    start: u64,
    end: u64,
    load: &'a Load,
    moved_by: u64,
}

/// Takes `start..end` from all parts.
fn clear(parts: &mut Vec<Part<'_>>, start: u64, end: u64) {
    let left = parts.iter().flat_map(|part| {
        let ranges = [
            (part.start, part.end.min(start)),
            (part.start.max(end), part.end),
        ];
        let ranges = ranges.into_iter().filter(|(from, to)| from < to);
        ranges.map(|(start, end)| Part {
            start,
            end,
            ..*part
        })
    });
    *parts = left.collect();
}

/// The parts that are left after all entries.
fn lay_out(written: &Written) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (entry, _) in &written.entries {
        match entry {
            Step::Load(load) if load.bytes > 0 => {
                let (start, end) = (load.start, load.start + load.bytes);
                clear(&mut parts, start, end);
                parts.push(Part {
                    start,
                    end,
                    load,
                    moved_by: 0,
                });
            }
            Step::Move { from, to } => {
                let Some(place) = parts.iter().position(|part| part.start == *from) else {
                    continue;
                };
                let part = parts.remove(place);
                let by = to.wrapping_sub(*from);
                let moved = Part {
                    start: *to,
                    end: part.end.wrapping_add(by),
                    moved_by: part.moved_by.wrapping_add(by),
                    ..part
                };
                clear(&mut parts, moved.start, moved.end);
                parts.push(moved);
            }
            _ => {}
        }
    }
    parts
}

/// Compares each address. Code may be left out for lack of room, and then cannot be moved.
fn check_names(code: &Code, written: &Written) {
    check_memory(code);
    let has_moves = written
        .entries
        .iter()
        .any(|(entry, _)| matches!(entry, Step::Move { .. }));
    if code.is_full() && has_moves {
        return;
    }
    let parts = lay_out(written);
    for address in 0..ADDRESSES + 64 {
        let expected = parts
            .iter()
            .find(|part| (part.start..part.end).contains(&address))
            .map(|part| expect(part, address));
        let found = code
            .find(address)
            .map(|code| (text(code.name), text(code.file), code.line));
        if found.is_none() && code.is_full() {
            continue;
        }
        assert_eq!(found, expected, "{address:#x}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn expect(part: &Part<'_>, address: u64) -> (String, String, u32) {
    let told = address
        .wrapping_sub(part.moved_by)
        .wrapping_sub(part.load.start);
    let mut best: Option<(u64, u32)> = None;
    for (offset, line) in &part.load.lines {
        if *offset <= told && best.is_none_or(|best| best.0 <= *offset) {
            best = Some((*offset, *line));
        }
    }
    let file = best.map_or_else(String::new, |(_, line)| file_of(line));
    (
        part.load.name.clone(),
        file,
        best.map_or(0, |(_, line)| line),
    )
}

/// Each format as bytes, and steps of each kind.
pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let loads = [
        [9, 10, 40, 3, 5, 7],
        [9, 12, 4, 0x82, 2, 30],
        [4, 10, 90, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [9, 90, 8, 1, 0, 1],
    ];
    let others = [
        [1, 9, 0, 0, 0, 0],
        [9, 13, 3, 0, 1, 1],
        [2, 2, 0, 0, 0, 0],
        [9, 14, 2, 0, 9, 9],
        [3, 0, 0, 0, 0, 0],
        [9, 1, 2, 0, 3, 4],
    ];
    let many: Vec<u8> = (0..400_u32)
        .flat_map(|n| [9, (n * 7) as u8, 3, 2, n as u8, 40])
        .collect();
    let mut seeds = Vec::new();
    for (kind, format) in [(0, JitFormat::PerfMap), (IS_DUMP, JitFormat::Dump)] {
        let mut written = Written::new(format);
        loads
            .iter()
            .for_each(|step| written.add(parse_step(step, format)));
        seeds.push([&[kind], &written.bytes[..]].concat());
        seeds.push(
            [
                &[kind | IS_MODELLED],
                loads.concat().as_slice(),
                others.concat().as_slice(),
            ]
            .concat(),
        );
        seeds.push([&[kind | IS_MODELLED], many.as_slice()].concat());
    }
    seeds
}
