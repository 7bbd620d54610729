//! Answers questions about what the store had at a moment.
//!
//! A snapshot is a list of sources: segments, blocks, and files of earlier versions, which are read into blocks of the question's own.
//! Each has its own numbers for series; the snapshot gives equal label sets the same number.
//!
//! A block is locked while it is read, so that no window is added: meanwhile a question never waits, not even for memory.

mod sums;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use model::{
    ContainerUsage, FunctionNames, LabelSet, Question, SeriesId, SeriesTable, StackSums, Stop,
    TimeRange, Unread, WindowKey, WindowTotals,
};
use parking_lot::Mutex;
use segment::{
    Addresses, Builder, Damage, Effort, Partial, Selection, Source, WindowInfo, WindowSet,
};
use tracing::error;

use self::sums::SourceSums;
use super::block::Block;
use super::content::{Content, StoredSegment};
use super::metrics::StoreMetrics;
use super::old::OldFile;
use super::overlap::{CollectorSpan, Overlaps, REACH_MS, find_nodes, list_spans};
use super::shared::{Shared, effort};
use super::sum_cache::SumCache;
use crate::unread::UnreadLog;
use crate::{SeriesFilter, Snapshot, StoreError, WindowCells};

/// Series that an estimate looks at in a file: for 100 files it takes 10 ms at most.
const ESTIMATE_SERIES: usize = 256;

/// Content of the store at the start of a question.
pub struct EmbeddedSnapshot {
    range: TimeRange,
    question: Arc<Question>,
    sources: Vec<SnapshotSource>,
    /// Segments and blocks whose windows may reach into the range.
    neighbours: Vec<SnapshotSource>,
    overlaps: OnceLock<Overlaps>,
    metrics: StoreMetrics,
    sums: Arc<SumCache>,
    numbers: Mutex<Numbers>,
    unread: Mutex<UnreadLog>,
}

/// A part of the snapshot.
enum SnapshotSource {
    Segment(Arc<StoredSegment>),
    /// A block, of which so many windows were durable.
    Block(Arc<Block>, usize),
    Old(Arc<OldFile>),
}

/// The numbers of label sets.
#[derive(Default)]
struct Numbers {
    ids: HashMap<Arc<LabelSet>, SeriesId>,
    labels: Vec<Arc<LabelSet>>,
}

impl Numbers {
    fn number(&mut self, labels: LabelSet) -> SeriesId {
        if let Some(id) = self.ids.get(&labels) {
            return *id;
        }
        let labels = Arc::new(labels);
        let id = SeriesId(self.labels.len() as u64);
        self.labels.push(Arc::clone(&labels));
        self.ids.insert(labels, id);
        id
    }
}

impl SnapshotSource {
    /// The time in which its windows start.
    fn range(&self) -> TimeRange {
        match self {
            Self::Segment(found) => found.name.span.range(),
            Self::Block(block, _) => block.span().range(),
            Self::Old(file) => TimeRange {
                from_ms: file.hour_ms(),
                to_ms: file.end_ms(),
            },
        }
    }
}

/// The time in which windows may start that overlap windows of a range. A window that was rolled up has messages that start later than
/// itself, but not behind the end of its source.
fn reach_of(sources: &[SnapshotSource], range: TimeRange) -> TimeRange {
    let resolution_ms = sources.iter().map(SnapshotSource::resolution_ms).max();
    let ends_ms = sources.iter().map(|source| source.range().to_ms);
    let to_ms = range.to_ms.saturating_add(resolution_ms.unwrap_or(0));
    TimeRange {
        from_ms: range.from_ms.saturating_sub(REACH_MS),
        to_ms: ends_ms
            .max()
            .unwrap_or(0)
            .min(to_ms)
            .saturating_add(REACH_MS),
    }
}

impl SnapshotSource {
    /// The segments and blocks that may have windows in a range.
    fn list(content: &Content, range: TimeRange) -> Vec<Self> {
        let segments = content.segments_in(range).cloned().map(Self::Segment);
        let blocks = content.blocks.iter();
        let blocks = blocks.filter(|block| block.span().touches(range));
        let blocks = blocks.map(|block| Self::Block(Arc::clone(block), block.durable()));
        segments.chain(blocks).collect()
    }

