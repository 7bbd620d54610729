//! An ELF file's bytes -> an index. Reads whatever it is given, and may be killed for what it takes of memory and time; so it
//! runs in a child process ([`super::child`]).

use std::cell::RefCell;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::rc::Rc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use symbolic_common::{Language, Name, NameMangling};
use symbolic_debuginfo::elf::ElfObject;
use symbolic_debuginfo::function_builder::FunctionBuilder;
use symbolic_debuginfo::{FileInfo, LineInfo, Symbol};
use symbolic_symcache::SymCacheConverter;
use symbolic_symcache::transform::{Function, SourceLocation, Transformer};

use super::build_id::BuildId;
use super::debugdata::{DebugData, read_debug_data};
use super::demangle::demangle;
use super::elf::read_elf;
use super::index::{HEAD_BYTES, IndexHead, Rank};
use super::labels::read_labels;
use super::lines::read_lines;
use super::paths::{PathTable, join_folders};

/// Units whose debug information cannot be read, after which the file is given up: each costs a pass over it, and a good file
/// has none.
const UNREADABLE_MAX: u64 = 10_000;

/// Functions without lines that are kept to have them looked for: some 1 KB each with what is inlined into them, 64 MB together.
/// CPython has a hundred; those above it stay without.
const UNLINED_MAX: usize = 1 << 16;

/// Why a file was not taken. The order and the names are the metrics'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// It is not an ELF file, or its headers cannot be read.
    NotElf,
    /// It has no build id.
    NoBuildId,
    /// It has another build id.
    WrongBuildId,
    /// It has neither a symbol table nor debug information.
    NoSymbols,
    /// Its debug information cannot be read.
    Corrupt,
    /// It takes more memory, time or space than the server gives.
    Limit,
}

impl RefusalKind {
    /// As metrics and answers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotElf => "not_elf",
            Self::NoBuildId => "no_build_id",
            Self::WrongBuildId => "wrong_build_id",
            Self::NoSymbols => "no_symbols",
            Self::Corrupt => "corrupt",
            Self::Limit => "limit",
        }
    }
}

/// A file that was not taken, with a text for the person who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct FileRefusal {
    /// Why.
    pub kind: RefusalKind,
    /// What is wrong, and what to do.
    pub message: String,
}

