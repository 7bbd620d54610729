//! Tests of [`Tables`](super::Tables) against a kernel of vectors.

mod code;
mod limits;
mod sharing;

use std::{cell::RefCell, collections::HashMap, sync::atomic::Ordering};

use profiler_bpf::{
    tables::{
        BLOCKS_MAX, Block, INDEX_WORDS, MAPPINGS_MAX, PAGE_WORDS, PROCESS_MAPPINGS_COMPLETE,
        PROCESSES_MAX, Process as ProcessEntry, index_place, index_range,
    },
    unwind::{Row, find_rule},
};

use elf::BuildId;
use fastrand::Rng;

use super::*;
use crate::{
    process::{FileIdentity, FileKind, Files},
    unwind::table::TableBuilder,
};

/// A time between two drains.
const DRAIN_NS: u64 = 100_000_000;

/// The kernel's maps, and a search as the program's.
struct Kernel {
    processes: HashMap<u32, [u64; 4]>,
    mappings: Vec<[u64; 4]>,
    blocks: Vec<u64>,
    pages: HashMap<u16, Vec<Row>>,
    rules: Vec<Option<Rule>>,
    /// The program's cache of rules that it found, by address and version. It has room for all of them, and
    /// is never emptied.
    found: RefCell<HashMap<(u64, u32), u16>>,
}

/// The program's answer at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Rule(Rule),
    Copy,
    NoMapping,
}

impl Kernel {
    fn new() -> Self {
        Self {
            processes: HashMap::new(),
            mappings: vec![[0; 4]; MAPPINGS_MAX as usize],
            blocks: vec![0; BLOCKS_MAX as usize],
            pages: HashMap::new(),
            rules: vec![None; 1 << 16],
            found: RefCell::default(),
        }
    }

    fn apply(&mut self, write: &Write, tables: &Tables) {
        match write {
            Write::Rule { number, rule } => self.rules[usize::from(*number)] = Some(*rule),
            Write::ClosePage(number) => {
                self.pages.remove(number);
            }
            Write::Page(number) => {
                let mut words = Box::new([0; PAGE_WORDS]);
                assert!(tables.copy_page(*number, &mut words));
                let halves = words
                    .iter()
                    .flat_map(|word| [*word as u32, (*word >> 32) as u32]);
                let rows = halves.map(|bits| Row::new((bits >> 16).into(), bits as u16));
                self.pages.insert(*number, rows.collect());
            }
            Write::Blocks { place, words } => {
                self.blocks[*place as usize..][..words.len()].copy_from_slice(words);
            }
            Write::Mappings { place, words } => {
                self.mappings[*place as usize..][..words.len()].copy_from_slice(words);
            }
            Write::Process { pid, words } => {
                self.processes.insert(*pid, *words);
                assert!(self.processes.len() <= PROCESSES_MAX as usize);
            }
            Write::RemoveProcess { pid } => {
                self.processes.remove(pid);
            }
        }
    }

    fn search(&self, process: ProcessEntry, address: u64) -> Answer {
        let key = (address, process.version);
        if let Some(number) = self.found.borrow().get(&key) {
            return self.rule(*number);
        }
        let first = process.first as usize;
        let mappings = &self.mappings[first..first + process.count as usize];
        assert!(mappings.is_sorted_by_key(|words| words[0]));
        // The program's comparison is right below 2^63.
        assert!(mappings.iter().all(|words| words[0] < 1 << 63));
        let behind = mappings.partition_point(|words| words[0] <= address);
        let found = behind.checked_sub(1).map(|place| mappings[place]);
        let Some([_, _, bias, last]) = found.filter(|words| address < words[1]) else {
            return Answer::NoMapping;
        };
        let number = match last >> 32 {
            0 => match self.find_row(address.wrapping_add(bias), last as u32) {
                RuleSet::NONE => return Answer::Copy,
                number => number,
            },
            1 => RuleSet::NONE,
            3 => RuleSet::UNSUPPORTED,
            _ => return Answer::Copy,
        };
        self.found.borrow_mut().insert(key, number);
        self.rule(number)
    }

    fn rule(&self, number: u16) -> Answer {
        Answer::Rule(self.rules[usize::from(number)].expect("a row names a rule that is there"))
    }