    /// Length of its windows that were rolled up, in milliseconds.
    fn resolution_ms(&self) -> i64 {
        match self {
            Self::Segment(found) => {
                i64::try_from(found.segment.summary().resolution_ms).unwrap_or(i64::MAX)
            }
            Self::Block(..) | Self::Old(_) => 0,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Segment(own), Self::Segment(other)) => Arc::ptr_eq(own, other),
            (Self::Block(own, _), Self::Block(other, _)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// Its collectors; none of files of earlier versions.
    fn collectors(&self) -> Cow<'_, [CollectorSpan]> {
        match self {
            Self::Segment(found) => Cow::Borrowed(found.collectors()),
            Self::Block(..) => Cow::Owned(list_spans(&self.read_windows())),
            Self::Old(_) => Cow::Borrowed(&[]),
        }
    }

    /// Its windows, as far as they can be read; none of files of earlier versions.
    fn read_windows(&self) -> Vec<WindowInfo> {
        match self {
            Self::Segment(found) => found.segment.read_windows().unwrap_or_default(),
            Self::Block(block, durable) => {
                let mut windows = block.read().read_windows().unwrap_or_default();
                windows.truncate(*durable);
                windows
            }
            Self::Old(_) => Vec::new(),
        }
    }

    /// Number of its windows, in the range or not.
    fn windows(&self) -> u64 {
        match self {
            Self::Segment(found) => found.segment.summary().messages,
            Self::Block(_, durable) => *durable as u64,
            Self::Old(file) => file.messages().len(),
        }
    }

    /// The part of its windows that is in a range.
    fn share_of_time(&self, range: TimeRange) -> f64 {
        match self {
            Self::Segment(found) => {
                let summary = found.segment.summary();
                let (from_ms, to_ms) = (summary.from_ms, summary.to_ms);
                share_of_time(TimeRange { from_ms, to_ms }, range)
            }
            // It has some minutes.
            Self::Block(..) => 1.0,
            Self::Old(_) => share_of_time(self.range(), range),
        }
    }

    /// Bytes of its file.
    fn file_bytes(&self) -> u64 {
        match self {
            Self::Segment(found) => found.segment.file_bytes(),
            Self::Block(block, _) => block.log_bytes(),
            Self::Old(file) => file.bytes(),
        }
    }

    /// About how many bytes of its file are of windows in a range.
    fn bytes_in(&self, range: TimeRange) -> u64 {
        (self.file_bytes() as f64 * self.share_of_time(range)) as u64
    }

    /// The part of its series that a filter selects, from some of them.
    fn share_of_series(&self, filter: &SeriesFilter<'_>) -> f64 {
        match self {
            Self::Segment(found) => share_of_series(&found.segment, filter),
            Self::Block(block, _) => share_of_series(&*block.read(), filter),
            // Its windows are read as a whole.
            Self::Old(_) => 1.0,
        }
    }
}

fn share_of_series(source: &dyn Source, filter: &SeriesFilter<'_>) -> f64 {
    let count = source.series_count();
    let step = count.div_ceil(ESTIMATE_SERIES).max(1);
    let asked = (0..count).step_by(step);
    let (all, selected) = asked.fold((0, 0), |(all, selected), series| {
        let labels = source.series_label_set(series as u32);
        (all + 1, selected + usize::from(filter.selects(&labels)))
    });
    selected as f64 / f64::from(all.max(1))
}

/// The part of a time that a range has.
fn share_of_time(own: TimeRange, range: TimeRange) -> f64 {
    let from_ms = own.from_ms.max(range.from_ms);
    let to_ms = own.to_ms.min(range.to_ms);
    let length_ms = own.to_ms.saturating_sub(own.from_ms).max(1);
    to_ms.saturating_sub(from_ms).max(0) as f64 / length_ms as f64
}

impl EmbeddedSnapshot {
    /// Takes what the store has of a range.
    pub fn new(shared: &Shared, range: TimeRange, question: Arc<Question>) -> Self {
        let content = shared.content();
        let mut sources = SnapshotSource::list(&content, range);
        let mut neighbours = SnapshotSource::list(&content, reach_of(&sources, range));
        neighbours.retain(|other| !sources.iter().any(|source| source.is_same(other)));
        let old = content.old.iter().cloned().map(SnapshotSource::Old);
        sources.extend(old.filter(|file| {
            let own = file.range();
            own.from_ms < range.to_ms && range.from_ms < own.to_ms
        }));
        sources.sort_by_key(|source| source.range().from_ms);
        let snapshot = Self {
            range,
            question,
            sources,
            neighbours,
            overlaps: OnceLock::new(),
            metrics: shared.metrics.clone(),
            sums: Arc::clone(&shared.sums),
            numbers: Mutex::default(),
            unread: Mutex::default(),
        };
        for found in content.unreadable.values() {
            if found.span.touches(range) {
                snapshot.note_stretch(found.span.range(), found.windows, [0; 2], &found.reason);
            }
        }
        snapshot
    }

