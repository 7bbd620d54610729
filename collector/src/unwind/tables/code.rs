//! Rows of files' code without call frame information.
//!
//! In: the rows that were made from instructions where stacks stopped. Out: the file's content with them. Call frame information
//! holds where it is: these rows fill its holes. User space finds them at once, the kernel has them after the next merge.
//!
//! A merge makes a content anew, some 20 ns a row, and the kernel's pages with it. So one of a file follows another after 2 us
//! for each row, which is 1 % of a processor: 24 ms for musl's 12,000 rows, 2 s for a browser's million. Meanwhile stacks that
//! stop there are copied.

use std::mem;

use profiler_bpf::{arch::x86_64::rule::Rule, unwind::BLOCK_BYTES};
use rustc_hash::FxHashSet;

use super::{FileState, RefusedStats, Rows, TableKey, Tables, instruction_rows::InstructionRows};
use crate::unwind::{
    CodeRows, Digest, Limits, RuleSet, Table,
    table::{TableBuilder, TooManyRows},
};

/// Ranges of one file: as many as 3 MB of code have, all of which ran without call frame information. OpenBLAS's kernels have 60,000
/// in all, of which a program uses hundreds. 40 bytes each, 2.6 MB.
pub(super) const FILE_RANGES_MAX: usize = 65_536;

/// Ranges of all files: 10 MB.
pub(super) const RANGES_MAX: usize = 262_144;

/// Time between two merges of a file, for each row of it; and at least.
const MERGE_NS_PER_ROW: u64 = 2_000;
const MERGE_NS_MIN: u64 = 50_000_000;

/// The code of all files.
#[derive(Debug, Default)]
pub(super) struct CodeIndex {
    /// Files whose content lacks some of their rows.
    unmerged: FxHashSet<TableKey>,
    /// Number of ranges.
    pub(super) ranges: usize,
}

impl Tables {
    /// Adds rows of a file's code. A file that was forgotten meanwhile gets none.
    pub fn load_code(&mut self, key: &TableKey, rows: &CodeRows, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        let more = rows.ranges().len();
        if self
            .files
            .get(key)
            .is_some_and(|file| file.code.len() + more > FILE_RANGES_MAX)
        {
            self.forget_code(key, now_ns);
        } else if self.code.ranges + more > RANGES_MAX {
            self.forget_least_used_code(now_ns);
        }
        if let Some(file) = self.files.get_mut(key) {
            let before = file.code.len();
            file.code.rows.merge(rows);
            self.code.ranges += file.code.len() - before;
            self.code.unmerged.insert(key.clone());
        }
    }

    /// Sets a file's call frame information, whose content has no rows by instructions.
    pub(super) fn set_base(&mut self, key: &TableKey, digest: Digest) {
        if let Some(file) = self.files.get_mut(key) {
            file.code.base = Some(digest);
            if file.code.len() > 0 {
                self.code.unmerged.insert(key.clone());
            }
        }
    }

    fn forget_least_used_code(&mut self, now_ns: u64) {
        let files = self.files.iter().filter(|(_, file)| file.code.len() > 0);
        let least = files.min_by_key(|(_, file)| file.used_ns());
        if let Some(key) = least.map(|(key, _)| key.clone()) {
            self.forget_code(&key, now_ns);
        }
    }

    /// Forgets a file's rows by instructions, and its content with them: samples ask for both again.
    fn forget_code(&mut self, key: &TableKey, now_ns: u64) {
        self.stats.code_evictions += 1;
        self.leave_content(key, now_ns);
        if let Some(file) = self.files.get_mut(key) {
            self.code.ranges -= file.code.len();
            file.code = InstructionRows::default();
            file.state = FileState::Absent { retry_ns: 0 };
        }
        self.change_users(key);
    }

    /// Adds rows by instructions to the contents of files.
    pub(super) fn merge_code(&mut self) {
        let mut unmerged = mem::take(&mut self.code.unmerged);
        unmerged.retain(|key| self.merge_code_of(key));
        self.code.unmerged.extend(unmerged);
    }

