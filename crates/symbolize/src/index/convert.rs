//! An ELF file -> an index. The file is untrusted, and this code has no limits on memory and time of its own: it runs in a confined
//! child process.

use std::cell::RefCell;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::rc::Rc;
use std::time::SystemTime;

use crc32c::{Crc32cWriter, crc32c_append};
use elf::BuildId;
use serde::{Deserialize, Serialize};
use symbolic_common::{Language, Name, NameMangling};
use symbolic_debuginfo::dwarf::Dwarf as _;
use symbolic_debuginfo::elf::ElfObject;
use symbolic_debuginfo::function_builder::FunctionBuilder;
use symbolic_debuginfo::{FileInfo, LineInfo, Symbol, SymbolMap};
use symbolic_symcache::SymCacheConverter;
use symbolic_symcache::transform::{Function, SourceLocation, Transformer};

use super::debugdata::unpack_debug_data;
use super::facts::read_elf;
use super::file::{HEAD_BYTES, IndexHead, Rank};
use super::labels::read_labels;
use super::lines::read_lines;
use super::paths::{PathTable, join_folders};
use crate::demangle::demangle;

/// Unreadable functions after which a file is refused: each costs a pass over its unit, and a good file has none.
const UNREADABLE_MAX: u64 = 10_000;

/// Functions without lines whose lines are looked up in the line tables. Each takes some 1 KB with its inlined calls, 64 MB in all.
/// CPython has a hundred; functions over the limit stay without lines.
const UNLINED_MAX: usize = 1 << 16;

/// Why a file was refused. Metrics use the order and the names.
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
    /// It takes more memory, time or space than the server allows.
    Limit,
}

impl RefusalKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::NotElf,
        Self::NoBuildId,
        Self::WrongBuildId,
        Self::NoSymbols,
        Self::Corrupt,
        Self::Limit,
    ];

    /// Its name in metrics and answers.
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

/// Why a file was refused, with a text for the person who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct FileRefusal {
    /// Why.
    pub kind: RefusalKind,
    /// The problem and its remedy.
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
    /// The file is refused.
    #[error("{0}")]
    Refused(#[from] FileRefusal),
    /// The index could not be written.
    #[error("failed to write the index: {0}")]
    Io(#[from] io::Error),
}

/// Makes the index of an ELF file with the build id `wanted`, and writes it to the start of `out`.
///
/// # Errors
/// The file is refused, or `out` cannot be written.
pub fn convert<W: Write + Seek>(
    bytes: &[u8],
    wanted: &BuildId,
    origin: &str,
    out: &mut W,
) -> Result<IndexHead, ConvertError> {
    let facts = read_elf(bytes).map_err(|err| {
        let message = format!("this is not an ELF file that can be read: {err}");
        FileRefusal::new(RefusalKind::NotElf, message)
    })?;
    let no_build_id = || FileRefusal::new(RefusalKind::NoBuildId, no_build_id());
    let build_id = facts.build_id.ok_or_else(no_build_id)?;
    if build_id != *wanted {
        let message = format!(
            "this file has the build id {build_id}, and not {wanted}: it is of another build; send it to \
             /api/v1/debuginfo/{build_id}"
        );
        return Err(FileRefusal::new(RefusalKind::WrongBuildId, message).into());
    }
    let no_symbols = || FileRefusal::new(RefusalKind::NoSymbols, no_symbols());
    let rank = facts.rank.ok_or_else(no_symbols)?;
    let elf = ElfObject::parse(bytes)
        .map_err(|err| FileRefusal::new(RefusalKind::NotElf, err.to_string()))?;
    let paths = Rc::new(RefCell::new(PathTable::default()));
    let Collected {
        converter,
        unreadable,
        has_debug_info,
    } = collect(bytes, &elf, rank, &paths)?;
    // Empty debug information does not make a file better than a symbol table does.
    let rank = match (has_debug_info, facts.has_symbol_table) {
        (true, _) => Rank::DebugInfo,
        (false, true) => Rank::SymbolTable,
        (false, false) => return Err(no_symbols().into()),
    };

    out.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
    let mut cache = BufWriter::with_capacity(1 << 20, Crc32cWriter::new(&mut *out));
    converter.serialize(&mut cache)?;
    cache.flush()?;
    let cache_crc = cache.get_ref().crc32c();
    drop(cache);
    let cache_bytes = out.stream_position()? - HEAD_BYTES as u64;
    let paths = paths.borrow().encode();
    out.write_all(&paths)?;
    let head = IndexHead {
        build_id,
        rank,
        origin: origin.to_owned(),
        created_ms: SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |age| age.as_millis() as u64),
        source_bytes: bytes.len() as u64,
        unreadable,
        load_address: elf.load_address(),
        layout: facts.layout,
        cache_bytes,
        body_bytes: cache_bytes + paths.len() as u64,
        body_crc: crc32c_append(cache_crc, &paths),
    };
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&head.encode())?;
    out.flush()?;
    Ok(head)
}

