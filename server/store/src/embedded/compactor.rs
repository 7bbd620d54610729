//! Work in the background, one step at a time: writes blocks as segments, converts files of earlier versions, merges and evicts.
//!
//! Each step writes new files, reads them back, and lets them take the place of the old ones: on the disk by a [`Replacement`], for
//! questions by a new [`Content`]. A step that fails leaves all as it was, and is tried again.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::TimeRange;
use segment::{Builder, Effort, MergeOptions, Segment, Source as _, WriteOptions};
use tracing::{error, info, warn};
use ulid::Ulid;

use super::block::Block;
use super::content::{Content, StoredSegment, read_messages};
use super::old::OldFile;
use super::plan::{Merge, plan_eviction, plan_merge};
use super::replace::{Replacement, keep_damaged, unfinished};
use super::sequences::Sequences;
use super::shared::{Shared, effort, now_ms};
use super::span::{Level, SegmentName};
use super::wakeup::Wakeup;

/// Time between looks at what is due.
const TICK: Duration = Duration::from_secs(5);

/// Time before a step that failed is tried again.
const RETRY_TIME: Duration = Duration::from_secs(30);

/// Writes blocks as segments until the store is closed.
pub fn run_sealer(shared: &Shared) {
    run(shared, &shared.sealer, || match shared.next_sealed() {
        Some(block) => seal(shared, &block).map(|()| true),
        None => Ok(false),
    });
}

/// Converts, merges and evicts until the store is closed.
pub fn run_compactor(shared: &Shared) {
    run(shared, &shared.compactor, || step(shared));
}

/// Calls `step` until it has nothing to do, again and again.
fn run(shared: &Shared, wakeup: &Wakeup, step: impl Fn() -> Result<bool>) {
    while !wakeup.is_stopped() {
        match step() {
            Ok(true) => {}
            Ok(false) => wakeup.wait(TICK, true),
            Err(_) if wakeup.is_stopped() => {}
            Err(err) => {
                error!(err = %format_args!("{err:#}"), "work in the background failed, and is tried again");
                shared.metrics.count_failure();
                wakeup.wait(RETRY_TIME, false);
            }
        }
    }
}

/// Does one thing that is due. Returns whether there was one.
fn step(shared: &Shared) -> Result<bool> {
    let content = shared.content();
    if evict(shared, &content)? {
        return Ok(true);
    }
    // What people ask about first is the newest.
    if let Some(old) = content.old.last()
        && shared.has_room(old.bytes())
    {
        convert(shared, old)?;
        return Ok(true);
    }
    let is_open = |span| content.is_open(span);
    match plan_merge(&content.whole_facts(), is_open, &shared.retention, now_ms()) {
        Some(merge) => run_merge(shared, &content, &merge),
        None => Ok(false),
    }
}

/// Writes a block as a segment, which replaces its log.
fn seal(shared: &Shared, block: &Arc<Block>) -> Result<()> {
    if block.read().is_empty() {
        fs::remove_file(shared.directory.path().join(block.log_path()))?;
        shared.forget_sealed(block);
        return Ok(());
    }
    let name = block.segment_name();
    let mut output = Output::create(shared, name)?;
    block.read().write(&WriteOptions::FAST, &mut output.file)?;
    let segment = output.finish()?;
    let written = read_messages(&segment)?;
    ensure!(
        written == block.messages(),
        "the messages of {name} are not those of its log"
    );
    replace(shared, vec![name], vec![block.log_path()], |content| {
        content.blocks.retain(|other| other.id != block.id);
    })
    .with_context(|| format!("failed to write the segment {name}"))?;
    shared.forget_sealed(block);
    shared.compactor.wake();
    info!(%name, "wrote a segment");
    Ok(())
}

