//! Steps in the background that fail.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use store::Store as _;

use crate::disk::Fault;
use crate::history::{Rig, window};

const START_MS: i64 = 1_795_312_800_000;

/// A store with windows in two parts of an hour and in a log.
fn prepare() -> Rig {
    let mut rig = Rig::new(1);
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
            rig.disk.set_fault(Some(Fault::Fail { at, count: 1, kind }));
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
            rig.disk.break_operations(Some(broken));
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
                rig.disk.break_operations(None);
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