    fn find_row(&self, offset: u64, block_bias: u32) -> u16 {
        let place = ((offset / BLOCK_BYTES) as u32).wrapping_add(block_bias);
        let block = Block::from_word(self.blocks[place as usize]);
        if block.count == 0 {
            return RuleSet::NONE;
        }
        let page = &self.pages[&block.page];
        let first = usize::from(block.first);
        let mut rows = &page[first..][..usize::from(block.count)];
        if block.is_indexed() {
            let index = &page[first - INDEX_WORDS..first];
            let place = index_place(offset) as usize;
            let words = [index[place].to_bits(), index[place + 1].to_bits()];
            let (before, end) = index_range(words, offset);
            rows = &rows[(before as usize).saturating_sub(1)..end as usize];
        }
        find_rule(rows, offset).unwrap_or(RuleSet::NONE)
    }
}

/// The rule of the code at an offset in a file: another one for each file and piece of 256 bytes.
fn rule_of(file: u64, offset: u64) -> Rule {
    Rule::at_register(7, (file << 16 | (offset >> 8 & 0xff) << 3) as i32)
}

fn digest_of(content: [u64; 3]) -> Digest {
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(8).zip(content) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Digest(digest)
}

/// A file's rows from `from` to `to`, one for each 256 bytes.
fn rows_of(file: u64, from: u64, to: u64) -> Evaluation {
    let offsets = (from..to).step_by(256);
    let rows = offsets.map(|offset| (offset, Some(rule_of(file, offset))));
    // As of a real file: behind its functions there are none.
    let rows = rows.chain([(to, None)]);
    evaluation([file, from, to], rows, to.saturating_add(1))
}

/// A file with these rows, of which each holds up to the next and the last up to `end`; `None` for no rule.
fn evaluation(
    content: [u64; 3],
    rows: impl IntoIterator<Item = (u64, Option<Rule>)>,
    end: u64,
) -> Evaluation {
    let mut rules = RuleSet::new();
    let mut builder = TableBuilder::new(1 << 20);
    for (offset, rule) in rows {
        let number = rule.map_or(RuleSet::NONE, |rule| rules.intern(rule));
        builder.push(offset, number).unwrap();
    }
    Evaluation::Rows {
        digest: digest_of(content),
        table: builder.finish(end).unwrap(),
        rules,
    }
}

/// Evaluates a file, which is wanted.
fn load(tables: &mut Tables, file: &Arc<MappedFile>, evaluation: Evaluation, now_ns: u64) {
    assert!(tables.wants(file, now_ns), "{}", file.path);
    tables.load(&TableKey::of(file).unwrap(), evaluation, now_ns);
}

fn file(files: &mut Files, number: u64) -> Arc<MappedFile> {
    let identity = match number % 3 {
        kind @ (0 | 1) => FileIdentity::Inode {
            device: 1,
            inode: number,
            generation: 0,
            claimed_build_id: BuildId::new(&number.to_le_bytes()).filter(|_| kind == 0),
        },
        _ => FileIdentity::Path,
    };
    files.intern(FileKind::File, format!("/{number}").as_bytes(), identity)
}

fn number_of(file: &MappedFile) -> u64 {
    file.path.trim_start_matches('/').parse().unwrap()
}

fn mappings(list: &[(u64, u64, u64, &Arc<MappedFile>)]) -> Arc<Mappings> {
    let mut all = Mappings::default();
    for (start, end, file_offset, file) in list {
        all.insert(
            Mapping::new(*start..*end, *file_offset, Arc::clone(file)),
            0,
        );
    }
    Arc::new(all)
}

/// Writes what there is, and ends the epoch.
fn flush(tables: &mut Tables, kernel: &mut Kernel, now_ns: u64) -> Vec<Write> {
    let writes = tables.take_writes();
    for write in &writes {
        kernel.apply(write, tables);
    }
    tables.end_epoch(now_ns);
    writes
}

fn answer(kernel: &Kernel, pid: u32, address: u64) -> Answer {
    let words = kernel.processes[&pid];
    kernel.search(ProcessEntry::from_words(words).unwrap(), address)
}

