//! Code made at run time, by what its process wrote of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use collector::name::{Naming, UnnamedReason};

use crate::target::{Running, functions, namer};

/// A process, and the perf map that it has.
struct Process {
    running: Running,
    map: PathBuf,
}

impl Process {
    fn start() -> Self {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn();
        let running = Running(child.unwrap());
        // Until the exec it is this program still.
        crate::target::until("sleep runs", || {
            fs::read_to_string(format!("/proc/{}/comm", running.pid())).unwrap() == "sleep\n"
        });
        let map = PathBuf::from(format!("/tmp/perf-{}.map", running.pid()));
        Self { running, map }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.map);
    }
}

fn names(namings: &[Naming]) -> Vec<String> {
    namings.iter().flat_map(functions).collect()
}

/// Check that a map is read as it grows, that newer code wins, and that another process's is not taken.
#[test]
fn perf_maps_are_read_as_they_grow() {
    let process = Process::start();
    let other = Process::start();
    let pid = process.running.pid();
    let mut namer = namer();
    let none = "unnamed: anonymous";
    assert_eq!(names(&namer.name_jit(pid, &[0x1000])), [none]);
    fs::write(&process.map, "1000 100 first\n2000 100 sec").unwrap();
    assert_eq!(
        names(&namer.name_jit(pid, &[0x1000, 0x2000])),
        ["first", none]
    );
    fs::write(
        &process.map,
        "1000 100 first\n2000 100 second\n1080 80 JS:*new file:///a.js:7:1\n",
    )
    .unwrap();
    let namings = namer.name_jit(pid, &[0x1000, 0x2000, 0x1080]);
    assert_eq!(names(&namings), ["first", "second", "JS:*new"]);
    let Naming::Named(frames) = &namings[2] else {
        panic!("{namings:?}");
    };
    assert_eq!((&*frames[0].file, frames[0].line), ("file:///a.js", 7));
    assert_eq!(
        names(&namer.name_jit(other.running.pid(), &[0x1000])),
        [none]
    );
    // Cut, as by a program that starts again.
    fs::write(&process.map, "1000 100 again\n").unwrap();
    assert_eq!(
        names(&namer.name_jit(pid, &[0x1000, 0x2000])),
        ["again", none]
    );
    assert_eq!(namer.stats().ends, Default::default());
}

/// Check maps that are not what they should be: a FIFO, a link to a file outside of the root or to a device, another
/// user's, one of an earlier process, a huge one, and garbage. None hangs, and each has a reason.
#[test]
fn odd_perf_maps_have_a_reason() {
    let process = Process::start();
    let pid = process.running.pid();
    let mut namer = namer();
    let mut ask = || namer.name_jit(pid, &[0x1000]);
    let none = [Naming::Unnamed(UnnamedReason::Anonymous)];
    let status = Command::new("mkfifo").arg(&process.map).status();
    assert!(status.unwrap().success());
    assert_eq!(ask(), none);
    for target in ["/dev/zero", "/proc/self/mem", "../../../../etc/passwd"] {
        fs::remove_file(&process.map).unwrap();
        symlink(target, &process.map).unwrap();
        assert_eq!(ask(), none, "{target}");
    }
    fs::remove_file(&process.map).unwrap();
    fs::write(&process.map, "1000 100 a\n").unwrap();
    assert_eq!(names(&ask()), ["a"]);
    std::os::unix::fs::chown(&process.map, Some(12345), None).unwrap();
    // What was read when it was the process's own stays.
    let fresh = |pid| crate::target::namer().name_jit(pid, &[0x1000]);
    assert_eq!(fresh(pid), none);
    std::os::unix::fs::chown(&process.map, Some(0), None).unwrap();
    let file = fs::File::options().write(true).open(&process.map).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    file.set_modified(old).unwrap();
    assert_eq!(fresh(pid), none);
    file.set_len(2 << 30).unwrap();
    assert_eq!(fresh(pid), [Naming::Unnamed(UnnamedReason::Limit)]);
    file.set_len(0).unwrap();
    let garbage: Vec<u8> = (0..300_000_u32)
        .map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(&process.map, garbage).unwrap();
    assert_eq!(fresh(pid), none);
}

/// Maps a jitdump as a compiler does, executable, and waits.
const DUMP_PROGRAM: &str = "
import mmap, os, struct, sys, time
path = f'{sys.argv[1]}/jit-{os.getpid()}.dump'
name = b'from_dump\\0' + b'\\x90' * 64
load = struct.pack('=IIQIIQQQQ', 0, 56 + len(name), 0, 1, 1, 0x7000, 0x7000, 64, 1) + name
with open(path, 'w+b') as file:
    file.write(struct.pack('=IIIIIIQQ', 0x4A695444, 1, 40, 62, 0, os.getpid(), 0, 0) + load)
    file.flush()
    mapped = mmap.mmap(file.fileno(), 40, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    time.sleep(60)
";

/// Check that the jitdump that a process has mapped is found, also when it was deleted since.
#[test]
fn mapped_jitdump_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let child = Command::new("python3")
        .args(["-c", DUMP_PROGRAM])
        .arg(directory.path())
        .spawn();
    let running = Running(child.unwrap());
    let maps = format!("/proc/{}/maps", running.pid());
    crate::target::until("the dump is mapped", || {
        fs::read_to_string(&maps).unwrap().contains("/jit-")
    });
    let ask = || names(&namer().name_jit(running.pid(), &[0x7020, 0x7040]));
    assert_eq!(ask(), ["from_dump", "unnamed: anonymous"]);
    let dump = format!("jit-{}.dump", running.pid());
    fs::remove_file(directory.path().join(dump)).unwrap();
    assert_eq!(ask(), ["from_dump", "unnamed: anonymous"]);
}
