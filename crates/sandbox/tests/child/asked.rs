//! A child that is asked: that answers, fails, and is started again.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::{
    ChildFailure, ChildProcess, ChildProgram, EndCause, FrameError, RestartLimits, RestartingChild,
    StartError,
};

use crate::Test;
use crate::child::{ARGUMENT, FRAMES, program};
use crate::confined::{DEADLINE, ask, start};

pub(crate) const TRIALS: &[Test] = trials![
    answers_follow_requests,
    descriptors_are_passed_and_closed,
    a_descriptor_of_the_child_is_not_taken,
    a_request_over_the_limit_is_not_sent,
    a_child_that_hangs_is_given_up,
    a_child_that_dies_says_of_what,
    nonsense_is_refused,
    other_programs_are_survived,
    a_failed_child_is_replaced_until_it_is_too_many,
    the_child_survives_its_parent,
];

fn fail(child: &mut ChildProcess, request: &str, time: Duration) -> ChildFailure {
    let started = Instant::now();
    let failure = child
        .ask(request.as_bytes(), &[], started + time)
        .unwrap_err();
    assert!(started.elapsed() < time + DEADLINE, "{request}: {failure}");
    failure
}

fn limits() -> RestartLimits {
    RestartLimits {
        failures_at_once: 2,
        failure_period: Duration::from_secs(3600),
        stuck_max: 1,
    }
}

/// Check many requests of one child, of all sizes.
fn answers_follow_requests() {
    let mut child = start(&program("serve"));
    for bytes in [0, 1, 100, 65_536, FRAMES.bytes_max] {
        let request = "x".repeat(bytes);
        assert!(ask(&mut child, &request) == request, "{bytes}");
    }
}

/// Check that the child reads files that it is passed, also by path, and that none stays open on either side.
fn descriptors_are_passed_and_closed() {
    let mut child = start(&program("serve"));
    let before = ask(&mut child, "descriptors");
    let mut ask_with = |request: &str, texts: &[&str]| {
        let files: Vec<File> = texts
            .iter()
            .map(|text| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(text.as_bytes()).unwrap();
                file.rewind().unwrap();
                file
            })
            .collect();
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let deadline = Instant::now() + DEADLINE;
        let answer = child.ask(request.as_bytes(), &files, deadline).unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    };
    for _ in 0..20 {
        assert_eq!(ask_with("contents", &["a", "b", "", "d"]), "a,b,,d");
        assert_eq!(ask_with("reopen", &["text"]), "text");
    }
    assert_eq!(ask_with("descriptors", &[]), before);
    let (mut read, write) = std::io::pipe().unwrap();
    let deadline = Instant::now() + DEADLINE;
    child.ask(b"state", &[write.as_fd()], deadline).unwrap();
    drop(write);
    // The next request takes the place of the last one's descriptors.
    ask(&mut child, "state");
    assert_eq!(read.read(&mut [0]).unwrap(), 0);
}

/// Check that the parent keeps no descriptor that a child sends.
fn a_descriptor_of_the_child_is_not_taken() {
    let mut child = start(&program("serve"));
    let own = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    ask(&mut child, "state");
    let before = own();
    for _ in 0..200 {
        assert_eq!(ask(&mut child, "descriptor"), "descriptor");
    }
    // Other tests open and close some at the same time.
    assert!(own() < before + 100, "{before} {}", own());
}

/// Check that such a request is refused, and that the child answers the next one.
fn a_request_over_the_limit_is_not_sent() {
    let mut child = start(&program("serve"));
    let large = "x".repeat(FRAMES.bytes_max + 1);
    let failure = fail(&mut child, &large, DEADLINE);
    assert!(matches!(
        failure,
        ChildFailure::NotSent(FrameError::TooLarge { .. })
    ));
    assert_eq!(ask(&mut child, "next"), "next");
}

/// Check the deadline, and that a sleeping child is told from a working one.
fn a_child_that_hangs_is_given_up() {
    for (request, is_expected) in [
        (
            "sleep",
            (|failure| matches!(failure, ChildFailure::Asleep)) as fn(&_) -> bool,
        ),
        ("spin", |failure| matches!(failure, ChildFailure::TimedOut)),
    ] {
        let mut child = start(&program("serve"));
        ask(&mut child, "state");
        let started = Instant::now();
        let failure = fail(&mut child, request, Duration::from_millis(300));
        assert!(is_expected(&failure), "{request}: {failure}");
        assert!(started.elapsed() >= Duration::from_millis(300));
    }
}

