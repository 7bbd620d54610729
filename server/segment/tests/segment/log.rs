//! A log gives back the builder that it is of, whatever happens to its end, and never a wrong window.

use fastrand::Rng;
use model::Window;
use segment::{
    Builder, Digest, LogError, LogWriter, Replay, Source, WindowSet, WriteOptions, replay,
};

use crate::exact::{TWO, read_all};
use crate::random;
use crate::reference::{assert_same_windows, by_key};

const BLOCK_MS: i64 = 1_796_025_600_000;

/// A builder with its log, as a file in memory.
struct LoggedBlock {
    builder: Builder,
    log: LogWriter,
    file: Vec<u8>,
    /// Length of the file and number of windows after each commit.
    commits: Vec<(usize, usize)>,
}

impl LoggedBlock {
    fn new() -> Self {
        Self {
            builder: Builder::default(),
            log: LogWriter::new(BLOCK_MS),
            file: Vec::new(),
            commits: vec![(0, 0)],
        }
    }

    fn add(&mut self, windows: &[Window]) {
        for window in windows {
            self.builder.add_message(window, digest(window)).unwrap();
        }
    }

    fn commit(&mut self) {
        self.log.encode(&self.builder, &mut self.file);
        self.log.commit();
        assert_eq!(self.log.durable_bytes(), self.file.len() as u64);
        assert_eq!(self.log.durable_windows(), self.builder.window_count());
        self.commits
            .push((self.file.len(), self.builder.window_count()));
    }
}

/// Some windows have none.
fn digest(window: &Window) -> Option<Digest> {
    let sequence = window.head.key.sequence;
    (!sequence.is_multiple_of(3)).then_some([sequence as u8; 16])
}

/// A block of these windows, written a few at a time.
fn log_of(random: &mut Rng, windows: &[Window]) -> LoggedBlock {
    let mut block = LoggedBlock::new();
    let mut rest = windows;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(random.usize(1..4).min(rest.len()));
        rest = after;
        block.add(batch);
        block.commit();
    }
    block
}

fn segment_of(builder: &Builder) -> Vec<u8> {
    let mut bytes = Vec::new();
    builder.write(&WriteOptions::FAST, &mut bytes).unwrap();
    bytes
}

/// Checks that two builders are the same: their segments, digests among them, and what they are in the order of arrival.
fn assert_same_builders(found: &Builder, expected: &Builder) {
    let all = |source: &dyn Source| {
        let messages = source.read_messages().unwrap().whole().unwrap();
        let stacks = source.stack_count();
        (
            messages,
            stacks,
            source.tag_set_count(),
            source.series_count(),
        )
    };
    assert_eq!(all(found), all(expected));
    assert!(
        segment_of(found) == segment_of(expected),
        "the segments differ"
    );
}

/// Checks that what was read is a part of what was written.
fn assert_part_of(found: &Replay, written: &[Window]) {
    let written = by_key(written);
    let windows = read_all(&found.builder);
    let expected: Vec<Window> = windows
        .iter()
        .map(|window| written[&window.head.key].clone())
        .collect();
    assert_same_windows(&windows, &expected);
    let messages = found.builder.read_messages().unwrap().whole().unwrap();
    for (message, window) in messages.iter().zip(&windows) {
        assert_eq!(message.digest, digest(window));
    }
}

#[test]
fn a_replayed_builder_is_the_same() {
    let mut random = Rng::with_seed(21);
    for nodes in [0, 2, 3] {
        let windows = random::windows(&mut random, nodes, 12);
        let block = log_of(&mut random, &windows);
        let read = replay(&block.file).unwrap();
        assert_eq!((read.bytes, read.torn_bytes), (block.file.len() as u64, 0));
        assert_eq!((read.block_ms, read.lost_windows), (Some(BLOCK_MS), 0));
        assert!(read.damage.is_empty());
        assert_same_builders(&read.builder, &block.builder);
        assert_part_of(&read, &windows);
    }
}

