//! Code that the kernel loads and unloads: BPF programs, trampolines, probes, and modules.
//!
//! In: perf's `ksymbol` records in the order of their times, and readings of `/proc/modules`. Out: the owner of the code at an
//! address at the time of a sample. Names of such code are valid for a time: the next program of the same size is loaded where
//! the last one lay.
//!
//! - There is a record for each function of a BPF program, for BPF trampolines, and for the copies of code that ftrace and kprobes
//!   make, when it is loaded and before its memory is freed. The record has the name that `/proc/kallsyms` would have.
//! - There are no records of modules. Their list is read each second; an address that was in two modules within that second has no
//!   owner for that time. Their functions are named from a reading of `/proc/kallsyms` in which the module is there.
//! - Code that was loaded before the first record is named from `/proc/kallsyms` as well, until a record unloads it.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{FileIdentity, FileKind, MappedFile, kernel_modules::Module};

/// Symbols that are remembered. A node with Cilium has some hundreds of programs; one of tracing tools that come and go adds
/// the places where theirs lay. Each takes some 400 bytes with its file: 6 MB. Beyond, one that was unloaded is forgotten,
/// or a new one is not taken.
const SYMBOLS_MAX: usize = 16_384;

/// Symbols in whose place others lie now; the oldest goes. At ten loads a second they last for 100 s, and samples are located
/// within three.
const REPLACED_MAX: usize = 1024;

/// How long code may still run after its record of unloading: another processor may be in the midst of it until the kernel's
/// grace period is over, some 10 ms, on busy machines more.
const GRACE_NS: u64 = 1_000_000_000;

/// Modules that are remembered: distributions load some hundred.
const MODULES_MAX: usize = 4096;

/// Prefix of a module's name in its path.
const MODULE_PREFIX: &str = "[kernel] ";

/// The path of code that was unloaded, and whose name is not known.
const UNLOADED: &str = "[kernel] unloaded";

/// The owner of the code at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelOwner {
    /// A symbol or a module that was loaded there.
    Loaded(Arc<MappedFile>),
    /// It was unloaded, and its name is not known.
    Unknown,
    /// There is no record: it is the kernel's image, or was loaded before the first record.
    Image,
}

/// The code that the kernel has loaded, and had. Clones share it.
#[derive(Clone, Debug)]
pub struct KernelCode {
    /// Start of the kernel's image.
    text_start: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The kernel's image, since the first record or since records were lost.
    image: Arc<MappedFile>,
    /// The image before records were lost.
    image_before: Option<Arc<MappedFile>>,
    /// By first address; they do not overlap. An unloaded symbol stays until another takes its place.
    symbols: BTreeMap<u64, Piece>,
    /// Symbols that others have replaced, the oldest first.
    replaced: VecDeque<(u64, Piece)>,
    /// A range in which all of these lie, and the kernel's image, with most frames, does not.
    replaced_within: Range<u64>,
    /// By first address, those that were unloaded included.
    modules: BTreeMap<u64, Piece>,
    /// Times of the last record, and of the last reading of the list of modules if there was one.
    record_ns: u64,
    modules_read_ns: Option<u64>,
    /// Stands for unloaded code whose name is not known.
    unloaded: Arc<MappedFile>,
    forgotten: u64,
}

/// A frame of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFrame {
    /// The image, module or symbol of its code.
    pub file: Arc<MappedFile>,
    /// Offset from the start of the kernel's image, wrapping.
    pub offset: u64,
}

#[derive(Clone, Debug)]
struct Piece {
    end: u64,
    file: Arc<MappedFile>,
    /// From when on it was there; 0 for always.
    since_ns: u64,
    /// Until when it was there; `u64::MAX` as long as it is.
    until_ns: u64,
}

impl Piece {
    fn is_loaded(&self) -> bool {
        self.until_ns == u64::MAX
    }

    /// The owner of the code at a time after `since_ns`.
    fn owner(&self, time_ns: u64) -> KernelOwner {
        if time_ns <= self.until_ns.saturating_add(GRACE_NS) {
            KernelOwner::Loaded(self.file.clone())
        } else {
            KernelOwner::Unknown
        }
    }
}

