//! Steps in the background that fail.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use store::{Appended, Store as _};

use crate::disk::Fault;
use crate::history::{Rig, window};

const START_MS: i64 = 1_795_312_800_000;

/// A store with windows in two parts of an hour and in a log.
fn prepare() -> Rig {
    prepare_with(1)
}

fn prepare_with(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    rig.open().unwrap();
    for number in 1..=6 {
        let start_ms = START_MS + 10_000 * number as i64;
        rig.store().append(window(number, start_ms)).unwrap();
        if number == 3 {
            rig.settle();
        }
    }
    rig
}

fn assert_whole(rig: &Rig, when: &str) {
    let (times, unread) = rig.ask();
    let expected = (1..=6).map(|number| (number, 1)).collect();
    assert_eq!(times, expected, "{when}\n{}", rig.disk.trace());
    assert_eq!(unread, [""; 0], "{when}");
}

fn unfinished(rig: &Rig) -> usize {
    let names = rig.disk.names().into_iter();
    names
        .filter(|path| path.to_string_lossy().ends_with(".tmp"))
        .count()
}

/// Check that a step whose nth operation fails is done again, for each operation, and that each window is there once: at once, at the
/// end, and after a restart.
#[test]
fn a_failed_step_is_done_again() {
    let rig = prepare();
    rig.disk.set_fault(None);
    assert!(rig.settle());
    let [changing, reading] = rig.disk.operations();
    assert!(changing.len() > 20, "{}", rig.disk.trace());
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for at in changing.iter().chain(reading.iter().step_by(10)).copied() {
            let mut rig = prepare();
            rig.disk.set_fault(Some(Fault::Fail {
                at,
                count: 1,
                kind,
                crash_after: None,
            }));
            assert!(rig.settle());
            assert_whole(&rig, &format!("operation {at} failed with {kind}"));
            // A file that could not be removed is left to the next start.
            let left = unfinished(&rig);
            assert!(left <= 1, "{at}\n{}", rig.disk.trace());
            rig.disk.set_fault(None);
            rig.crash();
            rig.open().unwrap();
            assert!(rig.settle());
            assert_whole(&rig, &format!("restarted after operation {at} failed"));
            assert_eq!(unfinished(&rig), 0);
        }
    }
}

/// Check that a step that counts is finished when the disk works again, or by the next start, and is not done again; and that answers
/// are whole meanwhile.
#[test]
fn a_step_that_counts_is_finished() {
    for broken in [["rename", ".seg"], ["remove", ".log"], ["remove", ".json"]] {
        for is_restarted in [false, true] {
            let mut rig = prepare();
            rig.disk.set_fault(None);
            rig.disk.break_operations(&[broken], u64::MAX);
            let started = Instant::now();
            std::thread::scope(|scope| {
                let settling = scope.spawn(|| rig.store().settle());
                while rig.disk.failures() < 4 {
                    assert!(started.elapsed() < Duration::from_secs(30), "{broken:?}");
                    assert!(!settling.is_finished());
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert_whole(&rig, "while the disk fails");
                if is_restarted {
                    rig.store().close();
                }
                rig.disk.break_operations(&[], 0);
            });
            if is_restarted {
                rig.crash();
                rig.open().unwrap();
            }
            assert_whole(&rig, "when the disk works again");
            assert!(rig.settle());
            assert_eq!(unfinished(&rig), 0);
            rig.crash();
            rig.open().unwrap();
            assert_whole(&rig, "after a restart");
        }
    }
}

/// Check that a crash soon after a failure finds the old files or the new ones, and not a list of files that were removed.
#[test]
fn a_crash_after_a_failure_loses_nothing() {
    for broken in [
        ["sync", ".seg.tmp"],
        ["sync_folder", "segments"],
        ["rename", ".json"],
        ["sync_folder", "replacements"],
        ["rename", ".seg"],
        ["remove", ".log"],
    ] {
        for after in 1..10 {
            let mut rig = prepare_with(after);
            rig.disk.set_fault(None);
            rig.disk.break_operations(&[broken], 1);
            rig.disk.crash_after_failure(after);
            rig.settle();
            rig.crash();
            rig.open().unwrap();
            assert_whole(
                &rig,
                &format!("{broken:?}, crashed {after} operations later"),
            );
        }
    }
}

/// Check that a window whose record could be neither synced nor cut, and that was sent again, is there once after a restart.
#[test]
fn a_window_in_two_logs_counts_once() {
    let mut rig = prepare();
    let sent = || window(7, START_MS);
    // No block becomes a segment.
    let broken = [["create", ".seg"], ["sync", ".log"], ["set_len", ".log"]];
    rig.disk.break_operations(&broken, u64::MAX);
    assert!(rig.store().append(sent()).is_err());
    rig.disk.break_operations(&broken[..1], u64::MAX);
    assert_eq!(rig.store().append(sent()), Ok(Appended::Stored));
    rig.close();
    rig.disk.break_operations(&[], 0);
    for repeated in [1, 0] {
        rig.open().unwrap();
        assert_eq!(rig.store().report().windows_repeated, repeated);
        let (times, unread) = rig.ask();
        assert_eq!(times, (1..=7).map(|number| (number, 1)).collect());
        assert_eq!(unread, [""; 0]);
        assert!(rig.settle());
        rig.close();
    }
}
