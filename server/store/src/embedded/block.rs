//! Windows that are in no segment yet: those of an hour, received in a few minutes, in memory and in a log.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use segment::{Builder, Source as _};
use ulid::Ulid;

use super::directory::LOGS;
use super::sequences::Sequences;
use super::span::{Level, SegmentName, Span, parse_start};

/// A block. Its writer adds windows until it is written as a segment; questions read those that are durable.
pub struct Block {
    /// Start of the hour in which its windows start, milliseconds since the Unix epoch.
    pub hour_ms: i64,
    /// Its number.
    pub id: Ulid,
    builder: RwLock<Builder>,
    durable: AtomicUsize,
    log_bytes: AtomicU64,
    messages: RwLock<Sequences>,
}

impl Block {
    /// A block with the windows of a builder, which are durable.
    pub fn new(
        hour_ms: i64,
        id: Ulid,
        builder: Builder,
        messages: Sequences,
        log_bytes: u64,
    ) -> Self {
        Self {
            hour_ms,
            id,
            durable: AtomicUsize::new(builder.window_count()),
            log_bytes: AtomicU64::new(log_bytes),
            builder: RwLock::new(builder),
            messages: RwLock::new(messages),
        }
    }

    /// Its hour.
    pub fn span(&self) -> Span {
        Level::Part.span_of(self.hour_ms)
    }

    /// Path of its log, relative to the folder of profiles.
    pub fn log_path(&self) -> PathBuf {
        PathBuf::from(LOGS).join(format!("{}.{}.log", self.span(), self.id))
    }

    /// Reads the hour and the number in a log's name.
    pub fn parse_log_name(name: &str) -> Option<(i64, Ulid)> {
        let (start, id) = name.strip_suffix(".log")?.split_once('.')?;
        Some((parse_start(start)?, Ulid::from_string(id).ok()?))
    }

    /// The name of the segment that it becomes.
    pub fn segment_name(&self) -> SegmentName {
        SegmentName {
            span: self.span(),
            id: self.id,
            number: 0,
        }
    }

    /// The windows, with those that are being written.
    pub fn read(&self) -> RwLockReadGuard<'_, Builder> {
        self.builder.read()
    }

    /// For the block's writer.
    pub fn write(&self) -> RwLockWriteGuard<'_, Builder> {
        self.builder.write()
    }

    /// Number of durable windows: the first ones of the builder.
    pub fn durable(&self) -> usize {
        self.durable.load(Ordering::Acquire)
    }

    /// Whether a message is durable in it.
    pub fn has_message(&self, instance: &[u8; 16], sequence: u64) -> bool {
        self.messages.read().contains(instance, sequence)
    }

    /// Length of its log.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    /// Notes that these messages, which were added to the builder, are durable, and the length of the log.
    pub fn note_durable(
        &self,
        messages: impl IntoIterator<Item = ([u8; 16], u64)>,
        log_bytes: u64,
    ) {
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
        let mut known = self.messages.write();
        for (instance, sequence) in messages {
            known.insert(instance, sequence);
        }
        self.durable
            .store(self.read().window_count(), Ordering::Release);
    }

    /// The messages in it.
    pub fn messages(&self) -> Sequences {
        self.messages.read().clone()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.read().heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_logs_are_read_back() {
        let hour_ms = 1_795_996_800_000;
        let block = Block::new(
            hour_ms,
            Ulid::new(),
            Builder::default(),
            Sequences::default(),
            0,
        );
        let path = block.log_path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        assert_eq!(Block::parse_log_name(name), Some((hour_ms, block.id)));
        assert_eq!(Block::parse_log_name("2026-11-30T12.x.log"), None);
    }
}
