//! Sums of segments that are asked for again.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{Exposition, Registry};
use model::text::{describe_stack, window_at};
use model::{FunctionNames, Question, QuestionMemory, TimeRange, Window};
use store::{EmbeddedStore, MemoryStore, SeriesFilter, Store, StoreMetrics, StoreOptions};

/// Windows of ten seconds.
const WINDOW_MS: i64 = 10_000;

/// Windows that are there before the questions; as many come meanwhile, into the same hour.
const WINDOWS: i64 = 60;

/// Room for the sums of a few questions about one segment, and for the questions themselves: some of them are evicted all the time.
const MEMORY_BYTES: usize = 400 << 10;

/// Samples by label set, tags and stack.
type Answer = BTreeMap<String, u64>;

fn open(path: &Path, metrics: &StoreMetrics) -> EmbeddedStore {
    EmbeddedStore::open(&StoreOptions::keep_all(path), metrics.clone()).unwrap()
}

/// A window of two programs, each with stacks that others have too.
fn window(number: i64) -> Window {
    let row = |row: i64| {
        let (program, stack) = (row % 2, (7 * row + number) % 90);
        format!("comm=program-{program} | main work_{stack} | {}", row + 1)
    };
    let text: Vec<String> = (0..40).map(row).collect();
    window_at(&text.join("\n"), number * WINDOW_MS, number as u64 + 1)
}

/// Asks for the samples of some windows, of one program or of both.
fn ask(
    store: &dyn Store,
    windows: [i64; 2],
    program: Option<&str>,
    memory: &Arc<QuestionMemory>,
) -> Answer {
    let [from_ms, to_ms] = windows.map(|number| number * WINDOW_MS);
    let question = Question::new(Arc::clone(memory));
    let snapshot = store.ask(TimeRange { from_ms, to_ms }, &question).unwrap();
    let filter = SeriesFilter {
        equal: program
            .map(|program| ("comm", program))
            .into_iter()
            .collect(),
        matches: &|_| true,
    };
    let table = snapshot.find_series(&filter).unwrap();
    let groups: Vec<u32> = (0..table.len() as u32).collect();
    let mut answer = Answer::new();
    let visited = snapshot.sum_stacks(&table, &groups, FunctionNames::All, &mut |part| {
        for sum in part.sums {
            let labels = table.labels(sum.group as usize);
            let stack = describe_stack(part.tables, labels, sum.tags, sum.stack);
            *answer.entry(stack).or_default() += sum.samples;
        }
    });
    visited.unwrap();
    assert_eq!(snapshot.unread(), []);
    answer
}

/// Check that answers are those of a store without a cache, while segments are merged and sums are evicted.
#[test]
fn cached_sums_are_those_that_would_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = StoreMetrics::default();
    let store = open(folder.path(), &metrics);
    let reference = MemoryStore::default();
    for number in 0..WINDOWS {
        store.append(window(number)).unwrap();
        reference.append(window(number)).unwrap();
    }
    store.settle();
    let unlimited = QuestionMemory::new(usize::MAX);
    let memory = QuestionMemory::new(MEMORY_BYTES);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (store, reference) = (&store, &reference);
            let (unlimited, memory, is_over) = (&unlimited, &memory, &is_over);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut asked = 0;
                while asked < 50 || !is_over.load(Ordering::Relaxed) {
                    let from = random.i64(0..3);
                    let windows = [from, WINDOWS - random.i64(0..3)];
                    let program = [None, Some("program-0"), Some("program-1")];
                    let program = program[random.usize(0..3)];
                    let expected = ask(reference, windows, program, unlimited);
                    let answer = ask(store, windows, program, memory);
                    assert!(answer == expected, "windows {windows:?} of {program:?}");
                    asked += 1;
                }
            });
        }
        for number in WINDOWS..2 * WINDOWS {
            store.append(window(number)).unwrap();
            if number % 4 == 0 {
                store.settle();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    for _ in 0..2 {
        ask(&store, [0, WINDOWS], Some("program-0"), &memory);
    }
    assert_eq!(memory.used(), 0);
    assert!(
        (1..MEMORY_BYTES).contains(&memory.spare()),
        "{}",
        memory.spare()
    );
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let text = Exposition::from_accept("text/plain")
        .encode(&registry)
        .unwrap();
    for cache in ["hit", "miss"] {
        let name = format!("segment_sums_total{{cache=\"{cache}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        let count: u64 = count.unwrap().parse().unwrap();
        assert!(count > 0, "{cache}");
    }
}
