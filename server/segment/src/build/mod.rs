//! Builds a segment from windows.

mod compare;
mod growth;
mod import;
mod known;
mod program_files;
mod questions;
pub(crate) mod row_buffer;
mod stacks;

use std::io::Write;

use model::{ContainerAccount, ContainerUsage, LabelSet, Window};

use crate::chunk::accounts::WindowAccount;
use crate::chunk::cells::{AnyCell, CellWriter, UsageCell};
use crate::chunk::digests::Digest;
use crate::chunk::labels::compare_series;
use crate::chunk::rows::{SeriesRow, WINDOWS_MAX};
use crate::chunk::windows::{Message, WindowInfo};
use crate::codec::column::Packer;
use crate::dictionary::{Interned, Locations, Names, Strings, compare_locations, invert};
use crate::error::Error;
use crate::file::footer::Summary;
use crate::file::output::Output;
use crate::section::Section;
use crate::write::dictionary::DictionaryWriter;
use crate::write::series::SeriesWriter;
use crate::write::tree::write_tree;
use crate::write::{WindowEntry, WriteOptions, write_accounts, write_labels, write_windows};

pub use self::growth::Growth;

use self::import::Import;
use self::row_buffer::{RowBuffer, Run};
use crate::tree::Tree;

/// Nodes of the tree at which a segment is full: a flame graph of all of them takes 0.2 s.
pub const NODES_MAX: usize = 2_000_000;

/// Bytes on the heap at which a builder is full.
pub const BUILDER_BYTES_MAX: usize = 256 << 20;

/// Bytes of rows above which no window is added. A window is a message of some MiB, and adds less than the rest of 32 bits.
const ROW_BYTES_MAX: usize = 2 << 30;

/// An open block: windows that can be asked while more are added, and that are written as one segment.
#[derive(Default)]
pub struct Builder {
    /// Also has the texts of labels and of windows' heads, which the log needs.
    pub(crate) names: Names,
    pub(crate) locations: Locations,
    pub(crate) tree: Tree,
    pub(crate) windows: Vec<WindowEntry>,
    pub(crate) series: Interned<LabelSet>,
    /// The rows of each series.
    rows: Vec<RowBuffer>,
    pub(crate) containers: Interned<LabelSet>,
    /// The accounts of each container, in the order of windows.
    usage: Vec<Vec<UsageCell>>,
    /// Positions of the rows and accounts of each window.
    parts: Parts,
    row_bytes: usize,
    scratch: Vec<u8>,
}

/// The runs of rows and the accounts of containers that windows have.
#[derive(Default)]
struct Parts {
    /// Series, and position of the run in its buffer.
    runs: Vec<(u32, u32)>,
    /// Container, and position of the account among the container's.
    usage: Vec<(u32, u32)>,
    /// The end of each window's runs and accounts.
    ends: Vec<(u32, u32)>,
}

impl Parts {
    /// The first of a window's runs and accounts.
    fn start(&self, window: usize) -> (usize, usize) {
        let before = window.checked_sub(1).map(|before| self.ends[before]);
        let (run, usage) = before.unwrap_or_default();
        (run as usize, usage as usize)
    }

    fn heap_bytes(&self) -> usize {
        8 * (self.runs.capacity() + self.usage.capacity() + self.ends.capacity())
    }
}

impl Builder {
    /// Adds a window. Each is added once.
    ///
    /// # Errors
    /// The window has more than the format can hold; the builder is as before, but for entries of its dictionary that no row uses.
    pub fn add(&mut self, window: &Window) -> Result<(), Error> {
        self.add_message(window, None)
    }

