//! What the kernel's tables hold, and what must be written to change it.
//!
//! In: processes with their mappings, and evaluated files. Out: a list of [`Write`]s for the maps of
//! [`profiler_bpf::tables`], in an order in which the program may run at any moment: nothing points
//! to what is not written yet, or to what is used for something else already. Pure: no IO, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Weak, atomic::Ordering},
};

use profiler_bpf::{
    arch::x86_64::{USER_ADDRESS_END, rule::Rule},
    tables::{
        BLOCKS_MAX, Block, MAPPING_SEARCH_STEPS, MAPPINGS_MAX, Mapping as MappingEntry,
        MappingKind, PAGE_ROWS, PAGE_WORDS, PROCESS_SETTLED, PROCESSES_MAX,
        Process as ProcessEntry,
    },
    unwind::{BLOCK_BYTES, Row, find_rule},
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    RuleSet, Table,
    intervals::{Intervals, Turns},
    pages::{PAGE_BYTES, Pages},
};
use crate::process::{BuildId, FileIdentity, FileKind, MappedFile, Mapping, Mappings};

/// A file that was used this short a time ago is not pushed out: its rows would be wanted again at
/// once, and evaluating costs more than copying the stacks of the file that has no room.
const IN_USE_NS: u64 = 2_000_000_000;

/// How long a file without a build id is kept after the last process that maps it: by then there
/// may be another file of its name and inode.
const NAMELESS_KEPT_NS: u64 = 5_000_000_000;

/// How long a file that could not be read is taken for one without rows. The next process that maps
/// it after that is another try: the one that was sampled may just have ended.
const UNREADABLE_RETRY_NS: u64 = 2_000_000_000;

/// How long a file is let alone that had no room anywhere.
const RETRY_NS: u64 = 10_000_000_000;

/// Time between two looks at whether files that have no room may have some now.
const LOOK_NS: u64 = 1_000_000_000;

/// Blocks of one file: 1 GiB of code. Chromium has 190 MB.
const FILE_BLOCKS_MAX: u64 = (1 << 30) / BLOCK_BYTES;

/// Mappings of a process that a search finds.
const PROCESS_MAPPINGS_MAX: usize = (1 << MAPPING_SEARCH_STEPS) - 1;

/// Files of which something is known, one entry of some 200 bytes each: 6 MB.
const FILES_MAX: usize = 32_768;

/// What a file's rows are kept under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TableKey {
    /// By its contents.
    BuildId(BuildId),
    /// By where it lies.
    Inode {
        /// Device number.
        device: u64,
        /// Inode number.
        inode: u64,
        /// Generation of the inode.
        generation: u64,
    },
    /// By its path: nothing else is known.
    Path(Arc<str>),
    /// The kernel's shared object in every process.
    Vdso,
}

impl TableKey {
    /// The key of a file; `None` for what is none.
    pub fn of(file: &MappedFile) -> Option<Self> {
        match (file.kind, file.identity) {
            (FileKind::Vdso, _) => Some(Self::Vdso),
            (FileKind::File, FileIdentity::BuildId(id)) => Some(Self::BuildId(id)),
            (
                FileKind::File,
                FileIdentity::Inode {
                    device,
                    inode,
                    generation,
                },
            ) => Some(Self::Inode {
                device,
                inode,
                generation,
            }),
            (FileKind::File, FileIdentity::Path) => Some(Self::Path(file.path.clone())),
            _ => None,
        }
    }

    fn is_by_contents(&self) -> bool {
        matches!(self, Self::BuildId(_) | Self::Vdso)
    }
}

/// What an evaluation found out about a file.
#[derive(Debug)]
pub enum Evaluation {
    /// Its rows, with the rules that they name.
    Rows {
        /// The rows.
        table: Table,
        /// Their rules, in a numbering of the file's own.
        rules: RuleSet,
    },
    /// It has no call frame information, or is no ELF file for this processor.
    NoRows,
    /// It is larger than the limits allow; how large it is.
    TooLarge {
        /// Bytes of the file.
        file_bytes: u64,
    },
    /// It could not be read: gone, or not allowed.
    Unreadable,
}

