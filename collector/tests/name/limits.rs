//! A child that hangs, grows, may do less than hoped, or is no child at all.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use collector::file::{ElfFile, UnnamedReason};
use collector::name::{
    ChildLimits, CpuBudget, Namer, NamerOptions, NamerStats, Naming, Object, Readings,
};
use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::own_address;
use crate::target::{DEADLINE, functions, locate, namer, object, options, reason};

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A program that stands for the collector's.
fn script(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Check that a child that does not answer is given up after its time, that the file is backed off, and that the
/// next child answers.
#[test]
fn hanging_child_is_replaced() {
    let mut namer = Namer::new(NamerOptions {
        // The next child has to answer within it, on a busy machine too.
        request_time: Duration::from_secs(15),
        ..options()
    });
    let (file, offset) = locate(own_address());
    let object = object(file);
    assert!(matches!(
        namer.name(&object, &[offset])[..],
        [Naming::Named(_)]
    ));
    let first = namer.child_pid().unwrap();
    signal(first, Signal::STOP);
    let started = Instant::now();
    let namings = namer.name(&object, &[offset + 1]);
    assert!(started.elapsed() >= Duration::from_secs(15));
    assert_eq!(reason(&namings), UnnamedReason::Limit);
    end_windows(&mut namer, options().retry_windows - 1);
    assert_eq!(namer.name(&object, &[offset + 1]), namings);
    assert_eq!((namer.stats().requests, namer.child_pid()), (2, None));
    end_windows(&mut namer, 1);
    // The second try, by a new child, leaves the debug information alone.
    let namings = namer.name(&object, &[offset + 1]);
    assert_eq!(functions(&namings[0]), ["name::a_function_with_a_name"]);
    assert!(!namer.uses_debug_info(&object));
    let stats = namer.stats();
    assert_eq!((stats.starts, stats.ends.timed_out), (2, 1));
    assert!(stats.child_cpu_ns > 0);
}

fn end_windows(namer: &mut Namer, count: u64) {
    (0..count).for_each(|_| namer.end_window());
}

/// Check that no second try is made when the window's time is spent.
#[test]
fn second_try_needs_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut namer = Namer::new(NamerOptions {
        program: script(&directory, "exit 3"),
        window_time: Duration::from_nanos(1),
        ..options()
    });
    let (file, offset) = locate(own_address());
    let namings = namer.name(&object(file), &[offset]);
    assert_eq!(reason(&namings), UnnamedReason::Limit);
    let stats = namer.stats();
    assert_eq!((stats.requests, stats.held_back.window_time), (1, 1));
}

/// Check that a child that is killed between two requests is replaced.
#[test]
fn killed_child_is_replaced() {
    let mut namer = namer();
    let (file, offset) = locate(own_address());
    let object = object(file);
    namer.name(&object, &[offset]);
    signal(namer.child_pid().unwrap(), Signal::KILL);
    let namings = namer.name(&object, &[offset + 1]);
    assert_eq!(functions(&namings[0]), ["name::a_function_with_a_name"]);
    assert_eq!(namer.stats().ends.died, 1);
}

/// Check that a child without the memory it needs dies of it, that the reason
/// says so, and that a child with enough memory is not concerned.
#[test]
fn memory_limit_is_a_reason() {
    let (file, offset) = locate(own_address());
    let object = object(file);
    let mut namer = Namer::new(NamerOptions {
        child: ChildLimits {
            data_bytes_max: 600 << 10,
            ..options().child
        },
        ..options()
    });
    // The kernel's symbols take several megabytes.
    let namings = namer.name(&Object::Kernel(Readings::ALL), &[4096]);
    assert_eq!(reason(&namings), UnnamedReason::Limit);
    assert_eq!(namer.stats().ends.out_of_memory, 1);
    // A failed file is backed off, and tried again a minute later.
    namer.name(&Object::Kernel(Readings::ALL), &[4096]);
    assert_eq!(namer.stats().ends.out_of_memory, 1);
    for _ in 0..options().retry_windows {
        namer.end_window();
    }
    namer.name(&Object::Kernel(Readings::ALL), &[4096]);
    assert_eq!(namer.stats().ends.out_of_memory, 2);

    let mut namer = Namer::new(NamerOptions {
        child: ChildLimits {
            resident_bytes_max: 1,
            ..options().child
        },
        ..options()
    });
    for round in 0..3 {
        let namings = namer.name(&object, &[offset + round]);
        assert_eq!(functions(&namings[0]), ["name::a_function_with_a_name"]);
    }
    let stats = namer.stats();
    assert_eq!(
        (stats.starts, stats.ends.memory, stats.ends.died),
        (3, 3, 0)
    );
    assert!(stats.child.is_none() && stats.child_resident_peak_bytes > 1 << 20);
}

