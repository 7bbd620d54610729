//! Drops the addresses of locations whose functions and lines are known.
//!
//! Of a function's locations those with one line become one, and so do the stacks that differ in them alone. The order of locations
//! changes, and with it that of the tree: both are in memory, unlike in a merge, and so a segment is rewritten alone.

use std::io::Write;

use crate::codec::column::Packer;
use crate::dictionary::{Line, Location, Names, compare_locations, shown_name};
use crate::error::{Damage, Error};
use crate::file::footer::{Addresses, Summary};
use crate::file::output::Output;
use crate::read::callees::CalleeCache;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;
use crate::tree::{ROOT, Tree};
use crate::write::dictionary::DictionaryWriter;
use crate::write::tree::write_tree;
use crate::write::{WriteOptions, write_accounts, write_labels, write_windows};

use super::locations::LocationMerge;
use super::names::MergedNames;
use super::series::{self, SeriesMerge};
use super::windows::MergedWindows;
use super::{in_input, merge_labels};

/// Writes a segment again without the addresses of locations whose functions and lines are known. Sums by function and line stay what
/// they are. Other locations keep their addresses: symbols that come later may name them.
///
/// # Errors
/// The input is damaged, or the output failed. An output that was written is not complete then.
pub fn drop_addresses<R: ReadAt, W: Write>(
    input: &Segment<R>,
    options: &WriteOptions,
    out: W,
) -> Result<Summary, Error> {
    let inputs = [input];
    let names = MergedNames::read(&inputs)?;
    let locations = KeptLocations::read(&inputs, &names)?;
    let stacks = KeptStacks::read(input, &locations.numbers).map_err(in_input(0))?;
    let windows = MergedWindows::read(&inputs, None)?;
    let labels = merge_labels(&inputs, |segment| Ok(segment.series_label_sets()))?;

    let mut out = Output::new(out)?;
    let mut packer = Packer::new(options.dictionary_level);
    let mut summary = Summary {
        resolution_ms: windows.resolution_ms,
        addresses: Addresses::Dropped,
        level: options.level,
        part: input.summary().part,
        parts: input.summary().parts,
        ..Summary::default()
    };
    locations.write(&names, &mut packer, &mut out)?;
    let numbers: Vec<u32> = (0..locations.kept.len() as u32).collect();
    let written = write_tree(
        &stacks.tree,
        &numbers,
        &stacks.is_stack,
        &mut summary,
        &mut packer,
        &mut out,
    )?;
    let numbers = stacks.nodes.iter().map(|node| written[*node as usize]);
    let mut packer = Packer::new(options.row_level);
    SeriesMerge::new(&inputs, &labels, &windows).write(
        &[numbers.collect()],
        &names.tag_set_numbers,
        &mut summary,
        &mut packer,
        &mut out,
    )?;
    let listed = windows.list();
    write_windows(&listed, &mut summary, &mut packer, &mut out)?;
    if windows.have_accounts {
        write_accounts(&listed, &mut packer, &mut out)?;
        series::write_usage(&inputs, &windows, &mut packer, &mut out)?;
    }
    let labels = labels.iter().map(|series| &series.labels);
    write_labels(Section::Series, labels, &mut packer, &mut out)?;
    out.finish(&summary)?;
    Ok(summary)
}

/// Whether all functions and lines of a location are known.
fn is_named(names: &Names, lines: &[Line]) -> bool {
    let functions = names.functions.entries();
    let is_known = |line: &Line| {
        let function = &functions[line.function as usize];
        line.line > 0 && shown_name(function) != 0
    };
    !lines.is_empty() && lines.iter().all(is_known)
}

/// The locations that are left, in the order of the file.
struct KeptLocations {
    kept: Vec<(Location, Vec<Line>)>,
    /// The number among them of each location of the input.
    numbers: Vec<u32>,
}

impl KeptLocations {
    fn read<R: ReadAt>(inputs: &[&Segment<R>], names: &MergedNames) -> Result<Self, Error> {
        let mut all = Vec::new();
        let mut merge = LocationMerge::new(inputs, names)?;
        while let Some((mut location, lines)) = merge.next(|_, _| {})? {
            if is_named(&names.names, &lines) {
                location.address = 0;
            }
            all.push((location, lines));
        }
        let compare = |a: &u32, b: &u32| {
            let entry = |number: &u32| {
                let (location, lines) = &all[*number as usize];
                (location, lines.as_slice())
            };
            compare_locations(&names.names, entry(a), entry(b))
        };
        let mut order: Vec<u32> = (0..all.len() as u32).collect();
        order.sort_by(compare);
        let mut numbers = vec![0; all.len()];
        let mut kept = Vec::new();
        for equal in order.chunk_by(|a, b| compare(a, b).is_eq()) {
            for number in equal {
                numbers[*number as usize] = kept.len() as u32;
            }
            kept.push(equal[0]);
        }
        let kept = kept.iter().map(|number| all[*number as usize].clone());
        Ok(Self {
            kept: kept.collect(),
            numbers,
        })
    }

    fn write<W: Write>(
        &self,
        names: &MergedNames,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        let mut writer = DictionaryWriter::new(&names.names);
        for (location, lines) in &self.kept {
            writer.push_location(location, lines, packer, out)?;
        }
        writer.finish(&names.mappings, &names.tag_sets, packer, out)
    }
}

/// The tree of the locations that are left.
struct KeptStacks {
    tree: Tree,
    is_stack: Vec<bool>,
    /// The node of each stack of the input.
    nodes: Vec<u32>,
}

impl KeptStacks {
    fn read<R: ReadAt>(input: &Segment<R>, locations: &[u32]) -> Result<Self, Damage> {
        let mut tree = Tree::default();
        let mut nodes = vec![ROOT; input.stack_count()];
        let mut scratch = Scratch::default();
        let mut callees = CalleeCache::new(input);
        // The nodes on the path to the last one.
        let mut path: Vec<u32> = Vec::new();
        for number in 0..input.chunks(Section::Tree).len() {
            let mut reader = input.open_tree(number, &mut scratch)?;
            while let Some(read) = reader.next(&mut callees)? {
                path.truncate(read.depth as usize - 1);
                let caller = path.last().copied().unwrap_or(ROOT);
                let node = tree.child(caller, locations[read.location as usize]);
                path.push(node);
                if let Some(stack) = read.stack {
                    nodes[stack as usize] = node;
                }
            }
        }
        let mut is_stack = vec![false; tree.len()];
        for node in &nodes {
            is_stack[*node as usize] = true;
        }
        Ok(Self {
            tree,
            is_stack,
            nodes,
        })
    }
}
