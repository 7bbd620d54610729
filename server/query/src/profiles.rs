//! Stored samples as questions read them: with the names that their nodes did not know.

use model::{FunctionNames, JoinedLines, NamedTables, SeriesTable, StackSum};
use store::{Snapshot, StoreError};

use super::names::{NameSource, join_names};

/// Bytes that a question needs for each stack of tables while it reads them: its samples and CPU time, two numbers of four bytes, and
/// some flags.
const STACK_BYTES: usize = 32;

/// A snapshot of a store, and names for its frames.
#[derive(Clone, Copy)]
pub struct Profiles<'a> {
    snapshot: &'a dyn Snapshot,
    names: Option<&'a dyn NameSource>,
}

/// Samples whose stacks and tags are in the same tables.
pub struct NamedSums<'a> {
    /// The tables that the sums refer to.
    pub tables: NamedTables<'a>,
    /// The sums. A series, stack and tag set may come more than once.
    pub sums: &'a [StackSum],
}

impl<'a> Profiles<'a> {
    /// The samples of a snapshot, with names.
    pub fn new(snapshot: &'a dyn Snapshot, names: &'a dyn NameSource) -> Self {
        Self {
            snapshot,
            names: Some(names),
        }
    }

    /// The samples of a snapshot as their nodes sent them.
    pub fn unnamed(snapshot: &'a dyn Snapshot) -> Self {
        Self {
            snapshot,
            names: None,
        }
    }

    /// The snapshot.
    pub fn snapshot(self) -> &'a dyn Snapshot {
        self.snapshot
    }

    /// As [`Self::sum_groups`], with all series in one group and the names that are shown.
    ///
    /// # Errors
    /// As [`Snapshot::sum_stacks`].
    pub fn sum_stacks(
        self,
        series: &SeriesTable,
        visit: &mut dyn FnMut(&NamedSums<'_>),
    ) -> Result<(), StoreError> {
        self.sum_groups(series, &vec![0; series.len()], FunctionNames::Shown, visit)
    }

    /// As [`Snapshot::sum_stacks`], with names. Nothing is read for no series.
    ///
    /// # Errors
    /// As [`Snapshot::sum_stacks`].
    pub fn sum_groups(
        self,
        series: &SeriesTable,
        groups: &[u32],
        names: FunctionNames,
        visit: &mut dyn FnMut(&NamedSums<'_>),
    ) -> Result<(), StoreError> {
        if series.is_empty() {
            return Ok(());
        }
        let question = self.snapshot.question();
        self.snapshot
            .sum_stacks(series, groups, names, &mut |part| {
                let joined = self.names.map(|names| join_names(part.tables, names));
                let names = joined.as_ref().map_or(0, JoinedLines::heap_bytes);
                // If there is no memory for it, the question is stopped, and fails when this returns.
                if let Ok(_charge) = question.charge(names + STACK_BYTES * part.tables.stacks.len())
                {
                    visit(&NamedSums {
                        tables: NamedTables::new(part.tables, joined.as_ref()),
                        sums: part.sums,
                    });
                }
            })
    }
}
