//! Go's own table of stack depths to rows.
//!
//! In: an ELF file. Out: the rows of its Go functions ([`symbolize::go`]), which count before those of other sources: call frame
//! information of Go says neither where the frame pointer is saved, nor where stacks are switched or end, and stripping takes it away.

use std::rc::Rc;

use elf::{BlockCache, ReadAt, Segment};
use profiler_bpf::{
    arch::x86_64::rule::{RBP, RSP, Rule, kind, rbp, rbx},
    unwind::BLOCK_BYTES,
};
use symbolize::go::{Caller, FunctionFrames, GoFile, Kind};

use super::{
    Limits, RuleSet, Table,
    table::{TableBuilder, TooManyRows},
};

/// The rows of a file's Go functions. Elsewhere, it has [`RuleSet::NONE`].
#[derive(Clone, Debug)]
pub(super) struct GoRows {
    pub(super) table: Table,
    pub(super) rules: RuleSet,
}

impl GoRows {
    /// Reads them; `None` if the file has no table that can be read.
    ///
    /// # Errors
    /// They are more than `limits` allow.
    pub(super) fn read(
        file: &(impl ReadAt + ?Sized),
        code: &[Segment],
        limits: &Limits,
    ) -> Result<Option<Self>, TooManyRows> {
        let Some(file) = GoFile::open(file, &Rc::new(BlockCache::default())) else {
            return Ok(None);
        };
        let mut rules = RuleSet::new();
        let mut builder = TableBuilder::new(limits.rows_max);
        for function in file.frames() {
            add_function(&function, code, &mut rules, &mut builder)?;
        }
        // Behind the last function there is other code.
        let end = code.iter().map(Segment::file_end).max();
        let table = builder.finish(end.unwrap_or(0))?;
        Ok((!table.rows().is_empty()).then_some(Self { table, rules }))
    }

    /// Puts them in the place of the same code's other rows.
    ///
    /// # Errors
    /// Together they are more than `limits` allow.
    pub(super) fn put_over(
        &self,
        table: &Table,
        rules: &mut RuleSet,
        limits: &Limits,
    ) -> Result<Table, TooManyRows> {
        let numbers: Vec<u16> = self
            .rules
            .as_slice()
            .iter()
            .map(|rule| rules.intern(*rule))
            .collect();
        let (mut ours, mut others) = (changes(&self.table).peekable(), changes(table).peekable());
        let (mut our_rule, mut other_rule) = (RuleSet::NONE, RuleSet::NONE);
        let mut builder = TableBuilder::new(limits.rows_max);
        let mut offset = 0;
        while let Some(next) = [ours.peek(), others.peek()]
            .into_iter()
            .flatten()
            .map(|change| change.0)
            .min()
        {
            offset = next;
            if let Some((_, rule)) = ours.next_if(|change| change.0 == next) {
                our_rule = numbers
                    .get(usize::from(rule))
                    .copied()
                    .unwrap_or(RuleSet::NONE);
            }
            if let Some((_, rule)) = others.next_if(|change| change.0 == next) {
                other_rule = rule;
            }
            builder.push(
                next,
                if our_rule == RuleSet::NONE {
                    other_rule
                } else {
                    our_rule
                },
            )?;
        }
        builder.finish(offset)
    }
}

/// Adds a function's rows, and none behind it.
fn add_function(
    function: &FunctionFrames,
    code: &[Segment],
    rules: &mut RuleSet,
    builder: &mut TableBuilder,
) -> Result<(), TooManyRows> {
    let start = function.range.start;
    let segment = code
        .iter()
        .find_map(|segment| Some((segment, segment.offset_of(start)?)));
    let Some((segment, offset)) = segment else {
        return Ok(());
    };
    let place = |address: u64| {
        offset
            .saturating_add(address - start)
            .min(segment.file_end())
    };
    // The kernel calls a signal's handler as if it came from in front of the function that it returns to.
    let before = u64::from(function.kind == Kind::SignalReturn);
    for (address, caller) in &function.rows {
        let from = place(*address).saturating_sub(before);
        builder.push(from, rules.intern(rule_of(*caller)))?;
    }
    builder.push(place(function.range.end), RuleSet::NONE)
}

fn rule_of(caller: Caller) -> Rule {
    // Go's functions preserve no register but the stack and the frame pointer.
    let at = |kind, register, cfa, is_pointer_saved| Rule {
        kind,
        rbx: rbx::UNKNOWN,
        rbp: if is_pointer_saved {
            rbp::AT_CFA
        } else {
            rbp::SAME
        },
        rbp_offset: if is_pointer_saved { -16 } else { 0 },
        ..Rule::at_register(register, cfa)
    };
    match caller {
        Caller::AtStackPointer {
            cfa,
            is_pointer_saved,
        } => match i32::try_from(cfa) {
            Ok(cfa) => at(kind::REGISTER, RSP, cfa, is_pointer_saved),
            Err(_) => Rule::UNSUPPORTED,
        },
        Caller::AtFramePointer => at(kind::OTHER_STACK, RBP, 16, true),
        Caller::Signal => Rule::SIGNAL,
        Caller::End => Rule::END,
        Caller::Unknown => Rule::UNSUPPORTED,
    }
}

/// Offsets in ascending order, and the rule from each on.
fn changes(table: &Table) -> impl Iterator<Item = (u64, u16)> {
    let blocks = table.blocks();
    blocks.iter().enumerate().flat_map(|(place, block)| {
        let start = block.number * BLOCK_BYTES;
        let rows = table.rows_of(block).iter();
        let rows = rows.map(move |row| (start + u64::from(row.offset()), row.rule()));
        // Blocks without rules are left out.
        let next = blocks.get(place + 1).map(|next| next.number);
        let end = (next != Some(block.number + 1)).then_some((start + BLOCK_BYTES, RuleSet::NONE));
        rows.chain(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO: Rule = Rule::at_register(RSP, 24);
    const C: Rule = Rule::at_register(RSP, 16);

    fn build(rows: &[(u64, u16)], end: u64) -> Table {
        let mut builder = TableBuilder::new(1000);
        for (offset, rule) in rows {
            builder.push(*offset, *rule).unwrap();
        }
        builder.finish(end).unwrap()
    }

    /// Check that Go's rows count where there are some, and the others before, between and behind them, over several blocks.
    #[test]
    fn rows_of_both_sources() {
        let mut rules = RuleSet::new();
        let c = rules.intern(C);
        let others = build(
            &[(0x800, c), (0x900, RuleSet::NONE), (0x2_8000, c)],
            0x6_0000,
        );
        let mut go_rules = RuleSet::new();
        let number = go_rules.intern(GO);
        let go = GoRows {
            table: build(
                &[
                    (0x1000, number),
                    (0x2000, RuleSet::NONE),
                    (0x1_0000, number),
                    (0x3_0000, RuleSet::NONE),
                ],
                0x6_0000,
            ),
            rules: go_rules,
        };
        let both = go
            .put_over(&others, &mut rules, &Limits::default())
            .unwrap();
        for (offset, rule) in [
            (0x7ff, None),
            (0x800, Some(C)),
            (0x900, Some(Rule::NONE)),
            (0x1000, Some(GO)),
            (0x1fff, Some(GO)),
            (0x2000, Some(Rule::NONE)),
            (0x1_0000, Some(GO)),
            (0x2_ffff, Some(GO)),
            (0x3_0000, Some(C)),
            (0x5_ffff, Some(C)),
        ] {
            let found = both
                .find(offset)
                .and_then(|number| rules.get(number))
                .copied();
            assert_eq!(found, rule, "{offset:#x}");
        }
    }
}
