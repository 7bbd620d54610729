//! Work in the background, one step at a time: writes blocks as segments, converts files of earlier versions, merges and evicts.
//!
//! Each step writes new files, reads them back, and lets them take the place of the old ones: on the disk by a [`Replacement`], for
//! questions by a new [`Content`]. A step that fails before that leaves all as it was, and is done again; what fails after it is tried
//! until it works.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::TimeRange;
use segment::{Builder, Damage, MergeOptions, Segment, Source as _, WriteOptions, drop_addresses};
use tracing::{error, info, warn};
use ulid::Ulid;

use super::block::Block;
use super::content::{Content, SegmentFile, StoredSegment};
use super::files::{self, ignore_existing, ignore_missing, keep_damaged};
use super::old::OldFile;
use super::output::{NewSegment, Output};
use super::plan::{Merge, plan_address_drop, plan_eviction, plan_merge};
use super::replace::{Committed, Replacement};
use super::sequences::Sequences;
use super::shared::{Shared, effort, now_ms};
use super::span::{Level, SegmentName};
use super::versions::read_versions;
use super::wakeup::Wakeup;

/// Time between looks at what is due.
const TICK: Duration = Duration::from_secs(5);

/// Times before a step that failed is tried again: a disk that failed once is asked soon, and one that goes on failing rarely.
const RETRY_TIME_MIN: Duration = Duration::from_millis(20);
const RETRY_TIME_MAX: Duration = Duration::from_secs(30);

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
    let mut retry_time = RETRY_TIME_MIN;
    while !wakeup.is_stopped() {
        match step() {
            Ok(true) => retry_time = RETRY_TIME_MIN,
            Ok(false) => wakeup.wait(TICK, true),
            Err(_) if wakeup.is_stopped() => {}
            Err(err) => retry_time = wait_after(shared, wakeup, &err, retry_time),
        }
    }
}

/// Reports a failure, and waits. Returns how long to wait after the next one.
fn wait_after(
    shared: &Shared,
    wakeup: &Wakeup,
    err: &anyhow::Error,
    retry_time: Duration,
) -> Duration {
    error!(err = %format_args!("{err:#}"), "work in the background failed, and is tried again");
    shared.metrics.count_failure();
    wakeup.wait(retry_time, false);
    (2 * retry_time).min(RETRY_TIME_MAX)
}

/// Does one thing that is due. Returns whether there was one.
fn step(shared: &Shared) -> Result<bool> {
    let content = shared.content();
    if evict(shared, &content)? {
        return Ok(true);
    }
    // The newest first: people ask about it first.
    if let Some(old) = content.old.last()
        && shared.has_room(old.bytes())
    {
        convert(shared, old)?;
        return Ok(true);
    }
    let is_open = |span| content.is_open(span);
    match plan_merge(&content.whole_facts(), is_open, &shared.retention, now_ms()) {
        Some(merge) => run_merge(shared, &content, &merge),
        None => match plan_address_drop(&content.whole_facts(), &shared.retention) {
            Some(names) => run_address_drop(shared, &content, &names),
            None => Ok(complete_catalog(shared, &content)),
        },
    }
}

/// Reads the versions of a segment of which the catalog has none. Returns whether there was one.
fn complete_catalog(shared: &Shared, content: &Content) -> bool {
    let is_missing =
        |found: &&Arc<StoredSegment>| found.versions().is_none() && found.damage().is_none();
    // The newest first: people ask about it first.
    let Some(found) = content.segments.values().rev().find(is_missing) else {
        return false;
    };
    match read_versions(&found.segment) {
        Ok(versions) => {
            found.set_versions(versions);
            put_versions(shared, found);
        }
        Err(damage) => note_damage(shared, found, &damage),
    }
    true
}

/// Keeps the versions of a segment in the catalog.
fn put_versions(shared: &Shared, found: &StoredSegment) {
    if let Some(versions) = found.versions() {
        let bytes = found.segment.file_bytes();
        shared.note_catalog(shared.catalog.put_versions(&found.name, bytes, versions));
    }
}

fn note_damage(shared: &Shared, found: &StoredSegment, damage: &Damage) {
    error!(name = %found.name, %damage, "a segment is damaged");
    found.note_damage(damage, &shared.metrics);
}