impl FileRefusal {
    /// Makes a refusal.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The file is not taken.
    #[error("{0}")]
    Refused(#[from] FileRefusal),
    /// The index could not be written.
    #[error("failed to write the index: {0}")]
    Io(#[from] io::Error),
}

/// Makes the index of `bytes`, which must have the build id `wanted`, and writes it to `out` from its beginning.
///
/// # Errors
/// The file is not taken, or `out` cannot be written.
pub fn convert<W: Write + Seek>(
    bytes: &[u8],
    wanted: &BuildId,
    origin: &str,
    out: &mut W,
) -> Result<IndexHead, ConvertError> {
    let refuse = |kind, message: String| Err(FileRefusal::new(kind, message).into());
    let facts = match read_elf(bytes) {
        Ok(facts) => facts,
        Err(err) => {
            return refuse(
                RefusalKind::NotElf,
                format!("this is not an ELF file that can be read: {err}"),
            );
        }
    };
    match &facts.build_id {
        None => return refuse(RefusalKind::NoBuildId, no_build_id()),
        Some(has) if has != wanted => {
            return refuse(
                RefusalKind::WrongBuildId,
                format!(
                    "this file has the build id {has}, and not {wanted}: it is of another build; send it to \
                     /api/v1/debuginfo/{has}"
                ),
            );
        }
        Some(_) => {}
    }
    let Some(rank) = facts.rank else {
        return refuse(RefusalKind::NoSymbols, no_symbols());
    };
    let elf = ElfObject::parse(bytes)
        .map_err(|err| FileRefusal::new(RefusalKind::NotElf, err.to_string()))?;
    let paths = Rc::new(RefCell::new(PathTable::default()));
    let Collected {
        converter,
        unreadable,
        has_debug_info,
    } = collect(bytes, &elf, rank, &paths)?;
    // What counts is what it gave: a section with nothing in it is no better than a symbol table.
    let rank = match (has_debug_info, facts.has_symbol_table) {
        (true, _) => Rank::DebugInfo,
        (false, true) => Rank::SymbolTable,
        (false, false) => return refuse(RefusalKind::NoSymbols, no_symbols()),
    };

    out.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
    let mut body = Checked::new(BufWriter::with_capacity(1 << 20, &mut *out));
    converter.serialize(&mut body)?;
    let cache_bytes = body.bytes;
    body.write_all(&paths.borrow().encode())?;
    let (body_bytes, body_crc) = body.finish()?;
    let head = IndexHead {
        build_id: wanted.clone(),
        rank,
        origin: origin.to_owned(),
        created_ms: now_ms(),
        source_bytes: bytes.len() as u64,
        unreadable,
        load_address: elf.load_address(),
        layout: facts.layout,
        cache_bytes,
        body_bytes,
        body_crc,
    };
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&head.encode())?;
    out.flush()?;
    Ok(head)
}

/// What to do about a file without a build id.
pub fn no_build_id() -> String {
    "this file has no GNU build id, so that nobody can say which profiles it belongs to: link with -Wl,--build-id \
     (Rust: RUSTFLAGS=-Clink-arg=-Wl,--build-id; Go: -ldflags=-B=gobuildid) and profile what that makes"
        .to_owned()
}

/// What to do about a file without symbols.
pub fn no_symbols() -> String {
    "this file has neither a symbol table nor debug information (it is stripped): send the file as it was before `strip`, or \
     the .debug file that was split from it"
        .to_owned()
}

/// What an index is made of.
struct Collected {
    converter: SymCacheConverter<'static>,
    unreadable: u64,
    /// Whether a function or a line is of the debug information.
    has_debug_info: bool,
}

/// Goes through functions and symbols. A unit that cannot be read is counted, and the others are taken.
fn collect(
    bytes: &[u8],
    elf: &ElfObject<'_>,
    rank: Rank,
    paths: &Rc<RefCell<PathTable>>,
) -> Result<Collected, FileRefusal> {
    let mut converter = SymCacheConverter::new();
    converter.add_transformer(Names {
        paths: Rc::clone(paths),
    });
    let mut unreadable = 0;
    let mut covered = Vec::new();
    let mut unlined = Vec::new();
    let session;
    if rank == Rank::DebugInfo {
        let corrupt = |err: &dyn std::fmt::Display| {
            FileRefusal::new(
                RefusalKind::Corrupt,
                format!("the debug information of this file cannot be read: {err}"),
            )
        };
        session = elf.debug_session().map_err(|err| corrupt(&err))?;
        let mut last = None;
        for function in session.functions() {
            match function {
                Ok(function) => {
                    covered.push((function.address, function.end_address()));
                    match unlined.len() < UNLINED_MAX && !has_own_lines(&function) {
                        true => unlined.push(function),
                        false => converter.process_symbolic_function(&function),
                    }
                }
                Err(err) => {
                    unreadable += 1;
                    last = Some(err);
                    if unreadable >= UNREADABLE_MAX {
                        break;
                    }
                }
            }
        }
        if let (true, Some(err)) = (covered.is_empty(), last) {
            return Err(corrupt(&err));
        }
    }
    covered.sort_unstable();
    let labels = read_labels(bytes, elf.load_address(), &covered);
    let has_lines = rank == Rank::DebugInfo
        && add_with_lines(bytes, elf, &covered, &labels, &unlined, &mut converter);
    for symbol in elf.symbols().chain(labels) {
        converter.process_symbolic_symbol(&symbol);
    }
    match read_debug_data(elf) {
        DebugData::None => {}
        DebugData::Unpacked(packed) if add_packed(&packed, elf, &mut converter).is_some() => {}
        _ if elf.has_symbols() => unreadable += 1,
        _ => return Err(FileRefusal::new(RefusalKind::Corrupt, corrupt_debug_data())),
    }
    Ok(Collected {
        converter,
        unreadable,
        has_debug_info: has_lines || !covered.is_empty(),
    })
}

fn corrupt_debug_data() -> String {
    "this file has no symbols but those in .gnu_debugdata, which cannot be read or are too many"
        .to_owned()
}

/// Adds the symbols of the small file that was packed into `elf`. `None`: it is not one.
fn add_packed(
    packed: &[u8],
    elf: &ElfObject<'_>,
    converter: &mut SymCacheConverter<'_>,
) -> Option<()> {
    let inner = ElfObject::parse(packed).ok()?;
    // Both count from where they are loaded, of which the packed one may say something else.
    let shift = inner.load_address().wrapping_sub(elf.load_address());
    for symbol in inner.symbols() {
        converter.process_symbolic_symbol(&Symbol {
            address: symbol.address.wrapping_add(shift),
            ..symbol
        });
    }
    Some(())
}

/// Adds functions whose lines have to be looked for: those that are only listed in the symbol table, and `unlined` ones. Says
/// whether any has lines.
fn add_with_lines(
    bytes: &[u8],
    elf: &ElfObject<'_>,
    covered: &[(u64, u64)],
    labels: &[Symbol<'_>],
    unlined: &[symbolic_debuginfo::Function<'_>],
    converter: &mut SymCacheConverter<'_>,
) -> bool {
    let mut has_lines = false;
    let load_address = elf.load_address();
    let symbols = elf.symbol_map();
    let unlisted: Vec<_> = symbols
        .iter()
        .chain(labels)
        .filter_map(|symbol| find_uncovered(symbol, covered))
        .collect();
    let stretches = unlisted.iter().map(|(start, end, _)| (*start, *end));
    let stretches = stretches.chain(unlined.iter().map(|it| (it.address, it.end_address())));
    let stretches = stretches.map(|(start, end)| {
        let linked = |it: u64| it.wrapping_add(load_address);
        (linked(start), linked(end))
    });
    let lines = read_lines(bytes, &merge(stretches.collect()));
    let lines_in = |start: u64, end: u64| -> Vec<LineInfo<'_>> {
        let (first, last) = (
            start.wrapping_add(load_address),
            end.wrapping_add(load_address),
        );
        let from = lines.rows.partition_point(|row| row.address < first);
        let rows = lines.rows[from..]
            .iter()
            .take_while(|row| row.address < last);
        rows.map(|row| {
            let (folder, file) = &lines.files[row.file as usize];
            LineInfo {
                address: row.address.wrapping_sub(load_address),
                size: Some(u64::from(row.bytes)),
                file: FileInfo::new(folder.as_bytes().into(), file.as_bytes().into()),
                line: u64::from(row.line),
            }
        })
        .collect()
    };
    for (start, end, name) in unlisted {
        let rows = lines_in(start, end);
        if !rows.is_empty() {
            has_lines = true;
            converter.process_symbolic_function(&symbolic_debuginfo::Function {
                address: start,
                size: end - start,
                name: Name::new(name, NameMangling::Mangled, Language::Unknown),
                compilation_dir: b"",
                lines: rows,
                inlinees: Vec::new(),
                inline: false,
            });
        }
    }
    for function in unlined {
        let rows = lines_in(function.address, function.end_address());
        has_lines |= !rows.is_empty();
        match rows.is_empty() {
            true => converter.process_symbolic_function(function),
            false => converter.process_symbolic_function(&with_lines(function, rows)),
        }
    }
    has_lines
}

/// Stretches in order, those that overlap as one.
fn merge(mut stretches: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    stretches.sort_unstable();
    stretches.dedup_by(|next, last| {
        let overlaps = next.0 < last.1;
        if overlaps {
            last.1 = last.1.max(next.1);
        }
        overlaps
    });
    stretches
}

/// Whether a function has more lines than those in which it and what is inlined into it call: it has one for each call.
fn has_own_lines(function: &symbolic_debuginfo::Function<'_>) -> bool {
    function.lines.len() > function.inlinees.len() || function.inlinees.iter().any(has_own_lines)
}

/// A function with the same inlined calls, and lines of its code.
fn with_lines<'a>(
    function: &symbolic_debuginfo::Function<'a>,
    lines: Vec<LineInfo<'a>>,
) -> symbolic_debuginfo::Function<'a> {
    let (start, bytes) = (function.address, function.size);
    let mut builder = FunctionBuilder::new(function.name.clone(), b"", start, bytes);
    add_calls(function, 0, &mut builder);
    for line in lines {
        builder.add_leaf_line(line.address, line.size, line.file, line.line);
    }
    builder.finish()
}