/// The remedy for a file without a build id.
pub fn no_build_id() -> String {
    "this file has no GNU build id, so that nobody can say which profiles it belongs to: link with -Wl,--build-id \
     (Rust: RUSTFLAGS=-Clink-arg=-Wl,--build-id; Go: -ldflags=-B=gobuildid) and profile what that makes"
        .to_owned()
}

/// The remedy for a file without symbols.
pub fn no_symbols() -> String {
    "this file has neither a symbol table nor debug information (it is stripped): send the file as it was before `strip`, or \
     the .debug file that was split from it"
        .to_owned()
}

/// Contents of an index.
struct Collected {
    converter: SymCacheConverter<'static>,
    unreadable: u64,
    /// Whether any function or line comes from debug information.
    has_debug_info: bool,
}

/// Collects functions and symbols. Unreadable functions are counted and left out.
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
        let corrupt = |err| {
            let message = format!("the debug information of this file cannot be read: {err}");
            FileRefusal::new(RefusalKind::Corrupt, message)
        };
        session = elf.debug_session().map_err(corrupt)?;
        let mut last = None;
        for function in session.functions() {
            match function {
                Ok(function) => {
                    covered.push((function.address, function.end_address()));
                    if unlined.len() < UNLINED_MAX && !has_own_lines(&function) {
                        unlined.push(function);
                    } else {
                        converter.process_symbolic_function(&function);
                    }
                }
                Err(err) => {
                    unreadable += 1;
                    last = Some(err);
                }
            }
            if unreadable >= UNREADABLE_MAX {
                break;
            }
        }
        if let (true, Some(err)) = (covered.is_empty(), last) {
            return Err(corrupt(err));
        }
    }
    covered.sort_unstable();
    let labels = read_labels(bytes, elf.load_address(), &covered);
    let has_lines = rank == Rank::DebugInfo
        && add_with_lines(bytes, elf, &covered, &labels, &unlined, &mut converter);
    for symbol in sized_symbols(elf).chain(labels) {
        converter.process_symbolic_symbol(&symbol);
    }
    // symbolic adds the dot to the name.
    if let Some(section) = elf.section("gnu_debugdata")
        && add_packed(&section.data, elf, &mut converter).is_none()
    {
        if !elf.has_symbols() {
            let message = "this file has no symbols but those in .gnu_debugdata, which cannot be read or are too many";
            return Err(FileRefusal::new(RefusalKind::Corrupt, message));
        }
        unreadable += 1;
    }
    Ok(Collected {
        converter,
        unreadable,
        has_debug_info: has_lines || !covered.is_empty(),
    })
}

/// Functions with a length. A symcache extends others to the next symbol that it has: see [`read_labels`].
fn sized_symbols<'a>(elf: &ElfObject<'a>) -> impl Iterator<Item = Symbol<'a>> {
    elf.symbols().filter(|symbol| symbol.size > 0)
}

/// Adds the symbols of the ELF file that was packed into `elf`. `None` if it cannot be read.
fn add_packed(
    packed: &[u8],
    elf: &ElfObject<'_>,
    converter: &mut SymCacheConverter<'_>,
) -> Option<()> {
    let unpacked = unpack_debug_data(packed)?;
    let inner = ElfObject::parse(&unpacked).ok()?;
    // Addresses count from each file's own load address.
    let shift = inner.load_address().wrapping_sub(elf.load_address());
    for symbol in sized_symbols(&inner) {
        converter.process_symbolic_symbol(&Symbol {
            address: symbol.address.wrapping_add(shift),
            ..symbol
        });
    }
    Some(())
}

