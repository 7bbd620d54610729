//! The whole way from code to rows.

use std::ops::Range;

use crate::backward::{Parts, Rules};
use crate::code::Code;
use crate::confidence::Confidence;
use crate::emit::{Knowledge, emit};
use crate::forward::{Frame, Frames};
use crate::graph::BlockId;
use crate::listing::Listing;
use crate::rows::{Reason, Rows};
use crate::state::State;

/// Instructions of a closure: the largest functions of compilers and codecs have about as many.
pub const CLOSURE_INSTRUCTIONS_MAX: usize = 16_000;

/// Bytes before and behind an address that are read if its closure decides nothing: most functions
/// are smaller.
pub const SURROUNDINGS_BYTES: u64 = 16 << 10;

/// Rows of the code that can be reached from an address and, if these do not decide about the
/// address, of the code around it.
///
/// The second step is for code that leads to no return: it takes the rule from the code that leads
/// there.
pub fn analyze(code: &impl Code, address: u64) -> Rows {
    let start = code.function_start(address);
    let starts: Vec<u64> = start.into_iter().chain([address]).collect();
    let listing = Listing::of_closure(code, &starts, CLOSURE_INSTRUCTIONS_MAX);
    let rows = analyze_listing(code, listing, &starts, start);
    if matches!(rows.get(address), Some(Ok(_) | Err(Reason::Conflict))) {
        return rows;
    }
    let around = analyze_surroundings(code, address, start);
    if matches!(around.get(address), Some(Ok(_))) {
        around
    } else {
        rows
    }
}

/// Rows of the code around an address; none if the address is inside of an instruction by those
/// before it.
fn analyze_surroundings(code: &impl Code, address: u64, function: Option<u64>) -> Rows {
    let distances = std::iter::successors(Some(SURROUNDINGS_BYTES), |distance| Some(distance / 2));
    let is_readable =
        |start: &u64| code.bytes(*start).len() as u64 > address.saturating_sub(*start);
    let mut starts = distances
        .take_while(|distance| *distance > 0)
        .map(|distance| address.saturating_sub(distance));
    let Some(start) = starts.find(is_readable) else {
        return Rows::default();
    };
    let listing = Listing::of_region(code, start..address.saturating_add(SURROUNDINGS_BYTES));
    match listing.find(address) {
        Some(_) => analyze_listing(code, listing, &[address], function),
        None => Rows::default(),
    }
}

/// Rows of a region.
pub fn analyze_region(code: &impl Code, range: Range<u64>) -> Rows {
    let listing = Listing::of_region(code, range);
    analyze_listing(code, listing, &[], None)
}

fn analyze_listing(code: &impl Code, listing: Listing, starts: &[u64], entry: Option<u64>) -> Rows {
    let parts = Parts::build(code, listing, starts);
    let rules = Rules::find(&parts);
    let mut entries = parts.graph.entries().to_vec();
    entries.extend(entry.and_then(|entry| parts.graph.find(entry)));
    let from_starts = propagate_starts(&parts, Some(&rules), &entries);
    let from_rules = propagate_rules(&parts, &rules, &from_starts);
    let knowledge = Knowledge {
        rules: &rules,
        from_starts: &from_starts,
        from_rules: &from_rules,
    };
    emit(&parts, &knowledge)
}

/// Frames of all code that functions' starts lead to.
pub(crate) fn propagate_starts(
    parts: &Parts,
    rules: Option<&Rules>,
    entries: &[BlockId],
) -> Frames {
    let mut frames = Frames::new(parts.graph.blocks().len());
    let mut is_entry = vec![false; parts.graph.blocks().len()];
    for entry in entries {
        is_entry[entry.index()] = true;
    }
    let seeds = entries
        .iter()
        .map(|entry| (*entry, Frame::at_start(Confidence::Certain)));
    let disputes = |id: BlockId, state: &State| {
        let rule = rules.and_then(|rules| rules.get(id).ok());
        rule.is_some_and(|rule| rule.distance(state).is_some_and(|distance| distance != 0))
    };
    frames.propagate(parts, seeds, |id| !is_entry[id.index()], disputes);
    frames
}

/// Frames of code without a rule: behind code that has one, and of functions that only their
/// addresses lead to.
fn propagate_rules(parts: &Parts, rules: &Rules, from_starts: &Frames) -> Frames {
    let graph = &parts.graph;
    let is_open = |id: BlockId| rules.get(id).is_err() && from_starts.get(id).is_none();
    let leads_to_open = |id: BlockId| graph.successors(graph.block(id)).any(is_open);
    let mut seeds: Vec<(BlockId, Frame)> = Vec::new();
    for id in graph.ids().filter(|id| leads_to_open(*id)) {
        if let Ok(rule) = rules.get(id) {
            seeds.push((id, Frame::of_rule(rule)));
        }
    }
    let mut frames = Frames::new(graph.blocks().len());
    frames.propagate(parts, seeds, is_open, |_, _| false);
    let taken = graph.taken().iter().copied();
    let unreached: Vec<BlockId> = taken
        .filter(|id| is_open(*id) && frames.get(*id).is_none())
        .collect();
    let seeds = unreached
        .into_iter()
        .map(|id| (id, Frame::at_start(Confidence::Weak)));
    frames.propagate(parts, seeds, is_open, |_, _| false);
    frames
}
