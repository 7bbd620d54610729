//! Sums and rows of a selection.
//!
//! The cells of the selected series say which ranks of each are wanted. A series of which all windows are wanted needs the sums of
//! its pairs only; of the others the detail is read.

use crate::chunk::cells::{AnyCell, Cell, CellReader, UsageCell};
use crate::chunk::rows::{DetailReader, PairRows, PairTotals, RankSet, SeriesHead, TotalsReader};
use crate::error::{Damage, Malformed, Partial};
use crate::read::parallel::Effort;
use crate::read::selection::Selection;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

/// The samples of one series with one stack and one tag set, added up over the selected windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The series.
    pub series: u32,
    /// Number of the stack; 0 is the empty one.
    pub stack: u32,
    /// Number of the tag set; 0 is the empty one.
    pub tags: u32,
    /// Samples.
    pub samples: u64,
    /// Their CPU time, in nanoseconds.
    pub ns: u64,
}

/// A row of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentRow {
    /// The window.
    pub window: u32,
    /// The series.
    pub series: u32,
    /// Number of the stack; 0 is the empty one.
    pub stack: u32,
    /// Number of the tag set; 0 is the empty one.
    pub tags: u32,
    /// Samples.
    pub samples: u64,
    /// Their CPU time, in nanoseconds.
    pub ns: u64,
}

impl SegmentRow {
    /// The row without its window.
    pub(crate) fn pair(&self) -> Pair {
        let Self {
            window: _,
            series,
            stack,
            tags,
            samples,
            ns,
        } = *self;
        Pair {
            series,
            stack,
            tags,
            samples,
            ns,
        }
    }
}

/// Samples of a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackSum {
    /// Number of the stack; 0 is the empty one.
    pub stack: u32,
    /// Samples.
    pub samples: u64,
    /// Their CPU time, in nanoseconds.
    pub ns: u64,
}

/// Which windows of a series are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Wanted {
    /// No window, or it is not known which.
    #[default]
    None,
    All,
    /// Those of these ranks.
    Some(RankSet),
}

impl Wanted {
    fn of(cells: &[Cell], selection: &Selection<'_>) -> Self {
        let is_wanted = |rank: usize| selection.windows.contains(cells[rank].window);
        let ranks = RankSet::new(cells.len(), is_wanted);
        match ranks.len() {
            0 => Self::None,
            count if count == cells.len() => Self::All,
            _ => Self::Some(ranks),
        }
    }
}

/// The chunks of rows that have a selected series, with what is wanted of each series.
struct Task {
    chunk: usize,
    wanted: Vec<Wanted>,
}

impl<R: ReadAt> Segment<R> {
    /// Adds up the selected samples by series, stack and tag set: each thread calls `add` on a state of its own. Returns the states.
    pub fn fold_pairs<S: Send>(
        &self,
        selection: &Selection<'_>,
        effort: Effort<'_>,
        new: impl Fn() -> S + Sync,
        add: impl Fn(&mut S, &Pair) + Sync,
    ) -> Partial<Vec<S>> {
        let (tasks, mut damage) = self.plan(selection, effort);
        let new = || (new(), Vec::new(), Vec::new());
        let states = effort.for_each(&tasks, new, |(state, pairs, damage), scratch, task| {
            pairs.clear();
            match self.sum_chunk_pairs(task, scratch, pairs, damage) {
                Ok(()) => pairs.iter().for_each(|pair| add(state, pair)),
                Err(found) => damage.push(found),
            }
        });
        let mut value = Vec::new();
        for (state, _, found) in states {
            value.push(state);
            damage.extend(found);
        }
        Partial { value, damage }
    }