    /// Windows that overlap those of other collectors.
    fn overlaps(&self) -> &Overlaps {
        self.overlaps.get_or_init(|| {
            let sources = || self.sources.iter().chain(&self.neighbours);
            let collectors: Vec<_> = sources().map(SnapshotSource::collectors).collect();
            let nodes = find_nodes(collectors.iter().flat_map(|spans| spans.iter()));
            if nodes.is_empty() {
                return Overlaps::default();
            }
            let mut windows: Vec<WindowInfo> =
                sources().flat_map(SnapshotSource::read_windows).collect();
            windows.retain(|window| nodes.contains(window.node.as_str()));
            Overlaps::find(&windows)
        })
    }

    /// Reads each source, and counts what is read.
    fn read_each(
        &self,
        mut read: impl FnMut(&SnapshotSource) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let bytes = self
            .sources
            .iter()
            .map(|source| source.bytes_in(self.range));
        let bytes: Vec<u64> = bytes.collect();
        let reading = self.question.reading();
        reading.begin(&bytes);
        for (source, bytes) in self.sources.iter().zip(bytes) {
            read(source)?;
            reading.note_read(bytes);
        }
        Ok(())
    }

    /// Shows a source as one that can be asked, and its windows in the range that are not left out; a file of an earlier version in
    /// several pieces.
    fn ask(
        &self,
        source: &SnapshotSource,
        visit: impl FnMut(&dyn Source, &WindowSet),
    ) -> Result<(), Stop> {
        self.read(source, visit, |()| {})
    }

    /// As [`Self::ask`]; what was read goes to `take`, while the source is not locked any more.
    fn read<T>(
        &self,
        source: &SnapshotSource,
        read: impl FnMut(&dyn Source, &WindowSet) -> T,
        take: impl FnMut(T),
    ) -> Result<(), Stop> {
        // Found before a block is locked: it locks others.
        let overlaps = self.overlaps();
        let select = |found: &dyn Source, count: usize| {
            if overlaps.is_empty() {
                return self.select_all(found, count);
            }
            let mut windows = found.read_windows()?;
            windows.truncate(count);
            let is_asked = |window: &WindowInfo| {
                self.range.contains(window.start_ms()) && !overlaps.of_window(window).is_left_out()
            };
            Ok(WindowSet::of(&windows, is_asked))
        };
        self.read_some(source, select, read, take)
    }

    /// As [`Self::ask`], with all windows in the range.
    fn ask_all(
        &self,
        source: &SnapshotSource,
        visit: impl FnMut(&dyn Source, &WindowSet),
    ) -> Result<(), Stop> {
        let select = |found: &dyn Source, count: usize| self.select_all(found, count);
        self.read_some(source, select, visit, |()| {})
    }

    /// Those of the first windows that are in the range.
    fn select_all(&self, found: &dyn Source, count: usize) -> Result<WindowSet, Damage> {
        let mut starts_ms = found.read_window_starts()?;
        starts_ms.truncate(count);
        Ok(WindowSet::in_range(&starts_ms, self.range))
    }