    /// Adds a window, and the digest of the message that brought it, if there is one.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_message(&mut self, window: &Window, digest: Option<Digest>) -> Result<(), Error> {
        if self.windows.len() >= WINDOWS_MAX {
            return Err(Error::TooLarge("more windows than 22 bits can number"));
        }
        // Positions in a buffer have 32 bits; a builder is full long before.
        if self.row_bytes >= ROW_BYTES_MAX {
            return Err(Error::TooLarge("more rows than a builder can hold"));
        }
        let mut import = Import::new(&window.tables, self);
        let mut rows = Vec::with_capacity(window.rows.len());
        for row in &window.rows {
            rows.push(SeriesRow {
                stack: import.stack(self, row.stack)?,
                tags: import.tag_set(self, row.tags)?,
                window: 0,
                samples: row.samples,
                ns: row.ns,
            });
        }
        let number = self.windows.len() as u32;
        self.add_rows(window, number, &mut rows);
        self.add_containers(&window.containers, number);
        let head = &window.head;
        let info = WindowInfo {
            node: head.node.clone(),
            instance: head.key.instance,
            messages: vec![Message {
                start_ms: head.key.start_ms,
                sequence: head.key.sequence,
                window_ms: head.window_ms,
            }],
        };
        let account = WindowAccount {
            account: head.account.clone(),
            profile: head.profile.clone(),
        };
        let entry = WindowEntry {
            info,
            account,
            digests: vec![digest],
        };
        visit_head_texts(&entry, |text| {
            self.names.strings.intern(text);
        });
        self.push_window(entry);
        Ok(())
    }

    /// Adds a window whose runs and accounts of containers were added.
    pub(crate) fn push_window(&mut self, entry: WindowEntry) {
        self.windows.push(entry);
        let Parts { runs, usage, ends } = &mut self.parts;
        ends.push((runs.len() as u32, usage.len() as u32));
    }

    /// The series and the runs of a window.
    pub(crate) fn window_runs(&self, window: usize) -> impl Iterator<Item = (u32, Run<'_>)> {
        let (start, end) = (self.parts.start(window).0, self.parts.start(window + 1).0);
        let runs = self.parts.runs[start..end].iter();
        runs.filter_map(|(series, start)| {
            let run = self.rows[*series as usize].run_at(*start)?;
            Some((*series, run))
        })
    }

    /// The containers of a window, with their accounts.
    pub(crate) fn window_usage(
        &self,
        window: usize,
    ) -> impl ExactSizeIterator<Item = (u32, ContainerUsage)> {
        let (start, end) = (self.parts.start(window).1, self.parts.start(window + 1).1);
        let places = self.parts.usage[start..end].iter();
        places.map(|(container, position)| {
            let cell = &self.usage[*container as usize][*position as usize];
            (*container, cell.usage)
        })
    }

    /// Takes back the last windows, so that `count` are left: those whose record could not be written. Entries of the dictionary stay.
    pub fn truncate(&mut self, count: usize) {
        if count >= self.windows.len() {
            return;
        }
        let (runs, usage) = self.parts.start(count);
        for (series, start) in self.parts.runs.drain(runs..).rev() {
            self.rows[series as usize].truncate(start);
        }
        for (container, _) in self.parts.usage.drain(usage..).rev() {
            self.usage[container as usize].pop();
        }
        self.parts.ends.truncate(count);
        self.windows.truncate(count);
    }

    fn add_rows(&mut self, window: &Window, number: u32, rows: &mut [SeriesRow]) {
        let mut listed = vec![true; window.series.len()];
        let mut start = 0;
        for of_series in window.rows.chunk_by(|a, b| a.series == b.series) {
            let series = of_series[0].series as usize;
            listed[series] = false;
            let end = start + of_series.len();
            let rows = &mut rows[start..end];
            rows.sort_unstable();
            self.buffer_rows(&window.series[series], number, rows);
            start = end;
        }
        // Series without a row are series of the window all the same.
        for (series, labels) in window.series.iter().enumerate() {
            if listed[series] {
                self.buffer_rows(labels, number, &[]);
            }
        }
    }

    fn buffer_rows(&mut self, labels: &LabelSet, window: u32, rows: &[SeriesRow]) {
        let series = self.series_number(labels);
        self.push_run(series, window, rows);
    }

    /// Adds the rows of a series in the next window, sorted by stack.
    pub(crate) fn push_run(&mut self, series: u32, window: u32, rows: &[SeriesRow]) {
        let buffer = &mut self.rows[series as usize];
        self.row_bytes -= buffer.heap_bytes();
        let start = buffer.push(window, rows, &mut self.scratch);
        self.row_bytes += buffer.heap_bytes();
        self.parts.runs.push((series, start));
    }

    /// Finds or adds a series.
    pub(crate) fn series_number(&mut self, labels: &LabelSet) -> u32 {
        let number = find_or_add(&mut self.series, &mut self.names.strings, labels);
        if number as usize == self.rows.len() {
            let buffer = RowBuffer::default();
            self.row_bytes += buffer.heap_bytes() + labels.heap_bytes();
            self.rows.push(buffer);
        }
        number
    }

    fn add_containers(&mut self, containers: &[ContainerAccount], window: u32) {
        for ContainerAccount { labels, usage } in containers {
            let container = self.container_number(labels);
            self.push_usage(container, window, *usage);
        }
    }

    /// Adds the account of a container in the next window.
    pub(crate) fn push_usage(&mut self, container: u32, window: u32, usage: ContainerUsage) {
        let cells = &mut self.usage[container as usize];
        self.parts.usage.push((container, cells.len() as u32));
        cells.push(UsageCell { window, usage });
    }

    /// Finds or adds a container.
    pub(crate) fn container_number(&mut self, labels: &LabelSet) -> u32 {
        let number = find_or_add(&mut self.containers, &mut self.names.strings, labels);
        if number as usize == self.usage.len() {
            self.usage.push(Vec::new());
        }
        number
    }

    /// Whether the segment is large enough to be written: [`NODES_MAX`] or [`BUILDER_BYTES_MAX`] are reached.
    pub fn is_full(&self) -> bool {
        self.tree.len() >= NODES_MAX || self.heap_bytes() >= BUILDER_BYTES_MAX
    }

    /// Whether it has no window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        // A window has a node's name, and a dozen counts with their names.
        self.names.heap_bytes()
            + self.locations.heap_bytes()
            + self.tree.heap_bytes()
            + self.row_bytes
            + self.parts.heap_bytes()
            + size_of::<UsageCell>() * self.parts.usage.len()
            + 1024 * self.windows.len()
    }

    /// Writes the segment. The caller may sync it, read it back and [compare](Self::compare) it.
    ///
    /// # Errors
    /// The output failed.
    pub fn write<W: Write>(&self, options: &WriteOptions, out: W) -> Result<Summary, Error> {
        let mut out = Output::new(out)?;
        let mut packer = Packer::new(options.dictionary_level);
        let mappings = self.names.sorted_mappings();
        let tag_sets = self.names.sorted_tag_sets();
        let location_numbers =
            self.write_dictionary(&mappings, &tag_sets, &mut packer, &mut out)?;
        let mut summary = Summary {
            level: options.level,
            parts: 1,
            ..Summary::default()
        };
        let stacks = self.write_tree(&location_numbers, &mut summary, &mut packer, &mut out)?;
        let mut packer = Packer::new(options.row_level);

        let order = self.window_order();
        let numbers = RowNumbers {
            stacks,
            tag_sets: invert(&tag_sets),
            windows: invert(&order),
        };
        self.write_series(&numbers, &mut summary, &mut packer, &mut out)?;
        let windows = order.iter().map(|number| &self.windows[*number as usize]);
        let windows: Vec<&WindowEntry> = windows.collect();
        write_windows(&windows, &mut summary, &mut packer, &mut out)?;
        write_accounts(&windows, &mut packer, &mut out)?;
        self.write_usage(&numbers.windows, &mut packer, &mut out)?;
        let series = self.sorted_series();
        let series = series.iter().map(|(labels, _)| *labels);
        write_labels(Section::Series, series, &mut packer, &mut out)?;
        out.finish(&summary)?;
        Ok(summary)
    }

    /// The windows in the order of the file.
    fn window_order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.windows.len() as u32).collect();
        order.sort_by(|a, b| {
            let key = |number: &u32| self.windows[*number as usize].info.sort_key();
            key(a).cmp(&key(b))
        });
        order
    }

    /// Writes the dictionary. Returns the number of each location in the file.
    fn write_dictionary<W: Write>(
        &self,
        mappings: &[u32],
        tag_sets: &[u32],
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<Vec<u32>, Error> {
        let mapping_numbers = invert(mappings);
        // A location's file, as the file numbers it.
        let numbered = |number: u32| {
            let (location, lines) = self.locations.get(number);
            let mut location = location.clone();
            if let Some(mapping) = location.mapping.checked_sub(1) {
                location.mapping = mapping_numbers[mapping as usize] + 1;
            }
            (location, lines)
        };
        let count = self.locations.len() as u32;
        let mut order: Vec<_> = (0..count)
            .map(|number| (number, numbered(number)))
            .collect();
        order.sort_unstable_by(|(_, a), (_, b)| {
            compare_locations(&self.names, (&a.0, a.1), (&b.0, b.1))
        });
        let mut writer = DictionaryWriter::new(&self.names);
        let mut numbers = vec![0; self.locations.len()];
        for (number, (location, lines)) in &order {
            numbers[*number as usize] = writer.push_location(location, lines, packer, out)?;
        }
        writer.finish(mappings, tag_sets, packer, out)?;
        Ok(numbers)
    }

    /// Writes the tree. Returns the stack of each node that is one.
    fn write_tree<W: Write>(
        &self,
        location_numbers: &[u32],
        summary: &mut Summary,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<Vec<u32>, Error> {
        let mut is_stack = vec![false; self.tree.len()];
        for rows in &self.rows {
            for run in rows.runs() {
                run.read(|row| is_stack[row.stack as usize] = true);
            }
        }
        write_tree(
            &self.tree,
            location_numbers,
            &is_stack,
            summary,
            packer,
            out,
        )
    }

    fn write_series<W: Write>(
        &self,
        numbers: &RowNumbers,
        summary: &mut Summary,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        let mut writer = SeriesWriter::new(self.windows.len());
        let mut rows = Vec::new();
        let mut listed = Vec::new();
        for (_, series) in self.sorted_series() {
            rows.clear();
            listed.clear();
            self.read_series_rows(series, &numbers.windows, |window, row| match row {
                Some(row) => rows.push(SeriesRow {
                    stack: numbers.stacks[row.stack as usize],
                    tags: numbers.tag_sets[row.tags as usize],
                    ..row
                }),
                None => listed.push(window),
            });
            writer.push(&mut rows, &listed, packer, out)?;
        }
        writer.finish(summary, packer, out)
    }

    fn sorted_series(&self) -> Vec<(&LabelSet, u32)> {
        sort_sets(&self.series, |series| {
            !self.rows[series as usize].is_empty()
        })
    }

    fn sorted_containers(&self) -> Vec<(&LabelSet, u32)> {
        sort_sets(&self.containers, |container| {
            !self.usage[container as usize].is_empty()
        })
    }

    /// Shows the rows of a series, and the windows that list it without rows, with these numbers of windows.
    fn read_series_rows(
        &self,
        series: u32,
        windows: &[u32],
        mut visit: impl FnMut(u32, Option<SeriesRow>),
    ) {
        for run in self.rows[series as usize].runs() {
            let window = windows[run.window as usize];
            if run.count == 0 {
                visit(window, None);
            }
            run.read(|row| visit(window, Some(SeriesRow { window, ..row })));
        }
    }

    /// The accounts of a container, with these numbers of windows.
    fn usage_cells(&self, container: u32, windows: &[u32]) -> Vec<UsageCell> {
        let cells = self.usage[container as usize].iter();
        let cells = cells.map(|cell| UsageCell {
            window: windows[cell.window as usize],
            ..*cell
        });
        let mut cells: Vec<UsageCell> = cells.collect();
        cells.sort_by_key(AnyCell::window);
        cells.dedup_by(|cell, kept| kept.add_equal(cell));
        cells
    }

    fn write_usage<W: Write>(
        &self,
        windows: &[u32],
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        let containers = self.sorted_containers();
        let mut writer = CellWriter::default();
        for (_, container) in &containers {
            writer.push(&self.usage_cells(*container, windows), 0, packer);
        }
        for chunk in &writer.finish::<UsageCell>(packer) {
            out.put(Section::Usage, chunk)?;
        }
        let labels = containers.iter().map(|(labels, _)| *labels);
        write_labels(Section::Containers, labels, packer, out)
    }
}

#[cfg(test)]
impl Builder {
    /// Gives all functions a language, and all lines and locations flags.
    pub(crate) fn mark_all(&mut self, language: u32, line_flags: u32, location_flags: u32) {
        for number in 0..self.names.functions.entries().len() as u32 {
            self.names.functions.entry_mut(number).language = language;
        }
        self.locations.mark_all(line_flags, location_flags);
    }
}

fn find_or_add(sets: &mut Interned<LabelSet>, strings: &mut Strings, labels: &LabelSet) -> u32 {
    sets.find(labels).unwrap_or_else(|| {
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            strings.intern(text);
        }
        sets.intern(labels.clone())
    })
}

/// Shows the texts of a window's head.
fn visit_head_texts(window: &WindowEntry, mut visit: impl FnMut(&str)) {
    let WindowAccount { account, profile } = &window.account;
    visit(&window.info.node);
    for counts in [&account.outcomes, &account.dropped] {
        counts.keys().for_each(|name| visit(name));
    }
    for name in [
        &profile.period_type.0,
        &profile.period_type.1,
        &profile.drop_frames,
        &profile.keep_frames,
        &profile.default_sample_type,
    ] {
        visit(name);
    }
    profile.comments.iter().for_each(|comment| visit(comment));
}

/// Label sets with their numbers, in the order of the file; those that no window has any more are left out.
fn sort_sets(sets: &Interned<LabelSet>, is_used: impl Fn(u32) -> bool) -> Vec<(&LabelSet, u32)> {
    let mut sets: Vec<_> = sets.entries().iter().zip(0..).collect();
    sets.retain(|(_, number)| is_used(*number));
    sets.sort_unstable_by(|(a, _), (b, _)| compare_series(a, b));
    sets
}

/// The numbers in the file of what rows refer to.
struct RowNumbers {
    stacks: Vec<u32>,
    tag_sets: Vec<u32>,
    windows: Vec<u32>,
}