    /// Adds up the selected samples by series, stack and tag set; sorted by them.
    pub fn sum_pairs(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<Pair>> {
        let (tasks, mut damage) = self.plan(selection, effort);
        let sums = effort.map(
            &tasks,
            || (),
            |(), scratch, task| {
                let (mut pairs, mut damage) = (Vec::new(), Vec::new());
                if let Err(found) = self.sum_chunk_pairs(task, scratch, &mut pairs, &mut damage) {
                    pairs.clear();
                    damage.push(found);
                }
                (pairs, damage)
            },
        );
        let mut value = Vec::new();
        // Chunks are in the order of pairs. Those that were not read, as the question was stopped, are none.
        for (pairs, found) in sums.into_iter().flatten() {
            value.extend(pairs);
            damage.extend(found);
        }
        Partial { value, damage }
    }

    /// Adds up the selected samples by stack; sorted by stack.
    pub fn sum_stacks(
        &self,
        selection: &Selection<'_>,
        effort: Effort<'_>,
    ) -> Partial<Vec<StackSum>> {
        let new = || DenseSums::new(self.stack_count());
        let Partial { value, damage } = self.fold_pairs(selection, effort, new, DenseSums::add);
        let value = DenseSums::join_all(value);
        Partial { value, damage }
    }

    /// Shows the cells of each selected series.
    pub fn read_cells(
        &self,
        selection: &Selection<'_>,
        mut visit: impl FnMut(u32, &[Cell]),
    ) -> Partial<()> {
        let mut scratch = Scratch::default();
        let mut damage = Vec::new();
        let mut wanted: Vec<Cell> = Vec::new();
        for chunk in 0..self.chunks(Section::Cells).len() {
            let visit = |series: u32, cells: &[Cell]| {
                let cells = cells.iter();
                let is_wanted = |cell: &&Cell| selection.windows.contains(cell.window);
                wanted.clear();
                wanted.extend(cells.filter(is_wanted));
                visit(series, &wanted);
            };
            let series = self.selected_in(Section::Cells, chunk, selection);
            let read = self.read_cell_chunk(Section::Cells, chunk, series, &mut scratch, visit);
            damage.extend(read.err());
        }
        Partial { value: (), damage }
    }

    /// Shows the accounts of each container.
    pub fn read_usage(&self, mut visit: impl FnMut(u32, &[UsageCell])) -> Partial<()> {
        let mut scratch = Scratch::default();
        let mut damage = Vec::new();
        for (number, chunk) in self.chunks(Section::Usage).iter().enumerate() {
            let containers: Vec<u32> = (chunk.first..chunk.first + chunk.items).collect();
            let visit = &mut visit;
            let read =
                self.read_cell_chunk(Section::Usage, number, &containers, &mut scratch, visit);
            damage.extend(read.err());
        }
        Partial { value: (), damage }
    }

    /// The selected rows, sorted by window.
    pub fn read_rows(
        &self,
        selection: &Selection<'_>,
        effort: Effort<'_>,
    ) -> Partial<Vec<SegmentRow>> {
        let (windows, mut damage) = self.read_ranks(selection, effort, |cells, _| {
            cells.iter().map(|cell| cell.window).collect::<Vec<u32>>()
        });
        let chunks: Vec<usize> = (0..self.chunks(Section::Detail).len())
            .filter(|chunk| {
                let selected = self.selected_in(Section::Detail, *chunk, selection);
                !selected.is_empty()
            })
            .collect();
        let new = || (Vec::new(), Vec::new());
        let states = effort.for_each(&chunks, new, |(rows, damage), scratch, chunk| {
            let before = rows.len();
            if let Err(found) = self.read_chunk_rows(*chunk, selection, &windows, scratch, rows) {
                rows.truncate(before);
                damage.push(found);
            }
        });
        let mut value: Vec<SegmentRow> = Vec::new();
        for (rows, found) in states {
            value.extend(rows);
            damage.extend(found);
        }
        value.sort_unstable();
        Partial { value, damage }
    }

    /// Wanted rows of each series, by chunk of rows.
    fn plan(&self, selection: &Selection<'_>, effort: Effort<'_>) -> (Vec<Task>, Vec<Damage>) {
        let (wanted, damage) = if selection.windows.is_all() {
            (vec![Wanted::All; selection.series.len()], Vec::new())
        } else {
            self.read_ranks(selection, effort, Wanted::of)
        };
        let mut tasks = Vec::new();
        for (number, chunk) in self.chunks(Section::Totals).iter().enumerate() {
            let selected = self.selected_in(Section::Totals, number, selection);
            let mut of_chunk = vec![Wanted::None; chunk.items as usize];
            for series in selected {
                if let Ok(position) = selection.series.binary_search(series) {
                    of_chunk[(series - chunk.first) as usize] = wanted[position].clone();
                }
            }
            if of_chunk.iter().any(|wanted| *wanted != Wanted::None) {
                tasks.push(Task {
                    chunk: number,
                    wanted: of_chunk,
                });
            }
        }
        (tasks, damage)
    }

    /// Makes something of the cells of each selected series, in the order of the selection. Series whose cells are damaged have the
    /// default.
    fn read_ranks<T: Default + Clone + Send>(
        &self,
        selection: &Selection<'_>,
        effort: Effort<'_>,
        make: impl Fn(&[Cell], &Selection<'_>) -> T + Sync,
    ) -> (Vec<T>, Vec<Damage>) {
        let groups = self.cell_groups(selection);
        let new = || (Vec::new(), Vec::new());
        let states = effort.for_each(&groups, new, |(made, damage), scratch, group| {
            let before = made.len();
            let mut cells: Vec<(u32, Vec<Cell>)> = Vec::new();
            for chunk in group.clone() {
                let series = self.selected_in(Section::Cells, chunk, selection);
                let visit = |series: u32, of_series: &[Cell]| match cells.last_mut() {
                    // The series goes on in another chunk.
                    Some((last, cells)) if *last == series => cells.extend(of_series),
                    _ => cells.push((series, of_series.to_vec())),
                };
                let read = self.read_cell_chunk(Section::Cells, chunk, series, scratch, visit);
                if let Err(found) = read {
                    damage.push(found);
                    made.truncate(before);
                    return;
                }
            }
            made.extend(
                cells
                    .iter()
                    .map(|(series, cells)| (*series, make(cells, selection))),
            );
        });
        let mut all = vec![T::default(); selection.series.len()];
        let mut damage = Vec::new();
        for (made, found) in states {
            for (series, made) in made {
                if let Ok(position) = selection.series.binary_search(&series) {
                    all[position] = made;
                }
            }
            damage.extend(found);
        }
        (all, damage)
    }

    /// The chunks of cells that have a selected series; chunks that share a series are in one group.
    fn cell_groups(&self, selection: &Selection<'_>) -> Vec<std::ops::Range<usize>> {
        let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
        let mut end = 0;
        for (number, chunk) in self.chunks(Section::Cells).iter().enumerate() {
            if self
                .selected_in(Section::Cells, number, selection)
                .is_empty()
            {
                continue;
            }
            match groups.last_mut() {
                Some(group) if group.end == number && chunk.first < end => group.end += 1,
                _ => groups.push(number..number + 1),
            }
            end = chunk.first + chunk.items;
        }
        groups
    }

    fn selected_in<'a>(
        &self,
        section: Section,
        chunk: usize,
        selection: &'a Selection<'_>,
    ) -> &'a [u32] {
        let chunk = &self.chunks(section)[chunk];
        selection.series_in(chunk.first, chunk.items)
    }

