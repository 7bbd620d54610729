//! The rows that are in the kernel: pages of rows, blocks that lead to them, and the rules that they name.
//!
//! In: the rows of a file. Out: their places, and the writes that put them there. A freed place is used again
//! only after a grace period.

use std::ops::Range;

use profiler_bpf::{
    arch::x86_64::rule::Rule,
    tables::{BLOCKS_MAX, Block, PAGE_ROWS, PAGE_WORDS},
    unwind::{BLOCK_BYTES, Row, find_rule},
};

use super::{
    epochs::Epoch, intervals::Intervals, pages::Pages, rule_numbers::RuleNumbers, write::Write,
};
use crate::unwind::{RuleSet, Table, table};

/// Blocks of one file: 1 GiB of code, an eighth of all blocks. Chromium has 190 MB.
pub(super) const FILE_BLOCKS_MAX: u64 = (1 << 30) / BLOCK_BYTES;

/// Rules of one file, a sixteenth of all. libLLVM has 1,167, librustc_driver 1,090 (`rows_cost`).
pub(super) const FILE_RULES_MAX: usize = 4_096;

/// A hole of so many blocks within a file's code begins a new run: 4 MiB. A run costs two entries of 32 bytes for each
/// mapping, as much as 8 blocks, and a search step.
const RUN_HOLE_BLOCKS: u64 = 64;

/// Runs of one file. Real files have one, or two with a part at another end of the address space. Each adds two
/// entries to each mapping.
const FILE_RUNS_MAX: usize = 64;

/// Amounts of pages, blocks and rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    /// Words of pages: rows and indexes.
    pub(super) words: u64,
    pub(super) blocks: u64,
    pub(super) rules: u64,
}

impl Amounts {
    /// The missing amounts when there is this and `needed` is needed.
    pub(super) fn missing(self, needed: Self) -> Self {
        Self {
            words: needed.words.saturating_sub(self.words),
            blocks: needed.blocks.saturating_sub(self.blocks),
            rules: needed.rules.saturating_sub(self.rules),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            words: self.words + other.words,
            blocks: self.blocks + other.blocks,
            rules: self.rules + other.rules,
        }
    }

    /// A quarter more of what comes in pieces: what is freed does not lie together.
    pub(super) fn with_slack(self) -> Self {
        Self {
            words: self.words + self.words / 4,
            blocks: self.blocks + self.blocks / 4,
            rules: self.rules,
        }
    }

    pub(super) fn divided_by(self, parts: u64) -> Self {
        Self {
            words: self.words / parts,
            blocks: self.blocks / parts,
            rules: self.rules / parts,
        }
    }

    /// The amount of the first of these that `wanted` has any of.
    pub(super) fn of_first(self, wanted: Self) -> u64 {
        if wanted.words > 0 {
            self.words
        } else if wanted.blocks > 0 {
            self.blocks
        } else {
            self.rules
        }
    }

    /// These, of what `wanted` has any of.
    pub(super) fn where_any_of(self, wanted: Self) -> Self {
        let part = |amount, wanted| if wanted > 0 { amount } else { 0 };
        Self {
            words: part(self.words, wanted.words),
            blocks: part(self.blocks, wanted.blocks),
            rules: part(self.rules, wanted.rules),
        }
    }

    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Whether any of these is more than in `other`.
    pub(super) fn exceeds(self, other: Self) -> bool {
        self.words > other.words || self.blocks > other.blocks || self.rules > other.rules
    }
}

/// The rows of a file, ready for the kernel but not there.
#[derive(Debug)]
pub(super) struct Rows {
    table: Table,
    /// Rules in the numbering of the table.
    rule_count: usize,
    /// Parts of the table's blocks that lie close to each other.
    runs: Vec<Range<usize>>,
    /// The rules that its rows name, with their numbers in the table.
    used_rules: Vec<(u16, Rule)>,
    /// Rules beyond [`FILE_RULES_MAX`], whose code is taken for unsupported.
    pub(super) refused_rules: u64,
    /// Blocks with more rows than a page has, which are taken for unsupported.
    pub(super) dense_blocks: u64,
    pub(super) needed: Amounts,
}

