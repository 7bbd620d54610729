//! Names of addresses in one ELF file, from all sources in it and its debug files.
//!
//! In: open files, and file offsets. Out: frames, or the reason for none. Sources are asked in this order, and a later one adds names
//! that an earlier one lacks:
//!
//! 1. debug information: by blazesym in one file, by [`crate::dwarf`] in several files or very large ones;
//! 2. Go's table, in files without debug information;
//! 3. linkage tables, then symbol tables, also for the longer names of functions that debug information abbreviates;
//! 4. the starts of functions without a name.

use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;

use blazesym::Error;
use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer, evict};
use elf::{BlockCache, BuildId};
use serde::{Deserialize, Serialize};

use crate::demangle::is_mangled;
use crate::dwarf::{LinkedFiles, Linking, Lookup, SplitFile};
use crate::facts::FileFacts;
use crate::frame::Frame;
use crate::go::GoFile;
use crate::labels::LabelEnds;
use crate::object_file::ObjectFile;

/// Instructions that are read for the ends of labels in one call, 80 ms. Assembler functions have 100 on average.
const INSTRUCTIONS_MAX: usize = 1 << 20;

/// The way in which a debug file was found. It decides whether build id or checksum must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundBy {
    /// In the build-id tree: the build id must match.
    BuildId,
    /// By the link: the checksum must match, and the build id if both have one.
    Link,
}

/// Whether debug information could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugOutcome {
    /// It could, or there is none.
    Fine,
    /// Some of it could not be read, or was of another file. Symbol tables were used instead.
    Refused,
}

/// The result at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved<'a> {
    /// Functions, the innermost first.
    Frames(&'a [Frame]),
    /// No symbol, but the function starts so many bytes before the offset.
    InFunction(u32),
    /// No symbol.
    NoSymbol,
    /// Unreadable debug information, and no symbol.
    Corrupt,
}

/// The answer for an offset, from the sources asked so far.
#[derive(Debug, Default)]
pub struct Answer {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    NoSymbol,
    Corrupt,
    InFunction(u32),
    /// Functions, the innermost first.
    Functions {
        frames: Vec<Frame>,
        /// The longer name that the symbol table may have for the outermost one.
        longer: Longer,
    },
}

/// A more complete name in the symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Longer {
    /// There is none.
    None,
    /// Any name: only the line is known.
    Any,
    /// A mangled one. Reduced debug information (`line-tables-only`, `-g1`) calls `core::fmt::write` just `write`.
    Mangled,
    /// A name with types: Go's own table calls all instances of a generic function `name[...]`.
    Instance,
}

/// blazesym, with the files of several resolvers that it has parsed.
pub struct DebugInfoReader(Symbolizer);

impl DebugInfoReader {
    /// A reader without parsed files.
    pub fn new() -> Self {
        let builder = Symbolizer::builder()
            .enable_code_info(true)
            .enable_inlined_fns(true)
            // The caller does it, since it also needs the name in the symbol table.
            .enable_demangling(false)
            .set_debug_dirs(Some(std::iter::empty::<PathBuf>()));
        Self(builder.build())
    }

    /// Forgets the parsed files of a resolver. This must come before their descriptors are closed: another file may get the same
    /// number.
    pub fn evict(&mut self, resolver: &ElfResolver) {
        let files = [Some(&resolver.main), resolver.debug_file()];
        for file in files.into_iter().flatten() {
            let evict = evict::Evict::from(evict::Elf::new(&file.path));
            let evicted = self.0.evict(&evict);
            debug_assert!(evicted.is_ok(), "{evicted:?}");
        }
    }
}

impl Default for DebugInfoReader {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether debug information is to be used beside the other sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UseDebugInfo {
    /// If it can be read.
    Yes,
    /// Not at all: a child died of it before, or is not permitted to open it.
    No,
}

/// Names addresses in one file.
pub struct ElfResolver {
    main: ObjectFile,
    debug_file: DebugFile,
    linked: LinkedFiles,
    go: Go,
    blocks: Rc<BlockCache>,
    /// Of all calls so far.
    debug_outcome: DebugOutcome,
}

/// A file with another one's debug information.
enum DebugFile {
    /// None so far.
    None,
    /// It was of another file. None is accepted as long as the file is open.
    Refused,
    /// It is this one.
    Open(Box<ObjectFile>),
}

/// A file's table of Go functions.
enum Go {
    NotLookedFor,
    None,
    Found(Box<GoFile<File>>),
}

impl ElfResolver {
    /// A resolver of a file without debug files, which caches blocks in `blocks`.
    pub fn new(main: ObjectFile, blocks: &Rc<BlockCache>) -> Self {
        Self {
            main,
            debug_file: DebugFile::None,
            linked: LinkedFiles::new(Rc::clone(blocks)),
            go: Go::NotLookedFor,
            blocks: Rc::clone(blocks),
            debug_outcome: DebugOutcome::Fine,
        }
    }

