//! Questions to an open block.

use hashbrown::HashMap;
use model::{FunctionNames, LabelSet};

use crate::chunk::accounts::WindowAccount;
use crate::chunk::cells::{Cell, UsageCell};
use crate::chunk::digests::Digest;
use crate::chunk::rows::SeriesRow;
use crate::chunk::windows::WindowInfo;
use crate::error::{Damage, Partial};
use crate::read::parallel::Effort;
use crate::read::program_files::{Program, ProgramFile};
use crate::read::questions::{DenseSums, Pair, SegmentRow, StackSum};
use crate::read::selection::Selection;
use crate::read::source::Source;
use crate::read::stacks::StackTables;

use super::Builder;
use super::row_buffer::Run;

/// Series that a thread works on at a time.
const TASK_SERIES: usize = 32;

/// Sums by stack are kept in a list of all nodes if the selected series have at least a row for each of this many nodes: a look-up in
/// it takes a fifth of one in a map, and memory of all nodes.
const NODES_A_ROW: usize = 8;

fn whole<T>(value: T) -> Partial<T> {
    Partial {
        value,
        damage: Vec::new(),
    }
}

impl Builder {
    /// The runs of a series in the selected windows.
    fn selected_runs(
        &self,
        series: u32,
        selection: &Selection<'_>,
    ) -> impl Iterator<Item = Run<'_>> {
        let windows = selection.windows;
        let runs = self.rows[series as usize].runs();
        runs.filter(|run| windows.contains(run.window))
    }

    /// Calls `work` for the selected series, some at a time, with a state for each thread.
    fn for_each_series<S: Send>(
        &self,
        selection: &Selection<'_>,
        effort: Effort<'_>,
        new: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &[u32]) + Sync,
    ) -> Vec<S> {
        let tasks: Vec<&[u32]> = selection.series.chunks(TASK_SERIES).collect();
        effort.for_each(&tasks, new, |state, _, series| work(state, series))
    }

    fn sum_by_stack<S: Send>(
        &self,
        selection: &Selection<'_>,
        effort: Effort<'_>,
        new: impl Fn() -> S + Sync,
        add: impl Fn(&mut S, &SeriesRow) + Sync,
    ) -> Vec<S> {
        self.for_each_series(selection, effort, new, |sums, series| {
            for series in series {
                for run in self.selected_runs(*series, selection) {
                    run.read(|row| add(sums, &row));
                }
            }
        })
    }
}

/// Adds up the rows of a series by stack and tag set.
#[derive(Default)]
struct PairSums {
    /// Positions of pairs.
    positions: HashMap<(u32, u32), usize>,
    pairs: Vec<Pair>,
}

impl PairSums {
    fn add(&mut self, series: u32, row: &SeriesRow) {
        let position = self.positions.entry((row.stack, row.tags));
        let position = *position.or_insert_with(|| {
            self.pairs.push(Pair {
                series,
                stack: row.stack,
                tags: row.tags,
                ..Pair::default()
            });
            self.pairs.len() - 1
        });
        let pair = &mut self.pairs[position];
        pair.samples = pair.samples.saturating_add(row.samples);
        pair.ns = pair.ns.saturating_add(row.ns);
    }
}

impl Source for Builder {
    fn window_count(&self) -> usize {
        self.windows.len()
    }

    fn series_count(&self) -> usize {
        self.series.entries().len()
    }

    fn stack_count(&self) -> usize {
        self.tree.len()
    }

    fn tag_set_count(&self) -> usize {
        self.names.tag_sets.entries().len()
    }

    fn series_label_set(&self, series: u32) -> LabelSet {
        self.series.entries()[series as usize].clone()
    }

    fn find_series(&self, is_wanted: &mut dyn FnMut(&LabelSet) -> bool) -> Vec<u32> {
        let all = self.series.entries().iter().zip(0..);
        let found = all.filter(|(labels, _)| is_wanted(labels));
        found.map(|(_, number)| number).collect()
    }

    fn read_window_starts(&self) -> Result<Vec<i64>, Damage> {
        let starts = self.windows.iter().map(|window| window.info.start_ms());
        Ok(starts.collect())
    }

    fn read_windows(&self) -> Result<Vec<WindowInfo>, Damage> {
        let windows = self.windows.iter();
        Ok(windows.map(|window| window.info.clone()).collect())
    }

    fn has_accounts(&self) -> bool {
        true
    }

    fn read_accounts(&self, windows: &[WindowInfo]) -> Partial<Vec<Option<WindowAccount>>> {
        // `windows` was read before, and there may be more now.
        let own = self.windows.iter().take(windows.len());
        whole(own.map(|window| Some(window.account.clone())).collect())
    }

    fn read_digests(&self, windows: &[WindowInfo]) -> Partial<Vec<Option<Digest>>> {
        let own = self.windows.iter().take(windows.len());
        whole(
            own.flat_map(|window| window.digests.iter().copied())
                .collect(),
        )
    }