/// The code of a file is spread over more than [`FILE_BLOCKS_MAX`] or [`FILE_RUNS_MAX`] allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyBlocks;

impl Rows {
    pub(super) fn new(table: Table, rules: &RuleSet) -> Result<Self, TooManyBlocks> {
        let blocks = table.blocks();
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (place, block) in blocks.iter().enumerate() {
            let before = place.checked_sub(1).map(|place| blocks[place].number);
            match runs.last_mut() {
                Some(run)
                    if before.is_some_and(|number| block.number - number <= RUN_HOLE_BLOCKS) =>
                {
                    run.end = place + 1;
                }
                _ => runs.push(place..place + 1),
            }
        }
        let block_count = runs.iter().map(|run| run_blocks(blocks, run)).sum();
        if block_count > FILE_BLOCKS_MAX || runs.len() > FILE_RUNS_MAX {
            return Err(TooManyBlocks);
        }
        let (used_rules, refused_rules) = find_used_rules(&table, rules);
        // Blocks with more rows than a page holds are replaced by one row.
        let words = |count| Block::words_for(u16::try_from(count).unwrap_or(1)) as u64;
        let needed = Amounts {
            words: blocks.iter().map(|block| words(block.count)).sum(),
            blocks: block_count,
            rules: used_rules.len() as u64,
        };
        let dense_blocks = blocks.iter().filter(|block| is_dense(block)).count();
        Ok(Self {
            rule_count: rules.as_slice().len(),
            table,
            runs,
            used_rules,
            refused_rules,
            dense_blocks: dense_blocks as u64,
            needed,
        })
    }

    /// The rule at an offset, as the kernel will have it.
    pub(super) fn find(&self, offset: u64) -> Rule {
        let Some(number) = self.table.find(offset) else {
            return Rule::NONE;
        };
        let known = self
            .used_rules
            .binary_search_by_key(&number, |(number, _)| *number);
        known.map_or(Rule::UNSUPPORTED, |place| self.used_rules[place].1)
    }

    pub(super) fn bytes(&self) -> u64 {
        let rules = self.used_rules.capacity() * size_of::<(u16, Rule)>();
        (self.table.bytes() + rules) as u64
    }
}

fn run_blocks(blocks: &[table::Block], run: &Range<usize>) -> u64 {
    blocks[run.end - 1].number - blocks[run.start].number + 1
}

fn is_dense(block: &table::Block) -> bool {
    block.count as usize > PAGE_ROWS
}

/// The rules that rows name, by ascending number, the first [`FILE_RULES_MAX`] of them; and how many more there are.
fn find_used_rules(table: &Table, rules: &RuleSet) -> (Vec<(u16, Rule)>, u64) {
    let mut is_used = vec![false; rules.as_slice().len()];
    for row in table.rows() {
        if let Some(is_used) = is_used.get_mut(usize::from(row.rule())) {
            *is_used = true;
        }
    }
    let used = rules.as_slice().iter().zip(0..=u16::MAX).zip(is_used);
    let mut used: Vec<(u16, Rule)> = used
        .filter_map(|((rule, number), is_used)| is_used.then_some((number, *rule)))
        .collect();
    let refused = used.len().saturating_sub(FILE_RULES_MAX);
    used.truncate(FILE_RULES_MAX);
    (used, refused as u64)
}

/// Rows in the kernel.
#[derive(Debug)]
pub(super) struct Placed {
    runs: Vec<Run>,
    /// The numbers of their rules.
    rules: Vec<u16>,
    pub(super) taken: Amounts,
}

/// Blocks in a row.
#[derive(Debug)]
pub(super) struct Run {
    /// Number of the first block in the file.
    pub(super) first: u64,
    /// Place of that block.
    pub(super) place: u32,
    pub(super) blocks: Vec<Block>,
}

impl Run {
    /// Offset in the file behind its last block.
    pub(super) fn end_offset(&self) -> u64 {
        let end = self.first.saturating_add(self.blocks.len() as u64);
        end.saturating_mul(BLOCK_BYTES)
    }

