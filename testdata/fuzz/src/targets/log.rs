//! Logs of open blocks: any bytes give a block that answers, and what is torn or damaged is told.
//!
//! Random bytes hardly ever pass a checksum, so records are also drawn without one, behind a log that is whole.

use model::text;
use segment::fuzzing::{put_record, records};
use model::FunctionNames;
use segment::{Builder, Effort, LogWriter, Segment, Selection, Source, WindowSet, WriteOptions, replay};

use crate::of_kind;

pub(crate) fn run(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    match kind % 4 {
        0 => read_log(input),
        // The first record of a log, or a checkpoint.
        1 | 2 => read_log(&put_record(kind % 4 == 2, input)),
        _ => {
            let mut log = write_log(2);
            log.extend(put_record(false, input));
            read_log(&log);
        }
    }
}

/// Reads a log, asks its block everything, and writes it as a segment and as another log.
fn read_log(bytes: &[u8]) {
    let Ok(read) = replay(bytes) else { return };
    assert_eq!(read.bytes + read.torn_bytes, bytes.len() as u64);
    for damage in &read.damage {
        assert!(damage.start < damage.end && damage.end <= read.bytes);
    }
    let mut log = LogWriter::new(7);
    let mut again = Vec::new();
    log.encode(&read.builder, &mut again);
    let builder = read.builder;
    let count = builder.window_count();
    let series = builder.find_series(&mut |_| true);
    let all = WindowSet::all(count);
    let selection = Selection { series: &series, windows: &all };
    let rows = builder.read_summed_rows(&selection, FunctionNames::All, Effort::ONE).whole();
    let sums = builder.sum_stacks(&selection, Effort::ONE).whole();
    assert!(rows.is_ok() && sums.is_ok());
    assert_eq!(builder.read_whole_windows(&all, Effort::ONE).map(|windows| windows.len()), Ok(count));
    let mut segment = Vec::new();
    builder.write(&WriteOptions::FAST, &mut segment).expect("memory is written");
    drop(Segment::open(segment));

    if count > 0 {
        let again = replay(&again).expect("it was written here");
        assert!(again.damage.is_empty() && again.torn_bytes == 0);
        assert_eq!(again.builder.window_count(), count);
        assert_eq!(again.builder.sum_stacks(&selection, Effort::ONE), builder.sum_stacks(&selection, Effort::ONE));
    }
}

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
    comm=sort,node=a | main 0x1f@/lib/b.so | 5
";

/// A log of some windows, the last behind a checkpoint.
fn write_log(windows: u64) -> Vec<u8> {
    let (mut builder, mut log, mut file) = (Builder::default(), LogWriter::new(0), Vec::new());
    for number in 1..=windows {
        let text = format!("{TEXT}\n comm=new,node=a | main new{number} | {number}");
        let window = text::window_at(&text, 10_000 * number as i64, number);
        if number == windows {
            log.request_checkpoint();
        }
        builder.add_message(&window, Some([number as u8; 16])).expect("the window is small");
        log.encode(&builder, &mut file);
        log.commit();
    }
    file
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let log = write_log(4);
    let mut seeds = vec![of_kind(0, &log)];
    for (number, (is_checkpoint, record)) in records(&log).into_iter().enumerate() {
        let kind = if is_checkpoint { 2 } else { u8::from(number > 0) * 2 + 1 };
        seeds.push(of_kind(kind, &record));
    }
    for (_, record) in records(&write_log(3)) {
        seeds.push(of_kind(3, &record));
    }
    seeds
}
