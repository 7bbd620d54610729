//! Names from ELF files: debug information, read by blazesym, Go's own table (see `go`), and symbol tables, which are
//! searched here (see `symbols`).
//!
//! In: an open file and offsets in it. Out: functions. Never opens a file by a
//! path that a file gave, as long as the child is confined (see `confine`).

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer, evict};
use blazesym::{Error, ErrorKind};
use object::read::elf::ElfFile64;
use object::{LittleEndian, ReadCache};

use super::answers::{Answers, Found};
use super::boundaries::Boundaries;
use super::confine::FileRoot;
use super::debug_file::FoundBy;
use super::demangle::is_mangled;
use super::dwarf::{BlockCache, LinkedFiles, Linking, Lookup};
use super::facts::{FileFacts, read_facts};
use super::go::{GoFile, GoFunction};
use super::memory::Memory;
use super::naming::UnnamedReason;
use super::protocol::{DebugInfo, SPLIT_FILES_MAX, SplitFile};
use super::symbols::SymbolTables;
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
    /// What may have parts of that.
    pub(super) linked: LinkedRequest,
    /// The build id it must have.
    pub(super) build_id: Option<BuildId>,
    /// Whether to use debug information.
    pub(super) debug: DebugInfo,
    /// Offsets in the file.
    pub(super) offsets: &'a [u64],
}

/// Files that may have parts of a file's debug information.
#[derive(Default)]
pub(super) struct LinkedRequest {
    /// The one that several files share.
    pub(super) alternative: Option<OwnedFd>,
    /// A package of split ones.
    pub(super) package: Option<OwnedFd>,
    /// Split ones by their numbers; without a file, there is none.
    pub(super) split: Vec<(u64, Option<OwnedFd>)>,
}

/// Whether a file's debug information could be used where it was asked for, since the file was opened.
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
    blocks: Rc<BlockCache>,
    /// Split files that the last request lacked, each once.
    wanted: Vec<SplitFile>,
}

struct OpenFile {
    file: u64,
    readable: Readable,
    used: Instant,
    debug_file: DebugFile,
    linked: LinkedFiles,
    /// Of all questions since it was opened.
    debug_outcome: DebugOutcome,
    go: Go,
}

/// A file that can be read, and where its symbols are.
struct Readable {
    /// Keeps `path` pointing at this file: the number in it is this descriptor's.
    file: File,
    path: PathBuf,
    tables: SymbolTables,
    boundaries: Boundaries,
    facts: FileFacts,
    /// The checksum that its debug link demands.
    debug_checksum: Option<u32>,
}

/// A file with another one's debug information.
enum DebugFile {
    /// None came so far.
    None,
    /// What came was not of this file. It is not looked at again as long as the file is open.
    Refused,
    /// It is this one.
    Open(Readable),
}

/// What is known of a file's table of Go functions.
enum Go {
    NotLookedFor,
    None,
    Found(Box<GoFile<Reader>>),
}

/// Reads an open file, see [`GoFile::open`].
type Reader = Box<dyn Fn(u64, &mut [u8]) -> usize>;

/// What is found at an address.
enum Named {
    /// Functions, the innermost first.
    Functions {
        found: Vec<Found>,
        /// Which longer name the outermost one may have in the symbol table.
        longer: Longer,
    },
    /// Nothing.
    Unnamed(UnnamedReason),
    /// No symbol, but so many bytes before the address its function starts.
    InFunction(u32),
}

/// A name in the symbol table that says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Longer {
    /// There is none.
    None,
    /// Any: only the line is known.
    Any,
    /// A mangled one. Reduced debug information (`line-tables-only`, `-g1`) calls `core::fmt::write` just `write`.
    Mangled,
    /// One with types: Go's own table calls all instances of a generic function `name[...]`.
    Instance,
}