    /// The file's facts, with the links of its debug file.
    pub fn facts(&self) -> FileFacts {
        FileFacts {
            alternative: self.debug_source().facts.alternative.clone(),
            is_split: self.linked.is_split(),
            ..self.main.facts.clone()
        }
    }

    /// Whether debug information could be used in all calls so far.
    pub fn debug_outcome(&self) -> DebugOutcome {
        self.debug_outcome
    }

    /// Whether a debug file would be of use.
    pub fn wants_debug_file(&self) -> bool {
        !self.main.facts.has_debug_info && matches!(self.debug_file, DebugFile::None)
    }

    /// Takes a debug file, if it is of this file, whose build id is `build_id`.
    pub fn attach(
        &mut self,
        file: Option<ObjectFile>,
        found_by: FoundBy,
        build_id: Option<BuildId>,
    ) {
        let checksum = self.main.debug_checksum;
        let is_it = |file: &ObjectFile| match found_by {
            FoundBy::BuildId => build_id.is_some() && file.build_id == build_id,
            FoundBy::Link => {
                let is_known = build_id.is_some() && file.build_id.is_some();
                let is_same = !is_known || file.build_id == build_id;
                is_same && checksum.is_some_and(|checksum| checksum == file.read_checksum())
            }
        };
        match file.filter(is_it) {
            Some(file) => self.debug_file = DebugFile::Open(Box::new(file)),
            None => {
                self.debug_file = DebugFile::Refused;
                self.debug_outcome = DebugOutcome::Refused;
            }
        }
    }

    /// Takes files with parts of the debug information.
    pub fn link(&mut self, files: Linking) {
        let debug = match &self.debug_file {
            DebugFile::Open(file) => file,
            DebugFile::None | DebugFile::Refused => &self.main,
        };
        if !debug.facts.has_debug_info {
            return;
        }
        self.linked.look(&debug.file, debug.debug_info_bytes);
        let link = debug.facts.alternative.as_ref();
        if !self.linked.take(files, &debug.file, link) {
            self.debug_outcome = DebugOutcome::Refused;
        }
    }

    /// Frees the parsed units of debug information.
    pub fn close_units(&mut self) {
        self.linked.close_units();
    }

    /// Forgets the parsed files. They stay open.
    pub fn forget(&mut self) {
        self.go = Go::NotLookedFor;
        self.linked.forget();
    }

    /// Answers by debug information, where there is any. Split files that are missing are added to `wanted`, each once, up to
    /// `wanted_max`.
    pub fn read_debug_info(
        &mut self,
        reader: &DebugInfoReader,
        offsets: &[u64],
        answers: &mut [Answer],
        wanted: &mut Vec<SplitFile>,
        wanted_max: usize,
    ) {
        let is_read = if self.linked.is_needed() {
            self.read_linked(offsets, answers, wanted, wanted_max)
        } else {
            self.read_single(reader, offsets, answers)
        };
        if !is_read {
            self.debug_outcome = DebugOutcome::Refused;
        }
    }

    /// Answers by debug information in one file. Returns whether all of it could be read.
    fn read_single(
        &self,
        reader: &DebugInfoReader,
        offsets: &[u64],
        answers: &mut [Answer],
    ) -> bool {
        let Some(symbols) = self.symbolize(&reader.0, offsets) else {
            return true;
        };
        let Ok(symbols) = symbols else {
            return false;
        };
        let mut is_read = true;
        for (symbol, answer) in symbols.iter().zip(answers) {
            match symbol {
                Symbolized::Sym(symbol) => answer.state = functions_of(symbol),
                Symbolized::Unknown(Reason::IgnoredError) => {
                    is_read = false;
                    answer.state = State::Corrupt;
                }
                Symbolized::Unknown(_) => {}
            }
        }
        is_read
    }

    /// Looks up debug information in one file; `None` if there is none.
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
        let has_any = self.main.facts.has_debug_info || self.main.tables.has_compressed;
        has_any.then(|| {
            let source = Source::Elf(source::Elf::new(&self.main.path));
            symbolizer.symbolize(&source, Input::FileOffset(offsets))
        })
    }

