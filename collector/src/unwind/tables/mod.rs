//! The contents of the kernel's tables, and the writes that change them.
//!
//! In: processes with their mappings, and evaluated files. Out: a list of [`Write`]s for the maps of
//! [`profiler_bpf::tables`], in an order in which the program may run at any moment: nothing points
//! to what is not written yet, or to what is used for something else already. Pure: no IO, no clock.
//!
//! | module | what it keeps |
//! | --- | --- |
//! | `files` | each file that a sampled process maps, and which processes map it |
//! | `contents` | the rows of files, each distinct set once |
//! | `code` | rows of files' code without call frame information, which are added to their contents |
//! | `resident` | the kernel's pages, blocks and rules, and the rows that are there |
//! | `room` | which contents are evicted for others |
//! | `processes` | sampled processes, and the kernel's entries of their mappings |
//!
//! Processes, files, and the pages, blocks and rules of contents are limited: the least recently used are evicted, and a sample
//! asks for them again. A freed place is used again only after a grace period ([`epochs`]), in which every run of the program
//! ends that may have seen it.

mod code;
mod contents;
mod epochs;
mod evaluation;
mod files;
mod instruction_rows;
mod intervals;
mod key;
mod pages;
mod processes;
mod resident;
mod room;
mod rule_numbers;
mod stats;
mod write;

use std::{collections::BTreeMap, sync::Arc};

use profiler_bpf::{
    arch::x86_64::{USER_ADDRESS_END, rule::Rule},
    tables::{Mapping as MappingEntry, MappingKind, PAGE_WORDS, RULES_MAX},
    unwind::BLOCK_BYTES,
};
use rustc_hash::FxHashSet;

pub use contents::KnownDigests;
pub use evaluation::{Evaluation, Found};
pub use key::TableKey;
pub use pages::PAGE_BYTES;
pub use stats::{RefusedStats, TablesStats};
pub use write::Write;

use self::{
    code::CodeIndex,
    contents::{ContentId, ContentPlace, Contents},
    epochs::Epochs,
    files::{File, FileState, Files, PROCESS_FILES_MAX},
    processes::{Change, PROCESS_MAPPINGS_MAX, Processes},
    resident::{FILE_BLOCKS_MAX, ResidentRows, Rows},
};
use super::{Digest, RuleSet, Table};
use crate::process::{MappedFile, Mapping, Mappings};

/// Lifetime of a file with neither generation nor build id after the last process that maps it has ended. Later another
/// file may have its name and inode.
const NAMELESS_KEPT_NS: u64 = 5_000_000_000;

/// Back-off of a file that could not be read. It counts as a file without rows for that time; the next process that maps it
/// is another try, since the sampled process may just have ended.
const UNREADABLE_RETRY_NS: u64 = 2_000_000_000;

/// Interval of the check whether waiting files have room now.
const ROOM_CHECK_NS: u64 = 1_000_000_000;

/// The kernel's tables, as they are or will be when all writes are done.
#[derive(Debug)]
pub struct Tables {
    files: Files,
    contents: Contents,
    resident: ResidentRows,
    processes: Processes,
    epochs: Epochs,
    code: CodeIndex,
    /// Whether places were freed since contents waited for some.
    has_freed: bool,
    /// The time when the last epoch ended, or of what came since.
    now_ns: u64,
    /// When contents that wait for places are looked at again in any case.
    next_room_check_ns: u64,
    stats: TablesStats,
}

impl Tables {
    /// Empty tables, for at most `bytes_max` bytes of rows.
    pub fn new(bytes_max: u64) -> Self {
        Self::with_rules_max(bytes_max, RULES_MAX as usize)
    }

    fn with_rules_max(bytes_max: u64, rules_max: usize) -> Self {
        Self {
            files: Files::default(),
            contents: Contents::default(),
            resident: ResidentRows::new(bytes_max, rules_max),
            processes: Processes::new(),
            epochs: Epochs::default(),
            code: CodeIndex::default(),
            has_freed: false,
            now_ns: 0,
            next_room_check_ns: 0,
            stats: TablesStats::default(),
        }
    }

