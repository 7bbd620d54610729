//! Programs whose code is made while they run, by compilers that say what they made in a perf map or a jitdump.

use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context as _, Result};
use e2e::graph::Stack;
use tempfile::TempDir;

use super::case::{Case, STAY_SECONDS, all, check_cases, spawn, user_leaf};
use super::{begin_early_in_window, find_tool, run, source};
use crate::rig::Rig;

/// CPU seconds of each: compilers take some of it.
const SECONDS: &str = "2.5";

/// Some end at once: what they wrote was opened while they lived.
const NO_STAY: &str = "0";

/// Check a compiler that writes a jitdump.
pub(super) fn check_jitdump(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let path = directory.path().join("nm-jitdump");
    let mut command = Command::new("cc");
    run(command
        .args(["-O2", "-o"])
        .args([&path, &source("jitter.c")]))?;
    let case = Case {
        what: "a compiler that writes a jitdump",
        query: r#"{comm="nm-jitdump"}"#,
        counts: all,
        is_named: |stack| {
            is_made(stack, "[JIT] nm-jitdump", &["hot_in_lua"]) && stack.contains("main")
        },
        unnamed_max: 0.02,
    };
    check_cases(rig, &[case], || {
        let mut command = Command::new(&path);
        command.current_dir(directory.path());
        Ok(vec![spawn(command.args([SECONDS, NO_STAY]))?])
    })
}

/// Check Node with `--perf-basic-prof`.
pub(super) fn check_node(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let case = Case {
        what: "Node with --perf-basic-prof",
        query: r#"{comm="nm-node"}"#,
        // The sign says by which compiler, the first of which is in use for a moment only.
        counts: is_not_of_the_runtime,
        is_named: |stack| {
            let names = ["JS:*hotLoop", "JS:^hotLoop", "JS:~hotLoop"];
            is_made(stack, "[JIT] node", &names)
        },
        unnamed_max: 0.02,
    };
    check_cases(rig, &[case], || {
        // It is known by the name that it is started by.
        let path = directory.path().join("nm-node");
        symlink(find_tool("node")?, &path).context("failed to make a link")?;
        let mut command = Command::new(path);
        // It writes a log there besides.
        command.current_dir(directory.path());
        let command = command.arg("--perf-basic-prof").arg(source("burner.js"));
        Ok(vec![spawn(command.args([SECONDS, NO_STAY]))?])
    })
}

/// Check the JVM, which is asked for its map by `jcmd`.
pub(super) fn check_java(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let mut command = Command::new("javac");
    run(command
        .arg("-d")
        .args([directory.path(), &source("Burner.java")]))?;
    let case = Case {
        what: "a JVM that is asked for its map",
        query: r#"{comm="nm-java"}"#,
        counts: is_not_of_the_runtime,
        is_named: |stack| is_made(stack, "[JIT] java", &["int Burner.hotLoop(int)"]),
        // In stubs that are made while it starts, and in libjvm.so where it is stripped.
        unnamed_max: 0.1,
    };
    check_cases(rig, &[case], || {
        let path = directory.path().join("nm-java");
        symlink(find_tool("java")?, &path).context("failed to make a link")?;
        // The map comes some seconds after the first samples, which are named with their window.
        begin_early_in_window()?;
        let script = "\"$0\" -XX:+PreserveFramePointer -cp \"$1\" Burner \"$2\" \"$3\" & \
                      sleep \"$2\"; sleep 2; jcmd $! Compiler.perfmap >/dev/null; wait $!";
        let mut command = Command::new("sh");
        let command = command.args(["-c", script]).args([&path, directory.path()]);
        Ok(vec![spawn(command.args([SECONDS, STAY_SECONDS]))?])
    })
}

/// Check Erlang's BEAM with `+JPperf true`.
pub(super) fn check_beam(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let mut command = Command::new("erlc");
    run(command
        .current_dir(directory.path())
        .arg(source("burner.erl")))?;
    let case = Case {
        what: "BEAM with +JPperf true",
        query: r#"{comm="beam.smp"}"#,
        counts: is_not_of_the_runtime,
        is_named: |stack| is_made(stack, "[JIT] beam.smp", &["$burner:hot_loop/2"]),
        // While it starts it loads its library, by functions that Debian has stripped.
        unnamed_max: 0.25,
    };
    check_cases(rig, &[case], || {
        let mut command = Command::new("erl");
        command.current_dir(directory.path());
        let command = command.args(["+JPperf", "true", "-noshell", "-run", "burner", "main"]);
        Ok(vec![spawn(command.args([SECONDS, STAY_SECONDS]))?])
    })
}

/// Whether a stack ends in code that was made, or in what has no name: the rest are the runtime's own functions, in which it
/// starts and compiles, for a time that differs from machine to machine.
fn is_not_of_the_runtime(stack: &Stack<'_>) -> bool {
    user_leaf(stack).is_none_or(|it| it.binary.starts_with("[JIT]") || !it.is_named())
}

fn is_made(stack: &Stack<'_>, binary: &str, names: &[&str]) -> bool {
    user_leaf(stack).is_some_and(|it| it.binary == binary && names.contains(&it.name))
}
