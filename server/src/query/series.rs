//! Series and what they used.

use super::selection::Selection;
use crate::profile::LabelSet;
use crate::store::{Part, SeriesTable, Store, StoreError};

/// What a series or a group of them used.
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
        // A window is at most 2^53, so that only an invented store of thousands of full ones could overflow.
        self.samples = self.samples.saturating_add(other.samples);
        self.ns = self.ns.saturating_add(other.ns);
    }
}

/// The samples of wanted series in a part, by the number of their stack.
pub fn sum_by_stack(part: &Part<'_>, table: &SeriesTable) -> Vec<Usage> {
    let mut sums = vec![Usage::default(); part.tables.stacks.len()];
    let mut wanted = Vec::new();
    for window in part.windows {
        wanted.clear();
        wanted.extend(window.series.iter().map(|id| table.position(*id).is_some()));
        for row in window.rows.iter().filter(|row| wanted[row.series as usize]) {
            sums[row.stack.position()].add(Usage {
                samples: row.samples,
                ns: row.ns,
            });
        }
    }
    sums
}

/// The selected series that have windows in the range, most CPU first.
///
/// # Errors
/// The store failed.
pub fn list_series(
    store: &dyn Store,
    selection: &Selection,
) -> Result<Vec<(LabelSet, Usage)>, StoreError> {
    let table = selection.find_series(store)?;
    let mut usage: Vec<Option<Usage>> = vec![None; table.len()];
    store.scan_totals(selection.range, &mut |totals| {
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