/// Adds the calls that were inlined into a function, `depth` deep.
fn add_calls<'a>(
    function: &symbolic_debuginfo::Function<'a>,
    depth: u32,
    builder: &mut FunctionBuilder<'a>,
) {
    let unit_folder = String::from_utf8_lossy(function.compilation_dir);
    for call in &function.inlinees {
        let place = function
            .lines
            .partition_point(|it| it.address < call.address);
        let line = function
            .lines
            .get(place)
            .filter(|it| it.address == call.address);
        let (file, line) = line.map_or_else(Default::default, |it| {
            let folder = join_folders(&unit_folder, &it.file.dir_str());
            let name = it.file.name_str().into_owned().into_bytes();
            let file = FileInfo::new(folder.into_bytes().into(), name.into());
            (file, it.line)
        });
        builder.add_inlinee(
            depth,
            call.name.clone(),
            call.address,
            call.size,
            file,
            line,
        );
        add_calls(call, depth + 1, builder);
    }
}

/// The part of a symbol before the next function that is listed, if it does not begin in one.
fn find_uncovered<'a>(
    symbol: &'a Symbol<'_>,
    covered: &[(u64, u64)],
) -> Option<(u64, u64, &'a str)> {
    let start = symbol.address;
    let after = covered.partition_point(|function| function.0 <= start);
    let is_covered = after
        .checked_sub(1)
        .is_some_and(|before| start < covered[before].1);
    let next = covered.get(after).map_or(u64::MAX, |function| function.0);
    let end = start.saturating_add(symbol.size).min(next);
    (!is_covered && start < end).then_some((start, end, symbol.name()?))
}

