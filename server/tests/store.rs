//! The store over damaged files, at restarts, and what it evicts: appended windows come back, or the answer tells what it lacks.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use model::text::window_at;
use model::{TimeRange, Unnamed, WindowTotals};
use query::lines::{FunctionFilter, report_lines};
use query::unknown::report_unknown;
use query::{Profiles, Selector, build_tree};
use render::folded::{FoldedUnit, fold};
use store::embedded::inspect::{check, stats};
use store::{
    Appended, EmbeddedStore, RetentionFlags, RollUp, RollUpAddresses, Store, StoreError,
    StoreMetrics, StoreOptions,
};
use tempfile::TempDir;

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 1_795_312_800_000;

fn open_with(path: &Path, retention: RetentionFlags) -> anyhow::Result<EmbeddedStore> {
    let options = StoreOptions {
        retention,
        ..StoreOptions::keep_all(path)
    };
    EmbeddedStore::open(&options, StoreMetrics::default())
}

fn open(path: &Path) -> anyhow::Result<EmbeddedStore> {
    open_with(path, RetentionFlags::keep_all())
}

/// Window number `n` has `n` samples in `work_n`; so a folded profile identifies the windows.
fn append(store: &EmbeddedStore, number: u64, start_ms: i64) -> Appended {
    let lines = format!("comm=c{number},node=a | main work_{number} | {number}");
    store.append(window_at(&lines, start_ms, number)).unwrap()
}

/// The folded profile, and the reasons for what it lacks.
fn ask(store: &EmbeddedStore) -> (Vec<String>, Vec<String>) {
    let range = TimeRange {
        from_ms: 0,
        to_ms: START_MS + 100 * HOUR_MS,
    };
    let snapshot = store.snapshot(range).unwrap();
    let tree = build_tree(Profiles::unnamed(&*snapshot), &Selector::default()).unwrap();
    let mut lines: Vec<_> = fold(&tree, FoldedUnit::Samples)
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    let unread = snapshot.unread().into_iter().map(|unread| unread.reason);
    (lines, unread.collect())
}

fn folded(store: &EmbeddedStore) -> Vec<String> {
    let (lines, unread) = ask(store);
    assert_eq!(unread, [""; 0]);
    lines
}

fn expect(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    let lines = numbers.into_iter();
    let mut lines: Vec<_> = lines
        .map(|number| format!("main;work_{number} {number}"))
        .collect();
    lines.sort();
    lines
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).unwrap();
        }
    }
}

fn files(data: &Path, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("default").join(folder)).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// A directory with windows in a block's log.
fn logged(numbers: std::ops::RangeInclusive<u64>) -> TempDir {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    for number in numbers {
        let start_ms = START_MS + 10_000 * number as i64;
        assert_eq!(append(&store, number, start_ms), Appended::Stored);
    }
    folder
}

/// A directory with windows in segments, of several hours.
fn settled(numbers: std::ops::RangeInclusive<u64>) -> TempDir {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    for number in numbers {
        append(&store, number, START_MS + HOUR_MS / 2 * number as i64);
    }
    store.settle();
    drop(store);
    assert!(files(folder.path(), "log").is_empty());
    folder
}

/// Check that all records before a truncated last one are there, and that its window can be appended again.
#[test]
fn a_torn_tail_is_cut() {
    let folder = logged(1..=3);
    let log = files(folder.path(), "log").remove(0);
    let whole = fs::read(&log).unwrap();
    let two = logged(1..=2);
    let kept = fs::read(&files(two.path(), "log")[0]).unwrap().len();
    for end in (kept + 1..whole.len()).step_by(17).chain([whole.len() - 1]) {
        let torn = TempDir::new().unwrap();
        copy_folder(folder.path(), torn.path());
        let log = torn.path().join(log.strip_prefix(folder.path()).unwrap());
        fs::write(&log, &whole[..end]).unwrap();
        let store = open(torn.path()).unwrap();
        let report = store.report();
        let found = (
            report.windows_read,
            report.tail_bytes_cut,
            report.records_damaged,
        );
        assert_eq!(found, (2, (end - kept) as u64, 0), "cut at {end}");
        assert_eq!(folded(&store), expect(1..=2), "cut at {end}");
        assert_eq!(append(&store, 3, START_MS + 30_000), Appended::Stored);
        assert_eq!(folded(&store), expect(1..=3), "cut at {end}");
        store.settle();
        assert_eq!(folded(&store), expect(1..=3), "cut at {end}");
    }
}