    /// Digests of the rows that are here. Clones are the same.
    pub fn known_digests(&self) -> KnownDigests {
        self.contents.digests()
    }

    /// Adds a process, or changes its mappings.
    pub fn set_process(&mut self, pid: u32, identity: u64, mappings: &Arc<Mappings>, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        if let Some(process) = self.processes.get_mut(pid) {
            process.sampled_ns = now_ns;
            if process.identity == identity && process.mappings == *mappings {
                return;
            }
        } else if self.processes.is_full() {
            self.forget_processes();
        }
        let before = self.processes.set(pid, identity, mappings, now_ns);
        self.replace_user(pid, before.as_deref(), Some(mappings), now_ns);
    }

    /// Changes the mappings of a process, if it is known.
    pub fn change_mappings(&mut self, pid: u32, mappings: &Arc<Mappings>, now_ns: u64) {
        if let Some(process) = self.processes.get(pid) {
            let (identity, sampled_ns) = (process.identity, process.sampled_ns);
            self.set_process(pid, identity, mappings, now_ns);
            if let Some(process) = self.processes.get_mut(pid) {
                process.sampled_ns = sampled_ns;
            }
        }
    }

    /// A process, if it still has these mappings, has no code beside them: an address in none of them is not copied any more.
    pub fn confirm_mappings(&mut self, pid: u32, mappings: &Arc<Mappings>) {
        if let Some(process) = self.processes.get_mut(pid)
            && !process.has_all_mappings
            && process.mappings == *mappings
        {
            process.has_all_mappings = true;
            self.processes.change(pid, Change::Flags);
        }
    }

    /// A process was sampled.
    pub fn touch_process(&mut self, pid: u32, now_ns: u64) {
        if let Some(process) = self.processes.get_mut(pid) {
            process.sampled_ns = now_ns;
        }
    }

    /// Forgets a process.
    pub fn remove_process(&mut self, pid: u32, now_ns: u64) {
        if let Some(process) = self.processes.remove(pid, self.epochs.current()) {
            self.replace_user(pid, Some(&process.mappings), None, now_ns);
        }
    }

    /// Forgets all processes.
    pub fn remove_processes(&mut self, now_ns: u64) {
        let pids: Vec<u32> = self.processes.iter().map(|(pid, _)| pid).collect();
        for pid in pids {
            self.remove_process(pid, now_ns);
        }
    }

