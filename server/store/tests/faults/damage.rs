//! Flipped bits: damage hits the windows that it is in, is told at the start and in answers, and does not keep windows away.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use store::{Appended, Store as _};

use crate::history::{Rig, window};

const START_MS: i64 = 1_795_312_800_000;
const WINDOWS: u64 = 6;

fn send(rig: &Rig, number: u64) -> Appended {
    let start_ms = START_MS + 10_000 * number as i64;
    rig.store().append(window(number, start_ms)).unwrap()
}

/// A store with windows in a log, and in a segment if it is settled.
fn prepare() -> Rig {
    let mut rig = Rig::new(1);
    rig.open().unwrap();
    for number in 1..=WINDOWS {
        send(&rig, number);
    }
    rig
}

fn find(rig: &Rig, part: &str) -> PathBuf {
    let names = rig.disk.names().into_iter();
    let mut found = names.filter(|path| path.to_string_lossy().contains(part));
    found.next().unwrap()
}

/// The windows that are there, each once, and whether the answer lacks something.
fn windows(rig: &Rig) -> (Vec<u64>, bool) {
    let (times, unread) = rig.ask();
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    (times.into_keys().collect(), !unread.is_empty())
}

/// Sends all windows again, and checks that those that are there are repeats, and that all are there then.
fn send_again(rig: &mut Rig, found: &[u64], what: &str) {
    for number in 1..=WINDOWS {
        let expected = if found.contains(&number) {
            Appended::Duplicate
        } else {
            Appended::Stored
        };
        assert_eq!(send(rig, number), expected, "{what}: {number}");
    }
    for _ in 0..2 {
        assert_eq!(windows(rig).0, Vec::from_iter(1..=WINDOWS), "{what}");
        assert!(rig.settle());
        rig.close();
        rig.open().unwrap();
    }
    assert_eq!(windows(rig).0, Vec::from_iter(1..=WINDOWS), "{what}");
}

#[test]
fn damaged_logs_lose_what_was_hit() {
    let mut rig = prepare();
    rig.close();
    let bits = 8 * rig.disk.length(&find(&rig, ".log"));
    for bit in (0..bits).step_by(bits / 40) {
        let mut rig = prepare();
        rig.close();
        rig.disk.flip(&find(&rig, ".log"), bit);
        rig.open().unwrap();
        let (found, lacks) = windows(&rig);
        let is_reported = rig.store().report().records_damaged > 0;
        let what = format!("bit {bit}, {found:?}");
        // A record that is damaged at the end of a log is one that was being written.
        assert!(
            lacks == is_reported && (lacks || found.len() >= 5),
            "{what}"
        );
        send_again(&mut rig, &found, &what);
    }
}

/// Check that the windows of a segment that cannot be opened can be sent again, and that other damage is told and doubles nothing.
#[test]
fn damaged_segments_lose_what_was_hit() {
    let prepare = || {
        let mut rig = prepare();
        rig.settle();
        rig.close();
        rig
    };
    let rig = prepare();
    let bits = 8 * rig.disk.length(&find(&rig, ".seg"));
    let mut closed = 0;
    for bit in (0..bits).step_by(bits / 40) {
        let mut rig = prepare();
        rig.disk.flip(&find(&rig, ".seg"), bit);
        rig.open().unwrap();
        let (found, lacks) = windows(&rig);
        let what = format!("bit {bit}, {found:?}");
        assert!(lacks || found.len() as u64 == WINDOWS, "{what}");
        if rig.store().report().segments_damaged > 0 {
            closed += 1;
            assert!(found.is_empty(), "{what}");
            send_again(&mut rig, &found, &what);
        } else {
            for number in 1..=WINDOWS {
                assert_eq!(send(&rig, number), Appended::Duplicate, "{what}");
            }
        }
    }
    assert!(closed > 0);
}

/// Check that damage of a segment is found without a question, wherever it is, is told as a question tells it, and leaves a whole
/// segment alone.
#[test]
fn damaged_segments_are_found_in_the_background() {
    let mut rig = prepare();
    rig.settle();
    rig.close();
    rig.verify_bytes_per_second = Some(u64::MAX);
    let path = find(&rig, ".seg");
    let bits = 8 * rig.disk.length(&path);
    for bit in (0..bits).step_by(bits / 40) {
        rig.disk.flip(&path, bit);
        rig.open().unwrap();
        let found = wait_until(|| rig.store().damage().first().cloned());
        let told = rig.ask().1;
        // A question for samples does not need all that is in a segment.
        assert!(
            told.is_empty() || told.contains(&found.reason),
            "bit {bit}: {found:?}, {told:?}"
        );
        rig.close();
        rig.disk.flip(&path, bit);
    }
    rig.open().unwrap();
    wait_until(|| (rig.metrics.verified_bytes() > 0).then_some(()));
    assert_eq!(rig.store().damage(), []);
}

/// Check that a store that is verified slowly closes at once.
#[test]
fn a_stop_ends_a_verification() {
    let mut rig = prepare();
    rig.settle();
    rig.close();
    rig.verify_bytes_per_second = Some(1);
    rig.open().unwrap();
    let started = Instant::now();
    rig.close();
    // The file has more bytes than that.
    assert!(started.elapsed() < Duration::from_secs(60));
}

/// Waits for something that the store does in the background.
fn wait_until<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(1));
    }
}

/// Check that windows are there once when the list of a replacement is damaged, whatever of it was done.
#[test]
fn damaged_lists_double_nothing() {
    for broken in [
        ["rename", ".seg"],
        ["remove", ".log"],
        ["remove", ".part."],
        ["remove", ".json"],
    ] {
        for bit in [3, 100, 500] {
            let mut rig = prepare();
            rig.disk.break_operations(&[broken], u64::MAX);
            rig.disk.set_fault(None);
            assert!(!rig.settle(), "{broken:?}");
            rig.close();
            rig.disk.break_operations(&[], 0);
            rig.disk.flip(&find(&rig, "replacements/"), bit);
            rig.open().unwrap();
            let what = format!("{broken:?}, bit {bit}");
            assert_eq!(rig.store().report().lists_damaged, 1, "{what}");
            let all = Vec::from_iter(1..=WINDOWS);
            assert_eq!(windows(&rig), (all.clone(), false), "{what}");
            send_again(&mut rig, &all, &what);
        }
    }
}
