//! Names from ELF files: symbol tables and debug information, read by blazesym, and Go's own table (see `go`).
//!
//! In: an open file and offsets in it. Out: functions. Never opens a file by a
//! path that a file gave, as long as the child is confined (see `confine`).

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer, evict};
use blazesym::{Error, ErrorKind};

use super::answers::{Answers, Found};
use super::confine::FileRoot;
use super::demangle::is_mangled;
use super::go::{GoFile, GoFunction};
use super::memory::Memory;
use super::naming::UnnamedReason;
use super::protocol::DebugInfo;
use crate::process::BuildId;

/// Files that stay open with what was parsed of them. A busy node uses some 20
/// to 40 in a window; the small ones cost little and the large ones are bounded
/// by the child's memory limit.
const OPEN_FILES_MAX: usize = 32;
/// An open file keeps its file system busy, so one that is not asked about is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Offsets between two looks at the memory: a look takes 2 µs, and so many
/// scattered offsets have the kernel map 2 to 4 MB of debug information.
const CHUNK_OFFSETS: usize = 32;
/// How often what was parsed may be forgotten within one request; then the file
/// is too large for the limit, and parsing it again would only take time.
const FORGET_MAX: usize = 4;

/// A question about one file.
pub(super) struct ElfRequest<'a> {
    /// The collector's number of the file.
    pub(super) file: u64,
    /// The file itself, unless the collector could not open it any more.
    pub(super) opened: Option<OwnedFd>,
    /// The build id it must have.
    pub(super) build_id: Option<BuildId>,
    /// Whether to use debug information.
    pub(super) debug: DebugInfo,
    /// Offsets in the file.
    pub(super) offsets: &'a [u64],
}

/// Whether debug information could be used where it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DebugOutcome {
    /// It was, or none was asked for.
    Fine,
    /// It could not be read; the symbol table served.
    Refused,
}

/// The files that are open.
pub(super) struct ElfFiles {
    /// Made when needed: what it parsed can only be forgotten with it.
    symbolizer: Option<Symbolizer>,
    root: FileRoot,
    open: Vec<OpenFile>,
}

struct OpenFile {
    file: u64,
    /// Keeps `path` pointing at this file: the number in it is this descriptor's.
    _descriptor: OwnedFd,
    path: PathBuf,
    used: Instant,
    go: Go,
}

/// What is known of a file's table of Go functions.
enum Go {
    NotLookedFor,
    None,
    Found(Box<GoFile<Reader>>),
}

/// Reads an open file, see [`GoFile::open`].
type Reader = Box<dyn Fn(u64, &mut [u8]) -> usize>;

impl ElfFiles {
    /// No file yet. `root` says by which path a descriptor is reached.
    pub(super) fn new(root: FileRoot) -> Self {
        Self {
            symbolizer: None,
            root,
            open: Vec::new(),
        }
    }

    /// Names `request.offsets` into `answers`, one answer for each.
    /// Meanwhile, forgets what was parsed when `memory` is over its limit.
    pub(super) fn name(
        &mut self,
        request: ElfRequest<'_>,
        memory: &Memory,
        answers: &mut Answers,
    ) -> DebugOutcome {
        let (file, offsets) = (request.file, request.offsets);
        let debug = match self.root {
            FileRoot::Descriptors => request.debug,
            FileRoot::Everything => DebugInfo::Skip,
        };
        let path = match self.path(request) {
            Ok(path) => path,
            Err(reason) => {
                offsets.iter().for_each(|_| answers.push_unnamed(reason));
                return DebugOutcome::Fine;
            }
        };
        let mut outcome = DebugOutcome::Fine;
        let mut forget_left = FORGET_MAX;
        let mut go = self.take_go(file);
        for offsets in offsets.chunks(CHUNK_OFFSETS) {
            if forget_left > 0 && memory.is_over() {
                forget_left -= 1;
                self.forget();
            }
            let symbolizer = self.symbolizer.get_or_insert_with(make_symbolizer);
            let named = name_offsets_of_go(&mut go, debug, offsets);
            let mut offsets = offsets;
            for run in named.chunk_by(|one, next| one.is_empty() == next.is_empty()) {
                let (these, rest) = offsets.split_at(run.len());
                offsets = rest;
                if !run[0].is_empty() {
                    let named = these.iter().zip(run);
                    named.for_each(|(offset, functions)| {
                        push_go(symbolizer, &path, *offset, functions, answers);
                    });
                } else if name_offsets(symbolizer, &path, debug, these, answers)
                    == DebugOutcome::Refused
                {
                    outcome = DebugOutcome::Refused;
                }
            }
        }
        if let Some(open) = self.open.iter_mut().find(|open| open.file == file) {
            open.go = go;
        }
        outcome
    }

    /// Forgets what was parsed of all files. They stay open.
    pub(super) fn forget(&mut self) {
        self.symbolizer = None;
        for open in &mut self.open {
            open.go = Go::NotLookedFor;
        }
    }

