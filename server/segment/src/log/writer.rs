//! Writes what a builder gets.

use crate::build::Builder;
use crate::codec::varint;

use super::callees::Callees;
use super::entries::{LoggedEntries, encode_entries};
use super::frame::{FrameKind, FramePacker, put_header};
use super::replay::Replay;
use super::windows::encode_windows;

/// Bytes of rows in memory at which a record ends: what one message brings is much less. A question of how much of a large batch is lost
/// with a damaged record.
pub(super) const RECORD_ROW_BYTES: usize = 8 << 20;

/// Bytes of a log between two checkpoints at least. With generated load of 20 nodes, 3 a second, that is a checkpoint of 1.5 MB every
/// 20 minutes: 9 %. A block is written as a segment after 10.
const CHECKPOINT_BYTES: u64 = 16 << 20;

/// Bytes between two checkpoints for each byte of the dictionary, so that checkpoints take at most a quarter more: on a machine that
/// builds software, nine tenths of a log are dictionary.
const CHECKPOINT_SPACING: u64 = 4;

/// Writes the log of a builder: records of what is new in it.
///
/// The caller appends the bytes to a file, syncs it, and [commits](Self::commit). If that failed it cuts the file to
/// [its durable bytes](Self::durable_bytes) and [rolls back](Self::roll_back). Where the file cannot be cut, the log may go on behind what
/// was written of the failed write, after [a request for a checkpoint](Self::request_checkpoint).
pub struct LogWriter {
    block_ms: i64,
    /// State at the last commit.
    durable: Logged,
    /// State after the last record that was encoded.
    encoded: Logged,
    callees: Callees,
    packer: FramePacker,
    record: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Logged {
    entries: LoggedEntries,
    /// Windows of the builder.
    windows: usize,
    /// Windows that were in the log, but could not be read.
    lost_windows: u64,
    bytes: u64,
    /// End of the last checkpoint.
    checkpoint_end: u64,
    /// Bytes of entries since the beginning: about the size of a checkpoint.
    entry_bytes: u64,
    needs_checkpoint: bool,
}

impl LogWriter {
    /// The log of an empty builder, for a new file.
    pub fn new(block_ms: i64) -> Self {
        let start = Logged {
            entries: LoggedEntries::NONE,
            windows: 0,
            lost_windows: 0,
            bytes: 0,
            checkpoint_end: 0,
            entry_bytes: 0,
            needs_checkpoint: false,
        };
        Self::of(block_ms, start)
    }

    /// Goes on with a log that was read back. The file must be cut to [`Replay::bytes`] before.
    pub fn resume(block_ms: i64, replay: &Replay) -> Self {
        let logged = Logged {
            entries: LoggedEntries::all(&replay.builder),
            windows: replay.builder.windows.len(),
            lost_windows: replay.lost_windows,
            bytes: replay.bytes,
            checkpoint_end: 0,
            entry_bytes: replay.bytes,
            needs_checkpoint: !replay.damage.is_empty(),
        };
        Self::of(block_ms, logged)
    }

    fn of(block_ms: i64, logged: Logged) -> Self {
        Self {
            block_ms,
            durable: logged.clone(),
            encoded: logged,
            callees: Callees::default(),
            packer: FramePacker::default(),
            record: Vec::new(),
        }
    }

    /// Appends the records of all windows that have none.
    pub fn encode(&mut self, builder: &Builder, out: &mut Vec<u8>) {
        let windows = builder.windows.len();
        if self.encoded.windows == windows {
            return;
        }
        let start = out.len();
        let before = self.encoded.bytes;
        if before == 0 {
            put_header(out, self.block_ms);
        }
        if self.encoded.needs_checkpoint || self.is_checkpoint_due() {
            self.encode_checkpoint(builder, out);
            self.encoded.checkpoint_end = before + (out.len() - start) as u64;
        }
        while self.encoded.windows < windows {
            self.encode_record(builder, out);
        }
        self.encoded.bytes = before + (out.len() - start) as u64;
    }

    fn is_checkpoint_due(&self) -> bool {
        let Logged {
            bytes,
            checkpoint_end,
            entry_bytes,
            ..
        } = self.encoded;
        bytes - checkpoint_end >= CHECKPOINT_BYTES.max(CHECKPOINT_SPACING * entry_bytes)
    }

    fn encode_checkpoint(&mut self, builder: &Builder, out: &mut Vec<u8>) {
        let start = out.len();
        self.record.clear();
        encode_entries(
            builder,
            &LoggedEntries::NONE,
            &mut self.callees,
            &mut self.record,
        );
        self.packer.put(out, FrameKind::Checkpoint, &self.record);
        self.encoded.entries = LoggedEntries::all(builder);
        self.encoded.entry_bytes = (out.len() - start) as u64;
        self.encoded.needs_checkpoint = false;
    }

    /// Writes the next windows, and all entries that are not logged.
    fn encode_record(&mut self, builder: &Builder, out: &mut Vec<u8>) {
        let start = out.len();
        let record = &mut self.record;
        record.clear();
        encode_entries(builder, &self.encoded.entries, &mut self.callees, record);
        let entry_bytes = record.len() as u64;
        let first = self.encoded.windows;
        let mut end = first + 1;
        let row_bytes = |window| -> usize {
            let runs = builder.window_runs(window);
            runs.map(|(_, run)| run.row_bytes()).sum()
        };
        let mut record_bytes = row_bytes(first);
        while end < builder.windows.len() && record_bytes < RECORD_ROW_BYTES {
            record_bytes += row_bytes(end);
            end += 1;
        }
        varint::put(record, first as u64 + self.encoded.lost_windows);
        encode_windows(builder, first..end, record);
        self.packer.put(out, FrameKind::Windows, record);
        let frame_bytes = (out.len() - start) as u64;
        self.encoded.entry_bytes += frame_bytes * entry_bytes / record.len().max(1) as u64;
        self.encoded.entries.update(builder);
        self.encoded.windows = end;
    }

    /// All that was encoded is durable.
    pub fn commit(&mut self) {
        self.durable.clone_from(&self.encoded);
    }

    /// Call when the records since the last commit could not be written, or may not have been. Takes their windows back, and those
    /// that were added and not encoded. The next record has all entries that no durable record has.
    pub fn roll_back(&mut self, builder: &mut Builder) {
        builder.truncate(self.durable.windows);
        self.encoded.clone_from(&self.durable);
    }

    /// Writes a checkpoint with the next record.
    pub fn request_checkpoint(&mut self) {
        self.encoded.needs_checkpoint = true;
    }

    /// Bytes of the file that are known to be durable.
    pub fn durable_bytes(&self) -> u64 {
        self.durable.bytes
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.callees.heap_bytes() + self.record.capacity() + self.packer.heap_bytes()
    }

    /// Windows of the builder that are durable: those that readers may see.
    pub fn durable_windows(&self) -> usize {
        self.durable.windows
    }
}