/// Gives up to rewrite segments of which one has wrong bytes: it is left out from now on. Everything else is an error, and tried again.
fn leave_out_damaged(
    shared: &Shared,
    inputs: &[&Arc<StoredSegment>],
    err: segment::Error,
) -> Result<()> {
    match err {
        segment::Error::Input { input, damage } if damage.is_lasting() => {
            note_damage(shared, inputs[input], &damage);
            Ok(())
        }
        err => Err(err.into()),
    }
}

/// Writes a block as a segment, which replaces its log.
fn seal(shared: &Shared, block: &Arc<Block>) -> Result<()> {
    if block.read().is_empty() {
        let log = shared.directory.path().join(block.log_path());
        ignore_missing(shared.directory.disk().remove(&log))?;
        shared.forget_sealed(block);
        return Ok(());
    }
    let name = block.segment_name();
    let output = Output::create(&shared.directory, name)?;
    block
        .read()
        .write(&WriteOptions::FAST, &mut output.writer())?;
    let new = output.finish()?;
    ensure!(
        new.stored.messages == block.messages(),
        "the messages of {name} are not those of its log"
    );
    let old = vec![block.log_path()];
    replace(shared, &shared.sealer, vec![new], old, |content| {
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
    let mut written = Vec::new();
    let mut builder = Builder::default();
    let mut damaged = old.damaged();
    let mut write = |builder: Builder| -> Result<()> {
        let name = SegmentName {
            span: Level::Part.span_of(old.hour_ms()),
            id,
            number: written.len() as u32,
        };
        let output = Output::create(&shared.directory, name)?;
        builder.write(&WriteOptions::SMALL, &mut output.writer())?;
        let new = output.finish()?;
        builder.compare(&new.stored.segment, effort())?;
        written.push(new);
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
        // Somebody may recover the unreadable part.
        let kept = keep_damaged(old.path());
        warn!(path = %kept.display(), damaged, "a file of an earlier version is damaged, keeping it");
        ignore_existing(shared.directory.disk().link(old.path(), &kept))?;
    }
    let path = old.relative_path().to_owned();
    replace(shared, &shared.compactor, written, vec![path], |content| {
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
    let segments: Vec<_> = inputs.iter().map(|input| &input.segment).collect();
    let merged = segment::merge(&segments, &options, || {
        let name = SegmentName {
            span: merge.span,
            id,
            number: outputs.len() as u32,
        };
        let output = Output::create(&shared.directory, name)?;
        let writer = output.writer();
        outputs.push(output);
        Ok(writer)
    });
    if let Err(err) = merged {
        leave_out_damaged(shared, &inputs, err).context("failed to merge segments")?;
        return Ok(true);
    }
    replace_segments(shared, &inputs, outputs)?;
    info!(span = %merge.span, level = merge.span.level.name(), inputs = inputs.len(), "merged segments");
    Ok(true)
}

/// Replaces the segments of a merge by the same without addresses. Returns whether it was done.
fn run_address_drop(shared: &Shared, content: &Content, names: &[SegmentName]) -> Result<bool> {
    let inputs = names.iter().map(|name| &content.segments[name]);
    let inputs: Vec<&Arc<StoredSegment>> = inputs.collect();
    let bytes = inputs.iter().map(|input| input.segment.file_bytes()).sum();
    if !shared.has_room(bytes) {
        return Ok(false);
    }
    let id = Ulid::new();
    let mut outputs = Vec::new();
    for input in &inputs {
        let name = SegmentName { id, ..input.name };
        let output = Output::create(&shared.directory, name)?;
        if let Err(err) = drop_addresses(&input.segment, &WriteOptions::SMALL, output.writer()) {
            leave_out_damaged(shared, &[input], err).context("failed to drop addresses")?;
            return Ok(true);
        }
        outputs.push(output);
    }
    replace_segments(shared, &inputs, outputs)?;
    info!(
        segments = inputs.len(),
        "dropped addresses of rolled-up segments"
    );
    Ok(true)
}

/// Replaces segments by others with the same messages and sums.
fn replace_segments(
    shared: &Shared,
    inputs: &[&Arc<StoredSegment>],
    outputs: Vec<Output>,
) -> Result<()> {
    let written: Result<Vec<NewSegment>> = outputs.into_iter().map(Output::finish).collect();
    let written = written?;
    let before = Sums::of(inputs.iter().map(|input| &input.segment))?;
    let after = Sums::of(written.iter().map(|new| &new.stored.segment))?;
    ensure!(
        before == after,
        "new segments have not what the old ones have"
    );
    let old = inputs.iter();
    let old = old.map(|input| StoredSegment::path_of(&input.name));
    let names: BTreeSet<SegmentName> = inputs.iter().map(|input| input.name).collect();
    replace(
        shared,
        &shared.compactor,
        written,
        old.collect(),
        |content| {
            content.segments.retain(|name, _| !names.contains(name));
        },
    )
}

/// Removes segments that are too old or too many. Returns whether there were any.
fn evict(shared: &Shared, content: &Content) -> Result<bool> {
    let files = content.evictable();
    let evicted = plan_eviction(files, content.log_bytes(), &shared.retention, now_ms());
    if evicted.is_empty() {
        return Ok(false);
    }
    let (disk, directory) = (shared.directory.disk(), shared.directory.path());
    let bytes = evicted
        .iter()
        .map(|path| files::length(&**disk, &directory.join(path)));
    let bytes = bytes.sum();
    let replacement = Replacement {
        new: Vec::new(),
        old: evicted.iter().cloned().collect(),
    };
    let _replacing = shared.begin_replacement()?;
    // Segments of one merge have parts of the same windows: all of them go, or none.
    let committed = match replacement.clone().commit(disk, directory) {
        Err(err) if err.kind() == io::ErrorKind::StorageFull => {
            replacement.without_list(disk, directory)
        }
        committed => committed.context("failed to evict segments")?,
    };
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
    finish(shared, &shared.compactor, committed);
    shared.metrics.count_evicted(bytes);
    for path in &evicted {
        shared.directory.tidy_old(&directory.join(path));
    }
    info!(files = evicted.len(), "evicted what is too old or too much");
    Ok(true)
}

/// Lets new segments take the place of files, for the disk and for questions. `forget` removes what they replace.
///
/// # Errors
/// The disk failed, and all is as it was.
fn replace(
    shared: &Shared,
    wakeup: &Wakeup,
    new: Vec<NewSegment>,
    old: Vec<PathBuf>,
    forget: impl FnOnce(&mut Content),
) -> Result<()> {
    let _replacing = shared.begin_replacement()?;
    let names = new
        .iter()
        .map(|new| StoredSegment::path_of(&new.stored.name));
    let replacement = Replacement {
        new: names.collect(),
        old: old.clone(),
    };
    let committed = replacement.commit(shared.directory.disk(), shared.directory.path())?;
    let new: Vec<_> = new.into_iter().map(|new| Arc::new(new.keep())).collect();
    for segment in &new {
        shared.note_catalog(shared.catalog.put_segment(&segment.name, &segment.entry()));
        put_versions(shared, segment);
    }
    shared.change(|content| {
        forget(content);
        let new = new.into_iter().map(|segment| (segment.name, segment));
        content.segments.extend(new);
    });
    shared.forget_in_catalog(old.iter().map(PathBuf::as_path));
    finish(shared, wakeup, committed);
    Ok(())
}

/// Finishes a replacement that counts, as often as it takes. If the store stops before that, the next start does it.
fn finish(shared: &Shared, wakeup: &Wakeup, mut committed: Committed) {
    let mut retry_time = RETRY_TIME_MIN;
    while let Err(err) = committed.finish() {
        let err = anyhow::Error::new(err).context("failed to replace files");
        if wakeup.is_stopped() {
            return error!(err = %format_args!("{err:#}"), "the next start goes on");
        }
        retry_time = wait_after(shared, wakeup, &err, retry_time);
    }
}

/// Sums that a merge must not change.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    messages: Sequences,
    samples: u64,
    ns: u64,
}

impl Sums {
    fn of<'s>(segments: impl IntoIterator<Item = &'s Segment<SegmentFile>>) -> Result<Self> {
        let mut sums = Self::default();
        for segment in segments {
            for found in &segment.read_messages()?.value {
                sums.messages.insert(found.instance, found.message.sequence);
            }
            let summary = segment.summary();
            sums.samples = sums.samples.saturating_add(summary.samples);
            sums.ns = sums.ns.saturating_add(summary.ns);
        }
        Ok(sums)
    }
}