    fn places(&self) -> Range<u32> {
        self.place..self.place + self.blocks.len() as u32
    }
}

impl Placed {
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(super) fn rules(&self) -> &[u16] {
        &self.rules
    }
}

/// The resource that was short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// All resident rows.
#[derive(Debug)]
pub(super) struct ResidentRows {
    pages: Pages,
    blocks: Intervals,
    rules: RuleNumbers,
    block_writes: Vec<(u32, Vec<u64>)>,
    closed_pages: Vec<u16>,
}

impl ResidentRows {
    /// None; at most `bytes_max` bytes of them, with at most `rules_max` rules.
    pub(super) fn new(bytes_max: u64, rules_max: usize) -> Self {
        Self {
            pages: Pages::new(bytes_max),
            blocks: Intervals::new(BLOCKS_MAX),
            rules: RuleNumbers::new(rules_max),
            block_writes: Vec::new(),
            closed_pages: Vec::new(),
        }
    }

    /// All that there can be.
    pub(super) fn capacity(&self) -> Amounts {
        Amounts {
            words: self.pages.rows_max(),
            blocks: BLOCKS_MAX.into(),
            rules: self.rules.capacity() as u64,
        }
    }

    /// The free amounts.
    pub(super) fn free(&self) -> Amounts {
        Amounts {
            words: self.pages.rows_max().saturating_sub(self.pages.rows()),
            blocks: u64::from(BLOCKS_MAX - self.blocks.used()),
            rules: self.rules.available() as u64,
        }
    }

    /// The amounts that become free when the grace periods that run now are over.
    fn freeing(&self) -> Amounts {
        Amounts {
            words: self.pages.retired(),
            blocks: self.blocks.retired().into(),
            rules: self.rules.retired() as u64,
        }
    }

    pub(super) fn is_freeing(&self) -> bool {
        !self.freeing().is_nothing()
    }

    /// The amounts that are missing for `rows` when all grace periods are over. Rules that resident rows name are there already.
    pub(super) fn missing_for(&self, rows: &Rows) -> Amounts {
        let new_rules = rows
            .used_rules
            .iter()
            .filter(|(_, rule)| !self.rules.has(rule));
        let needed = Amounts {
            rules: new_rules.count() as u64,
            ..rows.needed
        };
        self.free()
            .plus(self.freeing())
            .missing(needed.with_slack())
    }

    /// Finds places for rows, and writes them there.
    ///
    /// # Errors
    /// There is no room for all of them; then none is there.
    pub(super) fn place(&mut self, rows: &Rows, epoch: Epoch) -> Result<Placed, NoRoom> {
        let needed = rows.needed;
        if needed.words > self.free().words {
            return Err(NoRoom);
        }
        let rules: Vec<Rule> = rows.used_rules.iter().map(|(_, rule)| *rule).collect();
        let rules = self.rules.acquire(&rules).ok_or(NoRoom)?;
        let mut placed = Placed {
            runs: Vec::with_capacity(rows.runs.len()),
            rules,
            taken: needed,
        };
        let is_placed = self.place_runs(rows, &mut placed);
        if !is_placed {
            self.retire(placed, epoch);
            return Err(NoRoom);
        }
        for run in &placed.runs {
            let words = run.blocks.iter().map(|block| block.to_word()).collect();
            self.block_writes.push((run.place, words));
        }
        Ok(placed)
    }

