//! Sums by series, stack and tag set, with tables of what they refer to.

use model::{FunctionNames, Row, Tables};

use crate::error::Partial;
use crate::read::needed::Needed;
use crate::read::parallel::Effort;
use crate::read::questions::Pair;
use crate::read::source::Source;
use crate::read::stacks::StackTables;

/// Sums with what they refer to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SummedRows {
    /// The stacks of the rows, their tag sets, and what those need.
    pub tables: Tables,
    /// The sums. [`Row::series`] is the source's number.
    pub rows: Vec<Row>,
}

/// See [`Source::resolve_pairs`].
pub(crate) fn resolve_pairs(
    source: &(impl Source + ?Sized),
    pairs: &[Pair],
    names: FunctionNames,
    effort: Effort<'_>,
) -> Partial<SummedRows> {
    let stacks = Needed::of(
        source.stack_count(),
        pairs.len(),
        pairs.iter().map(|pair| pair.stack),
    );
    let tag_sets = Needed::of(
        source.tag_set_count(),
        pairs.len(),
        pairs.iter().map(|pair| pair.tags),
    );
    let read = source.read_stacks(stacks.numbers(), tag_sets.numbers(), names, effort);
    let StackTables {
        tables,
        stacks: stack_ids,
        tag_sets: tag_set_ids,
    } = read.value;
    let row = |pair: &Pair| {
        Some(Row {
            series: pair.series,
            tags: tag_set_ids[tag_sets.position(pair.tags)]?,
            stack: stack_ids[stacks.position(pair.stack)]?,
            samples: pair.samples,
            ns: pair.ns,
        })
    };
    let rows = pairs.iter().filter_map(row).collect();
    Partial {
        value: SummedRows { tables, rows },
        damage: read.damage,
    }
}