    /// Shows the cells of some series of a chunk.
    fn read_cell_chunk<C: AnyCell>(
        &self,
        section: Section,
        number: usize,
        series: &[u32],
        scratch: &mut Scratch,
        mut visit: impl FnMut(u32, &[C]),
    ) -> Result<(), Damage> {
        if series.is_empty() {
            return Ok(());
        }
        let windows = self.count(Section::Windows);
        // Shown when the whole chunk was read, so that nothing of a malformed one is.
        let mut all = Vec::new();
        let mut ends = Vec::new();
        let mut cells = Vec::new();
        let first = self.read(section, number, scratch, |bytes, chunk, unpacker| {
            let items = chunk.items as usize;
            let mut reader = CellReader::new::<C>(bytes, items, windows, unpacker)?;
            let mut wanted = series.iter().map(|series| series - chunk.first).peekable();
            for position in 0..chunk.items {
                cells.clear();
                reader.next(&mut cells)?;
                if wanted.next_if_eq(&position).is_some() {
                    all.extend_from_slice(&cells);
                    ends.push((chunk.first + position, all.len()));
                }
            }
            reader.next(&mut cells)?;
            Ok(chunk.first)
        })?;
        debug_assert!(series[0] >= first);
        let mut start = 0;
        for (series, end) in ends {
            visit(series, &all[start..end]);
            start = end;
        }
        Ok(())
    }