impl KernelCode {
    /// Only the kernel's image, which begins at this address.
    pub fn new(text_start: u64) -> Self {
        let state = State {
            image: image(0),
            image_before: None,
            symbols: BTreeMap::new(),
            replaced: VecDeque::new(),
            replaced_within: 0..0,
            modules: BTreeMap::new(),
            record_ns: 0,
            modules_read_ns: None,
            unloaded: Arc::new(kernel_file(FileKind::KernelSymbol, UNLOADED)),
            forgotten: 0,
        };
        Self {
            text_start,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Code of this name, which `/proc/kallsyms` would give it, was loaded.
    pub fn load(&self, addresses: Range<u64>, name: &str, time_ns: u64) {
        let mut state = self.state.lock();
        state.record_ns = time_ns;
        state.insert(addresses, symbol(name), time_ns..u64::MAX);
    }

    /// Code is about to be unloaded. If it was loaded before the first record, this is the first to name it.
    pub fn unload(&self, addresses: Range<u64>, name: &str, time_ns: u64) {
        let mut state = self.state.lock();
        state.record_ns = time_ns;
        let known = state.symbols.get_mut(&addresses.start);
        match known.filter(|piece| piece.end == addresses.end && *piece.file.path == *name) {
            Some(known) => known.until_ns = known.until_ns.min(time_ns),
            None => {
                let since_ns = state.free_since(&addresses, time_ns);
                state.insert(addresses, symbol(name), since_ns..time_ns);
            }
        }
    }

    /// Records were lost before `time_ns`: known symbols may be out of date, and names from `/proc/kallsyms` need a new reading.
    pub fn lose(&self, time_ns: u64) {
        let mut state = self.state.lock();
        state.image.end_at(state.record_ns);
        state.image_before = Some(std::mem::replace(&mut state.image, image(time_ns)));
        state.symbols.clear();
        state.replaced.clear();
        state.replaced_within = 0..0;
    }

    /// Takes in the list of modules as it is at `time_ns`.
    pub fn set_modules(&self, mut modules: Vec<Module>, time_ns: u64) {
        modules.sort_by_key(|module| module.start);
        modules.truncate(MODULES_MAX);
        self.state.lock().set_modules(&modules, time_ns);
    }

    /// The owner of the code at an address at a time.
    pub fn find(&self, address: u64, time_ns: u64) -> KernelOwner {
        self.state.lock().find(address, time_ns)
    }

    /// The file and the offset in it of each of these addresses, as they were at a time.
    pub fn locate(&self, addresses: impl Iterator<Item = u64>, time_ns: u64) -> Vec<KernelFrame> {
        let state = self.state.lock();
        let image = match &state.image_before {
            Some(before) if time_ns < state.image.since_ns => before,
            _ => &state.image,
        };
        let locate = |address| KernelFrame {
            file: match state.find(address, time_ns) {
                KernelOwner::Loaded(file) => file,
                KernelOwner::Image => image.clone(),
                KernelOwner::Unknown => state.unloaded.clone(),
            },
            offset: address.wrapping_sub(self.text_start),
        };
        addresses.map(locate).collect()
    }

    /// The owner of the code at an offset from the start of the kernel's image at a time.
    pub fn find_offset(&self, offset: u64, time_ns: u64) -> KernelOwner {
        self.find(self.text_start.wrapping_add(offset), time_ns)
    }

    /// Symbols that are remembered, and how many were forgotten for lack of room.
    pub fn counts(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.symbols.len(), state.forgotten)
    }
}

impl State {
    /// Puts a symbol where it lay or lies, in place of those that lay there before.
    fn insert(&mut self, addresses: Range<u64>, file: MappedFile, times: Range<u64>) {
        if addresses.is_empty() {
            return;
        }
        for start in self.overlapping(&addresses) {
            let Some(mut before) = self.symbols.remove(&start) else {
                continue;
            };
            before.until_ns = before.until_ns.min(times.start.max(before.since_ns));
            if self.replaced.len() >= REPLACED_MAX {
                self.replaced.pop_front();
            }
            let within = &mut self.replaced_within;
            *within = if within.is_empty() {
                start..before.end
            } else {
                within.start.min(start)..within.end.max(before.end)
            };
            self.replaced.push_back((start, before));
        }
        if self.symbols.len() >= SYMBOLS_MAX {
            self.forget_one();
        }
        let piece = Piece {
            end: addresses.end,
            file: Arc::new(file),
            since_ns: times.start,
            until_ns: times.end,
        };
        self.symbols.insert(addresses.start, piece);
    }