impl ElfFiles {
    /// No file yet. `root` says by which path a descriptor is reached.
    pub(super) fn new(root: FileRoot) -> Self {
        Self {
            symbolizer: None,
            root,
            open: Vec::new(),
            blocks: Rc::default(),
            wanted: Vec::new(),
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
        self.wanted.clear();
        let offsets = request.offsets;
        let debug = match self.root {
            FileRoot::Descriptors => request.debug,
            FileRoot::Everything => DebugInfo::Skip,
        };
        let (number, build_id) = (request.file, request.build_id);
        if let Err(reason) = self.open(number, request.opened, build_id) {
            offsets.iter().for_each(|_| answers.push_unnamed(reason));
            return DebugOutcome::Fine;
        }
        let mut is_refused = match (debug, request.debug_file) {
            (DebugInfo::Use, Some((file, found_by))) => {
                !self.attach(number, file, found_by, build_id)
            }
            _ => false,
        };
        if debug == DebugInfo::Use {
            is_refused |= !self.link(number, request.linked);
        }
        let mut named: Vec<Named> = offsets
            .iter()
            .map(|_| Named::Unnamed(UnnamedReason::NoSymbol))
            .collect();
        let is_damaged = match debug {
            DebugInfo::Use => self.read_debug_info(number, offsets, memory, &mut named),
            DebugInfo::Skip => false,
        };
        let mut outcome = DebugOutcome::Fine;
        if let Some(open) = self.open.iter_mut().find(|it| it.file == number) {
            if is_refused || is_damaged {
                open.debug_outcome = DebugOutcome::Refused;
            }
            outcome = open.debug_outcome;
            if debug == DebugInfo::Skip || !open.has_debug_info() {
                open.read_go(offsets, &mut named);
            }
            open.read_linkage(offsets, &mut named);
            open.read_symbols(offsets, &mut named);
            open.find_starts(offsets, &mut named);
        }
        for it in &named {
            match it {
                Named::Functions {
                    longer: Longer::Any,
                    ..
                } => answers.push_unnamed(UnnamedReason::NoSymbol),
                Named::Functions { found, .. } => answers.push_named(found),
                Named::Unnamed(reason) => answers.push_unnamed(*reason),
                Named::InFunction(distance) => answers.push_in_function(*distance),
            }
        }
        outcome
    }

    /// Names by debug information, where there is any. Gives whether some of it could not be read.
    fn read_debug_info(
        &mut self,
        number: u64,
        offsets: &[u64],
        memory: &Memory,
        named: &mut [Named],
    ) -> bool {
        let mut is_damaged = false;
        let mut forget_left = FORGET_MAX;
        let chunks = offsets.chunks(CHUNK_OFFSETS);
        for (offsets, named) in chunks.zip(named.chunks_mut(CHUNK_OFFSETS)) {
            if forget_left > 0 && memory.is_over() {
                forget_left -= 1;
                self.forget();
            }
            let symbolizer = self.symbolizer.get_or_insert_with(make_symbolizer);
            let Some(open) = self.open.iter_mut().find(|it| it.file == number) else {
                break;
            };
            if open.linked.is_needed() {
                is_damaged |= open.read_linked(offsets, named, &mut self.wanted);
                continue;
            }
            let Some(symbols) = open.symbolize(symbolizer, offsets) else {
                break;
            };
            let Ok(symbols) = symbols else {
                is_damaged = true;
                continue;
            };
            for (symbol, named) in symbols.iter().zip(named) {
                match symbol {
                    Symbolized::Sym(symbol) => *named = functions_of(symbol),
                    Symbolized::Unknown(Reason::IgnoredError) => {
                        is_damaged = true;
                        *named = Named::Unnamed(UnnamedReason::Corrupt);
                    }
                    Symbolized::Unknown(_) => {}
                }
            }
        }
        is_damaged
    }

    fn find(&self, file: u64) -> Option<&OpenFile> {
        self.open.iter().find(|it| it.file == file)
    }

    /// What an open file says about itself, and its debug file of where the rest is.
    pub(super) fn facts(&self, file: u64) -> Option<FileFacts> {
        let open = self.find(file)?;
        let debug = open.debug_source();
        Some(FileFacts {
            alternative: debug.facts.alternative.clone(),
            is_split: open.linked.is_split(),
            ..open.readable.facts.clone()
        })
    }

    /// The split files that the last request lacked.
    pub(super) fn take_wanted(&mut self) -> Vec<SplitFile> {
        std::mem::take(&mut self.wanted)
    }

    /// Forgets what was parsed of all files. They stay open.
    pub(super) fn forget(&mut self) {
        self.symbolizer = None;
        for open in &mut self.open {
            open.go = Go::NotLookedFor;
            open.linked.forget();
        }
    }

    /// Opens the file, if it is not open. It stays open.
    fn open(
        &mut self,
        file: u64,
        opened: Option<OwnedFd>,
        build_id: Option<BuildId>,
    ) -> Result<(), UnnamedReason> {
        let now = Instant::now();
        if let Some(open) = self.open.iter_mut().find(|open| open.file == file) {
            open.used = now;
            return Ok(());
        }
        let descriptor = opened.ok_or(UnnamedReason::FileGone)?;
        let readable = self.make_readable(&descriptor)?;
        if let Some(expected) = build_id
            && read_build_id(&readable.path)? != Some(expected)
        {
            return Err(UnnamedReason::FileGone);
        }
        if self.open.len() >= OPEN_FILES_MAX {
            self.close_oldest();
        }
        self.open.push(OpenFile {
            file,
            readable,
            used: now,
            debug_file: DebugFile::None,
            linked: LinkedFiles::new(Rc::clone(&self.blocks)),
            debug_outcome: DebugOutcome::Fine,
            go: Go::NotLookedFor,
        });
        Ok(())
    }

    /// Opens a descriptor and reads what is needed of it. As long as it is open, blazesym can open it too without a wait.
    fn make_readable(&self, descriptor: &OwnedFd) -> Result<Readable, UnnamedReason> {
        let file = self.root.open(descriptor)?;
        let cache = ReadCache::new(&file);
        let parsed =
            ElfFile64::<LittleEndian, _>::parse(&cache).map_err(|_| UnnamedReason::Corrupt)?;
        let tables = SymbolTables::read(&parsed);
        let boundaries = Boundaries::read(&parsed);
        let (facts, debug_checksum) = read_facts(&parsed);
        Ok(Readable {
            path: self.root.path_of(file.as_raw_fd()),
            file,
            tables,
            boundaries,
            facts,
            debug_checksum,
        })
    }

    /// Takes a debug file for an open file, which needs one. Gives `false` when it is not of this file.
    fn attach(
        &mut self,
        file: u64,
        descriptor: OwnedFd,
        found_by: FoundBy,
        build_id: Option<BuildId>,
    ) -> bool {
        let Some(open) = self.find(file) else {
            return true;
        };
        if open.readable.facts.has_debug_info || !matches!(open.debug_file, DebugFile::None) {
            return true;
        }
        let checksum = open.readable.debug_checksum;
        let is_it = |it: &Readable| {
            let its_build_id = read_build_id(&it.path).ok().flatten();
            match found_by {
                FoundBy::BuildId => build_id.is_some() && its_build_id == build_id,
                FoundBy::Link => {
                    let is_known = build_id.is_some() && its_build_id.is_some();
                    let is_same = !is_known || its_build_id == build_id;
                    is_same && checksum.is_some() && checksum == read_checksum(&it.file)
                }
            }
        };
        let readable = self.make_readable(&descriptor).ok().filter(is_it);
        let is_it = readable.is_some();
        if let Some(open) = self.open.iter_mut().find(|it| it.file == file) {
            open.debug_file = readable.map_or(DebugFile::Refused, DebugFile::Open);
        }
        is_it
    }

    /// Takes the files with parts of an open file's debug information. Gives `false` when they are not what they should be.
    fn link(&mut self, file: u64, linked: LinkedRequest) -> bool {
        let root = self.root;
        let Some(open) = self.open.iter_mut().find(|it| it.file == file) else {
            return true;
        };
        let reopen = |it: OwnedFd| root.open(&it).ok();
        let split = linked.split.into_iter();
        let files = Linking {
            alternative: linked.alternative.and_then(reopen),
            package: linked.package.and_then(reopen),
            split: split
                .map(|(id, file)| (id, file.and_then(reopen)))
                .collect(),
        };
        let debug = match &open.debug_file {
            DebugFile::Open(it) => it,
            DebugFile::None | DebugFile::Refused => &open.readable,
        };
        if !debug.facts.has_debug_info {
            return true;
        }
        open.linked.look(&debug.file);
        let link = debug.facts.alternative.as_ref();
        open.linked.take(files, &debug.file, link)
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

    /// Closes those that nobody has asked about for a while.
    pub(super) fn close_idle(&mut self) {
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
            for readable in [Some(&open.readable), open.debug_file()]
                .into_iter()
                .flatten()
            {
                let evict = evict::Evict::from(evict::Elf::new(&readable.path));
                let evicted = symbolizer.evict(&evict);
                debug_assert!(evicted.is_ok(), "{evicted:?}");
            }
        }
    }
}

impl OpenFile {
    fn debug_file(&self) -> Option<&Readable> {
        match &self.debug_file {
            DebugFile::Open(it) => Some(it),
            DebugFile::None | DebugFile::Refused => None,
        }
    }