    /// Places the blocks of each run and their rows, as far as there is room. Returns whether all are placed.
    fn place_runs(&mut self, rows: &Rows, placed: &mut Placed) -> bool {
        let blocks = rows.table.blocks();
        // From the numbers of the table to the kernel's; all others are unsupported.
        let mut numbers = vec![RuleSet::UNSUPPORTED; rows.rule_count];
        for ((number, _), placed) in rows.used_rules.iter().zip(&placed.rules) {
            numbers[usize::from(*number)] = *placed;
        }
        let number_of = |row: &Row| numbers.get(usize::from(row.rule())).copied();
        let renumber = |row: &Row| {
            let number = number_of(row).unwrap_or(RuleSet::UNSUPPORTED);
            Row::new(row.offset().into(), number)
        };
        for run in &rows.runs {
            let count = run_blocks(blocks, run);
            let Some(place) = self.blocks.allocate(count as u32) else {
                return false;
            };
            let first = blocks[run.start].number;
            placed.runs.push(Run {
                first,
                place,
                blocks: vec![Block::default(); count as usize],
            });
            for block in &blocks[run.clone()] {
                let found = if is_dense(block) {
                    let row = Row::new(0, RuleSet::UNSUPPORTED);
                    self.pages.place(std::iter::once(row))
                } else {
                    self.pages
                        .place(rows.table.rows_of(block).iter().map(renumber))
                };
                let (Some(found), Some(run)) = (found, placed.runs.last_mut()) else {
                    return false;
                };
                run.blocks[(block.number - first) as usize] = found;
            }
        }
        true
    }

    /// Retires places that the program may still be reading.
    pub(super) fn retire(&mut self, placed: Placed, epoch: Epoch) {
        self.rules.release(&placed.rules, epoch);
        for run in placed.runs {
            self.blocks.retire(run.places(), epoch);
            for block in run.blocks {
                self.pages.retire(block, epoch);
            }
        }
    }

    /// Ends the grace periods of places that were retired up to `epoch`. Returns whether any became free.
    pub(super) fn end_grace(&mut self, epoch: Epoch) -> bool {
        let before = self.free();
        self.blocks.release(epoch);
        self.rules.end_grace(epoch);
        self.closed_pages.extend(self.pages.release(epoch));
        self.free() != before
    }

    /// Gives all rows in the order of their offsets; each holds up to the next one.
    pub(super) fn list(&self, placed: &Placed, mut add: impl FnMut(u64, Rule)) {
        for run in &placed.runs {
            for (block, number) in run.blocks.iter().zip(run.first..) {
                let start = number * BLOCK_BYTES;
                for row in self.pages.rows_of(*block) {
                    let rule = self.rules.get(row.rule()).copied();
                    let offset = start + u64::from(row.offset());
                    add(offset, rule.unwrap_or(Rule::UNSUPPORTED));
                }
                add(start.saturating_add(BLOCK_BYTES), Rule::NONE);
            }
        }
    }

    /// The rule at an offset, as the kernel has it.
    pub(super) fn find(&self, placed: &Placed, offset: u64) -> Rule {
        let block = offset / BLOCK_BYTES;
        let place = placed.runs.partition_point(|run| run.first <= block);
        let run = place.checked_sub(1).map(|place| &placed.runs[place]);
        let found = run.and_then(|run| run.blocks.get((block - run.first) as usize));
        let number = found.and_then(|block| find_rule(self.pages.rows_of(*block), offset));
        let rule = number.map_or(Some(&Rule::NONE), |number| self.rules.get(number));
        rule.copied().unwrap_or(Rule::UNSUPPORTED)
    }

    /// Takes the writes that are due, in an order in which nothing points to what is not there yet. Blocks that pointed to closed
    /// pages have been gone for a grace period.
    pub(super) fn take_writes(&mut self, writes: &mut Vec<Write>) {
        writes.extend(self.rules.take_writes());
        // A page that was opened again since is written behind.
        writes.extend(self.closed_pages.drain(..).map(Write::ClosePage));
        writes.extend(self.pages.take_dirty().into_iter().map(Write::Page));
        let blocks = self.block_writes.drain(..);
        writes.extend(blocks.map(|(place, words)| Write::Blocks { place, words }));
    }

    /// The kernel may have done none of the last writes.
    pub(super) fn forget_written(&mut self) {
        self.rules.forget_written();
        self.block_writes.clear();
        self.closed_pages = self.pages.closed();
    }

    /// Writes a page's rows as the words of the kernel's map.
    pub(super) fn copy_page(&self, number: u16, words: &mut [u64; PAGE_WORDS]) -> bool {
        self.pages.copy_words(number, words)
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    pub(super) fn rules(&self) -> &RuleNumbers {
        &self.rules
    }

    pub(super) fn blocks_used(&self) -> u32 {
        self.blocks.used()
    }
}