/// Check the life of a process: copied at first, then walked where its file's rows are, and copied beside them; its mappings can be confirmed and changed, and it can be removed.
#[test]
fn one_process() {
    let mut files = Files::new();
    let code = file(&mut files, 3);
    let anonymous = files.intern(FileKind::Anonymous, b"[anonymous]", FileIdentity::Path);
    let mapped = mappings(&[
        (0x10_0000, 0x20_0000, 0x1000, &code),
        (0x30_0000, 0x30_1000, 0x30_0000, &anonymous),
        (0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000, 0, &anonymous),
    ]);
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    tables.set_process(5, 55, &mapped, 0);
    flush(&mut tables, &mut kernel, 0);
    assert_eq!(answer(&kernel, 5, 0x10_0000), Answer::Copy);
    assert_eq!(answer(&kernel, 5, 0x30_0000), Answer::Rule(Rule::NONE));
    assert_eq!(answer(&kernel, 5, 0x30_1000), Answer::NoMapping);
    assert_eq!(
        tables.find_rule(&mapped, 0x10_0000),
        Found::Missing(code.clone())
    );

    let key = TableKey::of(&code).unwrap();
    assert!(tables.wants(&code, 1));
    assert!(!tables.wants(&code, 1));
    assert!(tables.is_evaluating(&key));
    tables.load(&key, rows_of(3, 0x2_0000, 0x5_0000), 1);
    flush(&mut tables, &mut kernel, 1);
    // An address is 0xf_f000 more than its offset.
    for (address, expected) in [
        (0x10_0000, None),
        (0x11_efff, None),
        (0x11_f000, Some(rule_of(3, 0x2_0000))),
        (0x14_efff, Some(rule_of(3, 0x4_ffff))),
        (0x14_f000, None),
        (0x1f_ffff, None),
    ] {
        let expected_answer = expected.map_or(Answer::Copy, Answer::Rule);
        assert_eq!(answer(&kernel, 5, address), expected_answer, "{address:#x}");
        let unread = Found::Unread {
            file: code.clone(),
            offset: address - 0xf_f000,
        };
        let expected = expected.map_or(unread, Found::Rule);
        assert_eq!(tables.find_rule(&mapped, address), expected);
    }

    let version = |kernel: &Kernel| kernel.processes[&5][2];
    let before = version(&kernel);
    tables.confirm_mappings(5, &mapped);
    assert_eq!(flush(&mut tables, &mut kernel, 2).len(), 1);
    let complete = u64::from(PROCESS_MAPPINGS_COMPLETE) << 32;
    assert_eq!(version(&kernel), before | complete);
    tables.set_process(5, 55, &mapped, 2);
    assert!(flush(&mut tables, &mut kernel, 2).is_empty());

    tables.change_mappings(5, &mappings(&[(0x10_0000, 0x20_0000, 0x1_0000, &code)]), 3);
    tables.confirm_mappings(5, &mapped);
    flush(&mut tables, &mut kernel, 3);
    assert!(version(&kernel) != before && version(&kernel) & complete == 0);
    assert_eq!(
        answer(&kernel, 5, 0x11_0000),
        Answer::Rule(rule_of(3, 0x2_0000))
    );
    tables.remove_process(5, 4);
    tables.remove_process(5, 4);
    flush(&mut tables, &mut kernel, 4);
    assert!(kernel.processes.is_empty());
}

/// Check that code which took the place of other code is not walked in the kernel until it has been
/// there for a while, and then is, without anything else happening.
#[test]
fn unsteady_code() {
    let mut files = Files::new();
    let [first, second] = [3, 6].map(|number| file(&mut files, number));
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    let mut mapped = Mappings::default();
    let mut now_ns = 1;
    for code in [&first, &second] {
        now_ns += 1_000;
        mapped.insert(Mapping::new(0x10_0000..0x11_0000, 0, code.clone()), now_ns);
        let mapped = Arc::new(mapped.clone());
        tables.set_process(1, 1, &mapped, now_ns);
        let number = number_of(code);
        let rows = rows_of(number, 0, 0x1_0000);
        load(&mut tables, code, rows, now_ns);
        flush(&mut tables, &mut kernel, now_ns);
        let rule = rule_of(number, 0x500);
        let expected = match number {
            3 => Answer::Rule(rule),
            _ => Answer::Copy,
        };
        assert_eq!(answer(&kernel, 1, 0x10_0500), expected);
        assert_eq!(tables.find_rule(&mapped, 0x10_0500), Found::Rule(rule));
    }
    let until_ns = mapped.find(0x10_0500).unwrap().stale_rows_until_ns();
    flush(&mut tables, &mut kernel, until_ns - 1);
    assert!(flush(&mut tables, &mut kernel, until_ns).is_empty());
    assert_eq!(answer(&kernel, 1, 0x10_0500), Answer::Copy);
    assert!(!flush(&mut tables, &mut kernel, until_ns + 1).is_empty());
    let expected = Answer::Rule(rule_of(6, 0x500));
    assert_eq!(answer(&kernel, 1, 0x10_0500), expected);
    assert!(flush(&mut tables, &mut kernel, until_ns + 2).is_empty());
}