    /// Merges a file's rows if it is time. Returns whether some of them are left.
    fn merge_code_of(&mut self, key: &TableKey) -> bool {
        let now_ns = self.now_ns;
        let Some(file) = self.files.get_mut(key) else {
            return false;
        };
        let FileState::Rows(old) = file.state else {
            return true;
        };
        let content = self.contents.get(old);
        // Rows that wait for room in the kernel serve walks in user space as they are.
        let placed = content.and_then(|content| content.placed());
        let (Some(placed), Some(digest)) = (placed, file.code.digest()) else {
            return true;
        };
        if file.code.next_merge_ns > now_ns {
            return true;
        }
        let rows = placed.taken.words + file.code.len() as u64;
        file.code.next_merge_ns = now_ns + (rows * MERGE_NS_PER_ROW).max(MERGE_NS_MIN);
        if self.contents.find(digest).is_none() {
            let merged = merge(&file.code.rows, |add| self.resident.list(placed, add));
            if !self.place_merged(digest, merged, now_ns) {
                return true;
            }
        }
        self.leave_content(key, now_ns);
        self.join_content(key, digest, now_ns);
        let content = self.contents.get(old);
        // No file comes back to it.
        if content.is_some_and(|content| content.files.is_empty()) {
            self.drop_content(old, now_ns);
        }
        false
    }

    /// Brings rows into the kernel; if there is no room, the old ones stay, and the next merge tries again.
    fn place_merged(
        &mut self,
        digest: Digest,
        merged: Result<(Table, RuleSet), TooManyRows>,
        now_ns: u64,
    ) -> bool {
        let rows = merged
            .ok()
            .and_then(|(table, rules)| Rows::new(table, &rules).ok());
        let Some(rows) = rows else {
            self.stats.refused.blocks += 1;
            return false;
        };
        let RefusedStats {
            rules,
            dense_blocks,
            ..
        } = &mut self.stats.refused;
        *rules += rows.refused_rules;
        *dense_blocks += rows.dense_blocks;
        let id = self.contents.insert(digest, rows, now_ns);
        if self.place(id, now_ns) {
            return true;
        }
        self.stats.refused.no_room += 1;
        self.make_room(id, now_ns);
        self.contents.remove(id);
        false
    }
}

/// Rows of call frame information with those of code in their holes.
fn merge(
    code: &CodeRows,
    list: impl FnOnce(&mut dyn FnMut(u64, Rule)),
) -> Result<(Table, RuleSet), TooManyRows> {
    let mut merged = Merged {
        rules: RuleSet::new(),
        builder: TableBuilder::new(Limits::default().rows_max),
        is_full: false,
    };
    let mut last = (0, Rule::NONE);
    list(&mut |offset, rule| {
        merged.add(last, offset, code);
        last = (offset, rule);
    });
    let end = code.ranges().last().map_or(0, |range| range.end);
    let end = end.max(last.0).next_multiple_of(BLOCK_BYTES);
    merged.add(last, end, code);
    match merged {
        Merged { is_full: true, .. } => Err(TooManyRows),
        Merged { rules, builder, .. } => Ok((builder.finish(end)?, rules)),
    }
}

struct Merged {
    rules: RuleSet,
    builder: TableBuilder,
    is_full: bool,
}

impl Merged {
    /// Adds a row of call frame information that holds up to `end`, or the rows of code in its place.
    fn add(&mut self, (start, rule): (u64, Rule), end: u64, code: &CodeRows) {
        self.push(start, rule);
        if rule != Rule::NONE {
            return;
        }
        let ranges = code.ranges_from(start).iter();
        for range in ranges.take_while(|range| range.start < end) {
            self.push(range.start.max(start), range.rule);
            self.push(range.end.min(end), Rule::NONE);
        }
    }

    fn push(&mut self, offset: u64, rule: Rule) {
        let number = self.rules.intern(rule);
        self.is_full |= self.builder.push(offset, number).is_err();
    }
}