    /// The file that has the debug information, if any has.
    fn debug_source(&self) -> &Readable {
        self.debug_file().unwrap_or(&self.readable)
    }

    fn has_debug_info(&self) -> bool {
        self.readable.facts.has_debug_info || self.debug_file().is_some()
    }

    /// Names by Go's own table, which every Go program has. (Debug information knows the full names of generic
    /// functions also where they are inlined.)
    fn read_go(&mut self, offsets: &[u64], named: &mut [Named]) {
        if matches!(self.go, Go::NotLookedFor) {
            self.go = look_for_go(&self.readable.file);
        }
        let Go::Found(file) = &mut self.go else {
            return;
        };
        for (offset, named) in offsets.iter().zip(named) {
            let functions = file.name(*offset);
            let Some(outer) = functions.last() else {
                continue;
            };
            let longer = match outer.name.contains(INSTANCE) {
                true => Longer::Instance,
                false => Longer::None,
            };
            let found = functions.into_iter().map(Found::from).collect();
            *named = Named::Functions { found, longer };
        }
    }

    /// Names by debug information that lies in several files, and adds those that are `wanted`. Gives whether some of it
    /// could not be read.
    fn read_linked(
        &mut self,
        offsets: &[u64],
        named: &mut [Named],
        wanted: &mut Vec<SplitFile>,
    ) -> bool {
        let mut is_damaged = false;
        let addresses = self.addresses_of(offsets);
        let main = match &self.debug_file {
            DebugFile::Open(it) => &it.file,
            DebugFile::None | DebugFile::Refused => &self.readable.file,
        };
        for (address, named) in addresses.into_iter().zip(named) {
            let found = match self.linked.find(main, address) {
                Lookup::Found(found) => found,
                Lookup::Wants(file, found) => {
                    let is_new = wanted.iter().all(|it| it.id != file.id);
                    if is_new && wanted.len() < SPLIT_FILES_MAX {
                        wanted.push(file);
                    }
                    found
                }
                Lookup::Nothing => continue,
                Lookup::Damaged => {
                    is_damaged = true;
                    *named = Named::Unnamed(UnnamedReason::Corrupt);
                    continue;
                }
            };
            if let Some(outer) = found.last() {
                let longer = longer_of(&outer.symbol);
                *named = Named::Functions { found, longer };
            }
        }
        is_damaged
    }

