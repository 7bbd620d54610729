//! JIT code, described by the compiler in a perf map or a jitdump.

use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context as _, Result};
use e2e::graph::{Frame, Stack};
use tempfile::TempDir;

use super::case::{Case, STAY_SECONDS, all, check_cases, spawn, user_leaf};
use super::{begin_early_in_window, find_tool, run, source};
use crate::rig::Rig;

/// CPU seconds of each program; the compiler uses some of it.
const SECONDS: &str = "2.5";

/// CPU seconds of each program that runs with others.
const MEMORY_SECONDS: &str = "1";

/// Some programs end at once: the collector opens their maps while they live.
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
            is_jit_code(stack, "[JIT] nm-jitdump", &["hot_in_lua"]) && stack.contains("main")
        },
        unnamed_max: 0.02,
    };
    check_cases(rig, &[case], || {
        let mut command = Command::new(&path);
        command.current_dir(directory.path());
        Ok(vec![spawn(command.args([SECONDS, NO_STAY]))?])
    })
}

/// Check code in each kind of memory that a compiler may use, whatever name the mapping has in the
/// kernel.
pub(super) fn check_memory(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let path = directory.path().join("memory");
    let mut command = Command::new("cc");
    run(command
        .args(["-O2", "-o"])
        .args([&path, &source("memory.c")]))?;
    let in_memory = |what, query| Case {
        what,
        query,
        counts: all,
        is_named: |stack| is_jit_code_in(stack, "[JIT] memory"),
        unnamed_max: 0.02,
    };
    let linked = Case {
        is_named: |stack| is_jit_code_in(stack, "/dev/shm/pilotlight-code-"),
        ..in_memory("code in a file of /dev/shm", r#"{comm="nm-mem-linked"}"#)
    };
    let cases = [
        in_memory("code in a memory file", r#"{comm="nm-mem-memfd"}"#),
        in_memory("code in SysV shared memory", r#"{comm="nm-mem-sysv"}"#),
        in_memory("code in shared memory", r#"{comm="nm-mem-shared"}"#),
        in_memory("code in a deleted file", r#"{comm="nm-mem-deleted"}"#),
        in_memory("code in memory with a name", r#"{comm="nm-mem-named"}"#),
        linked,
    ];
    check_cases(rig, &cases, || {
        let kinds = ["memfd", "sysv", "shared", "deleted", "named", "linked"];
        let start = |kind: &str| {
            // The process name is the name of the link.
            let link = directory.path().join(format!("nm-mem-{kind}"));
            symlink(&path, &link).context("failed to make a link")?;
            spawn(Command::new(link).args([kind, MEMORY_SECONDS]))
        };
        kinds.into_iter().map(start).collect()
    })
}

/// Check Node with `--perf-basic-prof`.
pub(super) fn check_node(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let case = Case {
        what: "Node with --perf-basic-prof",
        query: r#"{comm="nm-node"}"#,
        // The sign before a name tells the compiler; code of the first compiler is in use only for
        // a moment.
        counts: is_not_of_the_runtime,
        is_named: |stack| {
            let names = ["JS:*hotLoop", "JS:^hotLoop", "JS:~hotLoop"];
            is_jit_code(stack, "[JIT] node", &names)
        },
        unnamed_max: 0.02,
    };
    check_cases(rig, &[case], || {
        // The process name is the name of the link.
        let path = directory.path().join("nm-node");
        symlink(find_tool("node")?, &path).context("failed to make a link")?;
        let mut command = Command::new(path);
        // Node writes a log to its working directory.
        command.current_dir(directory.path());
        let command = command.arg("--perf-basic-prof").arg(source("burner.js"));
        Ok(vec![spawn(command.args([SECONDS, NO_STAY]))?])
    })
}

/// Check the JVM, which writes its map on `jcmd`.
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
        is_named: |stack| is_jit_code(stack, "[JIT] java", &["int Burner.hotLoop(int)"]),
        // Stubs that are generated at the start, and functions of libjvm.so where it is stripped.
        unnamed_max: 0.1,
    };
    check_cases(rig, &[case], || {
        let path = directory.path().join("nm-java");
        symlink(find_tool("java")?, &path).context("failed to make a link")?;
        // The map is written some seconds after the first samples, and must be in the same window.
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
        is_named: |stack| is_jit_code(stack, "[JIT] beam.smp", &["$burner:hot_loop/2"]),
        // At its start BEAM loads its library, with functions that Debian has stripped.
        unnamed_max: 0.25,
    };
    check_cases(rig, &[case], || {
        let mut command = Command::new("erl");
        command.current_dir(directory.path());
        let command = command.args(["+JPperf", "true", "-noshell", "-run", "burner", "main"]);
        Ok(vec![spawn(command.args([SECONDS, STAY_SECONDS]))?])
    })
}

/// Whether a stack ends in JIT code or in an unnamed frame. The others are the runtime's own
/// functions for starting and compiling, whose time differs between machines.
fn is_not_of_the_runtime(stack: &Stack<'_>) -> bool {
    user_leaf(stack).is_none_or(|leaf| leaf.binary.starts_with("[JIT]") || !leaf.is_named())
}

fn is_jit_code_in(stack: &Stack<'_>, binary_start: &str) -> bool {
    let is_code = |leaf: Frame<'_>| {
        leaf.binary.starts_with(binary_start) && ["made_near", "made_far"].contains(&leaf.name)
    };
    user_leaf(stack).is_some_and(is_code) && stack.contains("main")
}

fn is_jit_code(stack: &Stack<'_>, binary: &str, names: &[&str]) -> bool {
    user_leaf(stack).is_some_and(|leaf| leaf.binary == binary && names.contains(&leaf.name))
}