/// Check that after a reset the program takes nothing for true that it found before, which it does if versions begin again.
#[test]
fn a_reset_goes_on_with_versions() {
    let walk_after = |reset: fn(&mut Tables)| {
        let mut files = Files::new();
        let mut tables = Tables::new(1 << 20);
        let mut kernel = Kernel::new();
        let mut now_ns = 1;
        let mut walk = |tables: &mut Tables, kernel: &mut Kernel, number| {
            let code = file(&mut files, number);
            tables.set_process(1, 1, &mappings(&[(0, 0x1_0000, 0, &code)]), now_ns);
            // Its rules have other numbers than those of the file before.
            let rows = rows_of(number, number << 8, 0x1_0000);
            load(tables, &code, rows, now_ns);
            for _ in 0..3 {
                now_ns += DRAIN_NS;
                flush(tables, kernel, now_ns);
            }
            answer(kernel, 1, 0x800)
        };
        let before = walk(&mut tables, &mut kernel, 3);
        assert_eq!(before, Answer::Rule(rule_of(3, 0x800)));
        // As `KernelTables::clear`.
        kernel.processes.clear();
        reset(&mut tables);
        walk(&mut tables, &mut kernel, 6)
    };
    let expected = Answer::Rule(rule_of(6, 0x800));
    assert_eq!(walk_after(|tables| tables.reset(1)), expected);
    assert_ne!(
        walk_after(|tables| *tables = Tables::new(1 << 20)),
        expected
    );
}

/// Check files without rows of their own: too large, without any, unreadable.
#[test]
fn files_without_rows() {
    let mut files = Files::new();
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    let large = file(&mut files, 1);
    let huge = file(&mut files, 4);
    let plain = file(&mut files, 7);
    let gone = file(&mut files, 10);
    let all = [&large, &huge, &plain, &gone];
    let list: Vec<_> = (0..4u64)
        .map(|at| (at << 20, (at + 1) << 20, 0, all[at as usize]))
        .collect();
    let mapped = mappings(&list);
    tables.set_process(1, 1, &mapped, 0);
    for file in all {
        assert!(tables.wants(file, 0));
    }
    let too_large = |file_bytes| Evaluation::TooLarge { file_bytes };
    let load = |tables: &mut Tables, file, evaluation| {
        tables.load(&TableKey::of(file).unwrap(), evaluation, 0);
    };
    load(&mut tables, &large, too_large(0x8_0000));
    load(&mut tables, &huge, too_large(2 << 30));
    load(&mut tables, &plain, Evaluation::NoRows);
    load(&mut tables, &gone, Evaluation::Unreadable);
    flush(&mut tables, &mut kernel, 0);
    let at = |at: u64| answer(&kernel, 1, at);
    assert_eq!(at(0), Answer::Rule(Rule::UNSUPPORTED));
    assert_eq!(at(0x8_ffff), Answer::Rule(Rule::UNSUPPORTED));
    assert_eq!(at(0x9_0000), Answer::Rule(Rule::NONE));
    for start in 1..4 {
        assert_eq!(at(start << 20), Answer::Rule(Rule::NONE));
    }
    let refused = tables.stats().refused;
    assert_eq!((refused.too_large, refused.unreadable), (2, 1));
    // A later process is another try for the file that could not be read, and for no other.
    assert!(!tables.wants(&gone, 1));
    tables.set_process(2, 2, &mapped, UNREADABLE_RETRY_NS);
    let wanted = all.map(|file| tables.wants(file, UNREADABLE_RETRY_NS));
    assert_eq!(wanted, [false, false, false, true]);
}