    fn read_containers(&self) -> Result<Vec<LabelSet>, Damage> {
        Ok(self.containers.entries().to_vec())
    }

    fn read_usage(&self, visit: &mut dyn FnMut(u32, &[UsageCell])) -> Partial<()> {
        for (container, cells) in self.usage.iter().enumerate() {
            let mut cells = cells.clone();
            cells.dedup_by(|cell, kept| kept.add_equal(cell));
            visit(container as u32, &cells);
        }
        whole(())
    }

    fn read_cells(
        &self,
        selection: &Selection<'_>,
        visit: &mut dyn FnMut(u32, &[Cell]),
    ) -> Partial<()> {
        let mut cells: Vec<Cell> = Vec::new();
        for series in selection.series {
            cells.clear();
            for run in self.selected_runs(*series, selection) {
                match cells.last_mut() {
                    Some(last) if last.window == run.window => {
                        last.samples = last.samples.saturating_add(run.samples);
                        last.ns = last.ns.saturating_add(run.ns);
                    }
                    _ => cells.push(Cell {
                        window: run.window,
                        samples: run.samples,
                        ns: run.ns,
                    }),
                }
            }
            visit(*series, &cells);
        }
        whole(())
    }

    fn sum_pairs(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<Pair>> {
        let sums = self.for_each_series(selection, effort, PairSums::default, |sums, series| {
            for series in series {
                sums.positions.clear();
                for run in self.selected_runs(*series, selection) {
                    run.read(|row| sums.add(*series, &row));
                }
            }
        });
        let pairs = sums.into_iter().flat_map(|sums| sums.pairs);
        let mut pairs: Vec<Pair> = pairs
            .filter(|pair| pair.samples != 0 || pair.ns != 0)
            .collect();
        pairs.sort_unstable_by_key(|pair| (pair.series, pair.stack, pair.tags));
        whole(pairs)
    }

    fn sum_stacks(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<StackSum>> {
        let rows = selection.series.iter();
        let rows: usize = rows.map(|series| self.rows[*series as usize].rows()).sum();
        if rows >= self.tree.len() / NODES_A_ROW {
            let new = || DenseSums::new(self.tree.len());
            let sums = self.sum_by_stack(selection, effort, new, |sums, row| {
                sums.add_row(row.stack, row.samples, row.ns);
            });
            return whole(DenseSums::join_all(sums));
        }
        let new = HashMap::<u32, (u64, u64)>::new;
        let add = |sums: &mut HashMap<u32, (u64, u64)>, stack, (samples, ns): (u64, u64)| {
            let sum = sums.entry(stack).or_default();
            *sum = (sum.0.saturating_add(samples), sum.1.saturating_add(ns));
        };
        let sums = self.sum_by_stack(selection, effort, new, |sums, row| {
            add(sums, row.stack, (row.samples, row.ns));
        });
        let joined = sums.into_iter().reduce(|mut all, other| {
            let other = other.into_iter();
            other.for_each(|(stack, sum)| add(&mut all, stack, sum));
            all
        });
        let sums = joined.unwrap_or_default().into_iter();
        let sums = sums.map(|(stack, (samples, ns))| StackSum { stack, samples, ns });
        let mut sums: Vec<StackSum> = sums.filter(|sum| sum.samples != 0 || sum.ns != 0).collect();
        sums.sort_unstable_by_key(|sum| sum.stack);
        whole(sums)
    }

    fn read_rows(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<SegmentRow>> {
        let read = self.for_each_series(selection, effort, Vec::new, |rows, series| {
            for series in series {
                for run in self.selected_runs(*series, selection) {
                    run.read(|row| {
                        rows.push(SegmentRow {
                            window: row.window,
                            series: *series,
                            stack: row.stack,
                            tags: row.tags,
                            samples: row.samples,
                            ns: row.ns,
                        });
                    });
                }
            }
        });
        let mut rows = read.concat();
        rows.sort_unstable();
        let key = |row: &SegmentRow| (row.window, row.series, row.stack, row.tags);
        rows.dedup_by(|row, kept| {
            let is_same = key(row) == key(kept);
            if is_same {
                kept.samples = kept.samples.saturating_add(row.samples);
                kept.ns = kept.ns.saturating_add(row.ns);
            }
            is_same
        });
        whole(rows)
    }

    fn read_stacks(
        &self,
        stacks: &[u32],
        tag_sets: &[u32],
        names: FunctionNames,
        _: Effort<'_>,
    ) -> Partial<StackTables> {
        whole(super::stacks::read_stacks(self, stacks, tag_sets, names))
    }

    fn read_program_files(&self, programs: &[Program]) -> Result<Vec<ProgramFile>, Damage> {
        Ok(super::program_files::read_program_files(self, programs))
    }

    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
}