/// Puts the readable name before the mangled one, and numbers in the place of paths.
struct Names {
    paths: Rc<RefCell<PathTable>>,
}

impl Transformer for Names {
    fn transform_source_location<'f>(
        &'f mut self,
        mut location: SourceLocation<'f>,
    ) -> SourceLocation<'f> {
        let file = &mut location.file;
        let number = self.paths.borrow_mut().number([
            file.comp_dir.as_deref().unwrap_or_default(),
            file.directory.as_deref().unwrap_or_default(),
            &file.name,
        ]);
        file.name = number.to_string().into();
        file.directory = None;
        file.comp_dir = None;
        location
    }

    fn transform_function<'f>(&'f mut self, mut function: Function<'f>) -> Function<'f> {
        let whole = without_version(&function.name);
        let plain = without_part(whole);
        let readable = demangle(plain);
        let readable = readable.as_deref().unwrap_or(plain);
        if readable != whole {
            function.name = format!("{readable}\0{whole}").into();
        } else if whole.len() < function.name.len() {
            function.name = whole.to_owned().into();
        }
        function
    }
}

/// Takes the version from a symbol as in `memcpy@@GLIBC_2.14`: it is no part of the name.
fn without_version(name: &str) -> &str {
    let Some((plain, version)) = name.split_once('@') else {
        return name;
    };
    let version = version.strip_prefix('@').unwrap_or(version);
    let is_version = version.contains('_')
        && version
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
    if is_version && !plain.is_empty() {
        plain
    } else {
        name
    }
}

/// Takes away what a compiler adds to the name of a part or a copy of a function, as in `work.isra.0.cold`: nobody has written
/// such a function.
fn without_part(name: &str) -> &str {
    const PARTS: [&str; 8] = [
        "cold",
        "isra",
        "part",
        "constprop",
        "lto_priv",
        "localalias",
        "llvm",
        "unlikely",
    ];
    let Some(dot) = name.find('.').filter(|dot| *dot > 0) else {
        return name;
    };
    let is_part = |word: &str| PARTS.contains(&word);
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut words = name[dot + 1..].split('.');
    let all =
        words.next().is_some_and(is_part) && words.all(|word| is_part(word) || is_number(word));
    if all { &name[..dot] } else { name }
}

/// Counts and checksums what is written.
struct Checked<W: Write> {
    out: W,
    bytes: u64,
    crc: u32,
}

impl<W: Write> Checked<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            bytes: 0,
            crc: 0,
        }
    }

    fn finish(mut self) -> io::Result<(u64, u32)> {
        self.out.flush()?;
        Ok((self.bytes, self.crc))
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_symbol_is_taken_away() {
        for (name, plain) in [
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("memcpy@GLIBC_2.2.5", "memcpy"),
            ("main", "main"),
            ("@GLIBC_2.14", "@GLIBC_2.14"),
            ("operator@(int)", "operator@(int)"),
        ] {
            assert_eq!(without_version(name), plain);
        }
    }

    #[test]
    fn the_parts_of_a_function_have_its_name() {
        for (name, plain) in [
            ("work.cold", "work"),
            ("work.isra.0.cold", "work"),
            ("_ZN1a1bEv.constprop.12", "_ZN1a1bEv"),
            ("work.llvm.123456", "work"),
            ("main.work", "main.work"),
            ("runtime.cold.start", "runtime.cold.start"),
            (".cold", ".cold"),
            ("main.", "main."),
            ("main", "main"),
        ] {
            assert_eq!(without_part(name), plain);
        }
    }

    /// Check that bytes that are no ELF file, or only its beginning, are refused.
    #[test]
    fn what_is_not_an_elf_file_is_refused() {
        let wanted: BuildId = "aabb".parse().unwrap();
        let own = std::fs::read("/proc/self/exe").unwrap();
        for bytes in [
            &b""[..],
            b"\x7fELF",
            b"not an ELF file, but longer than its header is in any case",
            &own[..64],
        ] {
            let mut out = io::Cursor::new(Vec::new());
            match convert(bytes, &wanted, "test", &mut out) {
                Err(ConvertError::Refused(refusal)) => {
                    assert!(
                        [RefusalKind::NotElf, RefusalKind::NoBuildId].contains(&refusal.kind),
                        "{refusal}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
