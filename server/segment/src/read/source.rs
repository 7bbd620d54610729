//! Sources of answers: segments, and blocks that still grow.

use model::{FunctionNames, LabelSet, Window};

use crate::chunk::accounts::WindowAccount;
use crate::chunk::cells::{Cell, UsageCell};
use crate::chunk::digests::Digest;
use crate::chunk::windows::WindowInfo;
use crate::error::{Damage, Partial};
use crate::read::Segment;
use crate::read::groups::GroupSums;
use crate::read::parallel::Effort;
use crate::read::program_files::{Program, ProgramFile};
use crate::read::questions::{Pair, SegmentRow, StackSum};
use crate::read::selection::{Selection, WindowSet};
use crate::read::stacks::StackTables;
use crate::read::sums::{SummedRows, resolve_pairs};
use crate::read::window_sums::{WindowSums, read_window_sums};
use crate::read::windows::{ReceivedMessage, read_messages, read_whole_windows};
use crate::read_at::ReadAt;

/// Windows that can be asked: a [`Segment`], or a [`Builder`](crate::Builder).
///
/// Series, windows, stacks, tag sets and containers have numbers of this source alone. Those of a builder stay what they are while it
/// grows: a question may be asked in parts, with other windows added between them, and a [`WindowSet`] leaves out the windows that came
/// after it was made. A builder is never damaged.
pub trait Source: Send + Sync {
    /// Number of windows.
    fn window_count(&self) -> usize;

    /// Number of series.
    fn series_count(&self) -> usize;

    /// All stacks have smaller numbers; 0 is the empty one.
    fn stack_count(&self) -> usize;

    /// All tag sets have smaller numbers; 0 is the empty one.
    fn tag_set_count(&self) -> usize;

    /// The label set of a series.
    fn series_label_set(&self, series: u32) -> LabelSet;

    /// The series that pass a test, sorted.
    fn find_series(&self, is_wanted: &mut dyn FnMut(&LabelSet) -> bool) -> Vec<u32>;

    /// The start of each window, in milliseconds since the Unix epoch. Much cheaper than all of its identity.
    ///
    /// # Errors
    /// They are damaged.
    fn read_window_starts(&self) -> Result<Vec<i64>, Damage>;

    /// The identity of each window.
    ///
    /// # Errors
    /// They are damaged.
    fn read_windows(&self) -> Result<Vec<WindowInfo>, Damage>;

    /// Whether it has the accounts of its windows and containers: of several segments that were split from one, the first.
    fn has_accounts(&self) -> bool;

    /// The account of each of all windows; those of a damaged chunk are none.
    fn read_accounts(&self, windows: &[WindowInfo]) -> Partial<Vec<Option<WindowAccount>>>;

    /// The digest of each message of all windows, in their order; those of a damaged chunk are none.
    fn read_digests(&self, windows: &[WindowInfo]) -> Partial<Vec<Option<Digest>>>;

    /// The label sets of the containers that have accounts.
    ///
    /// # Errors
    /// They are damaged.
    fn read_containers(&self) -> Result<Vec<LabelSet>, Damage>;

    /// Shows the accounts of each container, by window.
    fn read_usage(&self, visit: &mut dyn FnMut(u32, &[UsageCell])) -> Partial<()>;

    /// Shows the cells of each selected series, by window. A series may be shown in several parts.
    fn read_cells(
        &self,
        selection: &Selection<'_>,
        visit: &mut dyn FnMut(u32, &[Cell]),
    ) -> Partial<()>;