/// Check an exit, a signal, memory over the limit, and a running child that closes its socket.
fn a_child_that_dies_says_of_what() {
    let end = |request: &str| {
        let mut child = start(&program("serve"));
        match fail(&mut child, request, DEADLINE) {
            ChildFailure::Ended(status) => status,
            other => panic!("{request}: {other}"),
        }
    };
    assert_eq!(end("exit").unwrap().code(), Some(3));
    assert_eq!(EndCause::of(end("exit").unwrap()), EndCause::Other);
    assert_eq!(EndCause::of(end("allocate").unwrap()), EndCause::Memory);
    assert_eq!(EndCause::of(end("abort").unwrap()), EndCause::Memory);
    assert_eq!(end("close"), None);
}

/// Check a length over the limit, and a frame that ends within.
fn nonsense_is_refused() {
    let mut child = start(&program("serve"));
    let failure = fail(&mut child, "huge", DEADLINE);
    let words = "child sent nonsense: frame of 4294967295 bytes is over the limit of 1048576";
    assert_eq!(failure.to_string(), words);
    let mut child = start(&program("serve"));
    let failure = fail(&mut child, "half", DEADLINE);
    assert!(matches!(failure, ChildFailure::Ended(Some(_))), "{failure}");
}

/// Check other programs as children: one that ends, and one that reads nothing.
fn other_programs_are_survived() {
    let other = |path: &str, arguments: &[&str]| ChildProgram {
        path: path.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment: Vec::new(),
    };
    let mut child = start(&other("/bin/true", &[]));
    let failure = fail(&mut child, "state", DEADLINE);
    assert!(matches!(failure, ChildFailure::Ended(Some(_))), "{failure}");
    let mut child = start(&other("/bin/sleep", &["600"]));
    let large = "x".repeat(FRAMES.bytes_max);
    let failure = fail(&mut child, &large, Duration::from_millis(200));
    assert!(matches!(failure, ChildFailure::Asleep), "{failure}");
}

/// Check that failed children are replaced as often as allowed, that a child which was ended on purpose does not count as a failure,
/// and that one which cannot be started does.
fn a_failed_child_is_replaced_until_it_is_too_many() {
    let mut children = RestartingChild::new(program("serve"), FRAMES, limits());
    for _ in 0..5 {
        ask(children.start().unwrap(), "state");
        children.end();
        assert!(children.running().is_none());
    }
    let mut pids = Vec::new();
    for _ in 0..2 {
        let child = children.start().unwrap();
        fail(child, "exit", DEADLINE);
        pids.push(child.pid());
        children.end_failed();
    }
    assert_ne!(pids[0], pids[1]);
    let err = children.start().unwrap_err();
    assert!(matches!(err, StartError::BackedOff), "{err}");

    let absent = ChildProgram {
        path: "/nowhere/at/all".into(),
        ..program("serve")
    };
    let mut children = RestartingChild::new(absent, FRAMES, limits());
    let errors = [(); 3].map(|()| children.start().unwrap_err().to_string());
    assert!(
        errors[0].starts_with("failed to start the child: "),
        "{errors:?}"
    );
    assert_eq!(errors[2], "too many children failed just before");
}

/// Check the child against a parent that sends nonsense: it ends with an error, and not by a panic or a signal.
fn the_child_survives_its_parent() {
    for bytes in [&[0xff; 4][..], &[9, 0, 0, 0, 1], &[1, 0, 0, 0, 0xff], &[1]] {
        let (mut ours, childs) = UnixStream::pair().unwrap();
        let child = Command::new(ChildProgram::OWN)
            .args([ARGUMENT, "serve"])
            .stdin(OwnedFd::from(childs))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        ours.write_all(bytes).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{bytes:?}: {message}");
        assert!(message.starts_with("child: "), "{bytes:?}: {message}");
    }
    let output = Command::new(ChildProgram::OWN)
        .args([ARGUMENT, "serve"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "a person tries the argument");
}