/// Check that the file cut at each byte of its last records gives the windows that were written before.
#[test]
fn a_torn_record_is_left_out() {
    let mut random = Rng::with_seed(22);
    let windows = random::windows(&mut random, 1, 8);
    let block = log_of(&mut random, &windows);
    for ends in block.commits.windows(2).rev().take(3) {
        let [(start, count), (end, _)] = ends else {
            unreachable!()
        };
        for cut in *start..*end {
            let read = replay(&block.file[..cut]).unwrap();
            assert_eq!(
                (read.bytes, read.torn_bytes),
                (*start as u64, (cut - start) as u64)
            );
            assert_eq!(read.builder.window_count(), *count);
            assert!(read.damage.is_empty());
        }
        assert_part_of(&replay(&block.file[..end - 1]).unwrap(), &windows);
    }
    let first = block.commits[1].0;
    for cut in 0..first {
        match replay(&block.file[..cut]) {
            Err(LogError::Cut) => assert!(cut < 24),
            read => assert_eq!(read.unwrap().builder.window_count(), 0),
        }
    }
}

/// Check that a flipped bit takes away what is in its record and what needs that, is told, and changes nothing else.
#[test]
fn a_flipped_bit_is_found() {
    let mut random = Rng::with_seed(23);
    let windows = random::windows(&mut random, 1, 8);
    let block = log_of(&mut random, &windows);
    let total = block.builder.window_count();
    for _ in 0..150 {
        let mut file = block.file.clone();
        let at = random.usize(0..file.len());
        file[at] ^= 1 << random.u8(0..8);
        let read = replay(&file).unwrap();
        let before = block.commits.iter().rfind(|(end, _)| *end <= at).unwrap();
        assert!(read.builder.window_count() >= before.1, "bit in {at}");
        assert!(read.builder.window_count() < total || at < 24);
        assert!(!read.damage.is_empty() || read.torn_bytes > 0);
        for damage in &read.damage {
            assert!(damage.start < damage.end && damage.end <= file.len() as u64);
            assert!(!damage.to_string().is_empty());
        }
        assert!(read.lost_windows <= (total - read.builder.window_count()) as u64);
        assert_part_of(&read, &windows);
    }
}

/// Check that a write that failed leaves nothing, whether the file could be cut or not, and that the entries that it had come again.
#[test]
fn a_failed_write_is_taken_back() {
    let mut random = Rng::with_seed(24);
    for _ in 0..10 {
        let windows = random::windows(&mut random, 1, 16);
        let mut block = LoggedBlock::new();
        let mut written: Vec<Window> = Vec::new();
        let is_cut = random.bool();
        for window in windows {
            block.add(std::slice::from_ref(&window));
            if random.u8(..) < 170 {
                block.commit();
                written.push(window);
                continue;
            }
            // Some of it, all of it or none was written.
            let mut bytes = Vec::new();
            block.log.encode(&block.builder, &mut bytes);
            bytes.truncate(random.usize(0..=bytes.len()));
            block.file.extend(bytes);
            block.log.roll_back(&mut block.builder);
            assert_eq!(block.builder.window_count(), written.len());
            if is_cut {
                block.file.truncate(block.log.durable_bytes() as usize);
            } else if block.file.len() > block.log.durable_bytes() as usize {
                break;
            }
        }
        let read = replay(&block.file).unwrap_or_default();
        assert!(read.damage.is_empty());
        if is_cut {
            assert_eq!(read.torn_bytes, 0);
            assert_same_windows(&read_all(&read.builder), &written);
        } else {
            // A whole record that was not acknowledged may be there.
            assert!(read.builder.window_count() >= written.len());
        }
    }
}

/// Check that a log goes on behind what a failed write left, and does not have its windows twice.
#[test]
fn a_log_goes_on_behind_a_failed_write() {
    let mut random = Rng::with_seed(25);
    for left in 0..3 {
        let windows = random::windows(&mut random, 1, 12);
        let (before, after) = windows.split_at(windows.len() / 2);
        let mut block = log_of(&mut random, before);
        block.add(after);
        let mut bytes = Vec::new();
        block.log.encode(&block.builder, &mut bytes);
        bytes.truncate([bytes.len(), bytes.len() - 1, bytes.len() / 2][left]);
        block.log.roll_back(&mut block.builder);
        block.file.extend(bytes);
        // The file could not be cut.
        block.log.request_checkpoint();
        block.add(after);
        block.log.encode(&block.builder, &mut block.file);
        block.log.commit();
        let read = replay(&block.file).unwrap();
        assert_eq!(read.damage.is_empty(), left == 0);
        assert_eq!(read.lost_windows, 0);
        assert_same_builders(&read.builder, &block.builder);
        assert_same_windows(&read_all(&read.builder), &windows);
    }
}