    /// Reads the windows of a source that are selected among its first ones.
    fn read_some<T>(
        &self,
        source: &SnapshotSource,
        select: impl Fn(&dyn Source, usize) -> Result<WindowSet, Damage>,
        mut read: impl FnMut(&dyn Source, &WindowSet) -> T,
        mut take: impl FnMut(T),
    ) -> Result<(), Stop> {
        self.question.check()?;
        let mut ask = |found: &dyn Source, count: usize| match select(found, count) {
            Ok(windows) => Some(read(found, &windows)),
            Err(damage) => {
                self.note_damage(source, source.windows(), [0; 2], &[damage]);
                None
            }
        };
        match source {
            SnapshotSource::Segment(found) => {
                ask(&found.segment, usize::MAX).into_iter().for_each(take);
            }
            SnapshotSource::Block(block, durable) => {
                let read = ask(&*block.read(), *durable);
                read.into_iter().for_each(take);
            }
            SnapshotSource::Old(file) => {
                let mut charge = self.question.charge(0)?;
                let mut builder = Builder::default();
                for window in file.windows(self.range) {
                    charge.set(builder.heap_bytes())?;
                    let added = window.and_then(|window| {
                        let added = builder.add(&window);
                        added.map_err(|err| (window.head.key, err.into()))
                    });
                    if let Err((key, err)) = added {
                        self.note_window(source, key, &err);
                    }
                    if builder.is_full() {
                        ask(&builder, usize::MAX).into_iter().for_each(&mut take);
                        builder = Builder::default();
                    }
                }
                ask(&builder, usize::MAX).into_iter().for_each(take);
            }
        }
        self.question.check()
    }

    /// How hard a source is worked on. What is read of a block is charged when it is not locked any more.
    fn effort(&self, source: &SnapshotSource) -> Effort<'_> {
        let question = match source {
            SnapshotSource::Block(..) => None,
            SnapshotSource::Segment(_) | SnapshotSource::Old(_) => Some(&self.question),
        };
        Effort {
            question,
            ..effort()
        }
    }

    fn note_window(&self, source: &SnapshotSource, key: WindowKey, err: &anyhow::Error) {
        let reason = format!("{err:#}");
        if self
            .unread
            .lock()
            .note(key, source.range(), [0; 2], &reason)
        {
            error!(window = %key, reason, "an answer lacks a window that cannot be read");
            self.metrics.count_unread();
        }
    }

    fn note_stretch(&self, range: TimeRange, windows: u64, lost: [u64; 2], reason: &str) {
        if self
            .unread
            .lock()
            .note_stretch(range, windows, lost, reason)
        {
            error!(
                from_ms = range.from_ms,
                reason, "an answer lacks what cannot be read"
            );
            self.metrics.count_unread();
        }
    }

    /// Notes damage of a source: how many windows it may touch, and what the answer lacks by it, in samples and nanoseconds.
    fn note_damage(
        &self,
        source: &SnapshotSource,
        windows: u64,
        lost: [u64; 2],
        damage: &[Damage],
    ) {
        let Some(first) = damage.first() else {
            return;
        };
        if let SnapshotSource::Segment(found) = source {
            found.note_damage(first, &self.metrics);
            let reason = format!("segment {}: {first}", found.name);
            self.note_stretch(source.range(), windows, lost, &reason);
        }
    }

    /// The readable part; the rest is noted as unread.
    fn take<T>(&self, source: &SnapshotSource, windows: &WindowSet, partial: Partial<T>) -> T {
        self.note_damage(source, windows.count() as u64, [0; 2], &partial.damage);
        partial.value
    }

    /// The numbers of a source's series that pass a test, with their label sets.
    fn select(
        found: &dyn Source,
        mut is_selected: impl FnMut(&LabelSet) -> bool,
    ) -> (Vec<u32>, Vec<LabelSet>) {
        let series = found.find_series(&mut is_selected);
        let labels = series.iter().map(|series| found.series_label_set(*series));
        let labels = labels.collect();
        (series, labels)
    }

