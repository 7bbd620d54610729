//! Questions while windows are appended.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use model::{LabelSet, Window, WindowKey};
use store::{Appended, MemoryStore, Store, StoreError};

use crate::answers::{self, ALWAYS, Filter};
use crate::stores::StoreUnderTest;
use crate::windows::random_window;

const SENDERS: u64 = 3;
const WINDOWS: u64 = 25;
const ASKERS: usize = 2;
/// Comes after the other labels.
const WINDOW: &str = "window";

/// Check that a question has all windows that were acknowledged before it, whole, and nothing that nobody sent; and that all it asks is
/// about the same windows.
pub(crate) fn answers_hold_what_was_acknowledged_before<S: StoreUnderTest>() {
    let tested = S::create();
    let store = tested.store();
    let windows: Vec<Vec<_>> = (0..SENDERS)
        .map(|sender| {
            let mut random = Rng::with_seed(sender);
            let sequences = sender * WINDOWS..(sender + 1) * WINDOWS;
            sequences
                .map(|sequence| labelled(random_window(&mut random, sequence + 1)))
                .collect()
        })
        .collect();
    let reference = MemoryStore::default();
    for window in windows.iter().flatten() {
        reference.append(window.clone()).unwrap();
    }
    let sent = ask(&reference);

    let acknowledged: Mutex<Vec<WindowKey>> = Mutex::default();
    let running = AtomicUsize::new(windows.len());
    std::thread::scope(|scope| {
        for windows in windows {
            let (acknowledged, running) = (&acknowledged, &running);
            scope.spawn(move || {
                let append = |window: Window| {
                    let key = window.head.key;
                    let appended = store.append(window)?;
                    acknowledged.lock().unwrap().push(key);
                    Ok(appended)
                };
                let appended: Vec<Result<_, StoreError>> =
                    windows.into_iter().map(append).collect();
                // Before the test fails: the askers wait for it.
                running.fetch_sub(1, Ordering::Relaxed);
                for appended in appended {
                    assert_eq!(appended, Ok(Appended::Stored));
                }
            });
        }
        for _ in 0..ASKERS {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) > 0 {
                    let before = acknowledged.lock().unwrap().clone();
                    let answer = ask(store);
                    for key in before {
                        assert!(answer.contains_key(&key), "{key}");
                    }
                    for (key, window) in &answer {
                        assert_eq!(window, &sent[key], "{key}");
                    }
                }
            });
        }
    });
    assert_eq!(ask(store), sent);
}

/// The window, with its sequence number as a label of all its series: sums over many windows tell of which one they are.
fn labelled(mut window: Window) -> Window {
    let sequence = window.head.key.sequence.to_string();
    for labels in &mut window.series {
        let labelled = labels.iter().chain([(WINDOW, sequence.as_str())]);
        *labels = LabelSet::from_sorted(labelled).unwrap();
    }
    window
}

/// What a snapshot has of each window: its sums, and its stacks.
fn ask(store: &dyn Store) -> BTreeMap<WindowKey, [Vec<String>; 2]> {
    let snapshot = store.snapshot(ALWAYS).unwrap();
    let mut stacks: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (stack, sums) in answers::stacks(&*snapshot, &Filter::default()) {
        let (_, label) = stack.split_once(&format!("{WINDOW}=\"")).unwrap();
        let sequence = label.split('"').next().unwrap().parse().unwrap();
        stacks
            .entry(sequence)
            .or_default()
            .push(format!("{stack} {sums:?}"));
    }
    let window = |(key, totals): (WindowKey, Vec<Vec<String>>)| {
        let stacks = stacks.get(&key.sequence).cloned().unwrap_or_default();
        (key, [totals.concat(), stacks])
    };
    answers::totals(&*snapshot)
        .into_iter()
        .map(window)
        .collect()
}