/// Check programs that are not a naming child: one that sends random bytes, one
/// that ends at once, one that sends an endless frame, and one that is not there.
#[test]
fn impostors_are_survived() {
    let directory = tempfile::tempdir().unwrap();
    let (file, offset) = locate(own_address());
    let object = object(file);
    let name = |program: PathBuf, failures_at_once: u32| {
        let mut namer = Namer::new(NamerOptions {
            program,
            failures_at_once,
            request_time: DEADLINE,
            ..options()
        });
        let namings = namer.name(&object, &[offset]);
        let reason = reason(&namings);
        (reason, namer.stats())
    };
    for text in [
        "head -c 100000 /dev/urandom >&0",
        // A frame of four zero bytes, and a length of 4 GB.
        "printf '\\004\\000\\000\\000\\000\\000\\000\\000' >&0; sleep 5",
        "printf '\\377\\377\\377\\377' >&0; sleep 5",
    ] {
        let (reason, stats) = name(script(&directory, text), u32::MAX);
        assert_eq!(reason, UnnamedReason::Corrupt, "{text}");
        assert!(stats.ends.nonsense + stats.ends.died == 2, "{stats:?}");
    }
    let (reason, stats) = name(script(&directory, "exit 3"), u32::MAX);
    assert_eq!((reason, stats.ends.died), (UnnamedReason::Corrupt, 2));
    // The second try is held back.
    let (reason, stats) = name(script(&directory, "exit 3"), 1);
    assert_eq!(
        (reason, stats.held_back.children),
        (UnnamedReason::Limit, 1)
    );
    let (reason, stats) = name(directory.path().join("absent"), u32::MAX);
    assert_eq!((reason, stats.ends.not_started), (UnnamedReason::Limit, 1));
}

/// Check that without the right to change the root directory only symbol tables
/// are read, since debug information can name any other file.
#[test]
fn without_chroot_only_symbol_tables_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let program = options().program;
    let text = format!(
        "exec setpriv --bounding-set=-sys_chroot --inh-caps=-sys_chroot {} \"$@\"",
        program.display()
    );
    let mut namer = Namer::new(NamerOptions {
        program: script(
            &directory,
            &format!("export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{text}"),
        ),
        ..options()
    });
    let (file, offset) = locate(own_address());
    let namings = namer.name(&object(file), &[offset]);
    let [Naming::Named(frames)] = &namings[..] else {
        panic!("{namings:?}");
    };
    assert_eq!(&*frames[0].function, "name::a_function_with_a_name");
    assert_eq!(&*frames[0].file, "");
    assert!(namer.stats().unconfined);
}

/// Time of [`manual_clock`] in nanoseconds.
static PASSED_NS: AtomicU64 = AtomicU64::new(0);

fn manual_clock() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + Duration::from_nanos(PASSED_NS.load(Ordering::Relaxed))
}