/// Check that a block with more rows than fit into a page has none, and the others have theirs.
#[test]
fn dense_block() {
    let mut files = Files::new();
    let code = file(&mut files, 3);
    let mapped = mappings(&[(0, 1 << 20, 0, &code)]);
    let dense =
        (0..BLOCK_BYTES).map(|offset| (offset, Some(Rule::at_register(7, (offset % 2) as i32))));
    let rows = dense.chain([(BLOCK_BYTES, Some(rule_of(3, 0)))]);
    let rows = evaluation([0; 3], rows, 2 * BLOCK_BYTES);
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    tables.set_process(1, 1, &mapped, 0);
    load(&mut tables, &code, rows, 0);
    flush(&mut tables, &mut kernel, 0);
    assert_eq!(answer(&kernel, 1, 77), Answer::Rule(Rule::UNSUPPORTED));
    let next = answer(&kernel, 1, BLOCK_BYTES);
    assert_eq!(next, Answer::Rule(rule_of(3, 0)));
    assert_eq!(tables.stats().refused.dense_blocks, 1);
}

/// Check that a file that is used evicts the one that was used least recently, after a while, and
/// never one that is in use; until then its rows are known here.
#[test]
fn least_used_goes_first() {
    let mut files = Files::new();
    let all: Vec<Arc<MappedFile>> = (0..3).map(|number| file(&mut files, number * 3)).collect();
    let list: Vec<_> = (0..3u64)
        .map(|at| (at << 24, (at + 1) << 24, 0, &all[at as usize]))
        .collect();
    let mapped = mappings(&list);
    let mut tables = Tables::new(PAGE_BYTES);
    let mut kernel = Kernel::new();
    tables.set_process(1, 1, &mapped, 0);
    // 6,000 rows each, with indexes 6,800: two fit.
    let rows = |number: u64| rows_of(number * 3, 0, 6_000 * 256);
    for number in 0..3 {
        let file = &all[number as usize];
        load(&mut tables, file, rows(number), number);
    }
    let mut now_ns = 10;
    flush(&mut tables, &mut kernel, now_ns);
    let expected = |at: u64| Answer::Rule(rule_of(at * 3, 0));
    assert_eq!(answer(&kernel, 1, 0), expected(0));
    assert_eq!(answer(&kernel, 1, 1 << 24), expected(1));
    assert_eq!(answer(&kernel, 1, 2 << 24), Answer::Copy);
    assert_eq!(
        tables.find_rule(&mapped, 2 << 24),
        Found::Rule(rule_of(6, 0))
    );
    // File 0 and 2 stay in use, 1 does not.
    for _ in 0..50 {
        now_ns += DRAIN_NS;
        all[0].used_ns.store(now_ns, Ordering::Relaxed);
        all[2].used_ns.store(now_ns, Ordering::Relaxed);
        flush(&mut tables, &mut kernel, now_ns);
    }
    assert_eq!(answer(&kernel, 1, 0), expected(0));
    assert_eq!(answer(&kernel, 1, 1 << 24), Answer::Copy);
    assert_eq!(answer(&kernel, 1, 2 << 24), expected(2));
    assert_eq!(
        tables.find_rule(&mapped, 1 << 24),
        Found::Missing(all[1].clone())
    );
    let stats = tables.stats();
    assert_eq!(
        (stats.evictions, stats.files, stats.files_waiting),
        (1, 2, 0)
    );
}

/// Check that mappings from anywhere in the address space and the file leave no panic and no entry
/// that is not sorted.
#[test]
fn hostile_mappings() {
    let mut random = Rng::with_seed(3);
    let mut files = Files::new();
    let all: Vec<Arc<MappedFile>> = (0..4).map(|number| file(&mut files, number)).collect();
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    let edge = |random: &mut Rng| match random.u64(..4) {
        0 => u64::MAX - random.u64(..0x2_0000),
        1 => random.u64(..0x20_0000),
        2 => random.u64(..),
        _ => (1 << 47) - random.u64(..0x2_0000),
    };
    for round in 0..300 {
        let mut mapped = Mappings::default();
        for _ in 0..random.u64(..20) {
            mapped.insert(
                Mapping::new(
                    edge(&mut random)..edge(&mut random),
                    edge(&mut random),
                    all[random.u64(..4) as usize].clone(),
                ),
                0,
            );
        }
        let mapped = Arc::new(mapped);
        tables.set_process(1, round + 1, &mapped, round * DRAIN_NS);
        for (file, number) in all.iter().zip(0..) {
            if tables.wants(file, round * DRAIN_NS) {
                let key = TableKey::of(file).unwrap();
                let from = match number {
                    0 => u64::MAX - 0x1_0000,
                    1 => 1 << 40,
                    _ => 0,
                };
                let rows = rows_of(number, from, from + 0x1_0000);
                tables.load(&key, rows, round * DRAIN_NS);
            }
        }
        flush(&mut tables, &mut kernel, round * DRAIN_NS);
        for mapping in mapped.iter() {
            for address in [mapping.start, mapping.end - 1] {
                let found = match tables.find_rule(&mapped, address) {
                    // Not in the kernel's tables.
                    _ if mapping.end > USER_ADDRESS_END => Answer::NoMapping,
                    Found::Rule(rule) => Answer::Rule(rule),
                    Found::Missing(_) | Found::Unread { .. } => Answer::Copy,
                    Found::NoMapping => Answer::NoMapping,
                };
                // Offsets that go round the end of the file's numbers have no rows.
                let wraps = mapping
                    .file_offset
                    .checked_add(mapping.end - mapping.start)
                    .is_none();
                if !wraps {
                    assert_eq!(answer(&kernel, 1, address), found);
                }
            }
        }
    }
}