    /// Answers by debug information in several files. Returns whether all of it could be read.
    fn read_linked(
        &mut self,
        offsets: &[u64],
        answers: &mut [Answer],
        wanted: &mut Vec<SplitFile>,
        wanted_max: usize,
    ) -> bool {
        let mut is_read = true;
        let addresses = self.addresses_of(offsets);
        let debug = match &self.debug_file {
            DebugFile::Open(debug) => debug,
            DebugFile::None | DebugFile::Refused => &self.main,
        };
        for (address, answer) in addresses.into_iter().zip(answers) {
            let frames = match self.linked.find(&debug.file, address) {
                Lookup::Found(frames) => frames,
                Lookup::Wants(file, frames) => {
                    let is_new = wanted.iter().all(|known| known.id != file.id);
                    if is_new && wanted.len() < wanted_max {
                        wanted.push(file);
                    }
                    frames
                }
                Lookup::Nothing => continue,
                Lookup::Damaged => {
                    is_read = false;
                    answer.state = State::Corrupt;
                    continue;
                }
            };
            if let Some(outer) = frames.last() {
                let longer = longer_of(&outer.symbol);
                answer.state = State::Functions { frames, longer };
            }
        }
        is_read
    }

    /// Answers by the other sources. Go's table is asked if no debug information was used: debug information has the full names of
    /// generic functions, also where they are inlined.
    pub fn read_tables(
        &mut self,
        debug_info: UseDebugInfo,
        offsets: &[u64],
        answers: &mut [Answer],
    ) {
        if debug_info == UseDebugInfo::No || !self.has_debug_info() {
            self.read_go(offsets, answers);
        }
        self.read_linkage(offsets, answers);
        self.read_symbols(offsets, answers);
        self.find_starts(offsets, answers);
    }

    fn debug_file(&self) -> Option<&ObjectFile> {
        match &self.debug_file {
            DebugFile::Open(file) => Some(file),
            DebugFile::None | DebugFile::Refused => None,
        }
    }

    /// The file that has the debug information, if any has.
    fn debug_source(&self) -> &ObjectFile {
        self.debug_file().unwrap_or(&self.main)
    }

    fn has_debug_info(&self) -> bool {
        self.main.facts.has_debug_info || self.debug_file().is_some()
    }

    fn read_go(&mut self, offsets: &[u64], answers: &mut [Answer]) {
        if matches!(self.go, Go::NotLookedFor) {
            let file = self.main.file.try_clone().ok();
            let found = file.and_then(|file| GoFile::open(file, &self.blocks));
            self.go = found.map_or(Go::None, |file| Go::Found(Box::new(file)));
        }
        let Go::Found(file) = &mut self.go else {
            return;
        };
        for (offset, answer) in offsets.iter().zip(answers) {
            let frames = file.name(*offset);
            let Some(outer) = frames.last() else {
                continue;
            };
            let longer = if outer.symbol.contains(INSTANCE) {
                Longer::Instance
            } else {
                Longer::None
            };
            answer.state = State::Functions { frames, longer };
        }
    }

    /// Names the entries of linkage tables. Debug information and symbols do not list them, and name them by the code before
    /// (`_init`).
    fn read_linkage(&self, offsets: &[u64], answers: &mut [Answer]) {
        let ObjectFile { file, tables, .. } = &self.main;
        let symbols = tables.find_linkages(file, &self.addresses_of(offsets));
        for (symbol, answer) in symbols.into_iter().zip(answers) {
            if let Some(symbol) = symbol {
                answer.state = State::of_symbol(symbol);
            }
        }
    }

    /// Names addresses without a name, or with a less complete one, by the symbol tables.
    fn read_symbols(&self, offsets: &[u64], answers: &mut [Answer]) {
        let addresses = self.addresses_of(offsets);
        let ObjectFile {
            file: code,
            layout,
            boundaries,
            ..
        } = &self.main;
        let mut ends = LabelEnds::new(code, layout, boundaries, INSTRUCTIONS_MAX);
        // Exported symbols are in both files, others may be in only one of them.
        let files = [self.debug_file(), Some(&self.main)];
        for file in files.into_iter().flatten() {
            let places: Vec<usize> = (0..answers.len())
                .filter(|place| answers[*place].state.wants_symbol())
                .collect();
            if places.is_empty() {
                return;
            }
            let wanted: Vec<u64> = places.iter().map(|place| addresses[*place]).collect();
            let end_of = |label| ends.find(label, u64::MAX);
            let symbols = file.tables.find(&file.file, &wanted, end_of);
            for (place, symbol) in places.into_iter().zip(symbols) {
                if let Some(symbol) = symbol {
                    answers[place].state.take_symbol(symbol);
                }
            }
        }
    }