/// Converts a file of an earlier version.
fn convert(shared: &Shared, old: &Arc<OldFile>) -> Result<()> {
    let all = TimeRange {
        from_ms: i64::MIN,
        to_ms: i64::MAX,
    };
    let id = Ulid::new();
    let mut names = Vec::new();
    let mut builder = Builder::default();
    let mut damaged = old.damaged();
    let mut write = |builder: Builder| -> Result<()> {
        let name = SegmentName {
            span: Level::Part.span_of(old.hour_ms()),
            id,
            number: names.len() as u32,
        };
        let mut output = Output::create(shared, name)?;
        builder.write(&WriteOptions::SMALL, &mut output.file)?;
        let segment = output.finish()?;
        builder.compare(&segment, effort())?;
        names.push(name);
        Ok(())
    };
    for window in old.windows(all) {
        match window {
            Ok(window) => builder.add(&window)?,
            Err((_, err)) => {
                error!(path = %old.path().display(), %err, "a window of an earlier version cannot be read");
                damaged += 1;
            }
        }
        if builder.is_full() {
            write(std::mem::take(&mut builder))?;
        }
        ensure!(!shared.compactor.is_stopped(), "the server is stopping");
    }
    if !builder.is_empty() {
        write(builder)?;
    }
    if damaged > 0 {
        // What could not be read may be of use to somebody.
        let kept = keep_damaged(old.path());
        warn!(path = %kept.display(), damaged, "a file of an earlier version is damaged, keeping it");
        ignore_existing(fs::hard_link(old.path(), kept))?;
    }
    let path = old.relative_path().to_owned();
    replace(shared, names, vec![path], |content| {
        content.old.retain(|other| !Arc::ptr_eq(other, old));
    })?;
    shared.directory.tidy_old(old.path());
    info!(path = %old.path().display(), "converted a file of an earlier version");
    Ok(())
}

/// Replaces segments by their merge. Returns whether it was done.
fn run_merge(shared: &Shared, content: &Content, merge: &Merge) -> Result<bool> {
    let inputs = merge.inputs.iter().map(|name| &content.segments[name]);
    let inputs: Vec<&Arc<StoredSegment>> = inputs.collect();
    let bytes = inputs.iter().map(|input| input.segment.file_bytes()).sum();
    if !shared.has_room(bytes) {
        return Ok(false);
    }
    let id = Ulid::new();
    let mut outputs = Vec::new();
    let options = MergeOptions {
        resolution_ms: (merge.resolution_ms > 0).then_some(merge.resolution_ms),
        ..MergeOptions::default()
    };
    let mut segments = Vec::new();
    for name in &merge.inputs {
        let path = shared.directory.path().join(StoredSegment::path_of(name));
        segments.push(Segment::open(File::open(path)?)?);
    }
    let merged = segment::merge(&segments, &options, || {
        let name = SegmentName {
            span: merge.span,
            id,
            number: outputs.len() as u32,
        };
        let output = Output::create(shared, name)?;
        let file = output.file.get_ref().try_clone()?;
        outputs.push(output);
        Ok(BufWriter::new(file))
    });
    match merged {
        Ok(_) => {}
        Err(segment::Error::Input { input, damage }) => {
            error!(name = %inputs[input].name, %damage, "a segment is damaged, and is not merged any more");
            inputs[input].note_damage();
            return Ok(true);
        }
        Err(err) => return Err(err).context("failed to merge segments"),
    }
    let names: Vec<SegmentName> = outputs.iter().map(|output| output.name).collect();
    let mut written = Sums::default();
    for output in outputs {
        written.add(&output.finish()?)?;
    }
    let mut read = Sums::default();
    for input in &inputs {
        read.add(&input.segment)?;
    }
    ensure!(
        written == read,
        "the merge {id} has not what its inputs have"
    );
    let old = inputs
        .iter()
        .map(|input| StoredSegment::path_of(&input.name));
    replace(shared, names, old.collect(), |content| {
        content
            .segments
            .retain(|name, _| !merge.inputs.contains(name));
    })?;
    info!(span = %merge.span, level = merge.span.level.name(), inputs = inputs.len(), "merged segments");
    Ok(true)
}