    /// Adds up the wanted samples of a chunk. Where only the detail is damaged, series of which all windows are wanted are there.
    fn sum_chunk_pairs(
        &self,
        task: &Task,
        scratch: &mut Scratch,
        pairs: &mut Vec<Pair>,
        damage: &mut Vec<Damage>,
    ) -> Result<(), Damage> {
        let mut wanted = &task.wanted;
        let all_or_none: Vec<Wanted>;
        let needs_detail = |wanted: &[Wanted]| {
            let is_some = |wanted: &Wanted| matches!(wanted, Wanted::Some(_));
            wanted.iter().any(is_some)
        };
        let mut detail = None;
        if needs_detail(wanted) {
            match self.read_detail(task.chunk, scratch) {
                Ok(read) => detail = Some(read),
                Err(found) => {
                    damage.push(found);
                    all_or_none = wanted.iter().map(Wanted::without_ranks).collect();
                    wanted = &all_or_none;
                }
            }
        }
        let nothing = RankSet::default();
        self.read_totals(task.chunk, scratch, |first, position, head, pair| {
            let ranks = match &wanted[position] {
                Wanted::Some(ranks) => ranks,
                Wanted::All | Wanted::None => &nothing,
            };
            let sums = match &mut detail {
                // Also where no rank is wanted: the columns go on behind the pair.
                Some(detail) => detail.sum_pair(head, pair, ranks)?,
                None => (0, 0),
            };
            let (samples, ns) = match &wanted[position] {
                Wanted::None => return Ok(()),
                Wanted::All => (pair.samples, pair.ns),
                Wanted::Some(_) => sums,
            };
            if samples != 0 || ns != 0 {
                pairs.push(Pair {
                    series: first + position as u32,
                    stack: pair.stack,
                    tags: pair.tags,
                    samples,
                    ns,
                });
            }
            Ok(())
        })?;
        match detail {
            Some(detail) => self.finish_detail(task.chunk, detail),
            None => Ok(()),
        }
    }

    /// Adds the selected rows of a chunk. `windows` has the window of each rank of each selected series.
    fn read_chunk_rows(
        &self,
        chunk: usize,
        selection: &Selection<'_>,
        windows: &[Vec<u32>],
        scratch: &mut Scratch,
        into: &mut Vec<SegmentRow>,
    ) -> Result<(), Damage> {
        let mut detail = self.read_detail(chunk, scratch)?;
        let mut rows = PairRows::default();
        self.read_totals(chunk, scratch, |first, position, head, pair| {
            detail.next_pair(head, pair, &mut rows)?;
            let series = first + position as u32;
            let Ok(selected) = selection.series.binary_search(&series) else {
                return Ok(());
            };
            let windows = &windows[selected];
            // The cells were damaged, which was noted.
            if windows.is_empty() {
                return Ok(());
            }
            for (at, rank) in rows.ranks.iter().enumerate() {
                let window = windows.get(*rank as usize);
                let window = *window.ok_or(Malformed("a row is in no cell"))?;
                if selection.windows.contains(window) {
                    into.push(SegmentRow {
                        window,
                        series,
                        stack: pair.stack,
                        tags: pair.tags,
                        samples: rows.samples[at],
                        ns: rows.ns[at],
                    });
                }
            }
            Ok(())
        })?;
        self.finish_detail(chunk, detail)
    }

