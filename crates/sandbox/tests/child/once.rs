//! A child with one task.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use sandbox::{EndCause, Finished, OneShot};

use crate::Test;
use crate::child::program;

pub(crate) const TRIALS: &[Test] = trials![
    a_task_is_done,
    a_long_message_is_cut,
    limits_of_a_task_end_it,
    a_task_ends_at_its_deadline,
    descendants_hold_nobody_up,
];

const MESSAGE_BYTES_MAX: u64 = 1000;

fn run(kind: &str, time_max: Duration) -> (Finished, File) {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(b"input").unwrap();
    input.rewind().unwrap();
    let output = tempfile::tempfile().unwrap();
    let task = OneShot {
        program: &program(kind),
        input,
        output: output.try_clone().unwrap(),
        time_max,
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    (task.run().unwrap(), output)
}

const MINUTE: Duration = Duration::from_secs(60);

/// Check the input, output and message of a child.
fn a_task_is_done() {
    let (finished, mut output) = run("copy", MINUTE);
    assert!(finished.status.unwrap().success(), "{finished:?}");
    assert!(finished.message.starts_with("copied by "), "{finished:?}");
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "input");
    let (finished, _) = run("unheard-of", MINUTE);
    assert_eq!(finished.status.unwrap().code(), Some(1));
    assert_eq!(finished.message, "child: no such child: unheard-of\n");
}

/// Check that a child with a message over the limit runs to its end.
fn a_long_message_is_cut() {
    let (finished, _) = run("noise", MINUTE);
    assert!(finished.status.unwrap().success(), "{finished:?}");
    assert_eq!(finished.message.len() as u64, MESSAGE_BYTES_MAX);
}

/// Check processor time, written bytes and memory.
fn limits_of_a_task_end_it() {
    for (kind, cause) in [
        ("spin", EndCause::CpuTime),
        ("write", EndCause::FileBytes),
        ("allocate", EndCause::Memory),
    ] {
        let (finished, output) = run(kind, MINUTE);
        assert_eq!(
            EndCause::of(finished.status.unwrap()),
            cause,
            "{finished:?}"
        );
        assert!(output.metadata().unwrap().len() <= 1 << 20);
    }
}

/// Check that a child which hangs is killed.
fn a_task_ends_at_its_deadline() {
    let started = Instant::now();
    let (finished, _) = run("sleep", Duration::from_millis(200));
    assert_eq!(finished.status, None);
    assert!(started.elapsed() < MINUTE);
}

/// Check that the parent does not wait for a descendant of the child that holds standard error open.
fn descendants_hold_nobody_up() {
    let started = Instant::now();
    let (finished, _) = run("orphan", MINUTE);
    assert!(finished.status.unwrap().success(), "{finished:?}");
    assert!(started.elapsed() < MINUTE);
}