/// One change of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new rule.
    Rule {
        /// Its number.
        number: u16,
        /// The rule.
        rule: Rule,
    },
    /// A page that nothing points to any more.
    ClosePage(u16),
    /// A page, all of it, as [`Tables::copy_page`] gives it; the kernel may not have it yet.
    Page(u16),
    /// Blocks in a row.
    Blocks {
        /// Place of the first.
        place: u32,
        /// Their words.
        words: Vec<u64>,
    },
    /// Mappings in a row.
    Mappings {
        /// Place of the first.
        place: u32,
        /// Their words.
        words: Vec<[u64; 4]>,
    },
    /// A process's entry, as one value.
    Process {
        /// Its id.
        pid: u32,
        /// The entry's words.
        words: [u64; 4],
    },
    /// A process without an entry.
    RemoveProcess {
        /// Its id.
        pid: u32,
    },
}

/// How the rule for an address is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This one holds.
    Rule(Rule),
    /// The rows of this file are not known.
    Missing(Arc<MappedFile>),
    /// The address lies in no mapping.
    NoMapping,
}

/// Why files have no rows, and how often. Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedStats {
    /// Larger than the limits of an evaluation.
    pub too_large: u64,
    /// Code over more than 1 GiB, or no room for its blocks.
    pub blocks: u64,
    /// Blocks with more rows than a page has: they have none.
    pub dense_blocks: u64,
    /// Gone, or not allowed to be read.
    pub unreadable: u64,
    /// Without room in the kernel when they were evaluated: until there is some, their stacks are
    /// copied.
    pub no_room: u64,
    /// Rules for which there was no number left.
    pub rules: u64,
    /// Mappings beyond the number that a search finds.
    pub mappings: u64,
    /// Processes that had to go for want of places.
    pub processes: u64,
}

/// What the tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TablesStats {
    /// Files with rows in the kernel.
    pub files: usize,
    /// Files whose rows are here but not in the kernel.
    pub files_aside: usize,
    /// Pages in the kernel.
    pub pages: usize,
    /// Bytes of the pages.
    pub bytes: u64,
    /// Rows in them.
    pub rows: u64,
    /// Blocks.
    pub blocks: u32,
    /// Rules.
    pub rules: usize,
    /// Processes.
    pub processes: usize,
    /// Their mappings.
    pub mappings: u32,
    /// Files that were pushed out, since the start.
    pub evictions: u64,
    /// What has no rows, and why.
    pub refused: RefusedStats,
}

/// The kernel's tables, as they are or will be when all writes are done.
#[derive(Debug)]
pub struct Tables {
    rules: RuleSet,
    rules_written: usize,
    pages: Pages,
    blocks: Intervals,
    mappings: Intervals,
    files: FxHashMap<TableKey, File>,
    processes: FxHashMap<u32, LoadedProcess>,
    /// Processes whose entry is to be written.
    changed: BTreeMap<u32, Change>,
    block_writes: Vec<(u32, Vec<u64>)>,
    closed_pages: Vec<u16>,
    turns: Turns,
    version: u32,
    /// Whether places were freed since files waited for some.
    has_freed: bool,
    /// The time when the last turn ended, or of what came since.
    now_ns: u64,
    /// Processes with code that took the place of other code a short time ago.
    unsteady: BTreeSet<u32>,
    /// When files that wait for places are looked at again in any case.
    next_look_ns: u64,
    stats: TablesStats,
}

/// What is to be written of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Flags,
    Mappings,
    Removed,
}

#[derive(Debug)]
struct File {
    /// The files of the process table that have this key.
    seen_as: Vec<Weak<MappedFile>>,
    state: FileState,
    /// Processes whose mappings name it.
    users: FxHashSet<u32>,
    /// When it was loaded or lost its last user.
    touched_ns: u64,
}

#[derive(Debug)]
enum FileState {
    /// Not known; not to be asked for before this time.
    Absent { retry_ns: u64 },
    /// Somebody is evaluating it.
    Evaluating,
    /// Known here, but without room in the kernel.
    Aside(Rows),
    /// In the kernel.
    Loaded(Loaded),
    /// The frame-pointer rule holds. Looked at again for a process that maps it after this time.
    FramePointer { retry_ns: u64 },
}

/// A file's rows, and the numbers of its rules.
#[derive(Debug)]
struct Rows {
    table: Table,
    numbers: Vec<u16>,
}

#[derive(Debug)]
struct Loaded {
    /// Number of the first block in the file.
    first: u64,
    /// Place of that block.
    place: u32,
    blocks: Vec<Block>,
    rows: u64,
    /// All blocks are one and the same.
    is_shared: bool,
}

#[derive(Debug)]
struct LoadedProcess {
    identity: u64,
    mappings: Arc<Mappings>,
    files: Vec<TableKey>,
    /// Its places, and the version there.
    place: Range<u32>,
    version: u32,
    /// When its entry is to be made anew, since code that was unsteady is not any more; 0 for never.
    unsteady_until_ns: u64,
    is_settled: bool,
    is_written: bool,
    sampled_ns: u64,
}

