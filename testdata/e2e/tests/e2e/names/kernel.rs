//! The kernel, BPF programs and modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::graph::{Frame, Stack};
use tempfile::TempDir;

use super::case::{Case, STAY_SECONDS, all, check_cases, spawn};
use super::{SECONDS, WINDOW_MS, range, run, source};
use crate::rig::{Rig, now_ms};

/// Check system calls.
pub(super) fn check_calls(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let path = compile(&directory, "nm-calls")?;
    let case = Case {
        what: "the kernel",
        query: r#"{comm="nm-calls"}"#,
        counts: all,
        is_named: |stack| {
            let kernel = || stack.frames.iter().filter(|frame| frame.is_kernel());
            let calls = |name: &str| kernel().any(|frame| frame.name == name);
            kernel().all(|frame| frame.is_named() && frame.binary == "[kernel]")
                && calls("ksys_read")
                && calls("vfs_read")
        },
        unnamed_max: 0.02,
    };
    check_cases(rig, &[case], || {
        Ok(vec![spawn(Command::new(&path).args(["read", SECONDS]))?])
    })
}

/// Check a BPF program that is loaded after the collector has read the kernel's symbols.
pub(super) fn check_bpf(_: &Rig) -> Result<()> {
    let mut rig = Rig::start("bpf")?;
    rig.wait_stored(now_ms()?)?;
    let directory = TempDir::new().context("failed to make a directory")?;
    let path = compile(&directory, "nm-bpf")?;
    let case = Case {
        what: "a BPF program",
        query: r#"{comm="nm-bpf"}"#,
        counts: all,
        is_named: |stack| stack.frames.iter().any(is_program),
        unnamed_max: 0.02,
    };
    check_cases(&rig, &[case], || {
        Ok(vec![spawn(Command::new(&path).args([
            "bpf",
            SECONDS,
            STAY_SECONDS,
        ]))?])
    })?;
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

/// BPF programs that run in turn, each loaded at the address of the previous one.
const TURNS: u32 = 6;

/// Check that each of several BPF programs has its own samples, though all had the same address.
pub(super) fn check_bpf_turns(_: &Rig) -> Result<()> {
    let mut rig = Rig::start("turns")?;
    rig.wait_stored(now_ms()?)?;
    let directory = TempDir::new().context("failed to make a directory")?;
    let path = compile(&directory, "nm-turns")?;
    let case = Case {
        what: "BPF programs in turn",
        query: r#"{comm="nm-turns"}"#,
        // The rest of the time, the workload searches for their addresses.
        counts: |stack| {
            stack
                .frames
                .iter()
                .any(|frame| frame.binary == "[kernel] bpf")
        },
        is_named: |stack| {
            stack
                .frames
                .iter()
                .any(|frame| frame.name.contains("_burn_turn_"))
        },
        unnamed_max: 0.02,
    };
    let from_ms = now_ms()? / WINDOW_MS * WINDOW_MS;
    check_cases(&rig, &[case], || {
        let mut command = Command::new(&path);
        command.stdout(Stdio::null());
        Ok(vec![spawn(command.args(["turns", "3"]))?])
    })?;
    let graph = rig.flame_graph(r#"{comm="nm-turns"}"#, range(from_ms, now_ms()?))?;
    let stacks = graph.stacks()?;
    let samples_of = |name: &str| -> u64 {
        let found = stacks
            .iter()
            .filter(|stack| stack.frames.iter().any(|frame| frame.name.contains(name)));
        found.map(|stack| stack.samples).sum()
    };
    let all = samples_of("_burn_turn_");
    for turn in 0..TURNS {
        let own = samples_of(&format!("_burn_turn_{turn}"));
        println!("burn_turn_{turn}: {own} of {all} samples");
        let expected = all / u64::from(TURNS);
        ensure!(
            own * 2 > expected && own < expected * 2,
            "burn_turn_{turn} has {own} of {all} samples"
        );
    }
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

fn is_program(frame: &Frame<'_>) -> bool {
    frame.name.starts_with("bpf_prog_")
        && frame.name.ends_with("_burn_in_bpf")
        && frame.binary == "[kernel] bpf"
}

fn compile(directory: &TempDir, comm: &str) -> Result<PathBuf> {
    let path = directory.path().join(comm);
    let mut command = Command::new("cc");
    run(command
        .args(["-O2", "-o"])
        .args([&path, &source("kernel_burner.c")]))?;
    Ok(path)
}

/// The module `raid6_pq`, which measures its own functions for a second when it is loaded, and
/// depends on no other module: the file named by `deploy/test-kernels`, or the running kernel's own
/// if it is not loaded.
pub(crate) fn find_module() -> Option<PathBuf> {
    let named = std::env::var_os("PILOTLIGHT_E2E_MODULE");
    if let Some(path) = named.filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let loaded = fs::read_to_string("/proc/modules").ok()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let stem = format!("/lib/modules/{}/kernel/lib/raid6/raid6_pq", release.trim());
    let endings = ["ko", "ko.xz", "ko.zst", "ko.gz"].into_iter();
    let mut paths = endings.map(|ending| PathBuf::from(format!("{stem}.{ending}")));
    paths
        .find(|path| path.exists())
        .filter(|_| !loaded.contains("raid6_pq "))
}

/// Check a module.
pub(super) fn check_module(rig: &Rig) -> Result<()> {
    let path = find_module().context("there is no module to load")?;
    let case = Case {
        what: "a module of the kernel",
        query: r#"{comm=~"insmod|busybox"}"#,
        counts: |stack| stack.contains("do_one_initcall"),
        is_named: is_in_module,
        // Modules discard code that runs once, so the measuring function is gone when names are
        // needed.
        unnamed_max: 1.0,
    };
    check_cases(rig, &[case], || Ok(vec![load(&path)?]))
}

fn load(path: &Path) -> Result<Child> {
    let mut own = Command::new("insmod");
    let mut busybox = Command::new("busybox");
    let started = own.arg(path).stdin(Stdio::null()).spawn();
    started
        .or_else(|_| busybox.arg("insmod").arg(path).spawn())
        .context("there is neither `insmod` nor `busybox`")
}

fn is_in_module(stack: &Stack<'_>) -> bool {
    let mut frames = stack.frames.iter();
    frames.any(|frame| frame.name.starts_with("raid6_") && frame.binary == "[kernel] raid6_pq")
}
