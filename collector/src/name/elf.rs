//! Names from ELF files: symbol tables and debug information, read by blazesym.
//!
//! In: an open file and offsets in it. Out: functions. Never opens a file by a
//! path that a file gave, as long as the child is confined (see `confine`).

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer, evict};
use blazesym::{Error, ErrorKind};
use object::ReadCache;

use super::answers::{Answers, Found};
use super::confine::FileRoot;
use super::debug_file::FoundBy;
use super::demangle::is_mangled;
use super::facts::{FileFacts, read_facts};
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
/// Bytes of a debug file that are read at once for its checksum.
const CHECKSUM_BYTES: usize = 64 << 10;
/// How often what was parsed may be forgotten within one request; then the file
/// is too large for the limit, and parsing it again would only take time.
const FORGET_MAX: usize = 4;

/// A question about one file.
pub(super) struct ElfRequest<'a> {
    /// The collector's number of the file.
    pub(super) file: u64,
    /// The file itself, unless the collector could not open it any more.
    pub(super) opened: Option<OwnedFd>,
    /// What may have its debug information.
    pub(super) debug_file: Option<(OwnedFd, FoundBy)>,
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
    facts: FileFacts,
    /// The checksum that its debug link demands.
    debug_checksum: Option<u32>,
    debug_file: DebugFile,
}

/// A file with another one's debug information.
enum DebugFile {
    /// None came so far.
    None,
    /// What came was not of this file. It is not looked at again as long as the file is open.
    Refused,
    /// As in [`OpenFile`].
    Open { _descriptor: OwnedFd, path: PathBuf },
}

/// Where names are looked for: in a file, or in one that has its debug information and its symbols.
struct Place<'a> {
    path: &'a Path,
    debug: Option<(&'a Path, &'a FileFacts)>,
}

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
        let offsets = request.offsets;
        let debug = match self.root {
            FileRoot::Descriptors => request.debug,
            FileRoot::Everything => DebugInfo::Skip,
        };
        let (number, build_id) = (request.file, request.build_id);
        let debug_file = request.debug_file;
        let mut outcome = DebugOutcome::Fine;
        let opened = self.open(number, request.opened, build_id);
        if let Err(reason) = opened {
            offsets.iter().for_each(|_| answers.push_unnamed(reason));
            return outcome;
        }
        if let (DebugInfo::Use, Some((descriptor, found_by))) = (debug, debug_file)
            && !self.attach(number, descriptor, found_by, build_id)
        {
            outcome = DebugOutcome::Refused;
        }
        let mut forget_left = FORGET_MAX;
        for offsets in offsets.chunks(CHUNK_OFFSETS) {
            if forget_left > 0 && memory.is_over() {
                forget_left -= 1;
                self.forget();
            }
            let symbolizer = self.symbolizer.get_or_insert_with(make_symbolizer);
            let Some(file) = self.open.iter().find(|it| it.file == number) else {
                // It was opened above.
                break;
            };
            let place = file.place();
            if name_offsets(symbolizer, &place, debug, offsets, answers) == DebugOutcome::Refused {
                outcome = DebugOutcome::Refused;
            }
        }
        outcome
    }

    /// What an open file says about itself.
    pub(super) fn facts(&self, file: u64) -> Option<&FileFacts> {
        let open = self.open.iter().find(|it| it.file == file);
        open.map(|it| &it.facts)
    }

    /// Forgets what was parsed of all files. They stay open.
    pub(super) fn forget(&mut self) {
        self.symbolizer = None;
    }

    /// Opens the file, if it is not open. It stays open.
    fn open(
        &mut self,
        file: u64,
        opened: Option<OwnedFd>,
        build_id: Option<BuildId>,
    ) -> Result<(), UnnamedReason> {
        self.close_idle();
        let now = Instant::now();
        if let Some(open) = self.open.iter_mut().find(|open| open.file == file) {
            open.used = now;
            return Ok(());
        }
        let descriptor = opened.ok_or(UnnamedReason::FileGone)?;
        let path = self.root.path_of(descriptor.as_raw_fd());
        if let Some(expected) = build_id
            && read_build_id(&path)? != Some(expected)
        {
            return Err(UnnamedReason::FileGone);
        }
        let (facts, debug_checksum) = File::open(&path)
            .map(|it| read_facts(&ReadCache::new(it)))
            .unwrap_or_default();
        if self.open.len() >= OPEN_FILES_MAX {
            self.close_oldest();
        }
        self.open.push(OpenFile {
            file,
            _descriptor: descriptor,
            path,
            used: now,
            facts,
            debug_checksum,
            debug_file: DebugFile::None,
        });
        Ok(())
    }

    /// Takes a debug file for an open file, which needs one. Gives `false` when it is not of this file.
    fn attach(
        &mut self,
        file: u64,
        descriptor: OwnedFd,
        found_by: FoundBy,
        build_id: Option<BuildId>,
    ) -> bool {
        let Some(open) = self.open.iter_mut().find(|it| it.file == file) else {
            return true;
        };
        if open.facts.has_debug_info || !matches!(open.debug_file, DebugFile::None) {
            return true;
        }
        let path = self.root.path_of(descriptor.as_raw_fd());
        let its_build_id = read_build_id(&path).ok().flatten();
        let is_it = match found_by {
            FoundBy::BuildId => build_id.is_some() && its_build_id == build_id,
            FoundBy::Link => {
                let is_same =
                    build_id.is_none() || its_build_id.is_none() || its_build_id == build_id;
                is_same && open.debug_checksum.is_some() && checksum(&path) == open.debug_checksum
            }
        };
        open.debug_file = match is_it {
            true => DebugFile::Open {
                _descriptor: descriptor,
                path,
            },
            false => DebugFile::Refused,
        };
        is_it
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
        let debug_path = match &open.debug_file {
            DebugFile::Open { path, .. } => Some(path),
            DebugFile::None | DebugFile::Refused => None,
        };
        if let Some(symbolizer) = &mut self.symbolizer {
            for path in [Some(&open.path), debug_path].into_iter().flatten() {
                let evicted = symbolizer.evict(&evict::Evict::from(evict::Elf::new(path)));
                debug_assert!(evicted.is_ok(), "{evicted:?}");
            }
        }
    }
}

