//! The samples of some series of a source: by stack, or by window.

use std::sync::Arc;

use hashbrown::HashMap;
use model::{Charge, FunctionNames, LabelSet, Row, StackSums, Stop};
use segment::{Pair, Selection, Source, WindowSet};

use super::{EmbeddedSnapshot, SnapshotSource};
use crate::embedded::sum_cache::{CachedSums, SumKey};
use crate::{WindowCell, WindowCells, WindowSpan};

/// Sums of a source.
#[derive(Default)]
pub(super) struct SourceSums {
    sums: Arc<CachedSums>,
    charge: Charge,
    /// Where to keep them; none if they are from there, or cannot be kept.
    key: Option<SumKey>,
}

impl SnapshotSource {
    /// What the sums of a selection depend on; none of sources that change.
    fn sum_key(
        &self,
        selection: &Selection<'_>,
        groups: &[u32],
        names: FunctionNames,
    ) -> Option<SumKey> {
        let Self::Segment(found) = self else {
            return None;
        };
        let series = selection.series.iter().zip(groups);
        Some(SumKey {
            segment: found.name,
            series: series.map(|(series, group)| (*series, *group)).collect(),
            windows: selection.windows.clone(),
            names,
        })
    }
}

impl EmbeddedSnapshot {
    /// Adds up the samples of some series of a source, by the groups of their label sets.
    pub(super) fn sum_source(
        &self,
        source: &SnapshotSource,
        found: &dyn Source,
        windows: &WindowSet,
        groups: &HashMap<&LabelSet, u32>,
        names: FunctionNames,
    ) -> SourceSums {
        let (series, labels) = Self::select(found, |labels| groups.contains_key(labels));
        if series.is_empty() {
            return SourceSums::default();
        }
        let selection = Selection {
            series: &series,
            windows,
        };
        let groups: Vec<u32> = labels.iter().map(|labels| groups[labels]).collect();
        let key = source.sum_key(&selection, &groups, names);
        if let Some(sums) = key.as_ref().and_then(|key| self.sums.find(key)) {
            return SourceSums {
                sums,
                // They are on the cache's account.
                charge: Charge::default(),
                key: None,
            };
        }
        self.read_sums(source, found, &selection, (&groups, names), key)
    }

    /// As [`Self::sum_source`], for sums that are not in the cache.
    fn read_sums(
        &self,
        source: &SnapshotSource,
        found: &dyn Source,
        selection: &Selection<'_>,
        (groups, names): (&[u32], FunctionNames),
        key: Option<SumKey>,
    ) -> SourceSums {
        let effort = self.effort(source);
        let pairs = found.sum_groups(selection, groups, effort);
        let Ok(mut charge) = self.charge(source, size_of::<Pair>() * pairs.value.len()) else {
            return SourceSums::default();
        };
        let mut read = found.resolve_pairs(&pairs.value, names, effort);
        if self.question.check().is_err() {
            return SourceSums::default();
        }
        read.damage.extend(pairs.damage);
        let is_whole = read.damage.is_empty();
        let lost = if is_whole {
            [0; 2]
        } else {
            lost_of(found, selection, &read.value.rows)
        };
        let count = selection.windows.count() as u64;
        self.note_damage(source, count, lost, &read.damage);
        let sums = CachedSums::new(read.value);
        // It waits until the one before was shown.
        if !matches!(source, SnapshotSource::Block(..)) && charge.set(sums.heap_bytes()).is_err() {
            return SourceSums::default();
        }
        SourceSums {
            sums: Arc::new(sums),
            charge,
            key: key.filter(|_| is_whole),
        }
    }

    /// Shows the sums of a source, on the account of the question, and keeps them.
    pub(super) fn show_sums(&self, sums: SourceSums, visit: &mut dyn FnMut(&StackSums<'_>)) {
        let SourceSums {
            sums,
            mut charge,
            key,
        } = sums;
        // It may have been stopped since they were read.
        let is_stopped = self.question.check().is_err();
        if sums.sums.is_empty() || is_stopped || charge.set(sums.heap_bytes()).is_err() {
            return;
        }
        visit(&StackSums {
            tables: &sums.tables,
            sums: &sums.sums,
        });
        drop(charge);
        if let Some(key) = key {
            self.sums.insert(key, sums, self.question.memory());
        }
    }

    /// A charge for what was read of a source; none for that of a block, which is locked.
    fn charge(&self, source: &SnapshotSource, bytes: usize) -> Result<Charge, Stop> {
        match source {
            SnapshotSource::Block(..) => self.question.charge(0),
            SnapshotSource::Segment(_) | SnapshotSource::Old(_) => self.question.charge(bytes),
        }
    }

    /// The selected windows of a source, and the samples of some series in them.
    pub(super) fn read_cells(
        &self,
        source: &SnapshotSource,
        found: &dyn Source,
        windows: &WindowSet,
        positions: &HashMap<&LabelSet, u32>,
    ) -> WindowCells {
        let infos = match found.read_windows() {
            Ok(infos) => infos,
            Err(damage) => {
                self.note_damage(source, windows.count() as u64, [0; 2], &[damage]);
                return WindowCells::default();
            }
        };
        let mut cells = WindowCells::default();
        let mut window_positions = vec![0; infos.len()];
        for (number, info) in infos.iter().enumerate() {
            if windows.contains(number as u32) {
                window_positions[number] = cells.windows.len() as u32;
                let window = WindowSpan::new(info.start_ms(), info.window_ms());
                cells.windows.push(window);
            }
        }
        let (series, labels) = Self::select(found, |labels| positions.contains_key(labels));
        let selection = Selection {
            series: &series,
            windows,
        };
        let read = found.read_cells(&selection, &mut |number, of_series| {
            // Only selected series are shown.
            let at = series.binary_search(&number).unwrap_or_default();
            let series = positions[&labels[at]];
            cells.cells.extend(of_series.iter().map(|cell| WindowCell {
                series,
                window: window_positions[cell.window as usize],
                samples: cell.samples,
                ns: cell.ns,
            }));
        });
        self.take(source, windows, read);
        cells
    }
}

/// Samples and nanoseconds that the cells of a selection have, and rows lack.
fn lost_of(found: &dyn Source, selection: &Selection<'_>, rows: &[Row]) -> [u64; 2] {
    let mut lost = [0_u64; 2];
    // Samples in damaged cells are not known.
    let _damage = found.read_cells(selection, &mut |_, cells| {
        for cell in cells {
            lost[0] = lost[0].saturating_add(cell.samples);
            lost[1] = lost[1].saturating_add(cell.ns);
        }
    });
    for row in rows {
        lost[0] = lost[0].saturating_sub(row.samples);
        lost[1] = lost[1].saturating_sub(row.ns);
    }
    lost
}
