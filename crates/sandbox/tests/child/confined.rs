//! The confinement of a child.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Resource;
use rustix::thread::{CapabilitySet, capabilities};
use sandbox::{ChildProcess, ChildProgram};

use crate::Test;
use crate::child::{ARGUMENT, CONFINEMENT, FRAMES, program};

pub(crate) const TRIALS: &[Test] = trials![
    privileges_are_dropped,
    limits_are_set,
    there_are_no_files_but_the_open_ones,
    an_unprivileged_child_is_confined,
    a_lower_limit_stays,
    the_child_ends_with_its_parent,
];

/// Time after which a test that waits for a condition fails; no machine needs as long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn start(program: &ChildProgram) -> ChildProcess {
    ChildProcess::start(program, FRAMES).unwrap()
}

pub(crate) fn ask(child: &mut ChildProcess, request: &str) -> String {
    let deadline = Instant::now() + DEADLINE;
    let answer = child.ask(request.as_bytes(), &[], deadline).unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

fn proc_file(pid: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap()
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> String {
    let status = proc_file(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

/// Soft and hard limit of `/proc/PID/limits`.
fn limits(pid: u32, name: &str) -> [String; 2] {
    let limits = proc_file(pid, "limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let mut words = line.unwrap().split_whitespace().map(str::to_owned);
    [words.next().unwrap(), words.next().unwrap()]
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Check capabilities, `no_new_privs`, the signal at the parent's death, dumpability, priority, and the environment.
fn privileges_are_dropped() {
    let mut child = start(&program("serve"));
    let state = ask(&mut child, "state");
    let root = if is_root() {
        "Descriptors"
    } else {
        "Everything"
    };
    let expected = format!(r#"{root} NotDumpable 9 [("KEPT", "yes")]"#);
    assert_eq!(state, expected);
    let pid = child.pid();
    let kept = capabilities(None).unwrap().permitted & CapabilitySet::DAC_READ_SEARCH;
    for (field, expected) in [
        ("CapEff", kept.bits()),
        ("CapPrm", kept.bits()),
        ("CapInh", 0),
        ("CapAmb", 0),
        ("NoNewPrivs", 1),
    ] {
        let value = u64::from_str_radix(&status(pid, field), 16).unwrap();
        assert_eq!(value, expected, "{field}");
    }
    assert_eq!(proc_file(pid, "oom_score_adj"), "1000\n");
    let stat = proc_file(pid, "stat");
    let nice = stat.rsplit(") ").next().unwrap().split(' ').nth(16);
    assert_eq!(nice, Some(CONFINEMENT.nice.to_string().as_str()));
    let group = stat.rsplit(") ").next().unwrap().split(' ').nth(2);
    assert_eq!(group, Some(pid.to_string().as_str()), "a group of its own");
}

/// Check each limit of a long-lived child.
fn limits_are_set() {
    let mut child = start(&program("serve"));
    ask(&mut child, "state");
    let both = |limit: u64| [limit.to_string(), limit.to_string()];
    for (name, expected) in [
        ("Max data size", both(CONFINEMENT.data_bytes_max)),
        ("Max open files", both(CONFINEMENT.open_files_max)),
        ("Max core file size", both(0)),
        ("Max processes", both(0)),
    ] {
        assert_eq!(limits(child.pid(), name), expected, "{name}");
    }
}

/// Check that a confined child opens its descriptors by their paths, and no other file.
fn there_are_no_files_but_the_open_ones() {
    if !is_root() {
        return;
    }
    let mut child = start(&program("serve"));
    assert_eq!(ask(&mut child, "files"), "[false, false, false, false]");
    let root = fs::read_link(format!("/proc/{}/root", child.pid())).unwrap();
    assert!(root.ends_with("fd"), "{root:?}");
}

/// Check that a child of a user without privileges keeps its root directory, says so, and is confined in all else.
fn an_unprivileged_child_is_confined() {
    if !is_root() {
        return;
    }
    // That user may have no access to the build directory.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let own = directory.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &own).unwrap();
    let arguments = ["--reuid=65534", "--regid=65534", "--clear-groups"].map(Into::into);
    let own = [own.into(), ARGUMENT.into(), "serve".into()];
    let mut child = start(&ChildProgram {
        path: "/usr/bin/setpriv".into(),
        arguments: arguments.into_iter().chain(own).collect(),
        environment: Vec::new(),
    });
    let state = ask(&mut child, "state");
    assert!(state.starts_with("Everything NotDumpable "), "{state}");
    assert_eq!(status(child.pid(), "CapEff"), "0000000000000000");
    assert_eq!(status(child.pid(), "NoNewPrivs"), "1");
    assert_eq!(proc_file(child.pid(), "oom_score_adj"), "1000\n");
    // EAGAIN: the limit of processes is of a user, and does not bind user 0.
    assert_eq!(ask(&mut child, "fork"), "Some(11)");
}

/// Check that a limit which is below the confinement's already is no failure, as for a user who may not raise it.
fn a_lower_limit_stays() {
    let own = std::env::current_exe().unwrap();
    let mut child = start(&ChildProgram {
        path: "/usr/bin/prlimit".into(),
        arguments: vec![
            "--nofile=20".into(),
            own.into(),
            ARGUMENT.into(),
            "serve".into(),
        ],
        environment: Vec::new(),
    });
    ask(&mut child, "state");
    let expected = ["20", "20"].map(str::to_owned);
    assert_eq!(limits(child.pid(), "Max open files"), expected);
    let own = rustix::process::getrlimit(Resource::Nofile);
    assert_ne!(own.current, Some(20));
}

/// Check that a child which does not look at its socket ends when its parent is killed.
fn the_child_ends_with_its_parent() {
    let mut parent = Command::new(ChildProgram::OWN)
        .args([ARGUMENT, "parent"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    let stdout = parent.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut pid).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let wait_for = |condition: &dyn Fn(&str) -> bool| {
        let deadline = Instant::now() + DEADLINE;
        while !condition(&fs::read_to_string(&stat).unwrap_or_default()) {
            assert!(Instant::now() < deadline, "{:?}", fs::read_to_string(&stat));
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(&|stat| stat.contains("(asleep)"));
    parent.kill().unwrap();
    parent.wait().unwrap();
    // The process that takes over orphans may not wait for them.
    wait_for(&|stat| stat.is_empty() || stat.contains(") Z "));
}