    /// Adds up the selected samples by series, stack and tag set; sorted by them.
    fn sum_pairs(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<Pair>>;

    /// Adds up the selected samples by stack; sorted by stack.
    fn sum_stacks(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<StackSum>>;

    /// The selected rows, sorted by window.
    fn read_rows(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<SegmentRow>>;

    /// Reads stacks and tag sets. Each list is sorted, and has each number once.
    fn read_stacks(
        &self,
        stacks: &[u32],
        tag_sets: &[u32],
        names: FunctionNames,
        effort: Effort<'_>,
    ) -> Partial<StackTables>;

    /// The builds of these programs that their series ran, by series. `programs` are sorted by series.
    ///
    /// # Errors
    /// Something that they need is damaged.
    fn read_program_files(&self, programs: &[Program]) -> Result<Vec<ProgramFile>, Damage>;

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize;

    /// Adds up the selected samples by series, stack and tag set, and reads the stacks. Sorted by series, and within each by the numbers
    /// of stacks and tag sets; each combination comes once.
    ///
    /// Rows whose stack or tags are damaged are left out.
    fn read_summed_rows(
        &self,
        selection: &Selection<'_>,
        names: FunctionNames,
        effort: Effort<'_>,
    ) -> Partial<SummedRows> {
        let pairs = self.sum_pairs(selection, effort);
        let mut rows = self.resolve_pairs(&pairs.value, names, effort);
        rows.damage = [pairs.damage, rows.damage].concat();
        rows
    }

    /// Adds up the selected samples by group of series, stack and tag set; sorted by stack, group and tag set. `groups` has the group of
    /// each selected series, in their order; it is the [`Pair::series`] of the sums.
    ///
    /// Where it does not matter which series a sample is of, there are a tenth of the sums.
    fn sum_groups(
        &self,
        selection: &Selection<'_>,
        groups: &[u32],
        effort: Effort<'_>,
    ) -> Partial<Vec<Pair>> {
        let pairs = self.sum_pairs(selection, effort);
        let mut sums = GroupSums::new(self.stack_count(), effort.charge(0));
        for mut pair in pairs.value {
            // Each series of the sums is a selected one.
            let position = selection.series.binary_search(&pair.series);
            pair.series = groups[position.unwrap_or_default()];
            sums.add(&pair);
        }
        Partial {
            value: sums.into_pairs(),
            damage: pairs.damage,
        }
    }

    /// Reads the stacks and tag sets of sums. A row for each of them, in their order; those whose stack or tags are damaged are left
    /// out.
    fn resolve_pairs(
        &self,
        pairs: &[Pair],
        names: FunctionNames,
        effort: Effort<'_>,
    ) -> Partial<SummedRows> {
        resolve_pairs(self, pairs, names, effort)
    }

    /// The sums of the selected windows, in their order. No rows and stacks are read, and cells of the selected series only.
    ///
    /// A window whose account is damaged has none, and one lacks the series whose cells are.
    ///
    /// # Errors
    /// The identity of windows is damaged.
    fn read_window_sums(
        &self,
        selection: &Selection<'_>,
    ) -> Result<Partial<Vec<WindowSums>>, Damage> {
        read_window_sums(self, selection)
    }

    /// All received messages with their digests, window by window; a damaged digest is none.
    ///
    /// # Errors
    /// The identity of windows is damaged.
    fn read_messages(&self) -> Result<Partial<Vec<ReceivedMessage>>, Damage> {
        read_messages(self)
    }

    /// Reads some windows with all that they have. A window that was rolled up has the sums of its messages, and the identity of the
    /// first. Memory is that of the windows: the caller asks for a part at a time.
    ///
    /// # Errors
    /// Something that the windows need is damaged.
    fn read_whole_windows(
        &self,
        wanted: &WindowSet,
        effort: Effort<'_>,
    ) -> Result<Vec<Window>, Damage> {
        read_whole_windows(self, wanted, effort)
    }
}

impl<R: ReadAt + Send> Source for Segment<R> {
    fn window_count(&self) -> usize {
        self.window_count()
    }

    fn series_count(&self) -> usize {
        self.series_count()
    }

    fn stack_count(&self) -> usize {
        self.stack_count()
    }

    fn tag_set_count(&self) -> usize {
        self.tag_set_count()
    }

    fn series_label_set(&self, series: u32) -> LabelSet {
        self.series_label_set(series)
    }

    fn find_series(&self, is_wanted: &mut dyn FnMut(&LabelSet) -> bool) -> Vec<u32> {
        self.find_series(is_wanted)
    }

    fn read_window_starts(&self) -> Result<Vec<i64>, Damage> {
        self.read_window_starts()
    }

    fn read_windows(&self) -> Result<Vec<WindowInfo>, Damage> {
        self.read_windows()
    }

    fn has_accounts(&self) -> bool {
        self.has_accounts()
    }

    fn read_accounts(&self, windows: &[WindowInfo]) -> Partial<Vec<Option<WindowAccount>>> {
        self.read_accounts(windows)
    }

    fn read_digests(&self, windows: &[WindowInfo]) -> Partial<Vec<Option<Digest>>> {
        self.read_digests(windows)
    }

    fn read_containers(&self) -> Result<Vec<LabelSet>, Damage> {
        self.read_containers()
    }

    fn read_usage(&self, visit: &mut dyn FnMut(u32, &[UsageCell])) -> Partial<()> {
        self.read_usage(visit)
    }

    fn read_cells(
        &self,
        selection: &Selection<'_>,
        visit: &mut dyn FnMut(u32, &[Cell]),
    ) -> Partial<()> {
        self.read_cells(selection, visit)
    }

    fn sum_pairs(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<Pair>> {
        self.sum_pairs(selection, effort)
    }

    fn sum_stacks(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<StackSum>> {
        self.sum_stacks(selection, effort)
    }

    fn sum_groups(
        &self,
        selection: &Selection<'_>,
        groups: &[u32],
        effort: Effort<'_>,
    ) -> Partial<Vec<Pair>> {
        self.sum_groups(selection, groups, effort)
    }

    fn read_rows(&self, selection: &Selection<'_>, effort: Effort<'_>) -> Partial<Vec<SegmentRow>> {
        self.read_rows(selection, effort)
    }

    fn read_stacks(
        &self,
        stacks: &[u32],
        tag_sets: &[u32],
        names: FunctionNames,
        effort: Effort<'_>,
    ) -> Partial<StackTables> {
        self.read_stacks(stacks, tag_sets, names, effort)
    }

    fn read_program_files(&self, programs: &[Program]) -> Result<Vec<ProgramFile>, Damage> {
        self.read_program_files(programs)
    }

    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
}