/// Check that there are never more processes than the kernel's map takes, not for a moment.
#[test]
fn more_processes_than_fit() {
    let mut files = Files::new();
    let code = file(&mut files, 1);
    let mapped = mappings(&[(0x1000, 0x2000, 0, &code)]);
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    for number in 0..3 * PROCESSES_MAX {
        // Later ones have lower ids, which are written first.
        let pid = 4 * PROCESSES_MAX - number;
        tables.set_process(pid, pid.into(), &mapped, number.into());
        if number % 500 == 0 {
            flush(&mut tables, &mut kernel, u64::from(number) * DRAIN_NS);
        }
    }
    flush(&mut tables, &mut kernel, u64::MAX / 2);
    assert!(kernel.processes.len() > 7_000);
    assert!(kernel.processes.contains_key(&(PROCESSES_MAX + 1)));
}

/// Check that more mappings than there may be evict the processes that were sampled least recently, and that
/// 5,000 with 20 mappings each fit.
#[test]
fn many_processes() {
    let mut files = Files::new();
    let code = file(&mut files, 1);
    let list: Vec<_> = (0..20u64)
        .map(|at| (at << 20, (at << 20) + 0x1000, at << 12, &code))
        .collect();
    let mapped = mappings(&list);
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    for pid in 1..=5_000 {
        tables.set_process(pid, pid.into(), &mapped, pid.into());
    }
    flush(&mut tables, &mut kernel, 0);
    assert_eq!(kernel.processes.len(), 5_000);
    assert_eq!(tables.stats().refused.processes, 0);
    tables.touch_process(1, 6_000);
    for pid in 5_001..=7_000u32 {
        tables.set_process(pid, pid.into(), &mapped, pid.into());
        if pid % 50 == 0 {
            flush(&mut tables, &mut kernel, u64::from(pid) * DRAIN_NS);
            assert!(kernel.processes.len() > 5_000);
        }
    }
    assert!(kernel.processes.contains_key(&1));
    assert!(!kernel.processes.contains_key(&2));
    let stats = tables.stats();
    assert!(stats.refused.processes > 0);
    assert_eq!(stats.processes, kernel.processes.len());
}

/// A run of the program: what it read of its process, and what holds there.
struct Run {
    process: ProcessEntry,
    mappings: Arc<Mappings>,
    begun_ns: u64,
}

/// The content of a file, which two files have each.
fn content_of(file: &MappedFile) -> u64 {
    number_of(file) % 12
}

