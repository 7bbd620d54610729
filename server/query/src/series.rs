//! Series and their CPU time.

use std::iter::Sum;

use model::{LabelSet, StackSum};
use store::{Snapshot, StoreError};

use super::profiles::NamedSums;
use super::selector::Selector;

/// CPU time of a series or a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Samples.
    pub samples: u64,
    /// CPU time in nanoseconds.
    pub ns: u64,
}

impl Usage {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        // A window has at most 2^53, so only thousands of windows at that limit could overflow.
        self.samples = self.samples.saturating_add(other.samples);
        self.ns = self.ns.saturating_add(other.ns);
    }

    /// This without another that is part of it.
    pub fn less(self, part: Self) -> Self {
        Self {
            samples: self.samples.saturating_sub(part.samples),
            ns: self.ns.saturating_sub(part.ns),
        }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::default(), |mut sum, usage| {
            sum.add(usage);
            sum
        })
    }
}

impl From<&StackSum> for Usage {
    fn from(sum: &StackSum) -> Self {
        Self {
            samples: sum.samples,
            ns: sum.ns,
        }
    }
}

/// Samples by the number of their stack.
pub fn sum_by_stack(part: &NamedSums<'_>) -> Vec<Usage> {
    let mut sums = vec![Usage::default(); part.tables.stacks.len()];
    for sum in part.sums {
        sums[sum.stack.position()].add(sum.into());
    }
    sums
}

/// The selected series that have windows in the snapshot, most CPU first.
///
/// # Errors
/// The store failed.
pub fn list_series(
    snapshot: &dyn Snapshot,
    selector: &Selector,
) -> Result<Vec<(LabelSet, Usage)>, StoreError> {
    let table = selector.find_series(snapshot)?;
    let mut usage: Vec<Option<Usage>> = vec![None; table.len()];
    snapshot.scan_totals(&mut |totals| {
        if totals.overlap.is_left_out() {
            return;
        }
        for (i, id) in totals.series.iter().enumerate() {
            if let Some(position) = table.position(*id) {
                let window = Usage {
                    samples: totals.samples[i],
                    ns: totals.ns[i],
                };
                usage[position].get_or_insert_default().add(window);
            }
        }
    })?;
    let mut series: Vec<_> = usage
        .into_iter()
        .enumerate()
        .filter_map(|(position, usage)| Some((table.labels(position).clone(), usage?)))
        .collect();
    series.sort_by(|(a_labels, a), (b_labels, b)| {
        b.ns.cmp(&a.ns).then_with(|| a_labels.cmp(b_labels))
    });
    Ok(series)
}
