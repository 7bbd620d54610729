//! Merges segments into one, or into several if one would be too large; and rolls windows up.
//!
//! All orders in a segment are those of contents: of two stacks, locations or series, the same one comes first in each segment that
//! has both. So a merge reads its inputs from front to back, as streams. In memory are the names, the merged tree, the new numbers of
//! what is in the inputs, and the rows of one series. [`drop_addresses`] changes these orders, and so rewrites a segment alone.

mod addresses;
mod locations;
mod names;
mod plan;
mod series;
mod tree;
mod windows;

use std::io::{self, Write};
use std::ops::Range;

use model::LabelSet;

use crate::build::NODES_MAX;
use crate::chunk::callees::{Callees, Calls, caller_of};
use crate::chunk::labels::compare_series;
use crate::codec::column::Packer;
use crate::error::{Damage, Error};
use crate::file::footer::{Addresses, Summary};
use crate::file::output::Output;
use crate::read::Segment;
use crate::read_at::ReadAt;
use crate::section::Section;
use crate::write::dictionary::DictionaryWriter;
use crate::write::tree::TreeWriter;
use crate::write::{WriteOptions, write_accounts, write_labels, write_windows};

pub use self::addresses::drop_addresses;

use self::locations::{LocationMerge, number_locations};
use self::names::MergedNames;
use self::plan::plan_parts;
use self::series::SeriesMerge;
use self::tree::MergedTree;
use self::windows::MergedWindows;

/// How segments are merged.
#[derive(Clone, Copy, Debug)]
pub struct MergeOptions {
    /// How the outputs are written.
    pub write: WriteOptions,
    /// Windows of one collector that start in the same stretch of this length, in milliseconds, become one window. `None` keeps all.
    pub resolution_ms: Option<u64>,
    /// Nodes of the tree at which an output is full.
    pub nodes_max: usize,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            write: WriteOptions::SMALL,
            resolution_ms: None,
            nodes_max: NODES_MAX,
        }
    }
}

/// A series of the outputs, and where it is in the inputs.
struct MergedSeries {
    labels: LabelSet,
    /// Input and number.
    sources: Vec<(usize, u32)>,
}

/// Merges segments. Writes an output for each `create`; an output has all series of some programs.
///
/// A window that several inputs have, such as those that were split from one, is one window of the output. Of several outputs, each has
/// all windows, and the first has their accounts.
///
/// # Errors
/// An input is damaged, or an output failed. Outputs that were written are not complete then.
pub fn merge<R: ReadAt, W: Write>(
    inputs: &[&Segment<R>],
    options: &MergeOptions,
    mut create: impl FnMut() -> io::Result<W>,
) -> Result<Vec<Summary>, Error> {
    let names = MergedNames::read(inputs)?;
    let location_numbers = number_locations(inputs, &names)?;
    let windows = MergedWindows::read(inputs, options.resolution_ms)?;
    let series = merge_labels(inputs, |segment| Ok(segment.series_label_sets()))?;
    let tree = MergedTree::read(inputs, &location_numbers)?;
    let parts = plan_parts(inputs, &series, &tree, options.nodes_max)?;
    let merge = Merge {
        inputs,
        options,
        names,
        location_numbers,
        tree,
        windows,
        series,
        parts,
    };
    let mut summaries = Vec::new();
    for part in 0..merge.parts.len() as u32 {
        let out = create().map_err(Error::Write)?;
        summaries.push(merge.write(part, out)?);
    }
    Ok(summaries)
}

/// Says which input is damaged.
fn in_input(input: usize) -> impl Fn(Damage) -> Error {
    move |damage| Error::Input { input, damage }
}

/// The label sets of all inputs in the order of the file.
fn merge_labels<R: ReadAt>(
    inputs: &[&Segment<R>],
    read: impl Fn(&Segment<R>) -> Result<Vec<LabelSet>, Damage>,
) -> Result<Vec<MergedSeries>, Error> {
    let mut all = Vec::new();
    for (input, segment) in inputs.iter().enumerate() {
        let sets = read(segment).map_err(in_input(input))?;
        let numbered = sets.into_iter().enumerate();
        all.extend(numbered.map(|(number, labels)| (labels, (input, number as u32))));
    }
    all.sort_by(|(a, _), (b, _)| compare_series(a, b));
    let mut merged: Vec<MergedSeries> = Vec::new();
    for (labels, source) in all {
        match merged.last_mut() {
            Some(last) if last.labels == labels => last.sources.push(source),
            _ => merged.push(MergedSeries {
                labels,
                sources: vec![source],
            }),
        }
    }
    Ok(merged)
}