/// Adds functions whose lines are only in the line tables: those that only symbol tables list, and `unlined`. Returns whether
/// any has lines.
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
    let symbols: SymbolMap<'_> = sized_symbols(elf).collect();
    let unlisted: Vec<_> = symbols
        .iter()
        .chain(labels)
        .filter_map(|symbol| find_uncovered(symbol, covered))
        .collect();
    let linked = |(start, end): (u64, u64)| {
        (
            start.wrapping_add(load_address),
            end.wrapping_add(load_address),
        )
    };
    let ranges = unlisted.iter().map(|(start, end, _)| (*start, *end));
    let unlined_ranges = unlined
        .iter()
        .map(|function| (function.address, function.end_address()));
    let ranges = ranges.chain(unlined_ranges).map(linked);
    let lines = read_lines(bytes, &merge(ranges.collect()));
    let lines_in = |start: u64, end: u64| -> Vec<LineInfo<'_>> {
        let (first, last) = linked((start, end));
        let from = lines.rows.partition_point(|row| row.address < first);
        let rows = lines.rows[from..].iter();
        let rows = rows.take_while(|row| row.address < last);
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
        if rows.is_empty() {
            converter.process_symbolic_function(function);
        } else {
            has_lines = true;
            converter.process_symbolic_function(&with_lines(function, rows));
        }
    }
    has_lines
}

/// Sorts address ranges and merges overlapping ones.
fn merge(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let overlaps = next.0 < last.1;
        if overlaps {
            last.1 = last.1.max(next.1);
        }
        overlaps
    });
    ranges
}

/// Whether a function, or a call inlined into it, has more lines than the one that each inlined call has.
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

/// Adds the calls that were inlined into a function, at this depth.
fn add_calls<'a>(
    function: &symbolic_debuginfo::Function<'a>,
    depth: u32,
    builder: &mut FunctionBuilder<'a>,
) {
    let unit_folder = String::from_utf8_lossy(function.compilation_dir);
    for call in &function.inlinees {
        let lines = &function.lines;
        let place = lines.partition_point(|line| line.address < call.address);
        let line = lines.get(place).filter(|line| line.address == call.address);
        let (file, line) = line.map_or_else(Default::default, |line| {
            let LineInfo { file, line, .. } = line;
            let folder = join_folders(&unit_folder, &file.dir_str());
            let name = file.name_str().into_owned().into_bytes();
            let file = FileInfo::new(folder.into_bytes().into(), name.into());
            (file, *line)
        });
        let name = call.name.clone();
        builder.add_inlinee(depth, name, call.address, call.size, file, line);
        add_calls(call, depth + 1, builder);
    }
}

/// The part of a symbol before the next listed function, unless the symbol starts within one.
fn find_uncovered<'a>(
    symbol: &'a Symbol<'_>,
    covered: &[(u64, u64)],
) -> Option<(u64, u64, &'a str)> {
    let start = symbol.address;
    let after = covered.partition_point(|function| function.0 <= start);
    let is_covered = after > 0 && start < covered[after - 1].1;
    let next = covered.get(after).map_or(u64::MAX, |function| function.0);
    let end = start.saturating_add(symbol.size).min(next);
    (!is_covered && start < end).then_some((start, end, symbol.name()?))
}

/// Adds the readable name to the mangled one, and replaces paths by numbers.
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

/// Cuts the version from a symbol such as `memcpy@@GLIBC_2.14`.
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

/// Cuts the suffix that a compiler adds to the name of a part or a copy of a function, as in `work.isra.0.cold`.
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

    /// Check that bytes other than an ELF file, or its start only, are refused.
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
            let result = convert(bytes, &wanted, "test", &mut out);
            let Err(ConvertError::Refused(FileRefusal { kind, .. })) = &result else {
                panic!("{result:?}");
            };
            let is_expected = matches!(kind, RefusalKind::NotElf | RefusalKind::NoBuildId);
            assert!(is_expected, "{result:?}");
        }
    }
}