/// Check that a checkpoint makes what follows readable, and that the number of lost windows is known then.
#[test]
fn damage_ends_at_a_checkpoint() {
    let mut random = Rng::with_seed(26);
    let windows = random::windows(&mut random, 1, 16);
    let (before, after) = windows.split_at(windows.len() / 2);
    let mut block = log_of(&mut random, before);
    block.log.request_checkpoint();
    let checkpoint = block.file.len();
    for window in after {
        block.add(std::slice::from_ref(window));
        block.commit();
    }
    for _ in 0..50 {
        let mut file = block.file.clone();
        let at = random.usize(24..checkpoint);
        file[at] ^= 1 << random.u8(0..8);
        let read = replay(&file).unwrap();
        assert!(!read.damage.is_empty() && read.torn_bytes == 0);
        let count = read.builder.window_count();
        assert!(count >= after.len() && count < windows.len());
        assert_eq!(read.lost_windows, (windows.len() - count) as u64);
        assert_part_of(&read, &windows);
        let last = read.builder.read_windows().unwrap();
        let last = last.last().map(|window| window.key());
        assert_eq!(last, after.last().map(|window| window.head.key));
    }
}

/// Check that a log that was read back can be gone on with, also one that was damaged.
#[test]
fn a_log_can_be_resumed() {
    let mut random = Rng::with_seed(27);
    for is_damaged in [false, true] {
        let windows = random::windows(&mut random, 1, 12);
        let (before, after) = windows.split_at(windows.len() / 2);
        let block = log_of(&mut random, before);
        let mut file = block.file;
        if is_damaged {
            let start = block.commits[1].0;
            file[start + 20] ^= 1;
        }
        // A torn write.
        file.extend_from_slice(&block.log.durable_bytes().to_le_bytes());
        let read = replay(&file).unwrap();
        assert_eq!(read.torn_bytes, 8);
        assert_eq!(read.damage.is_empty(), !is_damaged);
        let kept = read_all(&read.builder);
        file.truncate(read.bytes as usize);
        let mut log = LogWriter::resume(BLOCK_MS, &read);
        let mut builder = read.builder;
        for window in after {
            builder.add(window).unwrap();
            log.encode(&builder, &mut file);
            log.commit();
        }
        let again = replay(&file).unwrap();
        assert_eq!(again.damage, read.damage);
        assert_eq!(again.torn_bytes, 0);
        assert_same_builders(&again.builder, &builder);
        let expected = [&kept, after].concat();
        assert_same_windows(&read_all(&again.builder), &expected);
    }
}

#[test]
fn other_bytes_are_no_log() {
    let error = |bytes: &[u8]| replay(bytes).err();
    assert_eq!(error(b""), Some(LogError::Cut));
    assert_eq!(error(b"PLBLKLOG"), Some(LogError::Cut));
    // A file that got its length and lost its content.
    assert_eq!(error(&[0; 100]), Some(LogError::Cut));
    assert_eq!(
        error(b"PLCOLSEG and so on, and so on, and so on"),
        Some(LogError::NotALog)
    );
    let block = log_of(
        &mut Rng::with_seed(28),
        &[model::text::window("comm=a | f | 1")],
    );
    let mut file = block.file;
    file[9] = 1;
    let read = replay(&file).unwrap();
    assert_eq!((read.block_ms, read.damage.len()), (None, 1));
    assert_eq!(read_all(&read.builder).len(), 1);
    let all = WindowSet::all(1);
    assert_eq!(read.builder.read_whole_windows(&all, TWO).unwrap().len(), 1);
}