    /// The file's table of Go functions, which is looked for at the first time.
    fn take_go(&mut self, file: u64) -> Go {
        let Some(open) = self.open.iter_mut().find(|open| open.file == file) else {
            return Go::None;
        };
        match std::mem::replace(&mut open.go, Go::None) {
            Go::NotLookedFor => look_for_go(&open.path),
            known => known,
        }
    }

    /// The path that leads to the file's descriptor, which stays open.
    fn path(&mut self, request: ElfRequest<'_>) -> Result<PathBuf, UnnamedReason> {
        self.close_idle();
        let now = Instant::now();
        if let Some(open) = self.open.iter_mut().find(|open| open.file == request.file) {
            open.used = now;
            return Ok(open.path.clone());
        }
        let descriptor = request.opened.ok_or(UnnamedReason::FileGone)?;
        let path = self.root.path_of(descriptor.as_raw_fd());
        if let Some(expected) = request.build_id {
            let found =
                blazesym::helper::read_elf_build_id(&path).map_err(|err| reason_of(&err))?;
            if found.as_deref() != Some(expected.as_bytes()) {
                return Err(UnnamedReason::FileGone);
            }
        }
        if self.open.len() >= OPEN_FILES_MAX {
            self.close_oldest();
        }
        self.open.push(OpenFile {
            file: request.file,
            _descriptor: descriptor,
            path: path.clone(),
            used: now,
            go: Go::NotLookedFor,
        });
        Ok(path)
    }

    fn close_oldest(&mut self) {
        let oldest = self
            .open
            .iter()
            .enumerate()
            .min_by_key(|(_, open)| open.used)
            .map(|(index, _)| index);
        if let Some(index) = oldest {
            self.close(index);
        }
    }

    fn close_idle(&mut self) {
        let idle = |open: &OpenFile| open.used.elapsed() > IDLE_MAX;
        while let Some(index) = self.open.iter().position(idle) {
            self.close(index);
        }
    }

    /// Forgets what was parsed of a file before its descriptor is closed, so
    /// that the next file with that number is not taken for it.
    fn close(&mut self, index: usize) {
        let open = self.open.swap_remove(index);
        if let Some(symbolizer) = &mut self.symbolizer {
            let evicted = symbolizer.evict(&evict::Evict::from(evict::Elf::new(&open.path)));
            debug_assert!(evicted.is_ok(), "{evicted:?}");
        }
    }
}

fn look_for_go(path: &Path) -> Go {
    // The descriptor is not one to read from.
    let Ok(file) = File::open(path) else {
        return Go::None;
    };
    let read: Reader = Box::new(move |at, buffer| {
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], at.saturating_add(done as u64)) {
                Ok(0) | Err(_) => break,
                Ok(read) => done += read,
            }
        }
        done
    });
    GoFile::open(read).map_or(Go::None, |file| Go::Found(Box::new(file)))
}

/// The functions at each offset, none where Go's table does not name it or debug information is to be used in its
/// place: that has the full names of generic functions also where they are inlined.
fn name_offsets_of_go(go: &mut Go, debug: DebugInfo, offsets: &[u64]) -> Vec<Vec<GoFunction>> {
    match go {
        Go::Found(file) if debug == DebugInfo::Skip || !file.has_debug_info() => {
            offsets.iter().map(|offset| file.name(*offset)).collect()
        }
        _ => vec![Vec::new(); offsets.len()],
    }
}

fn push_go(
    symbolizer: &Symbolizer,
    path: &Path,
    offset: u64,
    functions: &[GoFunction],
    answers: &mut Answers,
) {
    let full_name = functions
        .last()
        .and_then(|outer| find_full_go_name(symbolizer, path, &outer.name, offset));
    let outer = functions.len() - 1;
    let found = functions.iter().enumerate().map(|(index, function)| Found {
        symbol: match &full_name {
            Some(name) if index == outer => name,
            _ => &function.name,
        },
        file: Cow::Borrowed(&function.file),
        line: function.line,
        column: 0,
        start_line: function.start_line,
    });
    answers.push_named(&found.collect::<Vec<_>>());
}

/// The name of a generic function with its types, if there is a symbol table: Go's own table calls all of them
/// `name[...]`.
fn find_full_go_name<'a>(
    symbolizer: &'a Symbolizer,
    path: &Path,
    name: &str,
    offset: u64,
) -> Option<Cow<'a, str>> {
    let (before, _) = name.split_once("[...]")?;
    let plain = symbolize(symbolizer, path, DebugInfo::Skip, &[offset]).ok()?;
    match plain.into_iter().next()? {
        Symbolized::Sym(plain) => {
            let types = plain.name.strip_prefix(before);
            types
                .is_some_and(|it| it.starts_with('['))
                .then_some(plain.name)
        }
        Symbolized::Unknown(_) => None,
    }
}

fn make_symbolizer() -> Symbolizer {
    Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(true)
        // Done here, since the name in the symbol table is wanted as well.
        .enable_demangling(false)
        .set_debug_dirs(Some(std::iter::empty::<PathBuf>()))
        .build()
}

