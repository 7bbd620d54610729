//! Reads a log back into a builder.

use crate::build::Builder;
use crate::codec::varint::Bytes;
use crate::error::Malformed;

use super::callees::Callees;
use super::entries::{apply_entries, decode_entries};
use super::frame::{
    Frame, FrameKind, FrameUnpacker, HEADER_BYTES, Header, VERSION, find_frame, read_frame,
    read_header,
};
use super::windows::{NewWindow, apply_window, decode_windows};

/// Why bytes are no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// They end in the header, or it was not written: no window in it was ever acknowledged.
    #[error("the log has no header")]
    Cut,
    /// They are no log.
    #[error("not a log: there is neither a header nor a record")]
    NotALog,
    /// The log has another version of the format.
    #[error("a log of format version {found}, and this server reads version {known}")]
    Version {
        /// The log's.
        found: u32,
        /// This server's.
        known: u32,
    },
}

/// Bytes of a log that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {start} to {end} of the log: {what}")]
pub struct LogDamage {
    /// The first byte.
    pub start: u64,
    /// The end.
    pub end: u64,
    /// The damage.
    pub what: &'static str,
}

/// A log that was read back.
#[derive(Default)]
pub struct Replay {
    /// The windows that could be read.
    pub builder: Builder,
    /// The start of the block, in milliseconds since the Unix epoch; none if the header is damaged.
    pub block_ms: Option<i64>,
    /// The end of the last whole record. What follows is a torn write.
    pub bytes: u64,
    /// Bytes behind it.
    pub torn_bytes: u64,
    /// Unreadable parts, by position.
    pub damage: Vec<LogDamage>,
    /// Windows that were in the damaged bytes, as far as a later record tells.
    pub lost_windows: u64,
    /// For each window of the builder, its number in the log.
    log_numbers: Vec<u64>,
    callees: Callees,
}

/// Reads a log. A torn write at its end is left out: it was never acknowledged.
///
/// After damage a record is read if it expects no entry that was lost; a checkpoint expects none.
///
/// # Errors
/// The bytes are no log, or one of another version.
pub fn replay(bytes: &[u8]) -> Result<Replay, LogError> {
    let mut replay = Replay::default();
    let mut at = HEADER_BYTES;
    match read_header(bytes) {
        Header::Whole(block_ms) => replay.block_ms = Some(block_ms),
        Header::Version(found) => {
            return Err(LogError::Version {
                found,
                known: VERSION,
            });
        }
        Header::Cut => return Err(LogError::Cut),
        Header::Damaged => {
            // After a crash of the machine a file may have its length and none of its bytes.
            let error = if bytes.iter().take(HEADER_BYTES).all(|byte| *byte == 0) {
                LogError::Cut
            } else {
                LogError::NotALog
            };
            at = find_frame(bytes, 0).ok_or(error)?.start;
            // Without a header nothing is missing but the block's start.
            if at > 0 {
                replay.note(0, at, "the header is damaged");
            }
        }
    }
    let mut unpacker = FrameUnpacker::default();
    loop {
        replay.bytes = at as u64;
        let frame = match read_frame(bytes, at) {
            Some(frame) => frame,
            None => {
                let Some(next) = find_frame(bytes, at) else {
                    break;
                };
                replay.note(at, next.start, "a damaged record");
                next
            }
        };
        at = frame.end;
        if let Err(Malformed(what)) = replay.apply(&frame, &mut unpacker) {
            replay.note(frame.start, frame.end, what);
        }
    }
    replay.torn_bytes = (bytes.len() - at) as u64;
    // It is made again if the log goes on.
    replay.callees = Callees::default();
    Ok(replay)
}

impl Replay {
    fn note(&mut self, start: usize, end: usize, what: &'static str) {
        let (start, end) = (start as u64, end as u64);
        match self.damage.last_mut() {
            // One piece of damage makes many records unreadable.
            Some(last) if last.end == start && last.what == what => last.end = end,
            _ => self.damage.push(LogDamage { start, end, what }),
        }
    }

    fn apply(&mut self, frame: &Frame<'_>, unpacker: &mut FrameUnpacker) -> Result<(), Malformed> {
        let mut from = Bytes::new(unpacker.unpack(frame)?);
        let entries = decode_entries(&mut from, &self.builder, &mut self.callees)?;
        let windows = match frame.kind {
            FrameKind::Checkpoint => None,
            FrameKind::Windows => {
                let first = from.take()?;
                Some((first, decode_windows(&mut from, entries.bounds())?))
            }
        };
        from.finish()?;
        apply_entries(entries, &mut self.builder)?;
        if let Some((first, windows)) = windows {
            self.add_windows(first, windows);
        }
        Ok(())
    }

    /// Adds windows, of which the first has a number in the log.
    fn add_windows(&mut self, first: u64, windows: Vec<NewWindow>) {
        // A record that was rolled back is in the file if it could not be cut.
        let kept = self.log_numbers.partition_point(|number| *number < first);
        self.builder.truncate(kept);
        self.log_numbers.truncate(kept);
        self.lost_windows = first - kept as u64;
        for (number, window) in (first..).zip(windows) {
            apply_window(window, &mut self.builder);
            self.log_numbers.push(number);
        }
    }
}
