//! JIT code, named by its process's perf map or jitdump.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use collector::blocking_pool::BlockingPool;
use collector::clock::monotonic_ns;
use collector::file::UnnamedReason;
use collector::name::{HeldJit, Namer, NamerOptions, Naming, SampledAddress};
use fastrand::Rng;
use symbolize::jit::{GrowingFile, JitFormat};

use rustix::process::{Pid, Signal, kill_process};

use crate::target::{DEADLINE, Running, functions, namer, options, reason, until};

/// A process with a perf map.
struct Process {
    running: Running,
    map: PathBuf,
}

impl Process {
    fn start() -> Self {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn();
        let running = Running(child.unwrap());
        // Before the exec, the process is still this program.
        until("sleep runs", || {
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

/// Check that a growing map is read again, that newer code wins, and that another process's map is
/// not used.
#[test]
fn perf_maps_are_read_as_they_grow() {
    let process = Process::start();
    let other = Process::start();
    let pid = process.running.pid();
    let mut namer = namer();
    let none = "unnamed: anonymous";
    assert_eq!(names(&namer.name_jit(pid, None, &[0x1000])), [none]);
    fs::write(&process.map, "1000 100 first\n2000 100 sec").unwrap();
    assert_eq!(
        names(&namer.name_jit(pid, None, &[0x1000, 0x2000])),
        ["first", none]
    );
    fs::write(
        &process.map,
        "1000 100 first\n2000 100 second\n1080 80 JS:*new file:///a.js:7:1\n",
    )
    .unwrap();
    let namings = namer.name_jit(pid, None, &[0x1000, 0x2000, 0x1080]);
    assert_eq!(names(&namings), ["first", "second", "JS:*new"]);
    let Naming::Named(frames) = &namings[2] else {
        panic!("{namings:?}");
    };
    assert_eq!((&*frames[0].file, frames[0].line), ("file:///a.js", 7));
    assert_eq!(
        names(&namer.name_jit(other.running.pid(), None, &[0x1000])),
        [none]
    );
    // Truncated, as by a restarted program.
    fs::write(&process.map, "1000 100 again\n").unwrap();
    assert_eq!(
        names(&namer.name_jit(pid, None, &[0x1000, 0x2000])),
        ["again", none]
    );
    assert_eq!(namer.stats().ends, Default::default());
}

/// Check that code of a process which ended before its first request has the reason
/// `process_unknown`, and that names which were read before stay.
#[test]
fn ended_processes_keep_what_was_read() {
    let (asked, ended) = (Process::start(), Process::start());
    let mut namer = namer();
    fs::write(&asked.map, "1000 100 asked\n").unwrap();
    let pids = [asked.running.pid(), ended.running.pid()];
    assert_eq!(names(&namer.name_jit(pids[0], None, &[0x1000])), ["asked"]);
    fs::write(&ended.map, "1000 100 held\n").unwrap();
    let held = HeldJit::open(pids[1], std::iter::empty(), &BlockingPool::default()).unwrap();
    fs::write(&ended.map, "1000 100 held\n2000 100 later\n").unwrap();
    drop((asked, ended));
    assert!(HeldJit::open(pids[1], std::iter::empty(), &BlockingPool::default()).is_none());
    let mut ask = |pid, held| names(&namer.name_jit(pid, held, &[0x1000, 0x2000]));
    assert_eq!(ask(pids[0], None), ["asked", "unnamed: anonymous"]);
    assert_eq!(ask(pids[1], None), ["unnamed: process_unknown"; 2]);
    assert_eq!(ask(pids[1], Some(&held)), ["held", "later"]);
}

/// Check that code of an ended process is not named by the map of a later process with the same id,
/// and that the later process's code is.
#[test]
fn a_reused_number_gives_no_names() {
    let process = Process::start();
    let pid = process.running.pid();
    fs::write(&process.map, "1000 100 of_the_later_one\n").unwrap();
    let sampled = [SampledAddress {
        address: 0x1000,
        first_ns: u64::MAX,
        last_ns: u64::MAX,
    }];
    let mut namer = namer();
    let mut ask = |since_ns| names(&namer.name_sampled_jit((pid, since_ns), None, &sampled));
    let now_ns = monotonic_ns();
    assert_eq!(ask(1), ["unnamed: process_unknown"]);
    assert_eq!(ask(now_ns), ["of_the_later_one"]);
    assert_eq!(ask(1), ["unnamed: process_unknown"]);
}

/// Check unusual maps: a FIFO, a link to a file outside of the root or to a device, another user's
/// map, an earlier process's map, a huge one, and garbage. None hangs, and each has a reason.
#[test]
fn odd_perf_maps_have_a_reason() {
    let process = Process::start();
    let pid = process.running.pid();
    let mut namer = namer();
    let mut ask = || namer.name_jit(pid, None, &[0x1000]);
    let none = [Naming::Unnamed(UnnamedReason::Anonymous)];
    let status = Command::new("mkfifo").arg(&process.map).status();
    assert!(status.unwrap().success());
    assert_eq!(ask(), none);
    for (target, reason) in [
        ("/dev/zero", UnnamedReason::Anonymous),
        ("/proc/self/mem", UnnamedReason::Permission),
        ("../../../../etc/passwd", UnnamedReason::Anonymous),
    ] {
        fs::remove_file(&process.map).unwrap();
        symlink(target, &process.map).unwrap();
        assert_eq!(ask(), [Naming::Unnamed(reason)], "{target}");
    }
    fs::remove_file(&process.map).unwrap();
    fs::write(&process.map, "1000 100 a\n").unwrap();
    assert_eq!(names(&ask()), ["a"]);
    std::os::unix::fs::chown(&process.map, Some(12345), None).unwrap();
    // Names that were read while the map belonged to the process stay.
    let fresh = |pid| crate::target::namer().name_jit(pid, None, &[0x1000]);
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
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(&process.map, garbage).unwrap();
    assert_eq!(fresh(pid), none);
}

/// Maps a jitdump executable, like a compiler, and waits.
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

/// Check that a process's mapped jitdump is found, also after it was deleted.
#[test]
fn mapped_jitdump_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let child = Command::new("python3")
        .args(["-c", DUMP_PROGRAM])
        .arg(directory.path())
        .spawn();
    let running = Running(child.unwrap());
    let maps = format!("/proc/{}/maps", running.pid());
    until("the dump is mapped", || {
        fs::read_to_string(&maps).unwrap().contains("/jit-")
    });
    let ask = || names(&namer().name_jit(running.pid(), None, &[0x7020, 0x7040]));
    assert_eq!(ask(), ["from_dump", "unnamed: anonymous"]);
    let dump = format!("jit-{}.dump", running.pid());
    fs::remove_file(directory.path().join(dump)).unwrap();
    assert_eq!(ask(), ["from_dump", "unnamed: anonymous"]);
}

/// Writes a perf map under its own process id, in its own root, and waits: `written NAME`.
const CONTAINED_PROGRAM: &str = "
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char path[64];
    snprintf(path, sizeof path, \"/tmp/perf-%d.map\", getpid());
    FILE *map = fopen(path, \"w\");
    if (argc > 1) fprintf(map, \"1000 100 %s\\n\", argv[1]);
    fclose(map);
    for (;;) pause();
}
";

/// A process in its own root, mount namespace and PID namespace, in which its id is 1.
struct Contained {
    root: tempfile::TempDir,
    /// This process ends the inner one when it ends.
    _outer: Running,
    pid: u32,
}

impl Contained {
    fn start(name: Option<&str>) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("tmp")).unwrap();
        let source = root.path().join("program.c");
        fs::write(&source, CONTAINED_PROGRAM).unwrap();
        let compiled = Command::new("cc")
            .args(["-static", "-O2", "-o"])
            .args([&root.path().join("program"), &source])
            .status();
        assert!(compiled.unwrap().success());
        let child = Command::new("unshare")
            .args(["--pid", "--mount", "--fork", "--kill-child", "chroot"])
            .arg(root.path())
            .arg("/program")
            .args(name)
            .stdin(Stdio::null())
            .spawn();
        let outer = Running(child.unwrap());
        let children = format!("/proc/{0}/task/{0}/children", outer.pid());
        let mut pid = 0;
        until("the contained program has written its map", || {
            let first = fs::read_to_string(&children).unwrap();
            pid = first.trim().parse().unwrap_or(0);
            let map = fs::metadata(root.path().join("tmp/perf-1.map"));
            map.is_ok_and(|map| name.is_none() || map.len() > 0)
        });
        Self {
            root,
            _outer: outer,
            pid,
        }
    }

    fn map(&self) -> PathBuf {
        self.root.path().join("tmp/perf-1.map")
    }
}

/// A file of the host that is deleted at the end of the test.
struct HostFile(&'static str);

impl HostFile {
    fn write(path: &'static str, text: &str) -> Self {
        fs::write(path, text).unwrap();
        Self(path)
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

/// Check that a process in a container is named by the map that it writes there, under its id
/// there; that two processes with the same id there are kept apart, also from the host's; and that
/// a link does not lead out of the root.
#[test]
fn containers_have_maps_of_their_own() {
    let first = Contained::start(Some("first"));
    let second = Contained::start(Some("second"));
    let empty = Contained::start(None);
    let _of_the_host = HostFile::write("/tmp/perf-1.map", "1000 100 of_the_host\n");
    let mut namer = namer();
    let mut ask = |contained: &Contained| names(&namer.name_jit(contained.pid, None, &[0x1000]));
    let none = ["unnamed: anonymous"];
    assert_eq!(ask(&first), ["first"]);
    assert_eq!(ask(&second), ["second"]);
    assert_eq!(ask(&empty), none);
    let up = format!("{}tmp/perf-1.map", "../".repeat(20));
    for target in [
        "/tmp/perf-1.map",
        up.as_str(),
        "/proc/1/root/tmp/perf-1.map",
    ] {
        fs::remove_file(empty.map()).unwrap();
        symlink(target, empty.map()).unwrap();
        assert_eq!(ask(&empty), none, "{target}");
    }
    let secret = HostFile::write("/tmp/pilotlight-test-secret.map", "1000 100 secret\n");
    fs::remove_file(empty.map()).unwrap();
    symlink(secret.0, empty.map()).unwrap();
    assert_eq!(ask(&empty), none);
    assert_eq!(ask(&first), ["first"]);
}

/// Check that all remaining code after a failure has its reason, also in the next requests, and
/// that only repeated failures back off a process for longer.
#[test]
fn failures_are_told_of_all_code() {
    let process = Process::start();
    let pid = process.running.pid();
    fs::write(&process.map, "1000 100 a\n").unwrap();
    let mut namer = namer();
    let addresses: Vec<u64> = (0x1000..0x1000 + 1200).collect();
    for round in 0..3 {
        assert_eq!(names(&namer.name_jit(pid, None, &[0x1000])), ["a"]);
        let child = Pid::from_raw(namer.child_pid().unwrap() as i32).unwrap();
        kill_process(child, Signal::ILL).unwrap();
        for _ in 0..2 {
            let namings = namer.name_jit(pid, None, &addresses);
            assert_eq!(reason(&namings), UnnamedReason::Corrupt);
        }
        assert_eq!(namer.stats().ends.died, round + 1);
        (0..6).for_each(|_| namer.end_window());
    }
}

/// Check that code without a request in time has the reason `limit`.
#[test]
fn code_is_named_in_another_window() {
    let process = Process::start();
    let pid = process.running.pid();
    fs::write(&process.map, "1000 1000 a\n").unwrap();
    let mut namer = Namer::new(NamerOptions {
        window_time: Duration::from_nanos(1),
        ..options()
    });
    let addresses: Vec<u64> = (0x1000..0x1000 + 1200).collect();
    let namings = namer.name_jit(pid, None, &addresses);
    assert_eq!(names(&namings[..512]), ["a"; 512]);
    assert_eq!(names(&namings[512..]), ["unnamed: limit"; 1200 - 512]);
}

/// Check that a map which is truncated and rewritten all the time during reading gives names that
/// it contained or none, and does no harm.
#[test]
fn maps_that_are_cut_while_they_are_read() {
    let process = Process::start();
    let pid = process.running.pid();
    let mut text = String::from("1000 100 first\n");
    for line in 0..5000 {
        writeln!(text, "{:x} 10 f{line}", 0x10_0000 + line * 16).unwrap();
    }
    text.push_str("2000 100 last\n");
    let is_over = AtomicBool::new(false);
    let mut namer = namer();
    let mut seen: Vec<String> = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Rng::with_seed(5);
            while !is_over.load(Ordering::Relaxed) {
                fs::write(&process.map, &text).unwrap();
                let file = fs::File::options().write(true).open(&process.map).unwrap();
                file.set_len(random.u64(..text.len() as u64)).unwrap();
            }
        });
        for _ in 0..200 {
            seen.extend(names(&namer.name_jit(pid, None, &[0x1000, 0x2000])));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    seen.sort_unstable();
    seen.dedup();
    let allowed = ["first", "last", "unnamed: anonymous"];
    assert!(
        seen.iter().all(|name| allowed.contains(&name.as_str()))
            && seen.contains(&"first".to_owned()),
        "{seen:?}"
    );
    assert_eq!(namer.stats().ends, Default::default());
    fs::write(&process.map, &text).unwrap();
    assert_eq!(
        names(&namer.name_jit(pid, None, &[0x1000, 0x2000])),
        ["first", "last"]
    );
}

/// Check that a map longer than one read is continued in the next request, and that its code has a
/// reason until then.
#[test]
fn long_maps_are_read_in_several_windows() {
    let process = Process::start();
    let pid = process.running.pid();
    let line = "1000 100 the_same_code_again_and_again\n";
    let mut text = line.repeat((70 << 20) / line.len());
    text.push_str("2000 100 last\n");
    fs::write(&process.map, &text).unwrap();
    // Without optimization and on a busy machine, the child takes longer than this half second.
    let mut namer = Namer::new(NamerOptions {
        request_time: Duration::from_secs(3600),
        ..options()
    });
    let mut ask = || names(&namer.name_jit(pid, None, &[0x1000, 0x2000]));
    let first = "the_same_code_again_and_again";
    assert_eq!(ask(), [first, "unnamed: limit"]);
    assert_eq!(ask(), [first, "last"]);
}

/// Maps a file with a jitdump's name that is no jitdump, replaces it by a FIFO, and waits.
const ODD_DUMP_PROGRAM: &str = "
import mmap, os, sys, time
path = f'{sys.argv[1]}/jit-{os.getpid()}.dump'
if sys.argv[2] == 'device':
    os.mknod(path, 0o20666, os.makedev(1, 5))
else:
    open(path, 'wb').write(b'\\0' * 4096)
file = os.open(path, os.O_RDWR)
mapped = mmap.mmap(file, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
if sys.argv[2] == 'fifo':
    os.remove(path)
    os.mkfifo(path)
if sys.argv[2] == 'cut':
    os.truncate(path, 0)
time.sleep(60)
";

/// Check that a mapping with a jitdump's name does not hang the child if it is a device, has been
/// replaced by a FIFO, or is truncated to 0.
#[test]
fn odd_jitdumps_have_a_reason() {
    for kind in ["device", "fifo", "cut", "garbage"] {
        let directory = tempfile::tempdir().unwrap();
        let child = Command::new("python3")
            .args(["-c", ODD_DUMP_PROGRAM])
            .arg(directory.path())
            .arg(kind)
            .spawn();
        let running = Running(child.unwrap());
        let maps = format!("/proc/{}/maps", running.pid());
        until("the file is mapped", || {
            fs::read_to_string(&maps).unwrap().contains("/jit-")
        });
        std::thread::sleep(Duration::from_millis(100));
        let started = Instant::now();
        let mut namer = namer();
        let found = names(&namer.name_jit(running.pid(), None, &[0x7020]));
        assert_eq!(found, ["unnamed: anonymous"], "{kind}");
        assert!(started.elapsed() < DEADLINE, "{kind}");
        assert_eq!(namer.stats().ends, Default::default(), "{kind}");
    }
}

/// Check the line formats of other compilers: the JVM's padded addresses, BEAM's signs in names,
/// Ruby's and CPython's spaces.
#[test]
fn lines_of_each_compiler_are_read() {
    let text = "\
0x00007f2548ec7620 0x00000000000002f8 int J.hotLoop(int)
0x00007f2548940b80 0x0000000000017de0 Interpreter
0x7fb24e8f39a0 e0 $burn:hot_loop/2
7f0100000000 b py::work:/srv/a b.py
5581e0000000 40 [JIT] Integer#times (/srv/a.rb:3)
";
    let file = read_whole(JitFormat::PerfMap, text.as_bytes());
    for (address, name) in [
        (0x7f25_48ec_7917, "int J.hotLoop(int)"),
        (0x7f25_4894_0b80, "Interpreter"),
        (0x7fb2_4e8f_39a0, "$burn:hot_loop/2"),
        (0x7f01_0000_000a, "py::work:/srv/a b.py"),
        (0x5581_e000_0000, "[JIT] Integer#times (/srv/a.rb:3)"),
    ] {
        let found = file.code().find(address).unwrap();
        assert_eq!(String::from_utf8_lossy(found.name), name);
    }
}

/// A script in which only line 4 multiplies. Both of Node's compilers compile its function, also on
/// a busy machine.
const SCRIPT: &str = "\
function inner(x) {
  let s = 0;
  for (let i = 0; i < 1000; i++) {
    s += Math.imul(x + i, i ^ s);
  }
  return s | 0;
}
%PrepareFunctionForOptimization(inner);
%CompileBaseline(inner);
let r = 0;
for (let i = 0; i < 100; i++) r ^= inner(i);
%OptimizeFunctionOnNextCall(inner);
r ^= inner(r);
";

/// Check Node's own jitdump, whose lines are 64 bytes after their code: each multiplication in the
/// optimized function, found by a disassembler, has the line that multiplies; Node's wrong entries
/// give no line.
#[test]
fn lines_of_node_are_right() {
    let Ok(version) = Command::new("node").arg("--version").output() else {
        return eprintln!("not checked: there is no `node`");
    };
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.js");
    fs::write(&script, SCRIPT).unwrap();
    let run = Command::new("node")
        .args(["--perf-prof", "--allow-natives-syntax"])
        .arg(&script)
        .current_dir(directory.path())
        .status();
    assert!(run.unwrap().success());
    let dump = fs::read_dir(directory.path()).unwrap().flatten();
    let dump = dump.map(|entry| entry.path()).find(|path| {
        path.extension()
            .is_some_and(|extension| extension == "dump")
    });
    let bytes = fs::read(dump.unwrap()).unwrap();
    let file = read_whole(JitFormat::Dump, &bytes);
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let name = script.as_os_str().as_encoded_bytes();
    let mut optimized = 0;
    for code in loads(&bytes, "JS:*inner ") {
        let mut right = 0;
        for at in multiplications(&directory.path().join("code"), code) {
            let found = file.code().find(at).unwrap();
            if found.line != 0 {
                assert_eq!(found.line, 4, "{version}, {at:#x}");
                assert_eq!(Path::new(std::str::from_utf8(found.file).unwrap()), script);
                right += 1;
            }
        }
        // On a busy machine Node 20 writes the script's name from freed memory; then there are no
        // lines.
        let has_name = lines_name(&bytes, code.0, name);
        assert_eq!(right >= 1, has_name, "{version}, {:#x}", code.0);
        optimized += 1;
    }
    assert!(optimized >= 1, "{version}");
    // Baseline code, for which Node 20 writes wrong lines.
    for (address, code) in loads(&bytes, "JS:^") {
        for at in (address..address + code.len() as u64).step_by(16) {
            assert!(
                file.code()
                    .find(at)
                    .is_none_or(|code_name| code_name.line < 100_000),
                "{version}, {at:#x}"
            );
        }
    }
}

fn read_whole(format: JitFormat, bytes: &[u8]) -> GrowingFile {
    let mut file = GrowingFile::new(format);
    assert!(file.read_new(bytes.len() as u64, |out, at| {
        let rest = &bytes[at as usize..];
        let read = rest.len().min(out.len());
        out[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }));
    file
}

/// A dump's records, each with its type and its whole bytes.
fn records(dump: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut at = word(dump, 8) as usize;
    std::iter::from_fn(move || {
        let record = dump.get(at..).filter(|rest| rest.len() >= 16)?;
        let record = &record[..word(record, 4) as usize];
        at += record.len();
        Some((word(record, 0), record))
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The code that a dump loaded under names with this prefix, with its addresses.
fn loads<'a>(dump: &'a [u8], name: &str) -> Vec<(u64, &'a [u8])> {
    let loads = records(dump).filter(|(number, _)| *number == 0);
    let named = loads.filter(|(_, record)| record[56..].starts_with(name.as_bytes()));
    named
        .map(|(_, record)| {
            let code = record.len() - long(record, 40) as usize;
            (long(record, 32), &record[code..])
        })
        .collect()
}

/// Whether a dump's lines for the code at an address have this file name.
fn lines_name(dump: &[u8], address: u64, file: &[u8]) -> bool {
    let name = [file, &[0]].concat();
    let lines =
        records(dump).filter(|(number, record)| *number == 2 && long(record, 16) == address);
    lines
        .map(|(_, record)| record)
        .any(|record| record.windows(name.len()).any(|part| part == name))
}

/// Addresses of the multiplications in some code, as `objdump` disassembles it.
fn multiplications(path: &Path, (address, code): (u64, &[u8])) -> Vec<u64> {
    fs::write(path, code).unwrap();
    let output = Command::new("objdump")
        .args(["-D", "-b", "binary", "-m", "i386:x86-64"])
        .arg(format!("--adjust-vma={address:#x}"))
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line.contains("imul"));
    let addresses = lines.map(|line| line.trim().split(':').next().unwrap().to_owned());
    addresses
        .map(|address| u64::from_str_radix(&address, 16).unwrap())
        .collect()
}