    /// The sums of a source's windows, added to those of windows that were split among several sources.
    fn add_totals(
        &self,
        source: &SnapshotSource,
        totals: &mut BTreeMap<WindowKey, WindowTotals>,
    ) -> Result<(), Stop> {
        let overlaps = self.overlaps();
        self.ask_all(source, |found, windows| {
            let (series, labels) = Self::select(found, |_| true);
            let containers = match found.read_containers() {
                Ok(containers) => containers,
                Err(damage) => {
                    self.note_damage(source, windows.count() as u64, [0; 2], &[damage]);
                    Vec::new()
                }
            };
            let mut numbers = self.numbers.lock();
            let ids: Vec<SeriesId> = labels.into_iter().map(|set| numbers.number(set)).collect();
            let container_ids = containers.into_iter().map(|set| numbers.number(set));
            let container_ids: Vec<SeriesId> = container_ids.collect();
            drop(numbers);
            let selection = Selection {
                series: &series,
                windows,
            };
            let sums = match found.read_window_sums(&selection) {
                Ok(sums) => self.take(source, windows, sums),
                Err(damage) => {
                    return self.note_damage(source, windows.count() as u64, [0; 2], &[damage]);
                }
            };
            for sums in sums {
                let mut window = sums.to_totals(&ids, &container_ids);
                window.overlap = overlaps.of_window(&sums.info);
                add_window(totals, window, sums.account.is_some());
            }
        })
    }
}

/// Bytes of the sums of a window.
fn totals_bytes(totals: &WindowTotals) -> usize {
    let a_series = size_of::<SeriesId>() + 2 * size_of::<u64>();
    let a_container = size_of::<(SeriesId, ContainerUsage)>();
    size_of::<WindowTotals>()
        + a_series * totals.series.len()
        + a_container * totals.containers.len()
}

/// Adds the sums of a window, or of a part of one that was split; one of its parts has its account.
fn add_window(
    totals: &mut BTreeMap<WindowKey, WindowTotals>,
    window: WindowTotals,
    has_account: bool,
) {
    let Some(known) = totals.get_mut(&window.head.key) else {
        totals.insert(window.head.key, window);
        return;
    };
    if has_account {
        known.head = window.head;
    }
    known.series.extend(window.series);
    known.samples.extend(window.samples);
    known.ns.extend(window.ns);
    known.containers.extend(window.containers);
}

impl Snapshot for EmbeddedSnapshot {
    fn question(&self) -> &Arc<Question> {
        &self.question
    }

    fn version(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for source in &self.sources {
            match source {
                SnapshotSource::Segment(found) => found.name.to_string().hash(&mut hasher),
                SnapshotSource::Block(block, durable) => {
                    (block.segment_name().to_string(), durable).hash(&mut hasher);
                }
                SnapshotSource::Old(file) => file.path().hash(&mut hasher),
            }
        }
        self.unread.lock().entries().len().hash(&mut hasher);
        hasher.finish()
    }

    fn estimate_bytes(&self, filter: &SeriesFilter<'_>) -> u64 {
        let bytes = self
            .sources
            .iter()
            .map(|source| source.bytes_in(self.range) as f64 * source.share_of_series(filter));
        bytes.sum::<f64>() as u64
    }

    fn find_series(&self, filter: &SeriesFilter<'_>) -> Result<SeriesTable, StoreError> {
        let mut found = Vec::new();
        for source in &self.sources {
            self.ask(source, |source, _| {
                let (_, labels) = Self::select(source, |labels| filter.selects(labels));
                let mut numbers = self.numbers.lock();
                found.extend(labels.into_iter().map(|labels| numbers.number(labels)));
            })?;
        }
        Ok(self.table(found))
    }

