//! A new segment: written, made durable and checked before it takes the place of other files.

use std::io::{self, BufWriter};
use std::sync::Arc;

use anyhow::Result;
use segment::{Effort, Segment};

use super::content::{StoredSegment, read_messages};
use super::directory::Directory;
use super::disk::DiskFile;
use super::files::{FileWriter, Unfinished};
use super::span::SegmentName;
use super::versions::read_versions;

/// A segment that is being written. Its file is removed when this is dropped.
pub struct Output {
    name: SegmentName,
    guard: Unfinished,
    file: Arc<dyn DiskFile>,
}

/// A segment that is durable, but does not count yet. Its file is removed when this is dropped.
pub struct NewSegment {
    /// The segment.
    pub stored: StoredSegment,
    guard: Unfinished,
}

impl Output {
    /// Makes an empty file.
    ///
    /// # Errors
    /// The disk failed.
    pub fn create(directory: &Directory, name: SegmentName) -> io::Result<Self> {
        let path = directory.path().join(StoredSegment::path_of(&name));
        let (guard, file) = Unfinished::create(directory.disk(), &path)?;
        Ok(Self { name, guard, file })
    }

    /// Writes to the file.
    pub fn writer(&self) -> BufWriter<FileWriter> {
        BufWriter::new(FileWriter::new(Arc::clone(&self.file)))
    }

    /// Makes it durable, and checks the whole file.
    ///
    /// # Errors
    /// The disk failed, or has not what was written.
    pub fn finish(self) -> Result<NewSegment> {
        self.file.sync()?;
        let segment = Segment::open(self.file)?;
        if let Some(damage) = segment.verify(Effort::ONE).first() {
            anyhow::bail!(
                "{} is damaged just after it was written: {damage}",
                self.name
            );
        }
        let messages = read_messages(&segment)?;
        let versions = read_versions(&segment)?;
        let stored = StoredSegment::new(self.name, messages, segment);
        stored.set_versions(versions);
        Ok(NewSegment {
            stored,
            guard: self.guard,
        })
    }
}

impl NewSegment {
    /// The segment, which counts now: its file stays.
    pub fn keep(self) -> StoredSegment {
        self.guard.keep();
        self.stored
    }
}
