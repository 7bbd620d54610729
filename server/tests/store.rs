//! The store over damaged files: what was appended comes back, or is counted as damaged.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../src/profile/text.rs"]
mod text;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use server::metrics::Metrics;
use server::query::{Selection, Selector, build_tree};
use server::render::folded::{FoldedUnit, fold};
use server::store::{Appended, EmbeddedStore, Store, StoreOptions, TimeRange};
use tempfile::TempDir;
use text::window_at;

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 1_795_312_800_000;

fn open(path: &Path) -> anyhow::Result<EmbeddedStore> {
    let options = StoreOptions {
        path: path.to_owned(),
        cache_bytes_max: 64 << 20,
        reserve_bytes: 0,
    };
    EmbeddedStore::open(&options, Arc::new(Metrics::new()))
}

/// Window number `n` has `n` samples in `work_n`; so a folded profile says which windows there are.
fn append(store: &EmbeddedStore, number: u64, start_ms: i64) -> Appended {
    let lines = format!("comm=c{number},node=a | main work_{number} | {number}");
    store.append(window_at(&lines, start_ms, number)).unwrap()
}

fn folded(store: &EmbeddedStore) -> Vec<String> {
    let range = TimeRange {
        from_ms: 0,
        to_ms: START_MS + 100 * HOUR_MS,
    };
    let tree = build_tree(
        store,
        &Selection {
            selector: Selector::default(),
            range,
        },
    )
    .unwrap();
    let mut lines: Vec<_> = fold(&tree, FoldedUnit::Samples)
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

fn expect(numbers: &[u64]) -> Vec<String> {
    let mut lines: Vec<_> = numbers
        .iter()
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

fn segments(path: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| {
        fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    let mut found: Vec<_> = list(&path.join("segments"))
        .flat_map(|block| list(&block).collect::<Vec<_>>())
        .collect();
    found.sort();
    found
}

fn filled(numbers: std::ops::RangeInclusive<u64>) -> TempDir {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    for number in numbers {
        assert_eq!(
            append(&store, number, START_MS + 10_000 * number as i64),
            Appended::Stored
        );
    }
    folder
}

/// Check that wherever the last record is cut, all before it are there, and the same window can be appended again.
#[test]
fn a_torn_tail_is_cut() {
    let folder = filled(1..=2);
    let before = TempDir::new().unwrap();
    copy_folder(folder.path(), before.path());
    let kept = segments(folder.path())[0].metadata().unwrap().len();
    let store = open(folder.path()).unwrap();
    append(&store, 3, START_MS + 30_000);
    drop(store);
    let whole = fs::read(&segments(folder.path())[0]).unwrap();
    let cuts = (kept as usize + 1..whole.len())
        .step_by(41)
        .chain([whole.len() - 1]);
    for end in cuts {
        let torn = TempDir::new().unwrap();
        copy_folder(before.path(), torn.path());
        fs::write(&segments(torn.path())[0], &whole[..end]).unwrap();
        let store = open(torn.path()).unwrap();
        let report = store.report();
        assert_eq!(
            (report.tails_cut, report.tail_bytes_cut),
            (1, (end as u64) - kept),
            "cut at {end}"
        );
        assert_eq!(folded(&store), expect(&[1, 2]), "cut at {end}");
        assert_eq!(append(&store, 3, START_MS + 30_000), Appended::Stored);
        assert_eq!(folded(&store), expect(&[1, 2, 3]), "cut at {end}");
    }
    // The whole record, of which the catalog knows nothing: it was durable, so it is restored.
    fs::write(&segments(before.path())[0], &whole).unwrap();
    let store = open(before.path()).unwrap();
    assert_eq!(
        (store.report().tails_cut, store.report().windows_restored),
        (0, 1)
    );
    assert_eq!(folded(&store), expect(&[1, 2, 3]));
    assert_eq!(append(&store, 3, START_MS + 30_000), Appended::Duplicate);
}

#[test]
fn a_lost_catalog_is_made_anew() {
    let folder = filled(1..=20);
    fs::remove_dir_all(folder.path().join("catalog")).unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.report().windows_restored, 20);
    assert_eq!(folded(&store), expect(&(1..=20).collect::<Vec<_>>()));
    assert_eq!(append(&store, 7, START_MS + 70_000), Appended::Duplicate);
    append(&store, 21, START_MS);
    drop(store);
    assert_eq!(
        folded(&open(folder.path()).unwrap()),
        expect(&(1..=21).collect::<Vec<_>>())
    );
}

/// Check that whatever happens to the catalog's files, the windows are there after opening the store.
#[test]
fn a_damaged_catalog_is_repaired_or_made_anew() {
    let folder = filled(1..=20);
    let all: Vec<_> = (1..=20).collect();
    let files: Vec<_> = fs::read_dir(folder.path().join("catalog"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let files: Vec<_> = files.into_iter().filter(|path| path.is_file()).collect();
    assert!(
        files.len() >= 2,
        "sled has a log and a configuration: {files:?}"
    );
    let mut rebuilt = 0;
    for file in &files {
        let name = file.file_name().unwrap();
        let length = file.metadata().unwrap().len();
        for cut in [0, 1, length / 3, length / 2, length.saturating_sub(1)] {
            let copy = TempDir::new().unwrap();
            copy_folder(folder.path(), copy.path());
            let damaged = OpenOptions::new()
                .write(true)
                .open(copy.path().join("catalog").join(name))
                .unwrap();
            damaged.set_len(cut).unwrap();
            let store =
                open(copy.path()).unwrap_or_else(|err| panic!("{name:?} cut to {cut}: {err:#}"));
            assert_eq!(folded(&store), expect(&all), "{name:?} cut to {cut}");
            rebuilt += u32::from(store.report().catalog_rebuilt);
        }
        for at in (0..length.min(8192)).step_by(509) {
            let copy = TempDir::new().unwrap();
            copy_folder(folder.path(), copy.path());
            let damaged = OpenOptions::new()
                .write(true)
                .open(copy.path().join("catalog").join(name))
                .unwrap();
            damaged.write_all_at(&[0xa5; 16], at).unwrap();
            let store =
                open(copy.path()).unwrap_or_else(|err| panic!("{name:?} damaged at {at}: {err:#}"));
            assert_eq!(folded(&store), expect(&all), "{name:?} damaged at {at}");
        }
    }
    assert!(
        rebuilt > 0,
        "no damage was bad enough to need a new catalog"
    );
}

#[test]
fn a_damaged_record_does_not_hide_those_behind_it() {
    let folder = filled(1..=3);
    let path = &segments(folder.path())[0];
    let middle = path.metadata().unwrap().len() / 2;
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(&[0x5a; 4], middle)
        .unwrap();
    fs::remove_dir_all(folder.path().join("catalog")).unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.report().records_damaged, 1);
    assert_eq!(folded(&store), expect(&[1, 3]));
}

#[test]
fn a_segment_that_cannot_be_read_hides_only_itself() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    append(&store, 1, START_MS);
    append(&store, 2, START_MS + HOUR_MS);
    drop(store);
    fs::write(&segments(folder.path())[0], b"not a segment").unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.report().segments_damaged, 1);
    assert_eq!(folded(&store), expect(&[2]));
    fs::remove_file(&segments(folder.path())[1]).unwrap();
    drop(store);
    assert_eq!(folded(&open(folder.path()).unwrap()), expect(&[]));
}

#[test]
fn full_segments_are_sealed_and_not_read_again() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    for number in 1..=8 {
        append(&store, number, START_MS + HOUR_MS * number as i64);
    }
    drop(store);
    let store = open(folder.path()).unwrap();
    // Four segments are written at once; the other four are sealed.
    assert_eq!(
        (
            store.report().segments_scanned,
            store.numbers().sealed_segments
        ),
        (4, 4)
    );
    assert_eq!(folded(&store), expect(&(1..=8).collect::<Vec<_>>()));
    // What comes late makes another segment.
    append(&store, 9, START_MS + HOUR_MS);
    drop(store);
    fs::remove_dir_all(folder.path().join("catalog")).unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(segments(folder.path()).len(), 9);
    assert_eq!(folded(&store), expect(&(1..=9).collect::<Vec<_>>()));
}

#[test]
fn a_catalog_of_a_newer_server_is_left_alone() {
    let folder = filled(1..=1);
    let db = sled::open(folder.path().join("catalog")).unwrap();
    db.open_tree("meta")
        .unwrap()
        .insert("schema", &99_u32.to_be_bytes())
        .unwrap();
    drop(db);
    let err = open(folder.path()).err().unwrap();
    assert!(
        format!("{err:#}").contains("use the newer server"),
        "{err:#}"
    );
    assert!(
        fs::read_dir(folder.path()).unwrap().all(|entry| !entry
            .unwrap()
            .path()
            .to_str()
            .unwrap()
            .contains("damaged"))
    );
}
