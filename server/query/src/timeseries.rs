//! CPU over time.

use std::collections::HashMap;

use model::{SeriesTable, TimeRange};
use store::{Snapshot, StoreError, WindowSpan};

use super::selector::Selector;
use super::series::Usage;

/// Steps of equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Start of the first step, a multiple of the step.
    pub from_ms: i64,
    /// Length of a step.
    pub step_ms: i64,
    /// Number of steps.
    pub count: usize,
}

impl Steps {
    /// Covers a range with steps of a length.
    pub fn cover(range: TimeRange, step_ms: i64) -> Self {
        let from_ms = range.from_ms.div_euclid(step_ms) * step_ms;
        let length_ms = range.to_ms.saturating_sub(from_ms).max(0);
        Self {
            from_ms,
            step_ms,
            count: length_ms.unsigned_abs().div_ceil(step_ms.unsigned_abs()) as usize,
        }
    }

    /// Covers a range with steps of a multiple of `unit_ms`, so that there are at most `count_max`.
    pub fn fit(range: TimeRange, unit_ms: i64, count_max: usize) -> Self {
        let length_ms = range.to_ms.saturating_sub(range.from_ms).max(1);
        let mut units = (length_ms / unit_ms / count_max as i64).max(1);
        loop {
            let steps = Self::cover(range, unit_ms.saturating_mul(units));
            // Aligning the start can make one step more.
            if steps.count <= count_max {
                return steps;
            }
            units += 1;
        }
    }

    fn position(&self, time_ms: i64) -> usize {
        ((time_ms - self.from_ms) / self.step_ms) as usize
    }
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Value of the label of the group.
    pub value: String,
    /// The sum over the range.
    pub total: Usage,
    /// The sum of each step.
    pub steps: Vec<Usage>,
}

/// CPU over time, by label.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeseries {
    /// The steps.
    pub steps: Steps,
    /// Nanoseconds of each step that windows cover; 0 where there is none.
    pub covered_ns: Vec<u64>,
    /// The groups, most CPU first.
    pub groups: Vec<Group>,
}

/// Sums up the selected series of a snapshot for each step, by a label or all together. The steps cover its range.
///
/// # Errors
/// The store failed.
pub fn sum_over_time(
    snapshot: &dyn Snapshot,
    selector: &Selector,
    by: Option<&str>,
    steps: Steps,
) -> Result<Timeseries, StoreError> {
    let table = selector.find_series(snapshot)?;
    let (group_of, values) = group_series(&table, by);
    let empty = |value| Group {
        value,
        total: Usage::default(),
        steps: vec![Usage::default(); steps.count],
    };
    let mut groups: Vec<Group> = values.into_iter().map(empty).collect();
    let mut windows: Vec<WindowSpan> = Vec::new();
    snapshot.scan_cells(&table, &mut |part| {
        windows.extend(&part.windows);
        for cell in &part.cells {
            let usage = Usage {
                samples: cell.samples,
                ns: cell.ns,
            };
            let group = &mut groups[group_of[cell.series as usize]];
            let start_ms = part.windows[cell.window as usize].start_ms;
            group.total.add(usage);
            group.steps[steps.position(start_ms)].add(usage);
        }
    })?;
    groups.retain(|group| group.total != Usage::default());
    groups.sort_by(|a, b| {
        b.total
            .ns
            .cmp(&a.total.ns)
            .then_with(|| a.value.cmp(&b.value))
    });
    Ok(Timeseries {
        steps,
        covered_ns: sum_coverage(steps, windows),
        groups,
    })
}

/// Keeps the `limit` groups with the most CPU; returns the number and the sum of the others.
pub fn split_rest(groups: &mut Vec<Group>, limit: usize) -> Option<(usize, Group)> {
    if groups.len() <= limit {
        return None;
    }
    let others = groups.split_off(limit);
    let count = others.len();
    let rest = others.into_iter().reduce(|mut sum, group| {
        sum.total.add(group.total);
        sum.steps
            .iter_mut()
            .zip(group.steps)
            .for_each(|(sum, usage)| sum.add(usage));
        sum
    })?;
    Some((count, rest))
}

/// The group of each series, and the groups' values.
fn group_series(table: &SeriesTable, by: Option<&str>) -> (Vec<usize>, Vec<String>) {
    let mut values: Vec<String> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut group_of = Vec::with_capacity(table.len());
    for position in 0..table.len() {
        let value = by.map_or("", |label| table.labels(position).value(label));
        let group = *known.entry(value).or_insert_with(|| {
            values.push(value.to_owned());
            values.len() - 1
        });
        group_of.push(group);
    }
    (group_of, values)
}

/// The part of each step that lies in at least one window of any node, in nanoseconds.
fn sum_coverage(steps: Steps, mut windows: Vec<WindowSpan>) -> Vec<u64> {
    windows.sort_unstable();
    let mut covered_ns = vec![0; steps.count];
    let mut until_ms = vec![i64::MIN; steps.count];
    for WindowSpan { start_ms, end_ms } in windows {
        let step = steps.position(start_ms);
        let until_ms = &mut until_ms[step];
        let new_ms = end_ms - start_ms.max(*until_ms);
        *until_ms = end_ms.max(*until_ms);
        covered_ns[step] += new_ms.max(0).unsigned_abs() * 1_000_000;
    }
    covered_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_the_range() {
        let range = TimeRange {
            from_ms: 15_000,
            to_ms: 40_001,
        };
        assert_eq!(
            Steps::cover(range, 10_000),
            Steps {
                from_ms: 10_000,
                step_ms: 10_000,
                count: 4
            }
        );
        for length_ms in [1, 10_000, 3_600_000, 3_605_000, 86_400_000, 31 * 86_400_000] {
            let range = TimeRange {
                from_ms: 1_795_312_805_000,
                to_ms: 1_795_312_805_000 + length_ms,
            };
            let steps = Steps::fit(range, 10_000, 360);
            assert!((1..=360).contains(&steps.count), "{length_ms}: {steps:?}");
            assert_eq!(steps.step_ms % 10_000, 0);
            assert!(steps.from_ms + steps.step_ms * steps.count as i64 >= range.to_ms);
        }
    }
}
