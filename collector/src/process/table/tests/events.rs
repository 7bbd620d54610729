//! Events of the side band.

use elf::BuildId;

use super::*;

/// Applies events at times 1, 2, … and shows a process: "comm exe path@start …".
fn show(events: Vec<SideBandEvent>, pid: u32) -> String {
    let mut table = ProcessTable::new();
    for (time, event) in (1..).zip(events) {
        table.apply(event, time);
    }
    let Some(process) = find(&mut table, pid, 100) else {
        return "none".into();
    };
    let mappings: String = process
        .mappings
        .iter()
        .map(|mapping| format!(" {}@{:x}", mapping.file.path, mapping.start))
        .collect();
    format!(
        "{} {}{mappings}",
        process.comm,
        process.exe.as_deref().unwrap_or("-")
    )
}

/// Check that an exec's first mapping is its program, and that later ones are not.
#[test]
fn exec_and_maps() {
    let events = vec![
        exec(PID, "sh"),
        map(PID, 0x1000, "/bin/sh"),
        map(PID, 0x5000, "/lib/ld.so"),
        map(PID, 0x9000, "//anon"),
    ];
    assert_eq!(
        show(events, PID),
        "sh /bin/sh /bin/sh@1000 /lib/ld.so@5000 [anonymous]@9000"
    );
}

/// Check that a child starts with its parent's mappings and keeps them when the
/// parent goes on to run something else.
#[test]
fn fork_copies() {
    let child = PID + 1;
    let events = || {
        vec![
            exec(PID, "sh"),
            map(PID, 0x1000, "/bin/sh"),
            SideBandEvent::Fork {
                pid: child,
                parent: PID,
            },
            map(child, 0x3000, "/lib/x.so"),
            exec(PID, "ls"),
            map(PID, 0x2000, "/bin/ls"),
        ]
    };
    assert_eq!(
        show(events(), child),
        "sh /bin/sh /bin/sh@1000 /lib/x.so@3000"
    );
    assert_eq!(show(events(), PID), "ls /bin/ls /bin/ls@2000");
}

/// Check that the parent is known that forked a process, also if the parent itself is not, as before all processes are read.
#[test]
fn parent_of_a_process() {
    let parent = PID + 1;
    let fork = || SideBandEvent::Fork { pid: PID, parent };
    for begin in [vec![], vec![exec(parent, "sh")]] {
        let mut table = ProcessTable::new();
        let events = begin.into_iter().chain([fork(), exec(PID, "ls")]);
        events.for_each(|event| table.apply(event, 1));
        assert_eq!(find(&mut table, PID, 2).unwrap().parent, parent);
    }
    // One that runs its unknown parent's program is read.
    let mut table = ProcessTable::new();
    table.apply(fork(), 1);
    assert!(matches!(table.find(PID, 2), Found::Pending));
    assert_eq!(table.take_requests(), [PID]);
}

/// Check that an ended process is still there for its last samples, that its id
/// can be used again, and that it is forgotten after a while.
#[test]
fn exit_and_reuse() {
    let exit = SideBandEvent::Exit { pid: PID };
    let events = vec![exec(PID, "a"), map(PID, 0x1000, "/a"), exit.clone()];
    assert_eq!(show(events, PID), "a /a /a@1000");

    let events = vec![
        exec(PID, "a"),
        map(PID, 0x1000, "/a"),
        exit.clone(),
        exec(PID, "b"),
    ];
    assert_eq!(show(events, PID), "b -");

    let mut table = ProcessTable::new();
    table.apply(exec(PID, "a"), 1);
    table.apply(exit, 2);
    table.maintain(ENDED_KEPT_NS);
    assert!(find(&mut table, PID, 3).is_some());
    table.maintain(2 * ENDED_KEPT_NS);
    assert!(find(&mut table, PID, 4).is_none());
}

/// Check that a full table takes new processes in place of those sampled longest ago, and empties again.
#[test]
fn a_full_table_evicts() {
    let mut table = ProcessTable::new();
    table.apply(exec(PID, "old"), 1);
    table.follow(PID + 1);
    let count = 2 * PROCESSES_MAX as u32;
    for pid in 1..=count {
        let time_ns = u64::from(pid) + 1;
        table.apply(exec(pid, "a"), time_ns);
        assert!(find(&mut table, pid, time_ns).is_some());
        assert!(find(&mut table, PID, time_ns).is_some(), "it is sampled");
    }
    let stats = table.stats();
    assert!(stats.processes <= PROCESSES_MAX);
    assert_eq!(stats.evicted, u64::from(count) + 1 - stats.processes as u64);
    assert!(table.take_requests().is_empty());
    // One that was evicted is read again.
    assert!(matches!(table.find(1, 1), Found::Pending));
    for pid in (1..=count).chain([PID]) {
        table.apply(SideBandEvent::Exit { pid }, 1);
    }
    table.maintain(u64::MAX);
    assert_eq!(table.stats().processes, 0);
}