/// Check, over random processes and files and with little room, that whatever a run reads, at any moment
/// and as slowly as a run may be, is true of the mappings that its version stands for: also what it found earlier
/// under this version, and also when the kernel refuses a write and the tables begin again.
#[test]
fn every_answer_is_true_at_every_moment() {
    const FILES: u64 = 24;
    let mut random = Rng::with_seed(11);
    let mut files = Files::new();
    let all: Vec<Arc<MappedFile>> = (0..FILES).map(|number| file(&mut files, number)).collect();
    // Half as many numbers as the files have rules.
    let mut tables = Tables::with_rules_max(3 * PAGE_BYTES, 1_500);
    let mut kernel = Kernel::new();
    let mut model: HashMap<u32, Arc<Mappings>> = HashMap::new();
    let mut versions: HashMap<u32, Arc<Mappings>> = HashMap::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut evaluating: Vec<Arc<MappedFile>> = Vec::new();
    let (mut by_rows, mut copied) = (0, 0);
    let mut now_ns = 1;
    for _ in 0..3_000 {
        for _ in 0..random.u64(..6) {
            let pid = 1 + random.u64(..12) as u32;
            match random.u64(..5) {
                0 => {
                    tables.remove_process(pid, now_ns);
                    model.remove(&pid);
                }
                1 | 2 => {
                    let mut mapped = Mappings::default();
                    for _ in 0..1 + random.u64(..6) {
                        let start = random.u64(..64) << 20;
                        mapped.insert(
                            Mapping::new(
                                start..start + ((1 + random.u64(..32)) << 16),
                                random.u64(..8) << 12,
                                all[random.u64(..FILES) as usize].clone(),
                            ),
                            0,
                        );
                    }
                    let mapped = Arc::new(mapped);
                    if model.contains_key(&pid) && random.u64(..2) == 0 {
                        tables.change_mappings(pid, &mapped, now_ns);
                    } else {
                        tables.set_process(pid, 1 + random.u64(..) % 1_000, &mapped, now_ns);
                    }
                    model.insert(pid, mapped);
                }
                3 => {
                    let file = &all[random.u64(..FILES) as usize];
                    file.used_ns.store(now_ns, Ordering::Relaxed);
                    if tables.wants(file, now_ns) {
                        evaluating.push(file.clone());
                    }
                }
                _ if !evaluating.is_empty() => {
                    let file = evaluating.swap_remove(random.usize(..evaluating.len()));
                    let number = content_of(&file);
                    let evaluation = match random.u64(..20) {
                        0 => Evaluation::Unreadable,
                        // 1 to 7,000 rows.
                        _ => rows_of(
                            number,
                            number << 12,
                            (number << 12) + ((number * 290 + 1) << 8),
                        ),
                    };
                    tables.load(&TableKey::of(&file).unwrap(), evaluation, now_ns);
                }
                _ => {
                    if let Some(mapped) = model.get(&pid) {
                        tables.confirm_mappings(pid, mapped);
                    }
                }
            }
        }
        let mut writes = tables.take_writes();
        // Now and then the kernel refuses one.
        let is_refused = random.u64(..60) == 0;
        if is_refused {
            writes.truncate(random.usize(..writes.len() + 1));
        }
        for write in writes {
            if let Write::Process { pid, words } = &write {
                let entry = ProcessEntry::from_words(*words).unwrap();
                assert!(entry.version != 0 && entry.identity != 0);
                let mapped = model[pid].clone();
                let before = versions.insert(entry.version, mapped.clone());
                assert!(before.is_none_or(|before| before == mapped));
            }
            kernel.apply(&write, &tables);
            // Runs begin and go on between any two writes.
            for words in kernel.processes.values() {
                if random.u64(..20) == 0 {
                    let process = ProcessEntry::from_words(*words).unwrap();
                    runs.push(Run {
                        process,
                        mappings: versions[&process.version].clone(),
                        begun_ns: now_ns,
                    });
                }
            }
            for run in &runs {
                let address = (random.u64(..66 << 4) << 16) + (random.u64(..4) << 8);
                let Some(mapping) = run.mappings.find(address) else {
                    let found = kernel.search(run.process, address);
                    assert_eq!(found, Answer::NoMapping);
                    continue;
                };
                let offset = mapping.offset_of(address);
                match kernel.search(run.process, address) {
                    Answer::Rule(rule) if rule == Rule::NONE => {}
                    Answer::Rule(rule) => {
                        by_rows += 1;
                        assert_eq!(rule, rule_of(content_of(&mapping.file), offset));
                    }
                    Answer::Copy => copied += 1,
                    Answer::NoMapping => panic!("{address:#x} is mapped"),
                }
            }
            let from = runs.len().saturating_sub(40);
            runs.drain(..from);
        }
        if is_refused {
            kernel.processes.clear();
            tables.reset(now_ns);
            model.clear();
        }
        now_ns += random.u64(..2 * DRAIN_NS);
        // No run takes longer than the grace, less what the drain may be late.
        runs.retain(|run| run.begun_ns + 50_000_000 > now_ns);
        tables.end_epoch(now_ns);
        assert_eq!(kernel.processes.len(), tables.stats().processes);
    }
    let stats = tables.stats();
    assert!(
        stats.evictions > 10 && stats.rules_reused > 100,
        "{stats:?}"
    );
    assert!(by_rows > 1_000 && copied > 1_000, "{by_rows} {copied}");
}
