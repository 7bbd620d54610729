//! Series and what they used.

use super::selection::Selection;
use crate::profile::LabelSet;
use crate::store::{Store, StoreError};

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