    fn overlapping(&self, addresses: &Range<u64>) -> Vec<u64> {
        let before = self.symbols.range(..addresses.start).next_back();
        let before = before.filter(|(_, piece)| piece.end > addresses.start);
        let within = self.symbols.range(addresses.clone());
        before
            .into_iter()
            .chain(within)
            .map(|(start, _)| *start)
            .collect()
    }

    /// The time since which no known symbol lies at these addresses.
    fn free_since(&self, addresses: &Range<u64>, now_ns: u64) -> u64 {
        let pieces = self.overlapping(addresses).into_iter();
        let ends = pieces.map(|start| self.symbols.get(&start).map_or(0, |piece| piece.until_ns));
        let last = ends.max().unwrap_or(0).min(now_ns);
        last.max(self.image.since_ns)
    }

    /// Makes room: evicts the symbol that was unloaded first.
    fn forget_one(&mut self) {
        let first = self
            .symbols
            .iter()
            .min_by_key(|(_, piece)| (piece.until_ns, piece.since_ns));
        if let Some(start) = first.map(|(start, _)| *start) {
            self.symbols.remove(&start);
            self.forgotten += 1;
        }
    }

    fn set_modules(&mut self, modules: &[Module], time_ns: u64) {
        let before_ns = self.modules_read_ns.replace(time_ns);
        for (start, piece) in self
            .modules
            .iter_mut()
            .filter(|(_, piece)| piece.is_loaded())
        {
            let place = modules.binary_search_by_key(start, |module| module.start);
            let is_there =
                place.is_ok_and(|place| module_of(&piece.file) == Some(&*modules[place].name));
            if !is_there {
                piece.until_ns = time_ns;
                piece.file.end_at(before_ns.unwrap_or(0));
            }
        }
        for (place, module) in modules.iter().enumerate() {
            let next = modules.get(place + 1).map_or(u64::MAX, |next| next.start);
            let end = module.start.saturating_add(module.bytes).min(next);
            let known = self
                .modules
                .get(&module.start)
                .filter(|piece| piece.is_loaded());
            if known.is_some() {
                continue;
            }
            // A module that replaces no other counts from the beginning: its first function runs before a list has it.
            let mut since_ns = 0;
            self.modules.retain(|start, piece| {
                let is_in_place = *start < end && piece.end > module.start && !piece.is_loaded();
                if is_in_place {
                    since_ns = since_ns.max(piece.until_ns);
                }
                !is_in_place
            });
            let file = MappedFile {
                // The first reading of the list comes before the first of the symbols.
                since_ns: before_ns.map_or(0, |_| time_ns),
                ..kernel_file(
                    FileKind::KernelModule,
                    &format!("{MODULE_PREFIX}{}", module.name),
                )
            };
            let piece = Piece {
                end,
                file: Arc::new(file),
                since_ns,
                until_ns: u64::MAX,
            };
            self.modules.insert(module.start, piece);
        }
        while self.modules.len() > MODULES_MAX {
            let first = self.modules.iter().min_by_key(|(_, piece)| piece.until_ns);
            let Some(start) = first.map(|(start, _)| *start) else {
                break;
            };
            self.modules.remove(&start);
        }
    }

