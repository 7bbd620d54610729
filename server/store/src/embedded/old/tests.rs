//! Directories of earlier versions, opened by this one.

use std::fs;
use std::path::{Path, PathBuf};

use model::text::{describe_stack, window_at};
use model::{FunctionNames, SeriesId, SeriesTable, TimeRange, Window};
use tempfile::TempDir;

use super::file::{FRAME_BYTES, FooterEntry, encode_footer, encode_header, put_record};
use super::record::encode::{finish_record, prepare_window};
use crate::embedded::span::{HOUR_MS, Level};
use crate::{
    Appended, EmbeddedStore, MemoryStore, RetentionFlags, SeriesFilter, Snapshot, Store,
    StoreMetrics, StoreOptions,
};

const START_MS: i64 = 1_795_312_800_000;

const ALWAYS: TimeRange = TimeRange {
    from_ms: i64::MIN,
    to_ms: i64::MAX,
};

/// Windows of four hours.
fn windows() -> Vec<Window> {
    let window = |number: i64| {
        let text = format!(
            "comm=a,node=n | main work{} 0x1f@/lib/b.so | {number} | thread=t
             comm=b,node=n | main idle>inlined read@[kernel] | 2",
            number % 3
        );
        window_at(&text, START_MS + HOUR_MS / 2 * number, number as u64)
    };
    (1..=8).map(window).collect()
}

/// Writes the windows of each hour as an earlier version did: the last hour is not sealed. Returns the files.
fn write_old(root: &Path, windows: &[Window]) -> Vec<PathBuf> {
    let hour = |window: &Window| Level::Hour.span_of(window.head.key.start_ms);
    let mut paths = Vec::new();
    let hours: Vec<&[Window]> = windows.chunk_by(|a, b| hour(a) == hour(b)).collect();
    for (number, of_hour) in hours.iter().enumerate() {
        let span = hour(&of_hour[0]);
        let mut bytes = encode_header(span.start_ms / HOUR_MS).to_vec();
        let mut entries = Vec::new();
        for window in *of_hour {
            let prepared = prepare_window(window.clone()).unwrap();
            let ids = (0..prepared.label_sets().count() as u64).map(SeriesId);
            let record = finish_record(&prepared, &ids.collect::<Vec<_>>()).unwrap();
            entries.push(FooterEntry {
                key: window.head.key,
                offset: (bytes.len() + FRAME_BYTES) as u64,
                length: record.len() as u32,
            });
            put_record(&mut bytes, &record);
        }
        if number + 1 < hours.len() {
            let footer = encode_footer(&entries, bytes.len() as u64);
            bytes.extend_from_slice(&footer);
        }
        let folder = root.join("segments").join(span.to_string());
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}.seg", ulid::Ulid::new()));
        fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    fs::create_dir_all(root.join("catalog")).unwrap();
    paths
}

fn open(folder: &TempDir) -> EmbeddedStore {
    let options = StoreOptions {
        retention: RetentionFlags::default(),
        ..StoreOptions::keep_all(folder.path())
    };
    EmbeddedStore::open(&options, StoreMetrics::default()).unwrap()
}

fn describe(snapshot: &dyn Snapshot) -> Vec<String> {
    let filter = SeriesFilter {
        equal: Vec::new(),
        matches: &|_| true,
    };
    let table = snapshot.find_series(&filter).unwrap();
    let mut sums = std::collections::BTreeMap::<String, u64>::new();
    snapshot
        .sum_stacks(&table, &each(&table), FunctionNames::All, &mut |part| {
            for sum in part.sums {
                let labels = table.labels(sum.group as usize);
                let text = describe_stack(part.tables, labels, sum.tags, sum.stack);
                *sums.entry(text).or_default() += sum.samples;
            }
        })
        .unwrap();
    let mut lines: Vec<String> = sums
        .iter()
        .map(|(text, sum)| format!("{text} {sum}"))
        .collect();
    snapshot
        .scan_totals(&mut |totals| lines.push(format!("{:?}", totals.head)))
        .unwrap();
    lines
}

/// Check that the windows are there at once, and the same after the conversion, and that their messages are known.
#[test]
fn directories_of_earlier_versions_are_converted() {
    let folder = TempDir::new().unwrap();
    let windows = windows();
    write_old(folder.path(), &windows);
    let reference = MemoryStore::default();
    for window in &windows {
        reference.append(window.clone()).unwrap();
    }
    let expected = describe(&*reference.snapshot(ALWAYS).unwrap());
    for is_settled in [false, true, false] {
        let store = open(&folder);
        if is_settled {
            store.settle();
            assert_eq!(store.numbers().old_files, 0);
        }
        let snapshot = store.snapshot(ALWAYS).unwrap();
        assert_eq!(describe(&*snapshot), expected);
        assert_eq!(snapshot.unread(), []);
        assert_eq!(store.append(windows[3].clone()), Ok(Appended::Duplicate));
    }
    let old = fs::read_dir(folder.path().join("default/old")).unwrap();
    assert_eq!(old.count(), 0);
}

/// Check that a damaged window is told, that the others are converted, and that the file is kept.
#[test]
fn damaged_files_of_earlier_versions_are_kept() {
    let folder = TempDir::new().unwrap();
    let windows = windows();
    let paths = write_old(folder.path(), &windows);
    let mut bytes = fs::read(&paths[1]).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 0x10;
    fs::write(&paths[1], bytes).unwrap();
    let store = open(&folder);
    store.settle();
    let mut found = 0;
    let snapshot = store.snapshot(ALWAYS).unwrap();
    snapshot.scan_totals(&mut |_| found += 1).unwrap();
    assert_eq!(found, windows.len() - 1);
    let name = paths[1].with_extension("damaged");
    let kept = name.strip_prefix(folder.path().join("segments")).unwrap();
    assert!(folder.path().join("default/old").join(kept).exists());
}

/// Each series in a group of its own.
fn each(series: &SeriesTable) -> Vec<u32> {
    (0..series.len() as u32).collect()
}
