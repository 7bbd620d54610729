//! Stacks in code without call frame information, which the collector unwinds by its instructions: a C library that has none, and
//! assembler whose frame is in a register.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::graph::Stack;
use serde_json::Value;
use tempfile::TempDir;

use crate::names::{range, run, source};
use crate::rig::{Range, Rig, now_ms};

/// A check with the shared rig.
type Check = fn(&Rig) -> Result<()>;

/// The checks, by name, and the tools that they need.
pub(crate) const CHECKS: [(&str, Check, &[&str]); 3] = [
    ("musl_static", check_static, &["musl-gcc"]),
    ("musl_dynamic", check_dynamic, &["musl-gcc"]),
    ("assembler", check_assembler, &["cc"]),
];

/// CPU seconds of each thread: 600 samples.
const SECONDS: &str = "6";

/// The least number of samples for a verdict.
const SAMPLES_MIN: u64 = 400;

/// Minimum share of complete stacks, of those whose memory could be read: musl's `qsort` calls the comparison by a jump through a
/// register, whose row is uncertain in a file without symbols, half a percent of the samples.
const COMPLETE_MIN: f64 = 0.99;

/// Maximum share of stacks with memory that could not be copied: until all rows are in the kernel, a part of a large array that was never
/// touched ends the copy of a stack.
const UNREADABLE_MAX: f64 = 0.03;

/// Minimum share of stacks with the program's functions in the right order.
const RIGHT_MIN: f64 = 0.995;

/// A program's own functions on its stacks, outermost first; a stack may end in any of them.
type Chains = &'static [&'static [&'static str]];

const LIBRARY_CALLS: Chains = &[
    &["main", "repeat", "work", "compare"],
    &["run_thread", "repeat", "work", "compare"],
];

const BY_REGISTER: Chains = &[&["main", "work", "multiply"]];

fn check_static(rig: &Rig) -> Result<()> {
    check_library(rig, "in-musl-static", &["-static"])
}

fn check_dynamic(rig: &Rig) -> Result<()> {
    check_library(rig, "in-musl-dynamic", &[])
}

fn check_library(rig: &Rig, comm: &str, options: &[&str]) -> Result<()> {
    let mut command = Command::new("musl-gcc");
    command.args(options).arg(source("library_calls.c"));
    check(rig, comm, command, LIBRARY_CALLS)
}

fn check_assembler(rig: &Rig) -> Result<()> {
    let mut command = Command::new("cc");
    command.args(["by_register.c", "by_register_x86_64.S"].map(source));
    check(rig, "in-register", command, BY_REGISTER)
}

/// Builds a program, runs it to its end, and checks its stacks.
fn check(rig: &Rig, comm: &str, mut compiler: Command, chains: Chains) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let program = directory.path().join(comm);
    run(compiler
        .args(["-O2", "-fomit-frame-pointer", "-o"])
        .arg(&program))?;
    let range = sample(rig, &program)?;
    let query = format!("{{comm=\"{comm}\"}}");
    let answer = rig.get_json("/api/v1/stacks", &query, range, &[])?;
    let count = |name: &str| answer[name].as_u64().unwrap_or(0);
    let (samples, complete) = (count("samples"), count("complete_samples"));
    println!(
        "{comm}: {complete} of {samples} stacks are complete: {}",
        outcomes(&answer)
    );
    ensure!(samples >= SAMPLES_MIN, "{samples} samples only");
    let unreadable = unreadable_samples(&answer);
    let readable = samples - unreadable;
    ensure!(
        complete as f64 >= COMPLETE_MIN * readable as f64
            && unreadable as f64 <= UNREADABLE_MAX * samples as f64,
        "{complete} of {samples} stacks are complete, {unreadable} unreadable: {answer:#}"
    );
    let graph = rig.flame_graph(&query, range)?;
    let stacks = graph.stacks()?;
    let wrong: Vec<&Stack<'_>> = stacks
        .iter()
        .filter(|stack| !is_right(stack, chains))
        .collect();
    let wrong_samples: u64 = wrong.iter().map(|stack| stack.samples).sum();
    println!("{comm}: {wrong_samples} stacks have other functions");
    ensure!(
        wrong_samples as f64 <= (1.0 - RIGHT_MIN) * samples as f64,
        "{wrong_samples} of {samples} stacks have other functions: {wrong:#?}"
    );
    Ok(())
}

fn sample(rig: &Rig, program: &Path) -> Result<Range> {
    let from_ms = now_ms()? / 10_000 * 10_000;
    run(Command::new(program).arg(SECONDS))?;
    let ended_ms = now_ms()?;
    rig.wait_stored(ended_ms)?;
    Ok(range(from_ms, ended_ms))
}

/// Whether the program's own functions on a stack are the first ones of a chain. Its start and its end have none of them.
fn is_right(stack: &Stack<'_>, chains: Chains) -> bool {
    let names = stack.frames.iter().map(|frame| frame.name);
    let is_own = |name: &&str| chains.iter().any(|chain| chain.contains(name));
    let own: Vec<&str> = names.filter(is_own).collect();
    chains.iter().any(|chain| chain.starts_with(&own))
}

fn unreadable_samples(answer: &Value) -> u64 {
    let mut outcomes = answer["outcomes"].as_array().into_iter().flatten();
    let found = outcomes.find(|outcome| outcome["outcome"] == "unreadable");
    found
        .and_then(|outcome| outcome["samples"].as_u64())
        .unwrap_or(0)
}

fn outcomes(answer: &Value) -> String {
    let outcomes = answer["outcomes"].as_array().into_iter().flatten();
    let counts = outcomes.map(|outcome| format!("{} {}", outcome["outcome"], outcome["samples"]));
    counts.collect::<Vec<_>>().join(", ")
}