impl Rows {
    fn number(&self, number: u16) -> u16 {
        let number = self.numbers.get(usize::from(number)).copied();
        number.unwrap_or(RuleSet::UNSUPPORTED)
    }

    fn bytes(&self) -> u64 {
        (self.table.bytes() + self.numbers.capacity() * 2) as u64
    }
}

impl File {
    fn used_ns(&self) -> u64 {
        let seen = self.seen_as.iter().filter_map(Weak::upgrade);
        let used = seen.map(|it| it.used_ns.load(Ordering::Relaxed)).max();
        used.unwrap_or(0).max(self.touched_ns)
    }
}

impl Tables {
    /// Empty tables, for at most `bytes_max` bytes of rows.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            rules: RuleSet::new(),
            rules_written: 0,
            pages: Pages::new(bytes_max),
            blocks: Intervals::new(BLOCKS_MAX),
            mappings: Intervals::new(MAPPINGS_MAX),
            files: FxHashMap::default(),
            processes: FxHashMap::default(),
            changed: BTreeMap::new(),
            block_writes: Vec::new(),
            closed_pages: Vec::new(),
            turns: Turns::default(),
            version: 0,
            has_freed: false,
            now_ns: 0,
            unsteady: BTreeSet::new(),
            next_look_ns: 0,
            stats: TablesStats::default(),
        }
    }

    /// Makes a process known, or says what it maps now.
    pub fn set_process(&mut self, pid: u32, identity: u64, mappings: &Arc<Mappings>, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.sampled_ns = now_ns;
            if process.identity == identity && process.mappings == *mappings {
                return;
            }
        } else if self.processes.len() >= PROCESSES_MAX as usize {
            self.forget_processes();
        }
        let files = self.count_user(pid, mappings, now_ns);
        // It may be in the kernel still, to be removed.
        let is_written = self.changed.get(&pid) == Some(&Change::Removed);
        let process = self.processes.entry(pid).or_insert_with(|| LoadedProcess {
            identity,
            mappings: mappings.clone(),
            files: Vec::new(),
            place: 0..0,
            version: 0,
            unsteady_until_ns: 0,
            is_settled: false,
            is_written,
            sampled_ns: now_ns,
        });
        process.identity = identity;
        process.mappings = mappings.clone();
        process.is_settled = false;
        let before = std::mem::replace(&mut process.files, files);
        self.forget_user(pid, &before, now_ns);
        self.changed.insert(pid, Change::Mappings);
    }

    /// Says what a process maps now, if it is known.
    pub fn change_mappings(&mut self, pid: u32, mappings: &Arc<Mappings>, now_ns: u64) {
        if let Some(process) = self.processes.get(&pid) {
            let (identity, sampled_ns) = (process.identity, process.sampled_ns);
            self.set_process(pid, identity, mappings, now_ns);
            if let Some(process) = self.processes.get_mut(&pid) {
                process.sampled_ns = sampled_ns;
            }
        }
    }

    /// An address in none of these mappings of a process, if it still has them, is in no code.
    pub fn settle(&mut self, pid: u32, mappings: &Arc<Mappings>) {
        if let Some(process) = self.processes.get_mut(&pid)
            && !process.is_settled
            && process.mappings == *mappings
        {
            process.is_settled = true;
            self.changed.entry(pid).or_insert(Change::Flags);
        }
    }

    /// A process was sampled.
    pub fn touch_process(&mut self, pid: u32, now_ns: u64) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.sampled_ns = now_ns;
        }
    }

    /// Forgets a process.
    pub fn remove_process(&mut self, pid: u32, now_ns: u64) {
        let Some(process) = self.processes.remove(&pid) else {
            return;
        };
        self.forget_user(pid, &process.files, now_ns);
        self.mappings.retire(process.place, self.turns.current());
        if process.is_written {
            self.changed.insert(pid, Change::Removed);
        } else if self.changed.get(&pid) != Some(&Change::Removed) {
            self.changed.remove(&pid);
        }
    }

    /// Whether the process is known.
    pub fn has_process(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// The ids of all processes.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.keys().copied().collect()
    }

    /// Whether somebody should evaluate this file; if so, it counts as being evaluated. No process
    /// need map it any more: one that has ended leaves stacks to be walked.
    pub fn wants(&mut self, file: &Arc<MappedFile>, now_ns: u64) -> bool {
        let Some(key) = TableKey::of(file) else {
            return false;
        };
        let Some(file) = self.see_file(&key, file, now_ns) else {
            return false;
        };
        match file.state {
            FileState::Absent { retry_ns } if retry_ns <= now_ns => {
                file.state = FileState::Evaluating;
                true
            }
            _ => false,
        }
    }

    /// Whether the file's rows are being evaluated.
    pub fn is_evaluating(&self, key: &TableKey) -> bool {
        let state = self.files.get(key).map(|file| &file.state);
        matches!(state, Some(FileState::Evaluating))
    }

    /// Takes what was found out about a file.
    pub fn load(&mut self, key: &TableKey, evaluation: Evaluation, now_ns: u64) {
        let Some(file) = self.files.get_mut(key) else {
            return;
        };
        // Once more would give the same.
        const NEVER: u64 = u64::MAX;
        file.touched_ns = now_ns;
        let never = FileState::FramePointer { retry_ns: NEVER };
        let (state, is_known) = match evaluation {
            Evaluation::Rows { table, rules } if !table.blocks().is_empty() => {
                let global = &mut self.rules;
                let numbers = rules.as_slice().iter().map(|rule| global.intern(*rule));
                let numbers = numbers.collect();
                self.stats.refused.rules = global.refused();
                (FileState::Aside(Rows { table, numbers }), false)
            }
            Evaluation::Rows { .. } | Evaluation::NoRows => (never, true),
            Evaluation::TooLarge { file_bytes } => {
                self.stats.refused.too_large += 1;
                match self.load_unsupported(file_bytes) {
                    Some(loaded) => (FileState::Loaded(loaded), true),
                    None => (never, true),
                }
            }
            Evaluation::Unreadable => {
                self.stats.refused.unreadable += 1;
                let retry_ns = now_ns + UNREADABLE_RETRY_NS;
                (FileState::FramePointer { retry_ns }, true)
            }
        };
        if let Some(file) = self.files.get_mut(key) {
            file.state = state;
        }
        if is_known {
            self.change_users(key);
        } else if !self.load_aside(key) {
            self.stats.refused.no_room += 1;
            self.make_room(key, now_ns);
            self.limit_aside(key, now_ns);
        }
    }

    /// One row for all of a file: whose information is not to be had.
    fn load_unsupported(&mut self, file_bytes: u64) -> Option<Loaded> {
        let count = file_bytes / BLOCK_BYTES + 1;
        if count > FILE_BLOCKS_MAX {
            return None;
        }
        let place = self.blocks.allocate(count as u32)?;
        let row = std::iter::once(Row::new(0, RuleSet::UNSUPPORTED));
        let Some(block) = self.pages.place(row) else {
            self.blocks
                .retire(place..place + count as u32, self.turns.current());
            return None;
        };
        let blocks = vec![block; count as usize];
        self.block_writes
            .push((place, blocks.iter().map(|it| it.to_word()).collect()));
        Some(Loaded {
            first: 0,
            place,
            blocks,
            rows: 1,
            is_shared: true,
        })
    }

    /// Tries to bring the rows of a file, which are known, into the kernel.
    fn load_aside(&mut self, key: &TableKey) -> bool {
        let Some(file) = self.files.get(key) else {
            return true;
        };
        let FileState::Aside(rows) = &file.state else {
            return true;
        };
        let blocks = rows.table.blocks();
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return true;
        };
        let (first, last) = (first.number, last.number);
        let count = last.saturating_sub(first).saturating_add(1);
        let needed = words_of(&rows.table);
        if self.pages.rows() + needed > self.pages.rows_max() {
            return false;
        }
        let place = match count {
            0..=FILE_BLOCKS_MAX => self.blocks.allocate(count as u32),
            _ => None,
        };
        let Some(place) = place else {
            self.stats.refused.blocks += 1;
            let retry_ns = u64::MAX;
            if let Some(file) = self.files.get_mut(key) {
                file.state = FileState::FramePointer { retry_ns };
            }
            self.change_users(key);
            return true;
        };
        let mut blocks = vec![Block::default(); count as usize];
        let mut has_room = true;
        for block in rows.table.blocks() {
            let at = (block.number - first) as usize;
            let found = if block.count as usize > PAGE_ROWS {
                self.stats.refused.dense_blocks += 1;
                self.pages
                    .place(std::iter::once(Row::new(0, RuleSet::UNSUPPORTED)))
            } else {
                let renumber = |row: &Row| Row::new(row.offset().into(), rows.number(row.rule()));
                self.pages
                    .place(rows.table.rows_of(block).iter().map(renumber))
            };
            match found {
                Some(found) => blocks[at] = found,
                None => {
                    has_room = false;
                    break;
                }
            }
        }
        let placed: u64 = blocks.iter().map(|it| it.words() as u64).sum();
        let loaded = Loaded {
            first,
            place,
            blocks,
            rows: placed,
            is_shared: false,
        };
        if !has_room {
            self.retire(loaded);
            return false;
        }
        let words = loaded.blocks.iter().map(|it| it.to_word()).collect();
        self.block_writes.push((place, words));
        if let Some(file) = self.files.get_mut(key) {
            file.state = FileState::Loaded(loaded);
        }
        self.change_users(key);
        true
    }

    /// Pushes out the files that were used least lately, so that this one has room when their
    /// places are free. None goes if that would not do.
    fn make_room(&mut self, key: &TableKey, now_ns: u64) {
        let Some(FileState::Aside(rows)) = self.files.get(key).map(|it| &it.state) else {
            return;
        };
        let needed = words_of(&rows.table);
        let mut candidates: Vec<(u64, u64, TableKey)> = self
            .files
            .iter()
            .filter_map(|(key, file)| match &file.state {
                FileState::Loaded(loaded) => Some((file.used_ns(), loaded.rows, key.clone())),
                _ => None,
            })
            .filter(|(used_ns, ..)| used_ns + IN_USE_NS < now_ns)
            .collect();
        candidates.sort_by_key(|(used_ns, ..)| *used_ns);
        // A quarter more than is needed: what is freed lies in pieces.
        let mut missing = (needed + needed / 4) as i64
            - (self.pages.rows_max() - self.pages.rows().min(self.pages.rows_max())) as i64;
        let mut victims = Vec::new();
        for (_, rows, key) in candidates {
            if missing <= 0 {
                break;
            }
            missing -= rows as i64;
            victims.push(key);
        }
        if missing > 0 {
            return;
        }
        for key in victims {
            self.evict(&key, now_ns);
        }
    }

    /// Brings files that wait into the kernel where there is room now, and makes room for those
    /// that are in use.
    fn load_waiting(&mut self, now_ns: u64) {
        let waiting: Vec<(TableKey, u64)> = self
            .files
            .iter()
            .filter(|(_, file)| matches!(file.state, FileState::Aside(_)))
            .map(|(key, file)| (key.clone(), file.used_ns()))
            .collect();
        for (key, used_ns) in waiting {
            if !self.load_aside(&key) && used_ns + IN_USE_NS >= now_ns {
                self.make_room(&key, now_ns);
            }
        }
    }

    fn evict(&mut self, key: &TableKey, now_ns: u64) {
        let Some(file) = self.files.get_mut(key) else {
            return;
        };
        let retry_ns = now_ns;
        let state = std::mem::replace(&mut file.state, FileState::Absent { retry_ns });
        if let FileState::Loaded(loaded) = state {
            self.stats.evictions += 1;
            self.retire(loaded);
        }
        self.change_users(key);
    }

    fn retire(&mut self, loaded: Loaded) {
        let turn = self.turns.current();
        let count = loaded.blocks.len() as u32;
        self.blocks.retire(loaded.place..loaded.place + count, turn);
        let distinct = if loaded.is_shared { 1 } else { usize::MAX };
        for block in loaded.blocks.into_iter().take(distinct) {
            self.pages.retire(block, turn);
        }
    }

    /// Keeps the rows that wait for room to a quarter of what is in the kernel, or to the one file
    /// that came last.
    fn limit_aside(&mut self, newest: &TableKey, now_ns: u64) {
        let bytes_max = self.pages.rows_max() * size_of::<Row>() as u64 / 4;
        let mut aside: Vec<(u64, u64, TableKey)> = self
            .files
            .iter()
            .filter_map(|(key, file)| match &file.state {
                FileState::Aside(rows) => Some((file.used_ns(), rows.bytes(), key.clone())),
                _ => None,
            })
            .collect();
        let mut bytes: u64 = aside.iter().map(|(_, bytes, _)| bytes).sum();
        aside.sort_by_key(|(used_ns, ..)| *used_ns);
        for (_, file_bytes, key) in aside {
            if bytes <= bytes_max {
                return;
            }
            if key == *newest {
                continue;
            }
            bytes -= file_bytes;
            if let Some(file) = self.files.get_mut(&key) {
                let retry_ns = now_ns + RETRY_NS;
                file.state = FileState::Absent { retry_ns };
            }
        }
    }

    /// The rule at an address of a process.
    pub fn find_rule(&self, mappings: &Mappings, address: u64) -> Found {
        let Some(mapping) = mappings.find(address) else {
            return Found::NoMapping;
        };
        let Some(key) = TableKey::of(&mapping.file) else {
            return Found::Rule(Rule::NONE);
        };
        let offset = mapping.offset_of(address);
        let number = match self.files.get(&key).map(|file| &file.state) {
            None | Some(FileState::Absent { .. } | FileState::Evaluating) => {
                return Found::Missing(mapping.file.clone());
            }
            Some(FileState::FramePointer { .. }) => None,
            Some(FileState::Aside(rows)) => rows.table.find(offset).map(|it| rows.number(it)),
            Some(FileState::Loaded(loaded)) => {
                let place = (offset / BLOCK_BYTES).checked_sub(loaded.first);
                let block = place.and_then(|place| loaded.blocks.get(place as usize));
                block.and_then(|block| find_rule(self.pages.rows_of(*block), offset))
            }
        };
        let rule = self.rules.get(number.unwrap_or(RuleSet::NONE));
        Found::Rule(rule.copied().unwrap_or(Rule::UNSUPPORTED))
    }

    /// All writes up to now are done. Frees what nobody can be reading any more, and forgets the
    /// files that nothing maps.
    pub fn end_turn(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        let processes = &self.processes;
        let changed = &mut self.changed;
        self.unsteady.retain(|pid| {
            let Some(process) = processes.get(pid) else {
                return false;
            };
            if process.unsteady_until_ns <= now_ns {
                changed.insert(*pid, Change::Mappings);
            }
            process.unsteady_until_ns > now_ns
        });
        if let Some(turn) = self.turns.end(now_ns) {
            let used = (self.blocks.used(), self.mappings.used(), self.pages.rows());
            self.blocks.release(turn);
            self.mappings.release(turn);
            self.closed_pages.extend(self.pages.release(turn));
            self.has_freed |= used != (self.blocks.used(), self.mappings.used(), self.pages.rows());
        }
        if self.has_freed || now_ns >= self.next_look_ns {
            self.has_freed = false;
            self.next_look_ns = now_ns + LOOK_NS;
            self.load_waiting(now_ns);
        }
        let unused: Vec<TableKey> = self
            .files
            .iter()
            .filter(|(key, file)| match &file.state {
                _ if !file.users.is_empty() => false,
                FileState::Evaluating => false,
                FileState::Absent { .. } => true,
                FileState::FramePointer { .. } | FileState::Aside(_) | FileState::Loaded(_) => {
                    !key.is_by_contents() && file.touched_ns + NAMELESS_KEPT_NS < now_ns
                }
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in unused {
            if let Some(File {
                state: FileState::Loaded(loaded),
                ..
            }) = self.files.remove(&key)
            {
                self.retire(loaded);
            }
        }
    }

    /// What is to be written, in this order.
    pub fn take_writes(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        // First what the processes are to point to; it may be less than was wanted.
        let mut mappings = Vec::new();
        let mut processes = BTreeMap::new();
        let mut removed = Vec::new();
        for (pid, change) in std::mem::take(&mut self.changed) {
            match (change, self.processes.get(&pid)) {
                (Change::Removed, None) => removed.push(pid),
                (_, None) => {}
                (Change::Flags, Some(process)) if process.is_written => {
                    processes.insert(pid, process.write(pid));
                }
                (_, Some(_)) => match self.write_process(pid, &mut mappings) {
                    Some(write) => {
                        processes.insert(pid, write);
                    }
                    None => removed.push(pid),
                },
            }
        }
        // Those that had to make room for others.
        for (pid, change) in std::mem::take(&mut self.changed) {
            debug_assert_eq!(change, Change::Removed);
            processes.remove(&pid);
            removed.push(pid);
        }
        let rules = self.rules.as_slice();
        for (place, rule) in rules.iter().enumerate().skip(self.rules_written) {
            writes.push(Write::Rule {
                number: place as u16,
                rule: *rule,
            });
        }
        self.rules_written = rules.len();
        // A page that was opened again since is written behind.
        writes.extend(self.closed_pages.drain(..).map(Write::ClosePage));
        writes.extend(self.pages.take_dirty().into_iter().map(Write::Page));
        let blocks = self.block_writes.drain(..);
        writes.extend(blocks.map(|(place, words)| Write::Blocks { place, words }));
        writes.extend(mappings);
        // Removals go first: the map may be full.
        let removals = removed.into_iter();
        writes.extend(removals.map(|pid| Write::RemoveProcess { pid }));
        writes.extend(processes.into_values());
        writes
    }

    /// Makes a process's entry anew, at other places. Without room for it the process is forgotten.
    fn write_process(&mut self, pid: u32, mappings: &mut Vec<Write>) -> Option<Write> {
        let process = self.processes.get(&pid)?;
        let mut words = Vec::with_capacity(process.mappings.len());
        for mapping in process.mappings.iter() {
            self.push_entries(mapping, &mut words);
        }
        if words.len() > PROCESS_MAPPINGS_MAX {
            self.stats.refused.mappings += (words.len() - PROCESS_MAPPINGS_MAX) as u64;
            words.truncate(PROCESS_MAPPINGS_MAX);
        }
        let ends = process.mappings.iter().map(Mapping::unsteady_until_ns);
        let unsteady_until_ns = ends.filter(|end_ns| *end_ns > self.now_ns).min();
        match unsteady_until_ns {
            Some(_) => self.unsteady.insert(pid),
            None => self.unsteady.remove(&pid),
        };
        let len = words.len() as u32;
        let place = match len {
            0 => Some(0),
            _ => self.mappings.allocate(len),
        };
        let turn = self.turns.current();
        let Some(place) = place else {
            // What its old entry points to is not true any more, and others must go before there
            // is room for a new one: a sample will ask again.
            if let Some(process) = self.processes.remove(&pid) {
                self.mappings.retire(process.place, turn);
                self.forget_user(pid, &process.files, process.sampled_ns);
            }
            self.stats.refused.processes += 1;
            if self.mappings.retired() < len {
                self.forget_processes();
            }
            return None;
        };
        let version = self.next_version();
        let process = self.processes.get_mut(&pid)?;
        let before = std::mem::replace(&mut process.place, place..place + len);
        self.mappings.retire(before, turn);
        process.version = version;
        process.unsteady_until_ns = unsteady_until_ns.unwrap_or(0);
        process.is_written = true;
        let write = process.write(pid);
        if len > 0 {
            mappings.push(Write::Mappings { place, words });
        }
        Some(write)
    }

    /// The entries of one mapping: up to three, since its file's blocks may be fewer than it touches.
    fn push_entries(&self, mapping: &Mapping, words: &mut Vec<[u64; 4]>) {
        let Mapping {
            start,
            end,
            file_offset,
            ref file,
            replaced_ns: _,
        } = *mapping;
        // The kernel's own half, where the page `[vsyscall]` is: the program's search is for addresses
        // below, and nothing runs there.
        if end > USER_ADDRESS_END {
            return;
        }
        let bias = file_offset.wrapping_sub(start);
        let mut push = |start: u64, end: u64, kind, block_bias| {
            if start < end {
                let entry = MappingEntry {
                    start,
                    end,
                    bias,
                    block_bias,
                    kind,
                };
                words.push(entry.to_words());
            }
        };
        if mapping.unsteady_until_ns() > self.now_ns {
            // By the time this is read there may be something else: user space knows what there was
            // when a sample was taken.
            return push(start, end, MappingKind::NotLoaded, 0);
        }
        let key = TableKey::of(file);
        let state = key.as_ref().and_then(|key| self.files.get(key));
        let loaded = match (state.map(|it| &it.state), key) {
            (Some(FileState::Loaded(loaded)), _) => loaded,
            (Some(FileState::FramePointer { .. }), _) | (None, None) => {
                return push(start, end, MappingKind::FramePointer, 0);
            }
            _ => return push(start, end, MappingKind::NotLoaded, 0),
        };
        let Some(end_offset) = file_offset.checked_add(end - start) else {
            return push(start, end, MappingKind::FramePointer, 0);
        };
        // The part of the file that has blocks, within the mapping.
        let first = loaded.first * BLOCK_BYTES;
        let behind = first.saturating_add(loaded.blocks.len() as u64 * BLOCK_BYTES);
        let at = |offset: u64| start + (offset.clamp(file_offset, end_offset) - file_offset);
        let (rows_start, rows_end) = (at(first), at(behind));
        if rows_start >= rows_end {
            return push(start, end, MappingKind::FramePointer, 0);
        }
        push(start, rows_start, MappingKind::FramePointer, 0);
        let block_bias = loaded.place.wrapping_sub(loaded.first as u32);
        push(rows_start, rows_end, MappingKind::Rows, block_bias);
        push(rows_end, end, MappingKind::FramePointer, 0);
    }

    fn next_version(&mut self) -> u32 {
        self.version = self.version.wrapping_add(1).max(1);
        self.version
    }

    /// Forgets a sixteenth of all processes, those that were sampled least lately: more than one,
    /// since looking for them costs.
    fn forget_processes(&mut self) {
        let mut by_time: Vec<(u64, u32)> = self
            .processes
            .iter()
            .map(|(pid, process)| (process.sampled_ns, *pid))
            .collect();
        by_time.sort_unstable();
        let count = by_time.len().div_ceil(16);
        for (sampled_ns, pid) in by_time.into_iter().take(count) {
            self.stats.refused.processes += 1;
            self.remove_process(pid, sampled_ns);
        }
    }

    /// Counts a process as a user of the files that it maps.
    fn count_user(&mut self, pid: u32, mappings: &Mappings, now_ns: u64) -> Vec<TableKey> {
        let mut keys: Vec<TableKey> = Vec::new();
        for mapping in mappings.iter() {
            let Some(key) = TableKey::of(&mapping.file) else {
                continue;
            };
            let Some(file) = self.see_file(&key, &mapping.file, now_ns) else {
                continue;
            };
            if file.users.insert(pid) || !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// The entry of a file, made if it is new; `None` when there are too many.
    fn see_file(
        &mut self,
        key: &TableKey,
        mapped: &Arc<MappedFile>,
        now_ns: u64,
    ) -> Option<&mut File> {
        if self.files.len() >= FILES_MAX && !self.files.contains_key(key) {
            return None;
        }
        let file = self.files.entry(key.clone()).or_insert_with(|| File {
            seen_as: Vec::new(),
            state: FileState::Absent { retry_ns: 0 },
            users: FxHashSet::default(),
            touched_ns: now_ns,
        });
        let is_other = |it: &Weak<MappedFile>| it.as_ptr() != Arc::as_ptr(mapped);
        if file.seen_as.iter().all(is_other) {
            file.seen_as.retain(|it| it.strong_count() > 0);
            file.seen_as.push(Arc::downgrade(mapped));
        }
        if let FileState::FramePointer { retry_ns } = file.state
            && retry_ns <= now_ns
        {
            file.state = FileState::Absent { retry_ns: 0 };
        }
        Some(file)
    }

    /// The process does not use these files any more, but for those that it has now.
    fn forget_user(&mut self, pid: u32, before: &[TableKey], now_ns: u64) {
        let now: &[TableKey] = match self.processes.get(&pid) {
            Some(process) => &process.files,
            None => &[],
        };
        for key in before.iter().filter(|key| !now.contains(key)) {
            if let Some(file) = self.files.get_mut(key) {
                file.users.remove(&pid);
                file.touched_ns = file.touched_ns.max(now_ns);
            }
        }
    }

    /// The entries of all processes that map the file are to be made anew.
    fn change_users(&mut self, key: &TableKey) {
        if let Some(file) = self.files.get(key) {
            for pid in &file.users {
                self.changed.insert(*pid, Change::Mappings);
            }
        }
    }

    /// Writes a page's rows as the words of the kernel's map.
    pub fn copy_page(&self, number: u16, words: &mut [u64; PAGE_WORDS]) -> bool {
        self.pages.copy_words(number, words)
    }

    /// What the tables hold.
    pub fn stats(&self) -> TablesStats {
        let count =
            |is: fn(&FileState) -> bool| self.files.values().filter(|file| is(&file.state)).count();
        let pages = self.pages.count();
        TablesStats {
            files: count(|it| matches!(it, FileState::Loaded(_))),
            files_aside: count(|it| matches!(it, FileState::Aside(_))),
            pages,
            bytes: pages as u64 * PAGE_BYTES,
            rows: self.pages.rows(),
            blocks: self.blocks.used(),
            rules: self.rules.as_slice().len(),
            processes: self.processes.len(),
            mappings: self.mappings.used(),
            ..self.stats
        }
    }
}

/// Words of pages that a file's rows take.
fn words_of(table: &Table) -> u64 {
    // Blocks with more rows than a page holds are replaced by one row.
    let words = |count| Block::words_for(u16::try_from(count).unwrap_or(1)) as u64;
    table.blocks().iter().map(|it| words(it.count)).sum()
}

impl LoadedProcess {
    fn write(&self, pid: u32) -> Write {
        let entry = ProcessEntry {
            identity: self.identity,
            first: self.place.start,
            count: self.place.end - self.place.start,
            version: self.version,
            flags: if self.is_settled { PROCESS_SETTLED } else { 0 },
        };
        Write::Process {
            pid,
            words: entry.to_words(),
        }
    }
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