/// Whether locations of the merge of these inputs have addresses.
fn merge_addresses<R: ReadAt>(inputs: &[&Segment<R>]) -> Addresses {
    let addresses = inputs.iter().map(|segment| segment.summary().addresses);
    let joined = addresses.reduce(|all, own| {
        if all == own {
            all
        } else {
            Addresses::PartlyDropped
        }
    });
    joined.unwrap_or_default()
}

/// State that all outputs share.
struct Merge<'a, R> {
    inputs: &'a [&'a Segment<R>],
    options: &'a MergeOptions,
    names: MergedNames,
    /// For each input, the numbers of its locations among those of all inputs.
    location_numbers: Vec<Vec<u32>>,
    tree: MergedTree,
    windows: MergedWindows,
    series: Vec<MergedSeries>,
    /// The series of each output.
    parts: Vec<Range<usize>>,
}

/// The number of a location that no stack needs.
const UNUSED: u32 = u32::MAX;

impl<R: ReadAt> Merge<'_, R> {
    /// Writes an output.
    fn write<W: Write>(&self, part: u32, out: W) -> Result<Summary, Error> {
        let series_range = self.parts[part as usize].clone();
        let mut out = Output::new(out)?;
        let mut packer = Packer::new(self.options.write.dictionary_level);
        let is_whole = series_range.len() == self.series.len();
        let mut summary = Summary {
            resolution_ms: self.windows.resolution_ms,
            addresses: merge_addresses(self.inputs),
            level: self.options.write.level,
            part,
            parts: self.parts.len() as u32,
            ..Summary::default()
        };
        let series = SeriesMerge::new(
            self.inputs,
            &self.series[series_range.clone()],
            &self.windows,
        );
        let used = if is_whole {
            None
        } else {
            Some(series.find_used_stacks(&self.tree)?)
        };
        let callees = self.find_calls(used.as_deref());
        let locations = self.write_locations(&callees, &mut packer, &mut out)?;
        let stacks = self.write_tree(
            used.as_deref(),
            (&callees, &locations),
            &mut summary,
            &mut packer,
            &mut out,
        )?;
        let mut packer = Packer::new(self.options.write.row_level);
        series.write(
            &stacks,
            &self.names.tag_set_numbers,
            &mut summary,
            &mut packer,
            &mut out,
        )?;
        let windows = self.windows.list();
        write_windows(&windows, &mut summary, &mut packer, &mut out)?;
        if part == 0 && self.windows.have_accounts {
            write_accounts(&windows, &mut packer, &mut out)?;
            series::write_usage(self.inputs, &self.windows, &mut packer, &mut out)?;
        }
        let labels = self.series[series_range]
            .iter()
            .map(|series| &series.labels);
        write_labels(Section::Series, labels, &mut packer, &mut out)?;
        out.finish(&summary)?;
        Ok(summary)
    }

    /// The calls in the tree, by the numbers of all inputs' locations.
    fn find_calls(&self, used: Option<&[bool]>) -> Callees {
        let mut calls = Calls::default();
        let mut path: Vec<u32> = Vec::new();
        for node in self.tree.nodes_of(used) {
            path.truncate(node.depth as usize - 1);
            calls.add(caller_of(path.last().copied()), node.location);
            path.push(node.location);
        }
        let locations = self.location_numbers.iter().flatten().max();
        calls.into_callees(locations.map_or(0, |last| *last as usize + 1))
    }

    /// Writes the locations that are called, and what they refer to. Returns the number in the file of each location of all inputs.
    fn write_locations<W: Write>(
        &self,
        callees: &Callees,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<Vec<u32>, Error> {
        let is_called = callees.called(callees.len() - 1);
        let mut writer = DictionaryWriter::new(&self.names.names);
        let mut numbers = vec![UNUSED; is_called.len()];
        let mut merge = LocationMerge::new(self.inputs, &self.names)?;
        let mut number = 0;
        while let Some((location, lines)) = merge.next(|_, _| {})? {
            if is_called[number] {
                numbers[number] = writer.push_location(&location, &lines, packer, out)?;
            }
            number += 1;
        }
        writer.finish(&self.names.mappings, &self.names.tag_sets, packer, out)?;
        Ok(numbers)
    }

    /// Writes the tree. Returns, for each input, the number of each of its stacks.
    fn write_tree<W: Write>(
        &self,
        used: Option<&[bool]>,
        (callees, locations): (&Callees, &[u32]),
        summary: &mut Summary,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<Vec<Vec<u32>>, Error> {
        let mut numbers = vec![0; self.tree.stack_count];
        let callees = callees.renumber(locations);
        let mut writer = TreeWriter::new(&callees, packer, out)?;
        for node in self.tree.nodes_of(used) {
            let location = locations[node.location as usize];
            let is_stack = node.stack.is_some();
            let number = writer.push(node.depth, location, is_stack, packer, out)?;
            if let Some((stack, number)) = node.stack.zip(number) {
                numbers[stack as usize] = number;
            }
        }
        writer.finish(summary, packer, out)?;
        let of_input = |stacks: &Vec<u32>| {
            let stacks = stacks.iter().map(|stack| numbers[*stack as usize]);
            stacks.collect()
        };
        Ok(self.tree.stacks.iter().map(of_input).collect())
    }
}

#[cfg(test)]
mod tests {
    use model::text;

    use super::*;
    use crate::build::Builder;
    use crate::chunk::dictionary::{LocationChunk, decode_functions};
    use crate::dictionary::{LINE_INLINED, LOCATION_INTERPRETER};
    use crate::read::Scratch;

    /// A segment whose functions, lines and locations have marks that no window can have yet.
    fn build_marked(lines: &str) -> Segment<Vec<u8>> {
        let mut builder = Builder::default();
        builder.add(&text::window(lines)).unwrap();
        builder.mark_all(77, LINE_INLINED | 1 << 30, LOCATION_INTERPRETER | 1 << 31);
        let mut bytes = Vec::new();
        builder.write(&WriteOptions::FAST, &mut bytes).unwrap();
        Segment::open(bytes).unwrap()
    }

    /// Check that kinds and flags that this version does not know are still there after a merge.
    #[test]
    fn unknown_kinds_survive_a_merge() {
        let inputs = [
            build_marked("comm=a | main work | 1"),
            build_marked("comm=a | main idle | 2"),
        ];
        let mut bytes = Vec::new();
        let options = MergeOptions {
            write: WriteOptions::FAST,
            ..MergeOptions::default()
        };
        let mut outputs = vec![&mut bytes];
        merge(&[&inputs[0], &inputs[1]], &options, || {
            outputs.pop().ok_or(io::ErrorKind::Other.into())
        })
        .unwrap();
        let merged = Segment::open(bytes).unwrap();
        let limits = merged.dictionary_limits();
        let mut scratch = Scratch::default();
        let functions = merged.read(
            Section::Functions,
            0,
            &mut scratch,
            |bytes, chunk, unpacker| {
                decode_functions(bytes, chunk.items as usize, limits, unpacker)
            },
        );
        let functions = functions.unwrap();
        assert_eq!(functions.len(), 3);
        assert!(functions.iter().all(|function| function.language == 77));
        let locations = merged.read(
            Section::Locations,
            0,
            &mut scratch,
            |bytes, chunk, unpacker| {
                LocationChunk::decode(bytes, chunk.items as usize, limits, unpacker)
            },
        );
        let chunk = locations.unwrap();
        assert_eq!((chunk.locations.len(), chunk.lines.len()), (3, 3));
        let flags = LOCATION_INTERPRETER | 1 << 31;
        assert!(
            chunk
                .locations
                .iter()
                .all(|location| location.flags == flags)
        );
        let flags = LINE_INLINED | 1 << 30;
        assert!(chunk.lines.iter().all(|line| line.flags == flags));
    }
}