    fn find(&self, address: u64, time_ns: u64) -> KernelOwner {
        let newest = self.symbols.range(..=address).next_back();
        let may_be_replaced = self.replaced_within.contains(&address);
        let replaced = may_be_replaced.then(|| self.replaced.iter().rev());
        let older = replaced.into_iter().flatten();
        let older = older.map(|(start, piece)| (start, piece));
        // The newest piece need not cover all of an older one.
        let all = newest.into_iter().chain(older);
        let mut here = all
            .filter(|(start, piece)| (**start..piece.end).contains(&address))
            .map(|(_, piece)| piece)
            .peekable();
        if here.peek().is_some() {
            let then = here.find(|piece| time_ns >= piece.since_ns);
            return then.map_or(KernelOwner::Unknown, |piece| piece.owner(time_ns));
        }
        let module = self.modules.range(..=address).next_back();
        match module.filter(|(_, piece)| address < piece.end) {
            Some((_, piece)) if time_ns >= piece.since_ns => piece.owner(time_ns),
            Some(_) => KernelOwner::Unknown,
            None => KernelOwner::Image,
        }
    }
}

fn kernel_file(kind: FileKind, path: &str) -> MappedFile {
    MappedFile::new(kind, path.into(), FileIdentity::Path)
}

fn symbol(name: &str) -> MappedFile {
    kernel_file(FileKind::KernelSymbol, name)
}

fn image(since_ns: u64) -> Arc<MappedFile> {
    Arc::new(MappedFile {
        since_ns,
        ..kernel_file(FileKind::Kernel, "[kernel]")
    })
}

/// The name of a module, if this is one.
pub fn module_of(file: &MappedFile) -> Option<&str> {
    let name = file.path.strip_prefix(MODULE_PREFIX);
    name.filter(|_| file.kind == FileKind::KernelModule)
}

/// Whether it stands for unloaded code whose name is not known.
pub fn is_unloaded(file: &MappedFile) -> bool {
    file.kind == FileKind::KernelSymbol && *file.path == *UNLOADED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::kernel_modules::testing::module;

    const SECOND: u64 = 1_000_000_000;

    /// The owner of an address at a time, in words.
    fn owner(code: &KernelCode, address: u64, time_ns: u64) -> String {
        match code.find(address, time_ns) {
            KernelOwner::Loaded(file) => file.path.to_string(),
            KernelOwner::Unknown => "unknown".into(),
            KernelOwner::Image => "image".into(),
        }
    }

    /// Owners of an address at some times, each a second.
    fn owners(code: &KernelCode, address: u64, seconds: &[u64]) -> Vec<String> {
        let at = |second: &u64| owner(code, address, second * SECOND);
        seconds.iter().map(at).collect()
    }

    /// Check that an address belongs to what lay there at each time, that code may run for a moment after its record of
    /// unloading, and that what ran before the first record is not known.
    #[test]
    fn an_address_changes_hands() {
        let code = KernelCode::new(0);
        assert_eq!(owner(&code, 0x1010, 1), "image");
        code.load(0x1000..0x1100, "a", 10 * SECOND);
        code.unload(0x1000..0x1100, "a", 20 * SECOND);
        let before = owners(&code, 0x10ff, &[9, 10, 20, 21, 22]);
        assert_eq!(before, ["unknown", "a", "a", "a", "unknown"]);
        assert_eq!(owner(&code, 0x1100, 15 * SECOND), "image");
        // Another of the same size, and one that is larger and lies over both ends.
        code.load(0x1000..0x1100, "b", 30 * SECOND);
        code.unload(0x1000..0x1100, "b", 40 * SECOND);
        code.load(0xf00..0x1200, "c", 40 * SECOND + 1);
        let all = owners(&code, 0x1010, &[9, 15, 25, 35, 40, 41]);
        assert_eq!(all, ["unknown", "a", "unknown", "b", "b", "c"]);
        assert_eq!(owners(&code, 0x1110, &[35, 41]), ["unknown", "c"]);
        // One that does not reach so far.
        code.load(0xf00..0x1000, "d", 50 * SECOND);
        assert_eq!(
            owners(&code, 0x1010, &[15, 35, 45, 60]),
            ["a", "b", "c", "unknown"]
        );
        assert_eq!(code.counts(), (1, 0));
    }

    /// Check that the record of unloading names what was there before the first one.
    #[test]
    fn what_was_there_before_is_named_by_its_end() {
        let code = KernelCode::new(0);
        code.unload(0x1000..0x1100, "old", 20 * SECOND);
        code.load(0x1080..0x1200, "new", 30 * SECOND);
        assert_eq!(
            owners(&code, 0x1090, &[1, 25, 31]),
            ["old", "unknown", "new"]
        );
        // Two programs of one name, one after the other, and a record of unloading of another.
        code.load(0x5000..0x5100, "a", 40 * SECOND);
        code.unload(0x5000..0x5100, "b", 41 * SECOND);
        assert_eq!(owners(&code, 0x5000, &[40, 45]), ["a", "unknown"]);
    }

    /// Check that nothing is believed of symbols after records were lost, and that the image is another.
    #[test]
    fn lost_records() {
        let code = KernelCode::new(0x100);
        code.load(0x1000..0x1100, "a", 10 * SECOND);
        let before = code.locate([0x900].into_iter(), 11 * SECOND);
        assert_eq!(
            (&*before[0].file.path, before[0].offset),
            ("[kernel]", 0x800)
        );
        code.lose(20 * SECOND);
        assert_eq!(owners(&code, 0x1010, &[15, 25]), ["image", "image"]);
        let after = code.locate([0x900, 0x1010].into_iter(), 21 * SECOND);
        assert_eq!(after[0].file, after[1].file);
        assert_ne!(after[0].file, before[0].file);
        assert_eq!(
            (before[0].file.since_ns, before[0].file.until_ns()),
            (0, 10 * SECOND)
        );
        assert_eq!(
            (after[0].file.since_ns, after[0].file.until_ns()),
            (20 * SECOND, u64::MAX)
        );
        let late = code.locate([0x900].into_iter(), 12 * SECOND);
        assert_eq!(late[0].file, before[0].file);
        // Its memory may have been another's before.
        code.unload(0x1000..0x1100, "a", 30 * SECOND);
        assert_eq!(
            owners(&code, 0x1010, &[15, 25, 35]),
            ["unknown", "a", "unknown"]
        );
    }

    /// Check that room is made for what is loaded, by what was unloaded first.
    #[test]
    fn symbols_are_bounded() {
        let code = KernelCode::new(0);
        let place = |number: u64| number * 0x100..number * 0x100 + 0x80;
        for number in 0..SYMBOLS_MAX as u64 {
            code.load(place(number), "a", number);
        }
        code.unload(place(7), "a", 1_000_000);
        code.unload(place(9), "a", 1_000_001);
        code.load(place(1_000_000), "b", 1_000_002);
        assert_eq!(code.counts(), (SYMBOLS_MAX, 1));
        assert_eq!(owner(&code, 0x700, 1_000_002), "image");
        assert_eq!(owner(&code, 0x900, 1_000_001), "a");
        for number in 0..3 * REPLACED_MAX as u64 {
            code.load(place(3), "c", 2_000_000 + number);
        }
        assert_eq!(code.state.lock().replaced.len(), REPLACED_MAX);
        assert_eq!(owner(&code, 0x300, 3_000_000), "c");
    }

    /// Check that a module has its code from its first function on, up to the next one, that it is named by a reading of the
    /// symbols in which it is there, and that two that had one place within a reading of the list are not told apart.
    #[test]
    fn modules_come_and_go() {
        let code = KernelCode::new(0);
        let (a, b) = (module("a", 0x1000, 0x3000), module("b", 0x2000, 0x1000));
        code.set_modules(vec![b.clone(), a.clone()], SECOND);
        let names = [0x1fff, 0x2000, 0x3000].map(|address| owner(&code, address, 2));
        assert_eq!(names, ["[kernel] a", "[kernel] b", "image"]);
        code.set_modules(vec![a.clone()], 2 * SECOND);
        code.set_modules(vec![a, module("c", 0x2100, 0x1000)], 10 * SECOND);
        let places = [0x2050, 0x2100, 0x3050].map(|address| owner(&code, address, 10 * SECOND));
        assert_eq!(places, ["image", "[kernel] c", "[kernel] c"]);
        let KernelOwner::Loaded(file) = code.find(0x2100, 10 * SECOND) else {
            panic!("it is loaded");
        };
        assert_eq!((file.since_ns, file.until_ns()), (10 * SECOND, u64::MAX));
        assert_eq!(owners(&code, 0x2100, &[1, 5]), ["unknown", "[kernel] c"]);
        code.set_modules(vec![module("d", 0x1000, 0x100)], 11 * SECOND);
        assert_eq!(owners(&code, 0x1000, &[10, 11]), ["unknown", "[kernel] d"]);
        assert_eq!(file.until_ns(), 10 * SECOND);
        // A program in the memory that a module's size seems to take.
        code.load(0x1010..0x1020, "p", 12 * SECOND);
        assert_eq!(owner(&code, 0x1010, 12 * SECOND), "p");
        assert_eq!(owner(&code, 0x1020, 12 * SECOND), "[kernel] d");
    }
}