/// Check that a log is read again after a kill at any time, and that its messages are known.
#[test]
fn logs_are_read_again() {
    let folder = logged(1..=20);
    for is_settled in [false, true, false] {
        let store = open(folder.path()).unwrap();
        assert_eq!(folded(&store), expect(1..=20));
        assert_eq!(append(&store, 7, START_MS + 70_000), Appended::Duplicate);
        if is_settled {
            store.settle();
        }
    }
}

/// Check that a message that comes again with other content is refused, wherever the first one is.
#[test]
fn other_content_is_no_repeat() {
    let folder = settled(1..=2);
    let store = open(folder.path()).unwrap();
    append(&store, 3, START_MS);
    for number in 1..=3 {
        let other = window_at("comm=x | main | 1", START_MS, number);
        let expected = StoreError::OtherContent { sequence: number };
        assert_eq!(store.append(other), Err(expected));
    }
    assert_eq!(folded(&store), expect(1..=3));
}

#[test]
fn a_lost_catalog_is_made_anew() {
    let folder = settled(1..=20);
    let segments = files(folder.path(), "segments").len() as u64;
    fs::remove_dir_all(folder.path().join("default/catalog")).unwrap();
    let store = open(folder.path()).unwrap();
    let report = store.report();
    assert_eq!(
        (report.segments, report.segments_read),
        (segments, segments)
    );
    assert!(report.catalog_rebuilt);
    assert_eq!(folded(&store), expect(1..=20));
    let start_ms = START_MS + HOUR_MS / 2 * 7;
    assert_eq!(append(&store, 7, start_ms), Appended::Duplicate);
    append(&store, 21, START_MS);
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.report().segments_read, 0);
    assert_eq!(folded(&store), expect(1..=21));
}

/// Check that the windows are there after any damage to the catalog's files.
#[test]
fn a_damaged_catalog_is_repaired_or_made_anew() {
    let folder = settled(1..=20);
    let catalog = folder.path().join("default/catalog");
    let files: Vec<_> = fs::read_dir(&catalog)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    assert!(
        files.len() >= 2,
        "sled has a log and a configuration: {files:?}"
    );
    let mut rebuilt = 0;
    let mut check = |name: &Path, what: &str, damage: &dyn Fn(&fs::File)| {
        let copy = TempDir::new().unwrap();
        copy_folder(folder.path(), copy.path());
        let path = copy.path().join("default/catalog").join(name);
        damage(&OpenOptions::new().write(true).open(path).unwrap());
        let store = open(copy.path()).unwrap_or_else(|err| panic!("{name:?} {what}: {err:#}"));
        assert_eq!(folded(&store), expect(1..=20), "{name:?} {what}");
        let start_ms = START_MS + HOUR_MS / 2 * 7;
        assert_eq!(append(&store, 7, start_ms), Appended::Duplicate);
        rebuilt += u32::from(store.report().catalog_rebuilt);
    };
    for file in &files {
        let name = Path::new(file.file_name().unwrap());
        let length = file.metadata().unwrap().len();
        for cut in [0, 1, length / 3, length / 2, length.saturating_sub(1)] {
            check(name, &format!("cut to {cut}"), &|file| {
                file.set_len(cut).unwrap()
            });
        }
        for at in (0..length.min(8192)).step_by(509) {
            check(name, &format!("damaged at {at}"), &|file| {
                file.write_all_at(&[0xa5; 16], at).unwrap();
            });
        }
    }
    assert!(
        rebuilt > 0,
        "no damage was bad enough to need a new catalog"
    );
}