    /// Whether the caller is to evaluate this file; if so, it counts as being evaluated. No process
    /// need map it any more: one that has ended leaves stacks to be walked.
    pub fn wants(&mut self, file: &Arc<MappedFile>, now_ns: u64) -> bool {
        let Some(key) = TableKey::of(file) else {
            return false;
        };
        let is_new = !self.files.has(&key);
        self.see_file(&key, file, now_ns);
        if is_new {
            self.find_users(&key);
        }
        let Some(file) = self.files.get_mut(&key) else {
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
        let file = self.files.get(key);
        file.is_some_and(|file| file.state == FileState::Evaluating)
    }

    /// Takes the result of evaluating a file.
    pub fn load(&mut self, key: &TableKey, evaluation: Evaluation, now_ns: u64) {
        self.leave_content(key, now_ns);
        let Some(file) = self.files.get_mut(key) else {
            return;
        };
        // A second evaluation would give the same.
        const NEVER: u64 = u64::MAX;
        file.touched_ns = now_ns;
        let never = FileState::FramePointer { retry_ns: NEVER };
        file.state = match evaluation {
            Evaluation::Rows {
                digest,
                table,
                rules,
            } => {
                return self.load_rows(key, digest, table, &rules, now_ns);
            }
            Evaluation::Known(digest) => {
                self.set_base(key, digest);
                return self.join_content(key, digest, now_ns);
            }
            Evaluation::NoRows => never,
            Evaluation::TooLarge { file_bytes } => {
                self.stats.refused.too_large += 1;
                if file_bytes / BLOCK_BYTES < FILE_BLOCKS_MAX {
                    FileState::Unsupported { bytes: file_bytes }
                } else {
                    never
                }
            }
            Evaluation::Unreadable => {
                self.stats.refused.unreadable += 1;
                let retry_ns = now_ns + UNREADABLE_RETRY_NS;
                FileState::FramePointer { retry_ns }
            }
        };
        self.change_users(key);
    }

    fn load_rows(
        &mut self,
        key: &TableKey,
        digest: Digest,
        table: Table,
        rules: &RuleSet,
        now_ns: u64,
    ) {
        self.set_base(key, digest);
        if self.contents.find(digest).is_some() {
            return self.join_content(key, digest, now_ns);
        }
        let Ok(rows) = Rows::new(table, rules) else {
            self.stats.refused.blocks += 1;
            if let Some(file) = self.files.get_mut(key) {
                let retry_ns = u64::MAX;
                file.state = FileState::FramePointer { retry_ns };
            }
            return self.change_users(key);
        };
        self.stats.refused.rules += rules.refused() + rows.refused_rules;
        self.stats.refused.dense_blocks += rows.dense_blocks;
        let is_taken = self.is_making_room();
        let id = self.contents.insert(digest, rows, now_ns);
        self.join_content(key, digest, now_ns);
        if !is_taken && self.place(id, now_ns) {
            return;
        }
        self.stats.refused.no_room += 1;
        if !is_taken {
            self.make_room(id, now_ns);
        }
        self.limit_waiting(id, now_ns);
    }

    /// Gives a file the rows that another has; if these are gone meanwhile, it is to be evaluated.
    fn join_content(&mut self, key: &TableKey, digest: Digest, now_ns: u64) {
        let Some(file) = self.files.get_mut(key) else {
            return;
        };
        file.state = match self.contents.find(digest) {
            Some(id) => {
                self.contents.add_file(id, key, now_ns);
                FileState::Rows(id)
            }
            None => FileState::Absent { retry_ns: 0 },
        };
        self.change_users(key);
    }

    /// Takes a file's rows from it. They stay where they are until others need the room, if they are in the kernel.
    fn leave_content(&mut self, key: &TableKey, now_ns: u64) {
        let state = self.files.get(key).map(|file| file.state);
        if let Some(FileState::Rows(id)) = state {
            self.contents.remove_file(id, key, now_ns);
            let content = self.contents.get(id);
            if content
                .is_some_and(|content| content.files.is_empty() && content.waiting().is_some())
            {
                self.contents.remove(id);
            }
        }
    }

    /// The way to the rule of an address in a process with these mappings.
    pub fn find_rule(&self, mappings: &Mappings, address: u64) -> Found {
        let Some(mapping) = mappings.find(address) else {
            return Found::NoMapping;
        };
        let Some(key) = TableKey::of(&mapping.file) else {
            return Found::Rule(Rule::NONE);
        };
        let offset = mapping.offset_of(address);
        let Some(file) = self.files.get(&key) else {
            return Found::Missing(mapping.file.clone());
        };
        Found::Rule(match file.state {
            FileState::Absent { .. } | FileState::Evaluating => {
                return Found::Missing(mapping.file.clone());
            }
            FileState::FramePointer { .. } => Rule::NONE,
            FileState::Unsupported { bytes } if offset < whole_blocks(bytes) => Rule::UNSUPPORTED,
            FileState::Unsupported { .. } => Rule::NONE,
            FileState::Rows(id) => {
                let content = self.contents.get(id);
                let rule = content.map(|content| content.find(&self.resident, offset));
                match rule.filter(|rule| *rule != Rule::NONE) {
                    Some(rule) => rule,
                    None => return file.code.find(&mapping.file, offset),
                }
            }
        })
    }

    /// All writes up to now are done. Frees the places whose grace period is over, and forgets the
    /// files that no process maps.
    pub fn end_epoch(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.processes.recheck(now_ns);
        if let Some(epoch) = self.epochs.end(now_ns) {
            self.has_freed |= self.resident.end_grace(epoch);
            self.has_freed |= self.processes.end_grace(epoch);
        }
        let is_time = now_ns >= self.next_room_check_ns;
        if is_time {
            self.next_room_check_ns = now_ns + ROOM_CHECK_NS;
            self.forget_unused_files(now_ns);
        }
        if is_time || std::mem::take(&mut self.has_freed) {
            self.place_waiting(now_ns);
        }
    }

    fn forget_unused_files(&mut self, now_ns: u64) {
        let is_unused = |key: &TableKey, file: &File| match file.state {
            _ if !file.users.is_empty() => false,
            FileState::Evaluating => false,
            FileState::Absent { retry_ns } => retry_ns <= now_ns,
            FileState::FramePointer { .. } | FileState::Unsupported { .. } | FileState::Rows(_) => {
                !key.is_unique_in_time() && file.touched_ns + NAMELESS_KEPT_NS < now_ns
            }
        };
        let files = self.files.iter();
        let unused = files.filter(|(key, file)| is_unused(key, file));
        let unused: Vec<TableKey> = unused.map(|(key, _)| key.clone()).collect();
        for key in unused {
            self.forget_file(&key, now_ns);
        }
    }

    fn forget_file(&mut self, key: &TableKey, now_ns: u64) {
        self.change_users(key);
        self.leave_content(key, now_ns);
        if let Some(file) = self.files.remove(key) {
            self.code.ranges -= file.code.len();
        }
    }

    /// Takes the writes that are due. They are to be done in this order.
    pub fn take_writes(&mut self) -> Vec<Write> {
        self.merge_code();
        // The mappings come before the processes that point to them; there may be room for fewer than are wanted.
        let mut mappings = Vec::new();
        let mut processes = BTreeMap::new();
        let mut removed = Vec::new();
        for (pid, change) in self.processes.take_changed() {
            if self.processes.get(pid).is_none() {
                if change == Change::Removed {
                    removed.push(pid);
                }
                continue;
            }
            let flags = match change {
                Change::Flags => self.processes.write_flags(pid),
                Change::Mappings | Change::Removed => None,
            };
            let write = match flags {
                Some(write) => Some(write),
                None => self.write_process(pid, &mut mappings),
            };
            if let Some(write) = write {
                processes.insert(pid, write);
            }
        }
        // Processes that had to make room for others.
        for (pid, change) in self.processes.take_changed() {
            debug_assert_eq!(change, Change::Removed);
            processes.remove(&pid);
            removed.push(pid);
        }
        let mut writes = Vec::new();
        self.resident.take_writes(&mut writes);
        writes.extend(mappings);
        // Removals go first: the map may be full.
        let removals = removed.into_iter();
        writes.extend(removals.map(|pid| Write::RemoveProcess { pid }));
        writes.extend(processes.into_values());
        writes
    }

    /// Writes a process's entry to other places. Without room for it the process is evicted.
    fn write_process(&mut self, pid: u32, mappings: &mut Vec<Write>) -> Option<Write> {
        let process = self.processes.get(pid)?;
        let mut words = Vec::with_capacity(process.mappings.len());
        for mapping in process.mappings.iter() {
            self.push_entries(pid, mapping, &mut words);
        }
        let ends = process.mappings.iter().map(Mapping::stale_rows_until_ns);
        let recheck_ns = ends.filter(|end_ns| *end_ns > self.now_ns).min();
        if words.len() > PROCESS_MAPPINGS_MAX {
            self.stats.refused.mappings += (words.len() - PROCESS_MAPPINGS_MAX) as u64;
            words.truncate(PROCESS_MAPPINGS_MAX);
        }
        let len = words.len() as u32;
        let (epoch, recheck_ns) = (self.epochs.current(), recheck_ns.unwrap_or(0));
        let Some((write_mappings, write)) =
            self.processes.write_mappings(pid, words, recheck_ns, epoch)
        else {
            // Its old entry points to mappings that have changed, and there is room for a new one only
            // when others have gone: a sample will ask again.
            self.drop_process(pid);
            if !self.processes.has_room_soon(len) {
                self.forget_processes();
            }
            return None;
        };
        mappings.extend(write_mappings);
        Some(write)
    }

    /// The entries of one mapping: more than one, where its file's rows cover a part of it.
    fn push_entries(&self, pid: u32, mapping: &Mapping, words: &mut Vec<[u64; 4]>) {
        let Mapping {
            start,
            end,
            file_offset,
            ref file,
            ..
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
        if mapping.stale_rows_until_ns() > self.now_ns {
            // By the time this is read other code may lie there: user space knows the mappings at the time
            // of a sample.
            return push(start, end, MappingKind::NotLoaded, 0);
        }
        let Some(key) = TableKey::of(file) else {
            return push(start, end, MappingKind::FramePointer, 0);
        };
        let Some(file) = self.files.get(&key) else {
            return push(start, end, MappingKind::NotLoaded, 0);
        };
        let Some(end_offset) = file_offset.checked_add(end - start) else {
            return push(start, end, MappingKind::FramePointer, 0);
        };
        let at = |offset: u64| start + (offset.clamp(file_offset, end_offset) - file_offset);
        let id = match file.state {
            // Of a file beyond its limit a process does not hear when it is evicted.
            _ if !file.users.contains(&pid) => {
                return push(start, end, MappingKind::FramePointer, 0);
            }
            FileState::Rows(id) => id,
            FileState::FramePointer { .. } => {
                return push(start, end, MappingKind::FramePointer, 0);
            }
            FileState::Unsupported { bytes } => {
                let behind = at(whole_blocks(bytes));
                push(start, behind, MappingKind::Unsupported, 0);
                return push(behind, end, MappingKind::FramePointer, 0);
            }
            FileState::Absent { .. } | FileState::Evaluating => {
                return push(start, end, MappingKind::NotLoaded, 0);
            }
        };
        let place = self.contents.get(id).map(|content| &content.place);
        let Some(ContentPlace::Resident(placed)) = place else {
            return push(start, end, MappingKind::NotLoaded, 0);
        };
        // The parts of the file that have blocks, within the mapping.
        let mut done = start;
        for run in placed.runs() {
            let (from, to) = (at(run.first * BLOCK_BYTES), at(run.end_offset()));
            if from < to {
                push(done, from, MappingKind::NotLoaded, 0);
                let block_bias = run.place.wrapping_sub(run.first as u32);
                push(from, to, MappingKind::Rows, block_bias);
                done = to;
            }
        }
        push(done, end, MappingKind::NotLoaded, 0);
    }

    /// Removes the least recently sampled processes.
    fn forget_processes(&mut self) {
        for pid in self.processes.least_sampled() {
            self.drop_process(pid);
        }
    }

    /// Removes a process since the table of processes is full.
    fn drop_process(&mut self, pid: u32) {
        self.stats.refused.processes += 1;
        let sampled_ns = self
            .processes
            .get(pid)
            .map_or(0, |process| process.sampled_ns);
        self.remove_process(pid, sampled_ns);
    }

    /// Makes a process a user of the files that it maps now, and of none that it mapped before.
    fn replace_user(
        &mut self,
        pid: u32,
        before: Option<&Mappings>,
        now: Option<&Arc<Mappings>>,
        now_ns: u64,
    ) {
        let mut keys_before: FxHashSet<TableKey> = FxHashSet::default();
        for mapping in before.into_iter().flat_map(Mappings::iter) {
            keys_before.extend(TableKey::of(&mapping.file));
        }
        let mut keys: FxHashSet<TableKey> = FxHashSet::default();
        for mapping in now.into_iter().flat_map(|mappings| mappings.iter()) {
            let Some(key) = TableKey::of(&mapping.file) else {
                continue;
            };
            if keys.len() >= PROCESS_FILES_MAX && !keys.contains(&key) {
                self.stats.refused.files += 1;
                continue;
            }
            self.see_file(&key, &mapping.file, now_ns).users.insert(pid);
            keys.insert(key);
        }
        for key in keys_before.difference(&keys) {
            if let Some(file) = self.files.get_mut(key) {
                file.users.remove(&pid);
                file.touched_ns = file.touched_ns.max(now_ns);
            }
        }
    }

    /// The entry of a file, made if it is new, for which others may have to go.
    fn see_file(&mut self, key: &TableKey, mapped: &Arc<MappedFile>, now_ns: u64) -> &mut File {
        if self.files.is_full_for(key) {
            for key in self.files.least_used() {
                self.stats.file_evictions += 1;
                self.forget_file(&key, now_ns);
            }
        }
        self.files.see(key, mapped, now_ns)
    }

    /// Finds the processes that map a file which was forgotten.
    fn find_users(&mut self, key: &TableKey) {
        let maps_it = |mappings: &Mappings| {
            let mut keys = mappings
                .iter()
                .filter_map(|mapping| TableKey::of(&mapping.file));
            keys.any(|mapped| mapped == *key)
        };
        let processes = self.processes.iter();
        let users = processes.filter(|(_, process)| maps_it(&process.mappings));
        let users: FxHashSet<u32> = users.map(|(pid, _)| pid).collect();
        if let Some(file) = self.files.get_mut(key) {
            file.users = users;
        }
    }

    /// Has the entries of all processes that map the file written again.
    fn change_users(&mut self, key: &TableKey) {
        if let Some(file) = self.files.get(key) {
            for pid in &file.users {
                self.processes.change(*pid, Change::Mappings);
            }
        }
    }

    /// As [`change_users`](Self::change_users), for all files with a content.
    fn change_users_of(&mut self, id: ContentId) {
        let Some(content) = self.contents.get(id) else {
            return;
        };
        let files = content.files.iter().filter_map(|key| self.files.get(key));
        for pid in files.flat_map(|file| &file.users) {
            self.processes.change(*pid, Change::Mappings);
        }
    }

    /// The kernel's tables were emptied: it has no process any more, and its other entries are not known. Runs of the program end
    /// within a grace period. Versions and rules go on from where they were, since the program caches the rules that it found
    /// by version.
    pub fn reset(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.evict_all(now_ns);
        self.processes.forget_all(self.epochs.current());
        self.files.forget_users();
        self.resident.forget_written();
    }

    /// Writes a page's rows as the words of the kernel's map.
    pub fn copy_page(&self, number: u16, words: &mut [u64; PAGE_WORDS]) -> bool {
        self.resident.copy_page(number, words)
    }

    /// The tables' counts.
    pub fn stats(&self) -> TablesStats {
        let pages = self.resident.pages();
        TablesStats {
            files: self.contents.resident_count(),
            files_waiting: self.contents.waiting_count(),
            files_known: self.files.len(),
            pages: pages.count(),
            bytes: pages.count() as u64 * PAGE_BYTES,
            rows: pages.rows(),
            blocks: self.resident.blocks_used(),
            rules: self.resident.rules().used(),
            rules_reused: self.resident.rules().reused(),
            processes: self.processes.len(),
            mappings: self.processes.mappings_used(),
            code_ranges: self.code.ranges,
            ..self.stats
        }
    }
}

/// Bytes of the blocks that so many bytes of a file touch.
fn whole_blocks(bytes: u64) -> u64 {
    (bytes / BLOCK_BYTES + 1).saturating_mul(BLOCK_BYTES)
}

#[cfg(test)]
mod tests;