    fn list_series(&self, filter: &SeriesFilter<'_>) -> Result<SeriesTable, StoreError> {
        let mut found = Vec::new();
        self.read_each(|source| {
            self.ask(source, |asked, windows| {
                let (series, labels) = Self::select(asked, |labels| filter.selects(labels));
                let mut listed: HashSet<u32> = HashSet::new();
                if windows.is_all() {
                    listed.extend(&series);
                } else {
                    let selection = Selection {
                        series: &series,
                        windows,
                    };
                    let read = asked.read_cells(&selection, &mut |series, cells| {
                        if !cells.is_empty() {
                            listed.insert(series);
                        }
                    });
                    self.take(source, windows, read);
                }
                let mut numbers = self.numbers.lock();
                let labels = series.into_iter().zip(labels);
                let labels = labels.filter(|(series, _)| listed.contains(series));
                found.extend(labels.map(|(_, labels)| numbers.number(labels)));
            })
        })?;
        Ok(self.table(found))
    }

    fn find_labels(&self, ids: &[SeriesId]) -> Result<Vec<Arc<LabelSet>>, StoreError> {
        let numbers = self.numbers.lock();
        let labels = |id: &SeriesId| {
            let labels = numbers.labels.get(id.0 as usize).cloned();
            labels.ok_or_else(|| StoreError::Failed(format!("there is no series {}", id.0)))
        };
        ids.iter().map(labels).collect()
    }

    fn scan_totals(&self, visit: &mut dyn FnMut(&WindowTotals)) -> Result<(), StoreError> {
        // Windows of sources whose time overlaps are sorted together.
        let mut totals = BTreeMap::new();
        let mut charge = self.question.charge(0)?;
        let mut end_ms = i64::MIN;
        self.read_each(|source| {
            let range = source.range();
            if range.from_ms >= end_ms {
                std::mem::take(&mut totals).values().for_each(&mut *visit);
            }
            end_ms = end_ms.max(range.to_ms);
            self.add_totals(source, &mut totals)?;
            charge.set(totals.values().map(totals_bytes).sum())
        })?;
        totals.values().for_each(visit);
        Ok(())
    }

    fn scan_cells(
        &self,
        series: &SeriesTable,
        visit: &mut dyn FnMut(&WindowCells),
    ) -> Result<(), StoreError> {
        let positions: HashMap<&LabelSet, u32> = series.iter().zip(0..).collect();
        self.read_each(|source| {
            self.read(
                source,
                |found, windows| self.read_cells(source, found, windows, &positions),
                |cells| {
                    // If there is no memory for it, the question is stopped.
                    if let Ok(_charge) = self.question.charge(cells.heap_bytes()) {
                        visit(&cells);
                    }
                },
            )
        })?;
        Ok(())
    }

    fn sum_stacks(
        &self,
        series: &SeriesTable,
        groups: &[u32],
        names: FunctionNames,
        visit: &mut dyn FnMut(&StackSums<'_>),
    ) -> Result<(), StoreError> {
        let groups: HashMap<&LabelSet, u32> = series.iter().zip(groups.iter().copied()).collect();
        let read = |sender: SyncSender<SourceSums>| {
            self.read_each(|source| {
                self.read(
                    source,
                    |found, windows| self.sum_source(source, found, windows, &groups, names),
                    // It is taken until all are read.
                    |sums| sender.send(sums).unwrap_or_default(),
                )
            })
        };
        // The next source is read while one is shown; there are never more than two.
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(0);
            let reading = scope.spawn(move || read(sender));
            for sums in receiver {
                self.show_sums(sums, visit);
            }
            match reading.join() {
                Ok(read) => Ok(read?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn has_overlaps(&self) -> Result<bool, StoreError> {
        Ok(!self.overlaps().is_empty())
    }

    fn lacks_addresses(&self) -> bool {
        self.sources.iter().any(|source| match source {
            SnapshotSource::Segment(found) => found.segment.summary().addresses != Addresses::Kept,
            SnapshotSource::Block(..) | SnapshotSource::Old(_) => false,
        })
    }

    fn unread(&self) -> Vec<Unread> {
        self.unread.lock().entries()
    }
}

impl EmbeddedSnapshot {
    fn table(&self, found: Vec<SeriesId>) -> SeriesTable {
        let numbers = self.numbers.lock();
        let entry = |id: SeriesId| (id, Arc::clone(&numbers.labels[id.0 as usize]));
        SeriesTable::new(found.into_iter().map(entry).collect())
    }
}