/// Check that a damaged log has the windows before the damage, and that a copy of it is kept.
#[test]
fn a_damaged_log_is_kept() {
    let folder = logged(1..=3);
    let path = &files(folder.path(), "log")[0];
    let middle = path.metadata().unwrap().len() / 2;
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0x5a; 4], middle).unwrap();
    let store = open(folder.path()).unwrap();
    assert!(store.report().records_damaged > 0);
    let (found, unread) = ask(&store);
    assert!(unread[0].contains("the log is damaged"), "{unread:?}");
    assert!(
        found.contains(&expect([1])[0]) && !found.contains(&expect([2])[0]),
        "{found:?}"
    );
    store.settle();
    assert_eq!(ask(&store), (found.clone(), unread));
    drop(store);
    let kept = files(folder.path(), "log");
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].extension().unwrap(), "damaged");
    let (again, unread) = ask(&open(folder.path()).unwrap());
    assert_eq!(again, found);
    assert!(unread[0].contains("the log is damaged"), "{unread:?}");
}

/// Check that a segment that cannot be opened hides only itself, and that answers tell it.
#[test]
fn a_segment_that_cannot_be_opened_is_told() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    append(&store, 1, START_MS);
    append(&store, 2, START_MS + 100 * 24 * HOUR_MS);
    store.settle();
    drop(store);
    fs::write(&files(folder.path(), "segments")[0], b"not a segment").unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.report().segments_damaged, 1);
    let (lines, unread) = ask(&store);
    assert_eq!(lines, [""; 0]);
    assert!(unread[0].contains("cannot be opened"), "{unread:?}");
}

/// Check that each flipped byte of a segment is told in the answer, which has nothing wrong.
#[test]
fn damaged_segments_are_told() {
    let folder = settled(1..=3);
    let path = files(folder.path(), "segments").remove(0);
    let whole = fs::read(&path).unwrap();
    let all = expect(1..=3);
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let store = open(folder.path()).unwrap();
        let (lines, unread) = ask(&store);
        let lacks = lines != all;
        assert!(
            lines.iter().all(|line| all.contains(line)),
            "{at}: {lines:?}"
        );
        assert!(!lacks || !unread.is_empty(), "{at}: {lines:?}");
        drop(store);
        fs::write(&path, &whole).unwrap();
    }
}

/// Check that late windows are merged into the segments of their time, and that none is lost or doubled.
#[test]
fn late_windows_are_merged() {
    let folder = settled(1..=48);
    let before = files(folder.path(), "segments").len();
    let store = open(folder.path()).unwrap();
    for number in 49..=60 {
        append(&store, number, START_MS + HOUR_MS * (number as i64 - 49));
    }
    store.settle();
    assert_eq!(folded(&store), expect(1..=60));
    assert!(files(folder.path(), "segments").len() <= before);
    drop(store);
    assert_eq!(folded(&open(folder.path()).unwrap()), expect(1..=60));
}

/// Check that old windows are rolled up without a loss, and that all nodes' accounts are kept.
#[test]
fn roll_ups_lose_nothing() {
    let folder = TempDir::new().unwrap();
    let retention = RetentionFlags {
        roll_ups: vec![RollUp {
            after_ms: 24 * HOUR_MS,
            resolution_ms: 60_000,
        }],
        ..RetentionFlags::keep_all()
    };
    let store = open_with(folder.path(), retention).unwrap();
    for number in 1..=60 {
        append(&store, number, START_MS + 10_000 * number as i64);
    }
    store.settle();
    assert_eq!(folded(&store), expect(1..=60));
    let range = TimeRange {
        from_ms: 0,
        to_ms: i64::MAX,
    };
    let snapshot = store.snapshot(range).unwrap();
    let (mut windows, mut messages, mut samples) = (0, 0, 0);
    snapshot
        .scan_totals(&mut |totals| {
            windows += 1;
            messages += totals.messages.count;
            samples += totals.samples.iter().sum::<u64>();
        })
        .unwrap();
    assert_eq!((windows, messages, samples), (11, 60, (1..=60).sum()));
    drop(snapshot);
    assert_eq!(append(&store, 7, START_MS + 70_000), Appended::Duplicate);
}

