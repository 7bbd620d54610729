//! A program, and the expected content of its stacks.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::graph::{Frame, Stack};

use crate::names::{SHARE_MIN, range};
use crate::rig::{Rig, now_ms};

/// The minimum for a verdict: each program uses at least a quarter of a second of CPU time.
const SAMPLES_MIN: u64 = 20;

/// Innermost frames of a stack in a failure message: compilers have a hundred frames.
const SHOWN_FRAMES: usize = 6;

/// Seconds that a program stays alive if its code cannot be named after its end: until its window
/// is closed and named.
pub(super) const STAY_SECONDS: &str = "12";

/// A sampled program.
pub(super) struct Case {
    /// The property that it shows.
    pub(super) what: &'static str,
    /// The selector of its process.
    pub(super) query: &'static str,
    /// Whether a stack counts.
    pub(super) counts: fn(&Stack<'_>) -> bool,
    /// Whether a stack has the names of the source code.
    pub(super) is_named: fn(&Stack<'_>) -> bool,
    /// Maximum share of samples with an unnamed frame: above 0 where a distribution has stripped
    /// the runtime.
    pub(super) unnamed_max: f64,
}

/// Starts the programs together, waits until they have ended and their windows are stored, and
/// checks each.
pub(super) fn check_cases(
    rig: &Rig,
    cases: &[Case],
    start: impl FnOnce() -> Result<Vec<Child>>,
) -> Result<()> {
    let from_ms = now_ms()? / 10_000 * 10_000;
    let mut children = start()?;
    for child in &mut children {
        let status = child.wait().context("failed to wait for a program")?;
        ensure!(status.success(), "a program ended with {status}");
    }
    let ended_ms = now_ms()?;
    rig.wait_stored(ended_ms)?;
    for child in &children {
        // Most programs have none.
        let _ = fs::remove_file(format!("/tmp/perf-{}.map", child.id()));
    }
    let range = range(from_ms, ended_ms);
    let mut wrong = Vec::new();
    for case in cases {
        let graph = rig.flame_graph(case.query, range)?;
        if let Err(err) = check_stacks(case, &graph.stacks()?) {
            wrong.push(format!("{} (`{}`): {err:#}", case.what, case.query));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Starts a program without standard input.
pub(super) fn spawn(command: &mut Command) -> Result<Child> {
    let started = command.stdin(Stdio::null()).spawn();
    started.with_context(|| format!("failed to start {command:?}"))
}

fn check_stacks(case: &Case, stacks: &[Stack<'_>]) -> Result<()> {
    let count = |is_it: &dyn Fn(&Stack<'_>) -> bool| -> u64 {
        let found = stacks
            .iter()
            .filter(|stack| (case.counts)(stack) && is_it(stack));
        found.map(|stack| stack.samples).sum()
    };
    let samples = count(&|_| true);
    let named = count(&case.is_named);
    let unnamed = count(&|stack| !stack.frames.iter().all(Frame::is_named));
    println!(
        "{}: {named} of {samples} samples are named as their author would, {unnamed} have an unnamed frame",
        case.what
    );
    ensure!(
        samples >= SAMPLES_MIN,
        "{samples} samples only; the most frequent stacks: {:#?}",
        most_frequent(stacks)
    );
    let share = |part: u64| part as f64 / samples as f64;
    ensure!(
        share(named) >= SHARE_MIN && share(unnamed) <= case.unnamed_max,
        "{named} of {samples} samples are named, {unnamed} have an unnamed frame; the most frequent stacks: {:#?}",
        most_frequent(stacks)
    );
    Ok(())
}

/// The innermost frames of some stacks.
fn most_frequent(stacks: &[Stack<'_>]) -> Vec<String> {
    let mut stacks: Vec<&Stack<'_>> = stacks.iter().collect();
    stacks.sort_by_key(|stack| std::cmp::Reverse(stack.samples));
    let shown = stacks.iter().take(5).map(|stack| {
        let inner = &stack.frames[stack.frames.len().saturating_sub(SHOWN_FRAMES)..];
        let frames = inner
            .iter()
            .map(|frame| format!("{} ({})", frame.name, frame.binary));
        format!(
            "{}: {}",
            stack.samples,
            frames.collect::<Vec<_>>().join("; ")
        )
    });
    shown.collect()
}

/// All of a program's stacks.
pub(super) fn all(_: &Stack<'_>) -> bool {
    true
}

/// The innermost user frame: timer ticks interrupt functions.
pub(super) fn user_leaf<'a>(stack: &Stack<'a>) -> Option<Frame<'a>> {
    let leaf = stack.frames.iter().rev().find(|frame| !frame.is_kernel());
    leaf.copied()
}
