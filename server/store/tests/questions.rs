//! Questions with limits: what a snapshot keeps is on their account, and a stopped one ends.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::sync::Arc;

use model::text::window_at;
use model::{FunctionNames, Question, QuestionMemory, SeriesTable, Stop, TimeRange};
use store::{EmbeddedStore, SeriesFilter, Snapshot, Store, StoreError, StoreMetrics, StoreOptions};

/// Windows of two weeks are never in one segment.
const WEEK_MS: i64 = 7 * 24 * 3_600_000;

const ALL: TimeRange = TimeRange {
    from_ms: 0,
    to_ms: 10 * WEEK_MS,
};

const EVERYTHING: SeriesFilter<'static> = SeriesFilter {
    equal: Vec::new(),
    matches: &|_| true,
};

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(&StoreOptions::keep_all(path), StoreMetrics::default()).unwrap()
}

/// A window of two programs: `large` has 3,000 stacks, `small` has one.
fn append(store: &EmbeddedStore, week: i64) {
    let stacks =
        (0..3000).map(|number| format!("comm=large,node=a | main work_{week}_{number} | 1\n"));
    let text = stacks.collect::<String>() + "comm=small,node=a | main | 1";
    let window = window_at(&text, week * WEEK_MS, week as u64);
    store.append(window).unwrap();
}

fn find_all(snapshot: &dyn Snapshot) -> Result<SeriesTable, StoreError> {
    snapshot.find_series(&EVERYTHING)
}

/// Check blocks and segments: the account is empty after a question, a part of it that is too small stops the question, and so does
/// whoever asked while the first part is shown.
#[test]
fn a_question_has_an_account_and_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    append(&store, 1);
    append(&store, 2);
    for _ in ["blocks", "segments"] {
        let memory = QuestionMemory::new(64 << 20);
        let question = Question::new(Arc::clone(&memory));
        let snapshot = store.ask(ALL, &question).unwrap();
        let series = find_all(&*snapshot).unwrap();
        let (mut parts, mut used) = (0, 0);
        let mut visit = |_: &model::StackSums<'_>| {
            parts += 1;
            used = used.max(memory.used());
        };
        snapshot
            .sum_stacks(&series, &[0, 0], FunctionNames::All, &mut visit)
            .unwrap();
        assert_eq!((parts, memory.used()), (2, 0));
        assert!((100_000..4 << 20).contains(&used), "{used}");

        let mut parts = 0;
        let stopped = snapshot.sum_stacks(&series, &[0, 0], FunctionNames::All, &mut |_| {
            parts += 1;
            question.stop(Stop::Cancelled);
        });
        assert_eq!(stopped, Err(StoreError::Stopped(Stop::Cancelled)));
        assert_eq!((parts, memory.used()), (1, 0));
        assert!(find_all(&*snapshot).is_err());
        assert!(snapshot.scan_totals(&mut |_| panic!("shown")).is_err());

        let memory = QuestionMemory::new(used / 2);
        let question = Question::new(Arc::clone(&memory));
        let snapshot = store.ask(ALL, &question).unwrap();
        // The sums of other groups are not in the cache.
        let stopped = snapshot.sum_stacks(&series, &[0, 1], FunctionNames::All, &mut |_| {
            panic!("shown")
        });
        let is_too_large = |stop| matches!(stop, StoreError::Stopped(Stop::TooLarge { .. }));
        assert!(stopped.is_err_and(is_too_large));
        assert_eq!(memory.used(), 0);
        store.settle();
    }
}

/// Check that the version changes with the content of the range alone, and that an estimate follows the range and the series.
#[test]
fn a_question_is_known_before_it_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    append(&store, 1);
    let second = TimeRange {
        from_ms: 2 * WEEK_MS,
        to_ms: 3 * WEEK_MS,
    };
    let versions = || [ALL, second].map(|range| store.snapshot(range).unwrap().version());
    let before = versions();
    assert_eq!(versions(), before);
    append(&store, 3);
    let after = versions();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);
    append(&store, 2);
    assert_ne!(versions()[1], after[1]);

    for _ in ["blocks", "segments"] {
        let estimate = |range: TimeRange, filter: &SeriesFilter<'_>| {
            store.snapshot(range).unwrap().estimate_bytes(filter)
        };
        let all = estimate(ALL, &EVERYTHING);
        assert!((3000..1 << 20).contains(&all), "{all}");
        let one = estimate(second, &EVERYTHING);
        assert!((all / 4..all / 2).contains(&one), "{one} of {all}");
        let half = SeriesFilter {
            equal: vec![("comm", "small")],
            matches: &|_| true,
        };
        assert!(estimate(ALL, &half).abs_diff(all / 2) < 10);
        let none = SeriesFilter {
            equal: Vec::new(),
            matches: &|_| false,
        };
        assert_eq!(estimate(ALL, &none), 0);
        store.settle();
    }
}