/// Check that sums by function and by line are the same without addresses, that unnamed frames keep theirs, that answers say so, and that
/// segments become smaller.
#[test]
fn roll_ups_drop_addresses() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    for number in 1..=60 {
        let lines = "comm=c,node=a | main work>inlined 0x1f@/lib/libb.so | 1\ncomm=c,node=a | main idle | 2";
        let mut window = window_at(lines, START_MS + 10_000 * number as i64, number);
        for location in &mut window.tables.locations {
            if location.unnamed == Unnamed::default() {
                location.address += 16 * number;
            }
        }
        store.append(window).unwrap();
    }
    let selector = Selector::default();
    let ask = |store: &EmbeddedStore| {
        let range = TimeRange {
            from_ms: 0,
            to_ms: i64::MAX,
        };
        let snapshot = store.snapshot(range).unwrap();
        let profiles = || Profiles::unnamed(&*snapshot);
        let function = FunctionFilter {
            name: "work".into(),
            binary: None,
            file: None,
        };
        let lines = report_lines(profiles(), &selector, &function).unwrap();
        let unknown = report_unknown(profiles(), &selector, 10).unwrap();
        let shown = format!("{:?} {lines:?} {unknown:?}", folded(store));
        (shown, snapshot.lacks_addresses())
    };
    let (before, lacks) = ask(&store);
    assert!(!lacks && before.contains("0x1f"), "{before}");
    drop(store);

    let mut bytes = Vec::new();
    for roll_up_addresses in [RollUpAddresses::Keep, RollUpAddresses::Drop] {
        let retention = RetentionFlags {
            roll_ups: vec![RollUp {
                after_ms: 24 * HOUR_MS,
                resolution_ms: 60_000,
            }],
            roll_up_addresses,
            ..RetentionFlags::keep_all()
        };
        let store = open_with(folder.path(), retention).unwrap();
        store.settle();
        let lacks = roll_up_addresses == RollUpAddresses::Drop;
        assert_eq!(ask(&store), (before.clone(), lacks));
        bytes.push(store.numbers().segment_bytes);
    }
    assert!(bytes[1] < bytes[0], "{bytes:?}");
    assert_eq!(check(folder.path()).unwrap().damage, []);
}

/// Check that a roll-up changes nothing in what is left out where two collectors of a node sampled at once.
#[test]
fn roll_ups_keep_what_is_left_out() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    let lines = |collector: &str, number: i64| {
        format!("comm={collector},node=a | main {collector}_{number} | {number}")
    };
    // The later one begins at 187 s, in the middle of the older one's window 18, which so counts whole.
    for number in 1..=30 {
        let mut window = window_at(&lines("older", number), START_MS + 10_000 * number, 500);
        window.head.key.sequence += number as u64;
        store.append(window).unwrap();
        let start_ms = START_MS + 180_000 + 10_000 * number - 3_000 * i64::from(number == 1);
        let mut window = window_at(&lines("later", number), start_ms, number as u64);
        window.head.key.instance = [8; 16];
        window.head.window_ms += 3_000 * i64::from(number == 1);
        store.append(window).unwrap();
    }
    let sums = |store: &EmbeddedStore| {
        let snapshot = store
            .snapshot(TimeRange {
                from_ms: 0,
                to_ms: i64::MAX,
            })
            .unwrap();
        let (mut windows, mut samples) = (0, [0; 2]);
        let mut add = |totals: &WindowTotals| {
            windows += 1;
            samples[usize::from(totals.overlap.is_left_out())] +=
                totals.samples.iter().sum::<u64>();
        };
        snapshot.scan_totals(&mut add).unwrap();
        assert!(snapshot.has_overlaps().unwrap());
        (windows, samples)
    };
    let left_out: u64 = (19..=30).sum();
    let expected = [2 * (1..=30).sum::<u64>() - left_out, left_out];
    let before = folded(&store);
    assert_eq!(sums(&store), (60, expected));
    assert!(
        before.contains(&"main;older_18 18".to_owned()),
        "{before:?}"
    );
    assert!(
        !before.contains(&"main;older_19 19".to_owned()),
        "{before:?}"
    );
    drop(store);
    let retention = RetentionFlags {
        roll_ups: vec![RollUp {
            after_ms: 24 * HOUR_MS,
            resolution_ms: 60_000,
        }],
        ..RetentionFlags::keep_all()
    };
    let store = open_with(folder.path(), retention).unwrap();
    store.settle();
    let (windows, samples) = sums(&store);
    assert!(windows < 20, "{windows} windows are not rolled up");
    assert_eq!(samples, expected);
    assert_eq!(folded(&store), before);
}