    /// Shows the sums of a chunk: the number of its first series, the position of the pair's series after it, and the pair.
    pub(crate) fn read_totals(
        &self,
        number: usize,
        scratch: &mut Scratch,
        mut visit: impl FnMut(u32, usize, &SeriesHead, &PairTotals) -> Result<(), Malformed>,
    ) -> Result<(), Damage> {
        let first = self.chunks(Section::Totals)[number].first;
        self.open_totals(number, scratch)?
            .read(|position, head, pair| visit(first, position, head, pair))
            .map_err(|what| self.malformed(Section::Totals, number, what))
    }

    /// Shows the series and the sums of each pair of the segment.
    pub(crate) fn read_all_totals(
        &self,
        scratch: &mut Scratch,
        mut visit: impl FnMut(u32, &PairTotals),
    ) -> Result<(), Damage> {
        for number in 0..self.chunks(Section::Totals).len() {
            self.read_totals(number, scratch, |first, position, _, pair| {
                visit(first + position as u32, pair);
                Ok(())
            })?;
        }
        Ok(())
    }

    pub(crate) fn open_totals(
        &self,
        number: usize,
        scratch: &mut Scratch,
    ) -> Result<TotalsReader, Damage> {
        let limits = self.row_limits();
        self.read(
            Section::Totals,
            number,
            scratch,
            |bytes, chunk, unpacker| {
                TotalsReader::new(bytes, chunk.items as usize, limits, unpacker)
            },
        )
    }

    /// Checks that all rows of a chunk were read.
    pub(crate) fn finish_detail(&self, number: usize, detail: DetailReader) -> Result<(), Damage> {
        let finished = detail.finish();
        finished.map_err(|what| self.malformed(Section::Detail, number, what))
    }

    pub(crate) fn read_detail(
        &self,
        number: usize,
        scratch: &mut Scratch,
    ) -> Result<DetailReader, Damage> {
        self.read(Section::Detail, number, scratch, |bytes, _, unpacker| {
            DetailReader::new(bytes, unpacker)
        })
    }
}

impl Wanted {
    fn without_ranks(&self) -> Self {
        match self {
            Self::All => Self::All,
            _ => Self::None,
        }
    }
}

/// Sums by stack. Memory that no stack touches is never used.
pub(crate) struct DenseSums {
    sums: Vec<(u64, u64)>,
    first: usize,
    end: usize,
}

impl DenseSums {
    pub(crate) fn new(stacks: usize) -> Self {
        Self {
            sums: vec![(0, 0); stacks],
            first: stacks,
            end: 0,
        }
    }

    fn add(&mut self, pair: &Pair) {
        self.add_row(pair.stack, pair.samples, pair.ns);
    }

    pub(crate) fn add_row(&mut self, stack: u32, samples: u64, ns: u64) {
        let stack = stack as usize;
        self.first = self.first.min(stack);
        self.end = self.end.max(stack + 1);
        self.add_to(stack, (samples, ns));
    }

    fn add_to(&mut self, stack: usize, (samples, ns): (u64, u64)) {
        let sum = &mut self.sums[stack];
        *sum = (sum.0.saturating_add(samples), sum.1.saturating_add(ns));
    }

    /// The sums of all, sorted by stack.
    pub(crate) fn join_all(all: Vec<Self>) -> Vec<StackSum> {
        let joined = all.into_iter().reduce(Self::join);
        joined.map_or(Vec::new(), Self::into_sums)
    }

    fn join(mut self, other: Self) -> Self {
        for stack in other.first..other.end {
            self.add_to(stack, other.sums[stack]);
        }
        self.first = self.first.min(other.first);
        self.end = self.end.max(other.end);
        self
    }

    fn into_sums(self) -> Vec<StackSum> {
        let sums = (self.first..self.end).map(|stack| StackSum {
            stack: stack as u32,
            samples: self.sums[stack].0,
            ns: self.sums[stack].1,
        });
        sums.filter(|sum| sum.samples != 0 || sum.ns != 0).collect()
    }
}
