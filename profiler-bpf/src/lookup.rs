//! Finds the rule at an address: process -> mapping -> block -> row -> rule.
//!
//! Return addresses repeat, so that most rules come from a small cache of what was found
//! before: one load instead of some twenty in three tables.

use profiler_bpf::{
    arch::x86_64::rule::{NUMBER_OF_NONE, NUMBER_OF_UNSUPPORTED, Rule},
    per_cpu::{FOUND_MAX, FOUND_PARTS, FOUND_WORDS},
    record::Walk,
    tables::{
        Block, INDEX_WORDS, MAPPING_SEARCH_STEPS, MappingKind, PAGE_ROWS,
        PROCESS_MAPPINGS_COMPLETE, Process, ROW_SEARCH_STEPS, SHORT_ROW_SEARCH_STEPS, index_place,
        index_range,
    },
    unwind::{BLOCK_BYTES, Row},
};

use crate::{
    BLOCKS, FOUND, MAPPINGS, PROCESSES, ROWS, RULES,
    arithmetic::{is_less, zero},
    scratch,
};

/// A mapping search of 2^5 = 32 serves most processes.
const SHORT_SEARCH_STEPS: u32 = 5;

/// The rule at an address.
pub(crate) enum Lookup {
    /// This rule holds.
    Rule(Rule),
    /// The rows are not in the kernel: user space may have them.
    Missing,
    /// A guess led to it, and user space knows no code there.
    NoCode,
}

/// Finds the current process's mappings for a walk. Gives `false` when they are not there.
#[inline(always)]
pub(crate) fn find_process(walk: &mut Walk, pid: u32, identity: u64) -> bool {
    // SAFETY: the value may be replaced while it is read, which `from_words` sees.
    let found = unsafe { PROCESSES.get(pid) };
    let process = found.and_then(|words| Process::from_words(*words));
    let Some(process) = process.filter(|process| process.identity == identity) else {
        walk.version = 0;
        return false;
    };
    walk.first = process.first;
    walk.last = process.first;
    walk.count = process.count;
    walk.version = process.version;
    walk.flags = process.flags;
    true
}

/// Finds the rule that holds at an address.
///
/// # Safety
/// `walk` is part of this CPU's record.
#[inline(always)]
pub(crate) unsafe fn find_rule(walk: *const Walk, address: u64) -> Lookup {
    // SAFETY: guaranteed by the caller.
    let version = unsafe { u64::from((*walk).version) };
    let mixed = (address ^ version << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let part = (mixed >> 63) as u32 & (FOUND_PARTS - 1);
    let Some(found) = FOUND.get_ptr_mut(part) else {
        return Lookup::Missing;
    };
    // SAFETY: the value is this CPU's own, and the program does not interrupt itself; the mask keeps
    // within the places.
    let place = unsafe {
        let first = ((mixed >> 52) as usize & (FOUND_MAX - 1)) * FOUND_WORDS;
        &mut *found.cast::<u64>().add(first).cast::<[u64; FOUND_WORDS]>()
    };
    let number = if place[0] >> 16 == address && place[1] == version {
        place[0] as u16
    } else {
        let number = match search_rule(address) {
            IS_MISSING => return Lookup::Missing,
            IS_NO_CODE => return Lookup::NoCode,
            number => number as u16,
        };
        *place = [address << 16 | u64::from(number), version];
        number
    };
    let words = RULES.get(number.into()).map_or(NONE, |words| *words);
    Lookup::Rule(Rule::from_words(words))
}

/// Results of [`search_rule`] where there is no rule; numbers of rules have 16 bits.
const IS_MISSING: u32 = 1 << 16;
const IS_NO_CODE: u32 = 2 << 16;

const NONE: [u64; 2] = Rule::NONE.to_words();

/// Searches the tables for the number of the rule that holds at an address.
///
/// A function with a name: see [`step`](crate::walk::step).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn search_rule(address: u64) -> u32 {
    let Some(scratch) = scratch() else {
        return IS_MISSING;
    };
    // SAFETY: the record is this CPU's own, and `step` refers to nothing of its walk meanwhile.
    let walk = unsafe { &mut (*scratch).walk };
    match search(walk, address) {
        Ok(number) => number.into(),
        Err(code) => code,
    }
}