/// Check the changes of a process that is followed: its mappings once a change, its end once.
#[test]
fn followed_processes() {
    let mut table = ProcessTable::new();
    let exec = || SideBandEvent::Exec {
        pid: PID,
        comm: b"a".as_slice().into(),
    };
    table.apply(exec(), 1);
    table.follow(PID);
    assert_eq!(table.take_changes(), []);
    table.apply(map(PID, 0x1000, "/a"), 2);
    table.apply(map(PID, 0x3000, "/b"), 3);
    let mappings = find(&mut table, PID, 3).unwrap().mappings;
    assert_eq!(mappings.len(), 2);
    assert_eq!(table.take_changes(), [(PID, Change::Mapped(mappings))]);
    assert_eq!(table.take_changes(), []);
    table.apply(exec(), 4);
    table.apply(map(PID, 0x1000, "/c"), 5);
    assert_eq!(table.take_changes(), [(PID, Change::Ended)]);
    table.apply(map(PID, 0x3000, "/d"), 6);
    assert_eq!(table.take_changes(), []);
}

/// Check that a process's ancestors are found, also when they have run something else since, and not more than are wanted.
#[test]
fn ancestors() {
    let mut table = ProcessTable::new();
    table.apply(exec(PID, "init"), 1);
    for pid in PID + 1..PID + 20 {
        let parent = pid - 1;
        table.apply(SideBandEvent::Fork { pid, parent }, 2);
        table.apply(exec(pid, "sh"), 3);
    }
    let ancestors = |table: &mut ProcessTable, pid| {
        let process = find(table, pid, 4).unwrap();
        table.ancestors(&process)
    };
    assert_eq!(ancestors(&mut table, PID + 2), [PID + 1, PID]);
    let all = ancestors(&mut table, PID + 19);
    assert_eq!(all.len(), ANCESTORS_MAX);
    assert_eq!(all[..2], [PID + 18, PID + 17]);
    assert!(ancestors(&mut table, PID).is_empty());
}

/// Check that a process has another number for what it maps when it has mapped a file, and after each exec, and when it
/// has mapped memory for the first time.
#[test]
fn versions_of_mapped_files() {
    let mut table = ProcessTable::new();
    let version = |table: &mut ProcessTable, event| {
        table.apply(event, 1);
        find(table, PID, 1).unwrap().files_version
    };
    let versions = [
        exec(PID, "a"),
        map(PID, 0x1000, "/a"),
        map(PID, 0x3000, "/b"),
        map(PID, 0x5000, "//anon"),
        map(PID, 0x7000, "//anon"),
        exec(PID, "a"),
        map(PID, 0x1000, "/a"),
        map(PID, 0x3000, "/b"),
    ]
    .map(|event| version(&mut table, event));
    assert_eq!(versions, [0, 1, 2, 3, 3, 0, 4, 5]);
}

/// Check that a file is found in other processes, also by another path, in those that live, and not in more than are wanted.
#[test]
fn living_processes_of_a_file() {
    let mut table = ProcessTable::new();
    let at = |inode| FileIdentity::Inode {
        device: 1,
        inode,
        generation: 0,
        claimed_build_id: BuildId::new(&[1; 20]),
    };
    let map_inode = |pid, path: &str, inode| SideBandEvent::Map {
        pid,
        start: 0x5000,
        end: 0x6000,
        file_offset: 0,
        path: path.into(),
        identity: at(inode),
    };
    for pid in PID..PID + 6 {
        table.apply(exec(pid, "a"), 1);
        table.apply(map(pid, 0x1000, "/plain"), 1);
    }
    table.apply(map_inode(PID, "/a", 1), 2);
    table.apply(map_inode(PID + 1, "/link to a", 1), 2);
    table.apply(map_inode(PID + 2, "/a", 2), 2);
    table.apply(SideBandEvent::Exit { pid: PID }, 3);
    assert!(table.is_living(PID + 1) && !table.is_living(PID));

    let mut intern = |path: &[u8], identity| table.files.intern(FileKind::File, path, identity);
    let built = intern(b"/a", at(1));
    let plain = intern(b"/plain", FileIdentity::Path);
    let unknown = intern(b"/unknown", FileIdentity::Path);
    let found = table.find_living(&[built.clone(), plain.clone(), unknown], 2);
    let of = |file: &Arc<MappedFile>| found.iter().filter(|mapping| mapping.file == *file).count();
    assert_eq!((of(&built), of(&plain), found.len()), (1, 2, 3));
    let by = found.iter().find(|mapping| mapping.file == built).unwrap();
    assert_eq!((by.pid, by.start, by.end), (PID + 1, 0x5000, 0x6000));
    assert!(found.iter().all(|mapping| mapping.pid != PID));
    assert_eq!(table.find_living(&[], 2), []);
}