    /// What the debug information says; `None` when there is none.
    fn symbolize<'a>(
        &self,
        symbolizer: &'a Symbolizer,
        offsets: &[u64],
    ) -> Option<Result<Vec<Symbolized<'a>>, Error>> {
        if let Some(debug_file) = self.debug_file() {
            // The offsets are those of the file and not of its debug file, which share the addresses as linked.
            let addresses = self.addresses_of(offsets);
            let source = Source::Elf(source::Elf::new(&debug_file.path));
            return Some(symbolizer.symbolize(&source, Input::VirtOffset(&addresses)));
        }
        let has_any = self.readable.facts.has_debug_info || self.readable.tables.has_compressed;
        has_any.then(|| {
            let source = Source::Elf(source::Elf::new(&self.readable.path));
            symbolizer.symbolize(&source, Input::FileOffset(offsets))
        })
    }

    /// Names the entries of linkage tables. Neither debug information nor symbols know them, and what lies before them is
    /// taken for them (`_init`).
    fn read_linkage(&self, offsets: &[u64], named: &mut [Named]) {
        let Readable { file, tables, .. } = &self.readable;
        let symbols = tables.find_linkages(file, &self.addresses_of(offsets));
        for (symbol, named) in symbols.into_iter().zip(named) {
            if let Some(symbol) = symbol {
                *named = Named::of_symbol(symbol);
            }
        }
    }

    /// Names by the symbol tables what has no name, or may have a better one.
    fn read_symbols(&self, offsets: &[u64], named: &mut [Named]) {
        let addresses = self.addresses_of(offsets);
        // What the file that a debug file belongs to exports is in both; what only one of them has is either's.
        for readable in [self.debug_file(), Some(&self.readable)]
            .into_iter()
            .flatten()
        {
            let places: Vec<usize> = named
                .iter()
                .enumerate()
                .filter(|(_, it)| it.wants_symbol())
                .map(|(place, _)| place)
                .collect();
            if places.is_empty() {
                return;
            }
            let wanted: Vec<u64> = places.iter().map(|it| addresses[*it]).collect();
            let symbols = readable.tables.find(&readable.file, &wanted);
            for (place, symbol) in places.into_iter().zip(symbols) {
                if let Some(symbol) = symbol {
                    named[place].take_symbol(symbol);
                }
            }
        }
    }

    /// Finds the functions of what has no symbol.
    fn find_starts(&self, offsets: &[u64], named: &mut [Named]) {
        let Readable {
            file,
            facts,
            boundaries,
            ..
        } = &self.readable;
        for (offset, named) in offsets.iter().zip(named) {
            if let Named::Unnamed(UnnamedReason::NoSymbol) = named
                && let Some(address) = facts.address_of(*offset)
                && let Some(distance) = boundaries.find(file, facts, address)
            {
                *named = Named::InFunction(distance);
            }
        }
    }

    /// The addresses as linked. An offset that is mapped nowhere has one that nothing has.
    fn addresses_of(&self, offsets: &[u64]) -> Vec<u64> {
        let addresses = offsets.iter().map(|it| self.readable.facts.address_of(*it));
        addresses.map(|it| it.unwrap_or(u64::MAX)).collect()
    }
}

