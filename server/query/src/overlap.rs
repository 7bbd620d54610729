//! CPU time that two collectors of a node sampled.

use model::WindowTotals;
use store::{Snapshot, StoreError};

use super::selector::Selector;
use super::series::Usage;

/// Samples of two collectors of a node at once, of which the one that started later counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlapSum {
    /// Samples that the answer leaves out: those of windows whose time is wholly in windows of the other collector.
    pub left_out: Usage,
    /// CPU time in nanoseconds that counts twice: the part of other windows that is proportional to the time that both sampled.
    pub kept_ns: u64,
}

impl OverlapSum {
    /// Adds samples of a window.
    pub fn add(&mut self, window: &WindowTotals, usage: Usage) {
        if window.overlap.is_left_out() {
            self.left_out.add(usage);
        } else {
            let kept_ns = window.overlap.share_of(usage.ns);
            self.kept_ns = self.kept_ns.saturating_add(kept_ns);
        }
    }

    /// One line, for answers that are no JSON; none if no time was sampled twice.
    pub fn describe(&self) -> Option<String> {
        let Self { left_out, kept_ns } = *self;
        (self != &Self::default()).then(|| {
            format!(
                "overlap: two collectors of a node sampled at once; {} ns of the older one are left out, {kept_ns} ns count twice",
                left_out.ns
            )
        })
    }
}

/// Sums up what is left out of the selected series. Reads nothing if no windows overlap.
///
/// # Errors
/// The store failed.
pub fn sum_overlap(snapshot: &dyn Snapshot, selector: &Selector) -> Result<OverlapSum, StoreError> {
    let mut sum = OverlapSum::default();
    if !snapshot.has_overlaps()? {
        return Ok(sum);
    }
    let table = selector.find_series(snapshot)?;
    snapshot.scan_totals(&mut |totals| {
        for (i, id) in totals.series.iter().enumerate() {
            if table.position(*id).is_some() {
                let usage = Usage {
                    samples: totals.samples[i],
                    ns: totals.ns[i],
                };
                sum.add(totals, usage);
            }
        }
    })?;
    Ok(sum)
}