#[inline(always)]
fn search(walk: &mut Walk, address: u64) -> Result<u16, u32> {
    let Some(mapping) = find_mapping(walk, address) else {
        // An address that a rule led to is code which was mapped just now; one that a guess led to is
        // most often no address.
        let is_known = walk.flags & PROCESS_MAPPINGS_COMPLETE & walk.is_guess;
        return Err(match is_known {
            0 => IS_MISSING,
            _ => IS_NO_CODE,
        });
    };
    let kind = (mapping[3] >> 32) as u32;
    if kind == MappingKind::NotLoaded as u32 {
        return Err(IS_MISSING);
    }
    if kind == MappingKind::FramePointer as u32 {
        return Ok(NUMBER_OF_NONE);
    }
    if kind == MappingKind::Unsupported as u32 {
        return Ok(NUMBER_OF_UNSUPPORTED);
    }
    let offset = address.wrapping_add(mapping[2]);
    let place = ((offset / BLOCK_BYTES) as u32).wrapping_add(mapping[3] as u32);
    let block = BLOCKS.get(place).map_or(0, |word| *word);
    // Of code without call frame information the rows are made when it is met.
    match find_row(Block::from_word(block), offset) {
        NUMBER_OF_NONE => Err(IS_MISSING),
        number => Ok(number),
    }
}

/// The last of the process's mappings that begins at or before the address, if it reaches it.
///
/// A frame most often lies in the same mapping as the one before.
#[inline(always)]
fn find_mapping(walk: &mut Walk, address: u64) -> Option<&'static [u64; 4]> {
    let reaches = |words: &&[u64; 4]| words[0] <= address && address < words[1];
    if walk.count == 0 {
        return None;
    }
    if let Some(last) = MAPPINGS.get(walk.last).filter(reaches) {
        return Some(last);
    }
    let place = match walk.count {
        1..=32 => search_mappings::<SHORT_SEARCH_STEPS>(walk, address)?,
        _ => search_mappings::<MAPPING_SEARCH_STEPS>(walk, address)?,
    };
    walk.last = place;
    MAPPINGS.get(place).filter(reaches)
}

#[inline(always)]
fn search_mappings<const STEPS: u32>(walk: &Walk, address: u64) -> Option<u32> {
    let count = u64::from(walk.count);
    let mut low = 0;
    for step in (0..STEPS).rev() {
        let probe = low + (1 << step);
        let is_inside = is_less(probe, count);
        let place = walk.first.wrapping_add((probe * is_inside) as u32);
        let start = MAPPINGS.get(place)?[0];
        let take = is_inside & (1 - is_less(address, start));
        low += take << step;
    }
    Some(walk.first.wrapping_add(low as u32))
}

/// The rule's number in the last row of a block that begins at or before the offset; that of no rule if there is none.
///
/// Each row that the search touches is a cold cache line: a large block has an index, by which the
/// search is through the rows of 1 KiB of code.
#[inline(always)]
fn find_row(block: Block, offset: u64) -> u16 {
    if block.count == 0 {
        return NUMBER_OF_NONE;
    }
    let first = u64::from(block.first);
    let Some(rows) = ROWS.get_value(block.page.into(), &zero()) else {
        return NUMBER_OF_NONE;
    };
    let target = u64::from(Row::last_at(offset).to_bits());
    let (mut low, mut end) = (0, u64::from(block.count));
    if block.is_indexed() {
        let place = first
            .wrapping_sub(INDEX_WORDS as u64)
            .wrapping_add(index_place(offset));
        let words = [row_at(rows, place), row_at(rows, place.wrapping_add(1))];
        (low, end) = index_range(words, offset);
        // The last row of the parts before may reach into this one.
        low = low.wrapping_sub(is_less(0, low));
    }
    let row = if end.wrapping_sub(low) <= 1 << SHORT_ROW_SEARCH_STEPS {
        search_rows::<SHORT_ROW_SEARCH_STEPS>(rows, first, low, end, target)
    } else {
        search_rows::<ROW_SEARCH_STEPS>(rows, first, low, end, target)
    };
    if u64::from(row) <= target {
        row as u16
    } else {
        NUMBER_OF_NONE
    }
}

/// The last of the rows from `low` to `end` that is not behind the target, or the first of them.
#[inline(always)]
fn search_rows<const STEPS: u32>(
    rows: &[u32; PAGE_ROWS],
    first: u64,
    mut low: u64,
    end: u64,
    target: u64,
) -> u32 {
    for step in (0..STEPS).rev() {
        let probe = low + (1 << step);
        let is_inside = is_less(probe, end);
        let row = u64::from(row_at(rows, first + probe * is_inside));
        let take = is_inside & (1 - is_less(target, row));
        low += take << step;
    }
    row_at(rows, first + low)
}

/// A word of a page. The mask changes nothing; it lets the verifier see the bound.
#[inline(always)]
fn row_at(rows: &[u32; PAGE_ROWS], place: u64) -> u32 {
    rows[place as usize & (PAGE_ROWS - 1)]
}
