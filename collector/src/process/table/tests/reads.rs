//! Reads of `/proc`, and lost events.

use super::{scan::SCAN_INTERVAL_NS, *};
use crate::process::StartTime;

const LOST: SideBandEvent = SideBandEvent::Lost { count: 1 };

/// A snapshot of a process that started in this second and maps one file.
fn snapshot(second: u64, path: &str) -> ProcessSnapshot {
    ProcessSnapshot {
        comm: b"read".into(),
        exe: Some(path.into()),
        parent: 1,
        started: StartTime {
            ticks: 100 * second,
            monotonic_ns: second * SECOND,
        },
        mappings: vec![SnapshotMapping {
            start: 0x1000,
            end: 0x2000,
            file_offset: 0,
            path: path.into(),
            identity: FileIdentity::Path,
        }],
    }
}

fn read(begun_ns: u64, snapshot: Result<ProcessSnapshot, SnapshotError>) -> ProcessRead {
    ProcessRead {
        pid: PID,
        begun_ns,
        snapshot,
    }
}

fn list(begun_ns: u64, living: Option<(u32, StartTime)>) -> ProcessList {
    ProcessList {
        begun_ns,
        living: living
            .map(|(pid, started)| (pid, Some(started)))
            .into_iter()
            .collect(),
    }
}

/// Check that a process whose events were missed is read once, and counted when `/proc` does not have it.
#[test]
fn unknown_process() {
    let mut table = ProcessTable::new();
    table.apply(map(PID, 0x1000, "/a"), 1);
    for _ in 0..100 {
        assert!(matches!(table.find(PID, 2), Found::Pending));
    }
    assert_eq!(table.take_requests(), [PID]);
    table.apply_read(read(3, Err(SnapshotError::Gone)), 4);
    for _ in 0..100 {
        assert!(matches!(table.find(PID, 2), Found::Unknown));
    }
    assert!(table.take_requests().is_empty());
    assert_eq!(table.stats().unknown, 100);
}

/// Check that a process whose end was lost leaves the table with the next list of all processes, and that whoever follows
/// it hears of it.
#[test]
fn a_process_whose_end_was_lost_leaves() {
    let mut table = ProcessTable::new();
    assert!(table.begin_scan(1));
    table.apply_list(&list(1, None));
    assert!(!table.begin_scan(2 * SCAN_INTERVAL_NS), "nobody asked");
    for pid in [PID, PID + 1, PID + 2] {
        table.apply(exec(pid, "a"), 2);
        table.follow(pid);
    }
    table.apply(LOST, 5);
    assert!(!table.begin_scan(6), "too soon");
    let begun_ns = SCAN_INTERVAL_NS + 1;
    assert!(table.begin_scan(begun_ns) && !table.begin_scan(begun_ns));
    let started = snapshot(0, "").started;
    table.apply(exec(PID + 2, "b"), begun_ns + 1);
    table.apply_list(&list(begun_ns, Some((PID + 1, started))));
    let is_living = |pid: &u32| table.is_living(*pid);
    let living: Vec<u32> = (PID..PID + 3).filter(is_living).collect();
    assert_eq!(living, [PID + 1, PID + 2]);
    let mut changes = table.take_changes();
    changes.sort_by_key(|(pid, _)| *pid);
    assert_eq!(changes, [(PID, Change::Ended), (PID + 2, Change::Ended)]);
    table.maintain(begun_ns + ENDED_KEPT_NS);
    let stats = table.stats();
    assert_eq!((stats.processes, stats.ended_unseen), (2, 1));
}