    /// Finds the starts of functions without a symbol.
    fn find_starts(&self, offsets: &[u64], answers: &mut [Answer]) {
        let ObjectFile {
            file,
            layout,
            boundaries,
            ..
        } = &self.main;
        for (offset, answer) in offsets.iter().zip(answers) {
            if let State::NoSymbol = answer.state
                && let Some(address) = layout.address_of(*offset)
                && let Some(distance) = boundaries.find(file, layout, address)
            {
                answer.state = State::InFunction(distance);
            }
        }
    }

    /// The addresses as linked. An offset that is not loaded gets one without a name.
    fn addresses_of(&self, offsets: &[u64]) -> Vec<u64> {
        let layout = &self.main.layout;
        let addresses = offsets.iter().map(|offset| layout.address_of(*offset));
        addresses
            .map(|address| address.unwrap_or(u64::MAX))
            .collect()
    }
}

impl Answer {
    /// The result.
    pub fn resolved(&self) -> Resolved<'_> {
        match &self.state {
            // Only the line is known, of a function without a name.
            State::NoSymbol
            | State::Functions {
                longer: Longer::Any,
                ..
            } => Resolved::NoSymbol,
            State::Corrupt => Resolved::Corrupt,
            State::InFunction(distance) => Resolved::InFunction(*distance),
            State::Functions { frames, .. } => Resolved::Frames(frames),
        }
    }
}

impl State {
    /// A function with a symbol only.
    fn of_symbol(symbol: String) -> Self {
        Self::Functions {
            frames: vec![Frame::bare(symbol)],
            longer: Longer::None,
        }
    }

    fn wants_symbol(&self) -> bool {
        match self {
            Self::Functions { longer, .. } => *longer != Longer::None,
            Self::NoSymbol | Self::Corrupt | Self::InFunction(_) => true,
        }
    }

    /// Takes a name of the symbol table.
    fn take_symbol(&mut self, symbol: String) {
        match self {
            Self::Functions { frames, longer } => {
                let Some(outer) = frames.last_mut() else {
                    return;
                };
                let is_longer = match longer {
                    Longer::None => false,
                    Longer::Any => true,
                    Longer::Mangled => is_mangled(&symbol),
                    Longer::Instance => is_instance(&symbol, &outer.symbol),
                };
                if is_longer {
                    outer.symbol = symbol;
                }
                *longer = Longer::None;
            }
            Self::NoSymbol | Self::Corrupt | Self::InFunction(_) => {
                *self = Self::of_symbol(symbol);
            }
        }
    }
}

/// Placeholder for the types of a generic function.
const INSTANCE: &str = "[...]";

/// Whether a symbol is the name of a generic function with its types.
fn is_instance(symbol: &str, name: &str) -> bool {
    let before = name.split_once(INSTANCE).map(|(before, _)| before);
    let types = before.and_then(|before| symbol.strip_prefix(before));
    types.is_some_and(|types| types.starts_with('['))
}

/// The innermost inlined function first, the one that has the code last.
fn functions_of(symbol: &Sym<'_>) -> State {
    let inlined = symbol.inlined.iter().rev();
    let inlined = inlined.map(|inlined| make_frame(&inlined.name, inlined.code_info.as_ref()));
    let outer = make_frame(&symbol.name, symbol.code_info.as_deref());
    let longer = if symbol.code_info.is_some() {
        longer_of(&symbol.name)
    } else {
        Longer::None
    };
    State::Functions {
        frames: inlined.chain([outer]).collect(),
        longer,
    }
}

/// The longer name that a function may have which debug information calls `name`.
fn longer_of(name: &str) -> Longer {
    match name {
        "" => Longer::Any,
        name if is_mangled(name) => Longer::None,
        _ => Longer::Mangled,
    }
}

fn make_frame(symbol: &str, code: Option<&CodeInfo<'_>>) -> Frame {
    let bare = Frame::bare(symbol.to_owned());
    let Some(code) = code else {
        return bare;
    };
    Frame {
        file: code.to_path().to_string_lossy().into_owned(),
        line: code.line.unwrap_or(0),
        column: u32::from(code.column.unwrap_or(0)),
        ..bare
    }
}