/// Removes segments that are too old or too many. Returns whether there were any.
fn evict(shared: &Shared, content: &Content) -> Result<bool> {
    let files = content.evictable();
    let evicted = plan_eviction(files, content.log_bytes(), &shared.retention, now_ms());
    if evicted.is_empty() {
        return Ok(false);
    }
    // For questions first: one that begins now does not find them. Then the catalog, so that no start misses them.
    shared.change(|content| {
        let is_kept = |path: &Path| !evicted.contains(path);
        content
            .segments
            .retain(|name, _| is_kept(&StoredSegment::path_of(name)));
        content.unreadable.retain(|path, _| is_kept(path));
        content.old.retain(|file| is_kept(file.relative_path()));
    });
    shared.forget_in_catalog(evicted.iter().map(PathBuf::as_path));
    for path in &evicted {
        let path = shared.directory.path().join(path);
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(err).with_context(|| format!("failed to remove `{}`", path.display()));
            }
            _ => shared.metrics.count_evicted(bytes),
        }
        shared.directory.tidy_old(&path);
    }
    info!(files = evicted.len(), "evicted what is too old or too much");
    Ok(true)
}

/// Lets new segments take the place of files, for the disk and for questions. `forget` removes what they replace.
fn replace(
    shared: &Shared,
    names: Vec<SegmentName>,
    old: Vec<PathBuf>,
    forget: impl FnOnce(&mut Content),
) -> Result<()> {
    let replacement = Replacement {
        new: names.iter().map(StoredSegment::path_of).collect(),
        old,
    };
    // Before they are gone, so that no start misses them.
    shared.forget_in_catalog(replacement.old.iter().map(PathBuf::as_path));
    replacement.run(shared.directory.path())?;
    let mut opened = Vec::new();
    for name in &names {
        let segment = StoredSegment::open(&shared.directory, &shared.catalog, *name)
            .with_context(|| format!("failed to open the new segment {name}"))?;
        opened.push(Arc::new(segment));
    }
    for segment in &opened {
        shared.note_catalog(shared.catalog.put_segment(&segment.name, &segment.entry()));
    }
    shared.change(|content| {
        forget(content);
        let opened = opened.into_iter().map(|segment| (segment.name, segment));
        content.segments.extend(opened);
    });
    Ok(())
}

/// A new segment that does not count yet. It is removed when this is dropped before it was finished.
struct Output {
    name: SegmentName,
    path: PathBuf,
    file: BufWriter<File>,
    is_finished: bool,
}

impl Output {
    fn create(shared: &Shared, name: SegmentName) -> io::Result<Self> {
        let path = shared.directory.path().join(StoredSegment::path_of(&name));
        let path = unfinished(&path);
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)?;
        Ok(Self {
            name,
            path,
            file: BufWriter::new(file),
            is_finished: false,
        })
    }

    /// Makes it durable, and checks the whole file.
    fn finish(mut self) -> Result<Segment<File>> {
        io::Write::flush(&mut self.file)?;
        self.file.get_ref().sync_all()?;
        let segment = Segment::open(File::open(&self.path)?)?;
        if let Some(damage) = segment.verify(Effort::ONE).first() {
            anyhow::bail!(
                "`{}` is damaged just after it was written: {damage}",
                self.path.display()
            );
        }
        self.is_finished = true;
        Ok(segment)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_finished {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// What a merge must not change.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    messages: Sequences,
    samples: u64,
    ns: u64,
}

impl Sums {
    fn add(&mut self, segment: &Segment<File>) -> Result<()> {
        for found in &segment.read_messages()?.value {
            self.messages.insert(found.instance, found.message.sequence);
        }
        let summary = segment.summary();
        self.samples = self.samples.saturating_add(summary.samples);
        self.ns = self.ns.saturating_add(summary.ns);
        Ok(())
    }
}

fn ignore_existing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