/// Check that after a loss a sample waits until its process was read, so that one that has the number of another does not
/// take its mappings, and that an older sample does not take those of the new one.
#[test]
fn a_reused_number_does_not_take_the_mappings_of_the_one_before() {
    let mut table = ProcessTable::new();
    table.apply(exec(PID, "a"), SECOND);
    table.apply(map(PID, 0x1000, "/a"), SECOND);
    table.follow(PID);
    assert!(find(&mut table, PID, 2 * SECOND).is_some());
    table.apply(LOST, 3 * SECOND);
    assert!(matches!(table.find(PID, 4 * SECOND), Found::Pending));
    assert_eq!(table.take_requests(), [PID]);
    // A read from before the loss does not do.
    let before = read(2 * SECOND, Ok(snapshot(1, "/a")));
    table.apply_read(before, 4 * SECOND);
    assert!(matches!(table.find(PID, 4 * SECOND), Found::Pending));
    let after = read(5 * SECOND, Ok(snapshot(4, "/b")));
    table.apply_read(after, 6 * SECOND);
    let process = find(&mut table, PID, 4 * SECOND).unwrap();
    assert_eq!(process.exe.as_deref(), Some("/b"));
    assert!(matches!(table.find(PID, 3 * SECOND), Found::Unknown));
    assert_eq!(table.take_changes(), [(PID, Change::Ended)]);
    // If the list has another one with the number, it has ended too.
    let started = snapshot(8, "").started;
    table.apply_list(&list(9 * SECOND, Some((PID, started))));
    assert!(!table.is_living(PID));
    assert!(matches!(table.find(PID, 10 * SECOND), Found::Pending));
}

/// Check that a process that is the same after a loss goes on as it was, with another version of its files only where they
/// changed.
#[test]
fn a_process_that_is_the_same_goes_on() {
    let mut table = ProcessTable::new();
    table.apply_read(read(SECOND, Ok(snapshot(1, "/a"))), SECOND);
    let version = |table: &mut ProcessTable, path| {
        table.apply(LOST, 2 * SECOND);
        table.apply_read(read(3 * SECOND, Ok(snapshot(1, path))), 4 * SECOND);
        find(table, PID, 5 * SECOND).unwrap().files_version
    };
    table.follow(PID);
    let before = version(&mut table, "/a");
    assert_eq!(version(&mut table, "/a"), before);
    assert_eq!(table.take_changes(), []);
    assert_ne!(version(&mut table, "/b"), before);
    let changes = table.take_changes();
    assert!(matches!(changes[..], [(PID, Change::Mapped(_))]));
}

/// Check that a process whose read missed its deadline is unknown for a while, and counted.
#[test]
fn a_process_that_cannot_be_read() {
    let mut table = ProcessTable::new();
    table.find(PID, 1);
    table.apply_read(read(1, Err(SnapshotError::TimedOut)), 2);
    assert!(matches!(table.find(PID, 3), Found::Unknown));
    assert_eq!(table.take_requests(), [PID]);
    assert_eq!(table.stats().reads_timed_out, 1);
    assert!(matches!(table.find(PID, 60 * SECOND), Found::Pending));
}

/// Check that events which come while a process is being read are not lost, and that an exec stands against the read.
#[test]
fn events_during_a_read() {
    let mut table = ProcessTable::new();
    assert!(matches!(table.find(PID, SECOND), Found::Pending));
    table.apply(map(PID, 0x5000, "/before"), 2 * SECOND);
    table.apply(map(PID, 0x7000, "/after"), 4 * SECOND);
    table.apply(SideBandEvent::Exit { pid: PID }, 5 * SECOND);
    table.apply_read(read(3 * SECOND, Ok(snapshot(1, "/a"))), 6 * SECOND);
    let process = find(&mut table, PID, 4 * SECOND).unwrap();
    let paths = process.mappings.iter().map(|mapping| &*mapping.file.path);
    assert_eq!(paths.collect::<Vec<_>>(), ["/a", "/after"]);
    assert!(!table.is_living(PID));

    let mut table = ProcessTable::new();
    table.find(PID, SECOND);
    table.apply(exec(PID, "b"), 4 * SECOND);
    table.apply(map(PID, 0x1000, "/b"), 4 * SECOND);
    table.apply_read(read(3 * SECOND, Ok(snapshot(1, "/a"))), 5 * SECOND);
    let process = find(&mut table, PID, 4 * SECOND).unwrap();
    assert_eq!(process.exe.as_deref(), Some("/b"));
    assert!(matches!(table.find(PID, 2 * SECOND), Found::Unknown));
}
