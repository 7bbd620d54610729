//! Which series each output has.

use std::ops::Range;

use crate::chunk::labels::is_same_program;
use crate::error::Error;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;

use super::tree::MergedTree;
use super::{MergedSeries, in_input};

/// No series of the rest needs it.
const NONE: u32 = u32::MAX;

/// Cuts the series into parts whose trees have at most `nodes_max` nodes: between programs if that is possible, else between series.
///
/// A series that has more nodes alone is a part. Its inputs have at most as many each, so that their number bounds it.
pub(super) fn plan_parts<R: ReadAt>(
    inputs: &[&Segment<R>],
    series: &[MergedSeries],
    tree: &MergedTree,
    nodes_max: usize,
) -> Result<Vec<Range<usize>>, Error> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < series.len() || parts.is_empty() {
        let first_series = find_first_series(inputs, series, tree, start)?;
        let nodes = count_nodes(tree, &first_series, series.len());
        let end = choose_end(series, start, &nodes, nodes_max);
        parts.push(start..end);
        start = end;
    }
    Ok(parts)
}

/// The first series from `start` on that has each stack.
fn find_first_series<R: ReadAt>(
    inputs: &[&Segment<R>],
    series: &[MergedSeries],
    tree: &MergedTree,
    start: usize,
) -> Result<Vec<u32>, Error> {
    let mut first_series = vec![NONE; tree.stack_count];
    for (input, segment) in inputs.iter().enumerate() {
        // The number among all series of each of the input's.
        let mut numbers = vec![NONE; segment.series_count()];
        for (number, merged) in series.iter().enumerate().skip(start) {
            for (_, own) in merged.sources.iter().filter(|source| source.0 == input) {
                numbers[*own as usize] = number as u32;
            }
        }
        let stacks = &tree.stacks[input];
        let mut scratch = Scratch::default();
        segment
            .read_all_totals(&mut scratch, |series, pair| {
                let first = &mut first_series[stacks[pair.stack as usize] as usize];
                *first = (*first).min(numbers[series as usize]);
            })
            .map_err(in_input(input))?;
    }
    Ok(first_series)
}

/// The nodes that each series needs and none before it.
fn count_nodes(tree: &MergedTree, first_series: &[u32], series: usize) -> Vec<usize> {
    let mut counts = vec![0; series];
    // The first series of each subtree on the path.
    let mut path: Vec<u32> = Vec::new();
    let mut leave = |path: &mut Vec<u32>, depth: usize| {
        while path.len() > depth
            && let Some(first) = path.pop()
        {
            if let Some(count) = counts.get_mut(first as usize) {
                *count += 1;
            }
            if let Some(parent) = path.last_mut() {
                *parent = first.min(*parent);
            }
        }
    };
    for node in tree.nodes() {
        leave(&mut path, node.depth as usize - 1);
        let first = node.stack.map(|stack| first_series[stack as usize]);
        path.push(first.unwrap_or(NONE));
    }
    leave(&mut path, 0);
    counts
}

/// The end of the part that begins at `start`.
fn choose_end(series: &[MergedSeries], start: usize, nodes: &[usize], nodes_max: usize) -> usize {
    let mut sum = 0;
    let fits = |count: &&usize| {
        sum += **count;
        sum <= nodes_max
    };
    let end = start + nodes[start..].iter().take_while(fits).count();
    if end == series.len() {
        return end;
    }
    let begins_program =
        |at: &usize| !is_same_program(&series[*at - 1].labels, &series[*at].labels);
    let between_programs = (start + 1..=end).rev().find(begins_program);
    between_programs
        .unwrap_or(end)
        .max(start + 1)
        .min(series.len())
}

#[cfg(test)]
mod tests {
    use model::LabelSet;

    use super::*;

    /// Check that parts end between programs, then between series, and always go on.
    #[test]
    fn parts_end_between_programs() {
        let series = |comm: &str, pod: &str| MergedSeries {
            labels: LabelSet::from_sorted([("comm", comm), ("pod", pod)]).unwrap(),
            sources: Vec::new(),
        };
        let all = [
            series("a", "1"),
            series("a", "2"),
            series("b", "1"),
            series("b", "2"),
            series("b", "3"),
        ];
        let nodes = [3, 3, 3, 3, 100];
        for (start, nodes_max, end) in [
            (0, 1000, 5),
            (0, 12, 2),
            (0, 6, 2),
            (0, 5, 1),
            (2, 6, 4),
            (0, 1, 1),
            (4, 50, 5),
        ] {
            assert_eq!(
                choose_end(&all, start, &nodes, nodes_max),
                end,
                "{start}, {nodes_max}"
            );
        }
    }
}
