//! The rows of series, read from all inputs in the order of the outputs.

use std::io::Write;

use crate::chunk::cells::{AnyCell, CellWriter, UsageCell};
use crate::chunk::rows::SeriesRow;
use crate::codec::column::Packer;
use crate::error::Error;
use crate::file::footer::Summary;
use crate::file::output::Output;
use crate::read::cursor::{CellCursor, RowCursor};
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;
use crate::write::series::SeriesWriter;
use crate::write::write_labels;

use super::tree::MergedTree;
use super::windows::MergedWindows;
use super::{MergedSeries, in_input, merge_labels};

/// Some series of the inputs.
pub(super) struct SeriesMerge<'a, R> {
    inputs: &'a [&'a Segment<R>],
    series: &'a [MergedSeries],
    windows: &'a MergedWindows,
}

impl<'a, R: ReadAt> SeriesMerge<'a, R> {
    pub(super) fn new(
        inputs: &'a [&'a Segment<R>],
        series: &'a [MergedSeries],
        windows: &'a MergedWindows,
    ) -> Self {
        Self {
            inputs,
            series,
            windows,
        }
    }

    /// The stacks of the merged tree that these series have.
    pub(super) fn find_used_stacks(&self, tree: &MergedTree) -> Result<Vec<bool>, Error> {
        let mut used = vec![false; tree.stack_count];
        for (input, segment) in self.inputs.iter().enumerate() {
            let mut is_ours = vec![false; segment.series_count()];
            let sources = self.series.iter().flat_map(|series| &series.sources);
            for (_, number) in sources.filter(|source| source.0 == input) {
                is_ours[*number as usize] = true;
            }
            let stacks = &tree.stacks[input];
            let mut scratch = Scratch::default();
            segment
                .read_all_totals(&mut scratch, |series, pair| {
                    used[stacks[pair.stack as usize] as usize] |= is_ours[series as usize];
                })
                .map_err(in_input(input))?;
        }
        Ok(used)
    }

    /// Writes the series, with these numbers of each input's stacks and tag sets.
    pub(super) fn write<W: Write>(
        &self,
        stacks: &[Vec<u32>],
        tag_sets: &[Vec<u32>],
        summary: &mut Summary,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        let mut writer = SeriesWriter::new(self.windows.len());
        let mut cursors: Vec<_> = self.inputs.iter().copied().map(RowCursor::new).collect();
        let mut rows = Vec::new();
        let mut listed = Vec::new();
        for series in self.series {
            rows.clear();
            listed.clear();
            for (input, number) in &series.sources {
                let windows = &self.windows.numbers[*input];
                let cursor = &mut cursors[*input];
                let cells = cursor.read_series(*number, |row| {
                    rows.push(SeriesRow {
                        stack: stacks[*input][row.stack as usize],
                        tags: tag_sets[*input][row.tags as usize],
                        window: windows[row.window as usize],
                        ..row
                    });
                });
                let cells = cells.map_err(in_input(*input))?;
                listed.extend(cells.iter().map(|cell| windows[cell.window as usize]));
            }
            writer.push(&mut rows, &listed, packer, out)?;
        }
        writer.finish(summary, packer, out)
    }
}

/// Writes the accounts of containers.
pub(super) fn write_usage<R: ReadAt, W: Write>(
    inputs: &[&Segment<R>],
    windows: &MergedWindows,
    packer: &mut Packer,
    out: &mut Output<W>,
) -> Result<(), Error> {
    let containers = merge_labels(inputs, Segment::read_containers)?;
    let mut cursors: Vec<_> = inputs
        .iter()
        .map(|segment| CellCursor::new(segment, Section::Usage))
        .collect();
    let mut writer = CellWriter::default();
    let mut cells: Vec<UsageCell> = Vec::new();
    let mut of_input = Vec::new();
    for container in &containers {
        cells.clear();
        for (input, number) in &container.sources {
            of_input.clear();
            let read = cursors[*input].read_series(*number, &mut of_input);
            read.map_err(in_input(*input))?;
            let windows = &windows.numbers[*input];
            cells.extend(of_input.iter().map(|cell: &UsageCell| UsageCell {
                window: windows[cell.window as usize],
                ..*cell
            }));
        }
        cells.sort_by_key(AnyCell::window);
        cells.dedup_by(|cell, kept| kept.add_equal(cell));
        writer.push(&cells, 0, packer);
    }
    for chunk in &writer.finish::<UsageCell>(packer) {
        out.put(Section::Usage, chunk)?;
    }
    let labels = containers.iter().map(|container| &container.labels);
    write_labels(Section::Containers, labels, packer, out)
}