/// Check that no more CPU time is used than is allowed, that what is asked for first is named first, and that in the end
/// all is named.
#[test]
fn cpu_time_is_limited() {
    let budget = CpuBudget {
        share: 0.1,
        // One request, which takes more.
        burst: Duration::from_nanos(1),
    };
    let mut namer = Namer::new(NamerOptions {
        cpu: budget,
        clock: manual_clock,
        ..options()
    });
    let (file, offset) = locate(own_address());
    // Each is new to the child, which has to read this program's debug information for it: some 4 ms.
    let objects: Vec<Object> = (0..60)
        .map(|_| {
            let key = crate::target::new_key();
            object(ElfFile {
                key,
                ..file.clone()
            })
        })
        .collect();
    let used = |stats: &NamerStats| stats.asking_cpu.as_nanos() as u64 + stats.child_cpu_ns;
    let mut largest = 0;
    let mut windows = 0;
    loop {
        let mut named = Vec::new();
        for object in &objects {
            let before = used(&namer.stats());
            let namings = namer.name(object, &[offset]);
            largest = largest.max(used(&namer.stats()) - before);
            let is_named = matches!(namings[..], [Naming::Named(_)]);
            named.push(is_named);
            if !is_named {
                assert_eq!(reason(&namings), UnnamedReason::Limit);
            }
        }
        namer.end_window();
        windows += 1;
        assert!(named[0] && named.is_sorted_by(|first, next| first >= next));
        if !named.contains(&false) {
            break;
        }
        assert!(windows < 100_000, "{named:?}");
        // 2 ms of CPU time.
        PASSED_NS.fetch_add(20_000_000, Ordering::Relaxed);
    }
    let stats = namer.stats();
    let passed = Duration::from_nanos(PASSED_NS.load(Ordering::Relaxed));
    let allowed = budget.burst + passed.mul_f64(budget.share);
    // The kernel accounts the child in ticks of 10 ms.
    let allowed = allowed + Duration::from_nanos(largest) + Duration::from_millis(20);
    let used = Duration::from_nanos(used(&stats));
    eprintln!("{windows} windows, {used:?} used of {allowed:?}");
    assert!(used <= allowed, "{windows} {used:?}");
    assert!(windows >= 60, "each has time for one");
    assert!(stats.held_back.cpu_time > 0 && stats.requests == 60);
}

/// Check that within a file the addresses that were given first are asked for first.
#[test]
fn first_addresses_are_named_first() {
    let mut namer = Namer::new(NamerOptions {
        cpu: CpuBudget {
            share: 1e-9,
            // One request, which takes more.
            burst: Duration::from_nanos(1),
        },
        ..options()
    });
    let (file, offset) = locate(own_address());
    // Backwards: what comes first has the highest addresses.
    let offsets: Vec<u64> = (0..700).rev().map(|at| offset + at).collect();
    let namings = namer.name(&object(file), &offsets);
    let limit = Naming::Unnamed(UnnamedReason::Limit);
    let first_left = namings.iter().position(|naming| *naming == limit);
    assert_eq!(first_left, Some(512));
    assert!(namings[512..].iter().all(|naming| *naming == limit));
    assert_eq!(namer.stats().held_back.cpu_time, 1);
}

/// Check that the cache stays within its bytes and that what was dropped is
/// asked for again.
#[test]
fn cache_stays_within_its_bytes() {
    let mut namer = Namer::new(NamerOptions {
        cache_bytes_max: 200 << 10,
        ..options()
    });
    let (file, offset) = locate(own_address());
    let offsets: Vec<u64> = (0..2000).map(|index| offset + index * 64).collect();
    for _ in 0..3 {
        let mut other = file.clone();
        other.key = crate::target::new_key();
        let namings = namer.name(&object(other), &offsets);
        assert!(
            namings
                .iter()
                .filter(|naming| matches!(naming, Naming::Named(_)))
                .count()
                > 1000
        );
        assert!(namer.stats().cache_bytes <= 200 << 10);
    }
    assert!(namer.stats().cache_evictions >= 2);
}

/// Check the child against a parent that sends nonsense: it ends with an error,
/// and not by a panic or a signal. And that a person who finds the hidden
/// argument is told what it is.
#[test]
fn child_survives_its_parent() {
    let start = |input: Stdio, arguments: &[&str]| {
        let output = Command::new(options().program)
            .arg("name-child")
            .args(arguments)
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        output.unwrap()
    };
    let mut random = Rng::with_seed(3);
    for round in 0..50_u32 {
        let (mut ours, childs) = UnixStream::pair().unwrap();
        let child = start(OwnedFd::from(childs).into(), &["100000000", "100000000"]);
        let len = random.u64(..100) as u32;
        let claimed = if round % 2 == 0 {
            len
        } else {
            random.u64(..) as u32
        };
        let mut bytes = claimed.to_le_bytes().to_vec();
        bytes.extend((0..len).map(|_| random.u8(..)));
        // The child may be gone before all is written.
        let _ = ours.write_all(&bytes);
        drop(ours);
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{round}: {message}");
        assert!(
            message.starts_with("pilotlight-collector name-child: "),
            "{message}"
        );
    }
    for arguments in [
        &[][..],
        &["1"],
        &["one", "two"],
        &["100000000", "100000000"],
    ] {
        let output = start(Stdio::null(), arguments).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}