/// Check that old segments go, and that a question that began before keeps what it had.
#[test]
fn old_segments_are_evicted() {
    let folder = settled(1..=8);
    let store = open(folder.path()).unwrap();
    let range = TimeRange {
        from_ms: 0,
        to_ms: i64::MAX,
    };
    let snapshot = store.snapshot(range).unwrap();
    let before = build_tree(Profiles::unnamed(&*snapshot), &Selector::default()).unwrap();
    drop(snapshot);
    drop(store);
    // Room for what is there; one more window is too much.
    let segments = files(folder.path(), "segments").into_iter();
    let bytes = segments.map(|path| path.metadata().unwrap().len());
    let limited = RetentionFlags {
        bytes_max: Some(bytes.sum()),
        ..RetentionFlags::keep_all()
    };
    let store = open_with(folder.path(), limited).unwrap();
    store.settle();
    assert_eq!(folded(&store), expect(1..=8));
    let running = store.snapshot(range).unwrap();
    append(&store, 9, START_MS + 100 * 24 * HOUR_MS);
    store.settle();
    assert!(!folded(&store).contains(&expect([1])[0]));
    let kept = build_tree(Profiles::unnamed(&*running), &Selector::default()).unwrap();
    let fold = |tree| fold(tree, FoldedUnit::Samples);
    assert_eq!(fold(&kept), fold(&before));
}

#[test]
fn a_catalog_of_a_newer_server_is_left_alone() {
    let folder = logged(1..=1);
    let db = sled::open(folder.path().join("default/catalog")).unwrap();
    let meta = db.open_tree("meta").unwrap();
    meta.insert("schema", &99_u32.to_be_bytes()).unwrap();
    drop((meta, db));
    let err = open(folder.path()).err().unwrap();
    assert!(
        format!("{err:#}").contains("use the newer server"),
        "{err:#}"
    );
    let mut files = fs::read_dir(folder.path().join("default")).unwrap();
    assert!(files.all(|entry| !entry.unwrap().path().to_string_lossy().contains("damaged")));
}

/// Check that the commands see what is whole and what is damaged, beside a store that is open.
#[test]
fn directories_are_inspected() {
    let folder = settled(1..=4);
    let store = open(folder.path()).unwrap();
    append(&store, 5, START_MS);
    let whole = check(folder.path()).unwrap();
    assert_eq!((whole.windows, whole.damage), (5, Vec::new()));
    let found = stats(folder.path(), "comm").unwrap();
    let samples = found.levels.values().map(|level| level.samples);
    assert_eq!(samples.sum::<u64>(), 10);
    let rows = found.rows_by_value.keys().map(String::as_str);
    assert_eq!(rows.collect::<Vec<_>>(), ["c1", "c2", "c3", "c4"]);
    assert_eq!(found.label_values["node"], 1);
    drop(store);

    let path = files(folder.path(), "segments").remove(0);
    let length = path.metadata().unwrap().len();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0x5a; 4], length / 2).unwrap();
    let damaged = check(folder.path()).unwrap();
    assert_eq!(damaged.damage.len(), 1);
    assert_eq!(damaged.damage[0].0, path);

    fs::remove_file(path).unwrap();
    let report = EmbeddedStore::rebuild(folder.path()).unwrap();
    assert!(report.catalog_rebuilt && report.segments_damaged == 0);
    assert_eq!(ask(&open(folder.path()).unwrap()).1, [""; 0]);
}