fn name_offsets(
    symbolizer: &Symbolizer,
    path: &Path,
    debug: DebugInfo,
    offsets: &[u64],
    answers: &mut Answers,
) -> DebugOutcome {
    let with_debug = symbolize(symbolizer, path, debug, offsets);
    let refused = match &with_debug {
        Ok(symbols) => symbols.iter().any(is_error),
        Err(_) => true,
    };
    if !refused || debug == DebugInfo::Skip {
        push_symbols(symbolizer, path, with_debug, offsets, answers);
        return DebugOutcome::Fine;
    }
    let plain = symbolize(symbolizer, path, DebugInfo::Skip, offsets);
    match (with_debug, plain) {
        // The debug information is damaged at some addresses only.
        (Ok(with_debug), Ok(plain)) => with_debug.iter().zip(&plain).for_each(|(better, other)| {
            let symbol = if is_error(better) { other } else { better };
            push_symbol(symbol, None, answers);
        }),
        (_, plain) => push_symbols(symbolizer, path, plain, offsets, answers),
    }
    DebugOutcome::Refused
}

fn symbolize<'a>(
    symbolizer: &'a Symbolizer,
    path: &Path,
    debug: DebugInfo,
    offsets: &[u64],
) -> Result<Vec<Symbolized<'a>>, Error> {
    let mut elf = source::Elf::new(path);
    elf.debug_syms = debug == DebugInfo::Use;
    symbolizer.symbolize(&Source::Elf(elf), Input::FileOffset(offsets))
}

fn is_error(symbolized: &Symbolized<'_>) -> bool {
    matches!(symbolized, Symbolized::Unknown(Reason::IgnoredError))
}

fn push_symbols(
    symbolizer: &Symbolizer,
    path: &Path,
    symbols: Result<Vec<Symbolized<'_>>, Error>,
    offsets: &[u64],
    answers: &mut Answers,
) {
    match symbols {
        Ok(symbols) => {
            for (symbol, offset) in symbols.iter().zip(offsets) {
                let linker = find_linker_name(symbolizer, path, symbol, *offset);
                push_symbol(symbol, linker.as_deref(), answers);
            }
        }
        Err(err) => {
            let reason = reason_of(&err);
            offsets.iter().for_each(|_| answers.push_unnamed(reason));
        }
    }
}

/// The name in the symbol table, if it tells more than the one in the debug
/// information. Reduced debug information (`line-tables-only`, `-g1`) calls
/// `core::fmt::write` just `write`, while the symbol table has the whole name.
fn find_linker_name<'a>(
    symbolizer: &'a Symbolizer,
    path: &Path,
    symbol: &Symbolized<'_>,
    offset: u64,
) -> Option<Cow<'a, str>> {
    let Symbolized::Sym(symbol) = symbol else {
        return None;
    };
    if symbol.code_info.is_none() || is_mangled(&symbol.name) {
        return None;
    }
    let plain = symbolize(symbolizer, path, DebugInfo::Skip, &[offset]).ok()?;
    match plain.into_iter().next()? {
        Symbolized::Sym(plain) if is_mangled(&plain.name) => Some(plain.name),
        _ => None,
    }
}

fn push_symbol(symbolized: &Symbolized<'_>, linker_name: Option<&str>, answers: &mut Answers) {
    match symbolized {
        Symbolized::Sym(symbol) => answers.push_named(&functions_of(symbol, linker_name)),
        Symbolized::Unknown(Reason::IgnoredError) => answers.push_unnamed(UnnamedReason::Corrupt),
        Symbolized::Unknown(_) => answers.push_unnamed(UnnamedReason::NoSymbol),
    }
}

/// The innermost inlined function first, the one that has the code last.
fn functions_of<'a>(symbol: &'a Sym<'_>, linker_name: Option<&'a str>) -> Vec<Found<'a>> {
    let inlined = symbol
        .inlined
        .iter()
        .rev()
        .map(|inlined| found(&inlined.name, inlined.code_info.as_ref()));
    let name = linker_name.unwrap_or(&symbol.name);
    let outer = found(name, symbol.code_info.as_deref());
    inlined.chain([outer]).collect()
}

fn found<'a>(symbol: &'a str, code: Option<&'a CodeInfo<'_>>) -> Found<'a> {
    let Some(code) = code else {
        return Found {
            symbol,
            file: Cow::Borrowed(""),
            line: 0,
            column: 0,
            start_line: 0,
        };
    };
    let file = match code.to_path() {
        Cow::Borrowed(path) => path.to_string_lossy(),
        Cow::Owned(path) => Cow::Owned(path.to_string_lossy().into_owned()),
    };
    Found {
        symbol,
        file,
        line: code.line.unwrap_or(0),
        column: u32::from(code.column.unwrap_or(0)),
        start_line: 0,
    }
}

fn reason_of(err: &Error) -> UnnamedReason {
    match err.kind() {
        ErrorKind::PermissionDenied => UnnamedReason::Permission,
        ErrorKind::NotFound => UnnamedReason::FileGone,
        ErrorKind::OutOfMemory => UnnamedReason::Limit,
        _ => UnnamedReason::Corrupt,
    }
}
