//! Verifies all segments in the background, so that damage is known before a question needs the damaged part.
//!
//! A pass verifies each segment once, and begins with the one after the last that was verified: it resumes after a restart. Reads are
//! paced, which also keeps the CPU share low, and the thread has the lowest priority. A stop, or the removal of the segment, ends
//! the verification at its next read.

use std::io;
use std::ops::Bound;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use segment::{Effort, ReadAt, Segment};
use tracing::{error, info, warn};

use super::content::{Content, SegmentFile, StoredSegment};
use super::recovery::is_damage;
use super::shared::Shared;
use super::span::SegmentName;

/// Time between the starts of two passes.
const PASS_TIME: Duration = Duration::from_secs(3 * 24 * 3600);

/// The lowest priority of a thread.
const NICE_MAX: i32 = 19;

/// Verifies segments until the store is closed.
pub fn run_verifier(shared: &Shared, bytes_per_second: u64) {
    if let Err(err) = setpriority_process(Some(gettid()), NICE_MAX) {
        warn!(%err, "failed to lower the priority of the thread that verifies segments");
    }
    while !shared.verifier.is_stopped() {
        let started = Instant::now();
        run_pass(shared, bytes_per_second);
        let rest = PASS_TIME.saturating_sub(started.elapsed());
        shared.verifier.wait(rest, true);
    }
}

/// Verifies each segment that is there now.
fn run_pass(shared: &Shared, bytes_per_second: u64) {
    let last = shared.catalog.last_verified().unwrap_or_else(|err| {
        warn!(%err, "failed to read which segment was verified last; starting with the oldest");
        None
    });
    // Names only: a snapshot would keep the files of merged segments open, and their space with them.
    for name in order_after(&shared.content(), last) {
        let found = shared.content().segments.get(&name).cloned();
        if let Some(found) = found {
            verify(shared, &found, bytes_per_second);
        }
        if shared.verifier.is_stopped() {
            return;
        }
        shared.note_catalog(shared.catalog.put_last_verified(&name));
    }
    info!("verified all segments");
}

/// The names of all segments, beginning after `last`.
fn order_after(content: &Content, last: Option<SegmentName>) -> Vec<SegmentName> {
    let Some(last) = last else {
        return content.segments.keys().copied().collect();
    };
    let after = (Bound::Excluded(last), Bound::Unbounded);
    let after = content.segments.range(after);
    let until = content.segments.range(..=last);
    after.chain(until).map(|(name, _)| *name).collect()
}

/// Verifies a segment, and notes what is damaged.
fn verify(shared: &Shared, found: &StoredSegment, bytes_per_second: u64) {
    let damage = match open_paced(shared, found.name, bytes_per_second) {
        Ok(segment) => segment.verify(Effort::ONE),
        Err(_) if is_abandoned(shared, &found.name) => return,
        Err(err) => {
            if is_damage(&err) {
                found.stop_merging();
            }
            let reason = format!("{err:#}");
            if found.note_reason(&reason, &shared.metrics) {
                log_damage(found, &reason);
            }
            return;
        }
    };
    if is_abandoned(shared, &found.name) {
        return;
    }
    shared.metrics.count_verified(found.segment.file_bytes());
    for damage in damage {
        if found.note_damage(&damage, &shared.metrics) {
            log_damage(found, &damage.to_string());
        }
    }
}

fn log_damage(found: &StoredSegment, reason: &str) {
    error!(name = %found.name, reason, "a segment is damaged; answers that need the damaged part say so");
}

fn open_paced(
    shared: &Shared,
    name: SegmentName,
    bytes_per_second: u64,
) -> anyhow::Result<Segment<PacedFile<'_>>> {
    let path = shared.directory.path().join(StoredSegment::path_of(&name));
    let file = shared.directory.disk().open(&path);
    let paced = PacedFile {
        file: file.with_context(|| format!("failed to open `{}`", path.display()))?,
        shared,
        name,
        bytes_per_second,
    };
    Ok(Segment::open(paced)?)
}

/// Whether the store is being closed, or has the segment no more.
fn is_abandoned(shared: &Shared, name: &SegmentName) -> bool {
    shared.verifier.is_stopped() || !shared.content().segments.contains_key(name)
}

/// A segment's file, of which so many bytes a second can be read.
struct PacedFile<'a> {
    file: SegmentFile,
    shared: &'a Shared,
    name: SegmentName,
    bytes_per_second: u64,
}

impl ReadAt for PacedFile<'_> {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if is_abandoned(self.shared, &self.name) {
            return Err(io::Error::other("the verification was abandoned"));
        }
        self.file.read_exact_at(buffer, offset)?;
        let seconds = buffer.len() as f64 / self.bytes_per_second.max(1) as f64;
        let verifier = &self.shared.verifier;
        verifier.wait(Duration::from_secs_f64(seconds), false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::text::window_at;
    use segment::{Builder, WriteOptions};
    use ulid::Ulid;

    use super::*;
    use crate::embedded::directory::Directory;
    use crate::embedded::output::Output;
    use crate::embedded::span::{HOUR_MS, Level};

    /// Check that a pass has each segment once, beginning after the last one, also when that is gone.
    #[test]
    fn a_pass_begins_after_the_last_segment() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::lock(folder.path()).unwrap();
        let mut content = Content::default();
        let names: Vec<SegmentName> = (0..4)
            .map(|hour| SegmentName {
                span: Level::Hour.span_of(hour * HOUR_MS),
                id: Ulid::new(),
                number: 0,
            })
            .collect();
        for name in [names[0], names[1], names[3]] {
            let mut builder = Builder::default();
            let window = window_at("comm=a | main | 1", name.span.start_ms, 1);
            builder.add(&window).unwrap();
            let output = Output::create(&directory, name).unwrap();
            let written = builder.write(&WriteOptions::FAST, &mut output.writer());
            written.unwrap();
            let stored = output.finish().unwrap().keep();
            content.segments.insert(name, Arc::new(stored));
        }
        for (last, expected) in [
            (None, [0, 1, 3]),
            (Some(0), [1, 3, 0]),
            (Some(2), [3, 0, 1]),
            (Some(3), [0, 1, 3]),
        ] {
            let order = order_after(&content, last.map(|last: usize| names[last]));
            assert_eq!(order, expected.map(|at| names[at]), "{last:?}");
        }
    }
}
