//! Which rule holds at an address: process -> mapping -> block -> row -> rule.
//!
//! Return addresses repeat, so that most rules come from a small table of what was found
//! before: one load instead of some twenty in three tables.

use core::ptr;

use profiler_bpf::{
    arch::x86_64::rule::Rule,
    record::Walk,
    tables::{
        Block, MAPPING_SEARCH_STEPS, MappingKind, PAGE_ROWS, PROCESS_SETTLED, Process,
        ROW_SEARCH_STEPS,
    },
    unwind::{BLOCK_BYTES, Row},
};

use crate::{
    BLOCKS, FOUND, MAPPINGS, PROCESSES, ROWS, RULES,
    arithmetic::{is_less, zero},
    scratch,
};

/// Rules that a CPU remembers, of 32 bytes each. They lie in 4 pages: a stack of 30 frames touches all
/// of them, and each is cold.
const FOUND_MAX: usize = 512;

/// A mapping search of 2^5 = 32 serves most processes.
const SHORT_SEARCH_STEPS: u32 = 5;

/// What was found: address, version of the process's mappings (which tells processes apart, too),
/// and the two words of the rule.
pub(crate) type Found = [u64; FOUND_MAX * FOUND_WORDS];

const FOUND_WORDS: usize = 4;

/// What is known of an address.
pub(crate) enum Lookup {
    /// This rule holds.
    Rule(Rule),
    /// The rows are not in the kernel: user space may have them.
    Missing,
    /// A guess led to it, and user space says that it lies in no code.
    NoCode,
}

/// Finds the current process's mappings for a walk. Gives `false` when they are not there.
#[inline(always)]
pub(crate) fn find_process(walk: &mut Walk, pid: u32, identity: u64) -> bool {
    // SAFETY: the value may be replaced while it is read, which `from_words` sees.
    let found = unsafe { PROCESSES.get(pid) };
    let process = found.and_then(|words| Process::from_words(*words));
    let Some(process) = process.filter(|it| it.identity == identity) else {
        walk.version = 0;
        return false;
    };
    walk.first = process.first;
    walk.count = process.count;
    walk.version = process.version;
    walk.flags = process.flags;
    true
}

/// Finds the rule that holds at an address.
///
/// # Safety
/// `walk` is part of this CPU's record. Nothing refers to its rule.
#[inline(always)]
pub(crate) unsafe fn find_rule(walk: *const Walk, address: u64) -> Lookup {
    let Some(found) = FOUND.get_ptr_mut(zero()) else {
        return Lookup::Missing;
    };
    // SAFETY: as the caller says.
    let version = unsafe { u64::from((*walk).version) };
    let mixed = (address ^ version << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // SAFETY: the map's value is this CPU's own and of this type, and the program
    // does not interrupt itself; the mask keeps within it.
    let slot = unsafe {
        let first = ((mixed >> 55) as usize & (FOUND_MAX - 1)) * FOUND_WORDS;
        &mut *found.cast::<u64>().add(first).cast::<[u64; FOUND_WORDS]>()
    };
    if slot[0] == address && slot[1] == version {
        return Lookup::Rule(Rule::from_words([slot[2], slot[3]]));
    }
    match search_rule(address) {
        IS_FOUND => {}
        IS_MISSING => return Lookup::Missing,
        _ => return Lookup::NoCode,
    }
    // SAFETY: as the caller says. Volatile, since `search_rule` wrote it.
    let words = unsafe { ptr::read_volatile(&raw const (*walk).rule) };
    *slot = [address, version, words[0], words[1]];
    Lookup::Rule(Rule::from_words(words))
}

const IS_FOUND: u32 = 0;
const IS_MISSING: u32 = 1;
const IS_NO_CODE: u32 = 2;

/// Searches the tables for the rule that holds at an address, and puts it into the scratch record.
///
/// A function with a name: see [`step`](crate::walk::step).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn search_rule(address: u64) -> u32 {
    let Some(scratch) = scratch() else {
        return IS_MISSING;
    };
    match search(&scratch.walk, address) {
        Ok(words) => {
            // SAFETY: a reference is writable. Word by word, or the compiler keeps an address until
            // here and calls a function to copy 16 bytes.
            unsafe {
                ptr::write_volatile(&raw mut scratch.walk.rule[0], words[0]);
                ptr::write_volatile(&raw mut scratch.walk.rule[1], words[1]);
            }
            IS_FOUND
        }
        Err(code) => code,
    }
}

const NONE: [u64; 2] = Rule::NONE.to_words();

#[inline(always)]
fn search(walk: &Walk, address: u64) -> Result<[u64; 2], u32> {
    let Some(mapping) = find_mapping(walk, address) else {
        // An address that a rule led to is code which was mapped just now; one that a guess led to is
        // most often no address.
        let is_known = walk.flags & PROCESS_SETTLED & walk.is_guess;
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
        return Ok(NONE);
    }
    let offset = address.wrapping_add(mapping[2]);
    let place = ((offset / BLOCK_BYTES) as u32).wrapping_add(mapping[3] as u32);
    let block = BLOCKS.get(place).map_or(0, |word| *word);
    let Some(number) = find_row(Block::from_word(block), offset) else {
        return Ok(NONE);
    };
    Ok(RULES.get(number.into()).map_or(NONE, |words| *words))
}

/// The last of the process's mappings that begins at or before the address, if it reaches it.
#[inline(always)]
fn find_mapping(walk: &Walk, address: u64) -> Option<&'static [u64; 4]> {
    let place = match walk.count {
        0 => return None,
        1..=32 => search_mappings::<SHORT_SEARCH_STEPS>(walk, address)?,
        _ => search_mappings::<MAPPING_SEARCH_STEPS>(walk, address)?,
    };
    MAPPINGS
        .get(place)
        .filter(|it| it[0] <= address && address < it[1])
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

/// The rule's number in the last row of a block that begins at or before the offset.
#[inline(always)]
fn find_row(block: Block, offset: u64) -> Option<u16> {
    let count = u64::from(block.count);
    if count == 0 {
        return None;
    }
    let first = u64::from(block.first);
    let rows = ROWS.get_value(block.page.into(), &zero())?;
    let target = u64::from(Row::last_at(offset).to_bits());
    let mut low = 0;
    for step in (0..ROW_SEARCH_STEPS).rev() {
        let probe = low + (1 << step);
        let is_inside = is_less(probe, count);
        // The mask changes nothing; it lets the verifier see the bound.
        let row = u64::from(rows[(first + probe * is_inside) as usize & (PAGE_ROWS - 1)]);
        let take = is_inside & (1 - is_less(target, row));
        low += take << step;
    }
    let row = rows[(first + low) as usize & (PAGE_ROWS - 1)];
    (u64::from(row) <= target).then_some(row as u16)
}