impl OpenFile {
    fn place(&self) -> Place<'_> {
        let debug = match &self.debug_file {
            DebugFile::Open { path, .. } => Some((path.as_path(), &self.facts)),
            DebugFile::None | DebugFile::Refused => None,
        };
        Place {
            path: &self.path,
            debug,
        }
    }
}

fn read_build_id(path: &Path) -> Result<Option<BuildId>, UnnamedReason> {
    let found = blazesym::helper::read_elf_build_id(path).map_err(|err| reason_of(&err))?;
    Ok(found.and_then(|it| BuildId::new(&it)))
}

/// The CRC-32 of a whole file, which debug links have; `None` if it cannot be read. A gigabyte takes about a second,
/// once as long as the file is open.
fn checksum(path: &Path) -> Option<u32> {
    let mut file = File::open(path).ok()?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; CHECKSUM_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(hasher.finalize()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
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
    place: &Place<'_>,
    debug: DebugInfo,
    offsets: &[u64],
    answers: &mut Answers,
) -> DebugOutcome {
    let with_debug = symbolize(symbolizer, place, debug, offsets);
    let (is_refused, is_lacking) = match &with_debug {
        Ok(symbols) => (
            symbols.iter().any(is_error),
            place.debug.is_some() && symbols.iter().any(is_unknown),
        ),
        Err(_) => (true, false),
    };
    if debug == DebugInfo::Skip || !(is_refused || is_lacking) {
        push_symbols(symbolizer, place, with_debug, offsets, answers);
        return DebugOutcome::Fine;
    }
    let plain_place = Place {
        path: place.path,
        debug: None,
    };
    let plain = symbolize(symbolizer, &plain_place, DebugInfo::Skip, offsets);
    match (with_debug, plain) {
        // The debug information is damaged or lacks something at some addresses only.
        (Ok(with_debug), Ok(plain)) => {
            for ((better, other), offset) in with_debug.iter().zip(&plain).zip(offsets) {
                let symbol = if is_unknown(better) { other } else { better };
                let linker = find_linker_name(symbolizer, place, symbol, *offset);
                push_symbol(symbol, linker.as_deref(), answers);
            }
        }
        (Ok(with_debug), Err(_)) => {
            push_symbols(symbolizer, place, Ok(with_debug), offsets, answers);
        }
        (Err(_), plain) => push_symbols(symbolizer, &plain_place, plain, offsets, answers),
    }
    match is_refused {
        true => DebugOutcome::Refused,
        false => DebugOutcome::Fine,
    }
}

fn symbolize<'a>(
    symbolizer: &'a Symbolizer,
    place: &Place<'_>,
    debug: DebugInfo,
    offsets: &[u64],
) -> Result<Vec<Symbolized<'a>>, Error> {
    let Some((path, facts)) = place.debug else {
        let mut elf = source::Elf::new(place.path);
        elf.debug_syms = debug == DebugInfo::Use;
        return symbolizer.symbolize(&Source::Elf(elf), Input::FileOffset(offsets));
    };
    // The offsets are those of the file and not of its debug file, which share the addresses as linked.
    let addresses: Vec<u64> = offsets
        .iter()
        .map(|it| facts.address_of(*it).unwrap_or(u64::MAX))
        .collect();
    let mut elf = source::Elf::new(path);
    elf.debug_syms = debug == DebugInfo::Use;
    symbolizer.symbolize(&Source::Elf(elf), Input::VirtOffset(&addresses))
}

fn is_error(symbolized: &Symbolized<'_>) -> bool {
    matches!(symbolized, Symbolized::Unknown(Reason::IgnoredError))
}

fn is_unknown(symbolized: &Symbolized<'_>) -> bool {
    matches!(symbolized, Symbolized::Unknown(_))
}

fn push_symbols(
    symbolizer: &Symbolizer,
    place: &Place<'_>,
    symbols: Result<Vec<Symbolized<'_>>, Error>,
    offsets: &[u64],
    answers: &mut Answers,
) {
    match symbols {
        Ok(symbols) => {
            for (symbol, offset) in symbols.iter().zip(offsets) {
                let linker = find_linker_name(symbolizer, place, symbol, *offset);
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
    place: &Place<'_>,
    symbol: &Symbolized<'_>,
    offset: u64,
) -> Option<Cow<'a, str>> {
    let Symbolized::Sym(symbol) = symbol else {
        return None;
    };
    if symbol.code_info.is_none() || is_mangled(&symbol.name) {
        return None;
    }
    let plain = symbolize(symbolizer, place, DebugInfo::Skip, &[offset]).ok()?;
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