impl Named {
    /// A function of which the symbol is all that is known.
    fn of_symbol(symbol: String) -> Self {
        Self::Functions {
            found: vec![Found::bare(symbol)],
            longer: Longer::None,
        }
    }

    fn wants_symbol(&self) -> bool {
        match self {
            Self::Functions { longer, .. } => *longer != Longer::None,
            Self::Unnamed(_) | Self::InFunction(_) => true,
        }
    }

    /// Takes the name that the symbol table has.
    fn take_symbol(&mut self, symbol: String) {
        match self {
            Self::Functions { found, longer } => {
                let Some(outer) = found.last_mut() else {
                    return;
                };
                let says_more = match longer {
                    Longer::None => false,
                    Longer::Any => true,
                    Longer::Mangled => is_mangled(&symbol),
                    Longer::Instance => is_instance(&symbol, &outer.symbol),
                };
                if says_more {
                    outer.symbol = symbol;
                }
                *longer = Longer::None;
            }
            Self::Unnamed(_) | Self::InFunction(_) => *self = Self::of_symbol(symbol),
        }
    }
}

fn read_build_id(path: &Path) -> Result<Option<BuildId>, UnnamedReason> {
    let found = blazesym::helper::read_elf_build_id(path).map_err(|err| reason_of(&err))?;
    Ok(found.and_then(|it| BuildId::new(&it)))
}

/// The CRC-32 of a whole file, which debug links have; `None` if it cannot be read. A gigabyte takes about a second,
/// once as long as the file is open.
fn read_checksum(file: &File) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; CHECKSUM_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Some(hasher.finalize()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                offset += read as u64;
            }
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn look_for_go(file: &File) -> Go {
    let Ok(file) = file.try_clone() else {
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

/// What stands for the types of a generic function.
const INSTANCE: &str = "[...]";

/// Whether a symbol is the name of a generic function with its types.
fn is_instance(symbol: &str, name: &str) -> bool {
    let before = name.split_once(INSTANCE).map(|(before, _)| before);
    let types = before.and_then(|it| symbol.strip_prefix(it));
    types.is_some_and(|it| it.starts_with('['))
}

impl From<GoFunction> for Found {
    fn from(function: GoFunction) -> Self {
        Self {
            file: function.file,
            line: function.line,
            start_line: function.start_line,
            ..Self::bare(function.name)
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

/// The innermost inlined function first, the one that has the code last.
fn functions_of(symbol: &Sym<'_>) -> Named {
    let inlined = symbol
        .inlined
        .iter()
        .rev()
        .map(|inlined| found(&inlined.name, inlined.code_info.as_ref()));
    let outer = found(&symbol.name, symbol.code_info.as_deref());
    Named::Functions {
        found: inlined.chain([outer]).collect(),
        longer: match symbol.code_info.is_some() {
            true => longer_of(&symbol.name),
            false => Longer::None,
        },
    }
}

/// Which longer name a function may have that debug information calls `name`.
fn longer_of(name: &str) -> Longer {
    match name {
        "" => Longer::Any,
        name if is_mangled(name) => Longer::None,
        _ => Longer::Mangled,
    }
}

fn found(symbol: &str, code: Option<&CodeInfo<'_>>) -> Found {
    let bare = Found::bare(symbol.to_owned());
    let Some(code) = code else {
        return bare;
    };
    Found {
        file: code.to_path().to_string_lossy().into_owned(),
        line: code.line.unwrap_or(0),
        column: u32::from(code.column.unwrap_or(0)),
        ..bare
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
