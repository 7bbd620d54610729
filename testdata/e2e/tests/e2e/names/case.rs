//! A program, and what the stacks of its samples must show.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::graph::{Frame, Stack};

use crate::names::{SHARE_MIN, range};
use crate::rig::{Rig, now_ms};

/// Fewer samples say nothing: each program has a quarter of a second of CPU time and more.
const SAMPLES_MIN: u64 = 20;

/// Innermost frames of a stack that a failure shows: compilers have a hundred.
const SHOWN_FRAMES: usize = 6;

/// How long a program stays whose code nobody can tell any more when it has ended: until its window is over and named.
pub(super) const STAY_SECONDS: &str = "12";

/// A program that was sampled.
pub(super) struct Case {
    /// What it shows.
    pub(super) what: &'static str,
    /// The selector of its process.
    pub(super) query: &'static str,
    /// Which of its stacks count.
    pub(super) counts: fn(&Stack<'_>) -> bool,
    /// Whether a stack is named as the author of the program would name it.
    pub(super) is_named: fn(&Stack<'_>) -> bool,
    /// Of which share of the samples a frame may be without a name: more than of none where a distribution has stripped
    /// the runtime.
    pub(super) unnamed_max: f64,
}

/// Starts the programs together, waits until they have ended and their windows are stored, and checks each.
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
        // Most have none.
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

/// Starts a program without an input.
pub(super) fn spawn(command: &mut Command) -> Result<Child> {
    let started = command.stdin(Stdio::null()).spawn();
    started.with_context(|| format!("failed to start {command:?}"))
}

fn check_stacks(case: &Case, stacks: &[Stack<'_>]) -> Result<()> {
    let count = |is_it: &dyn Fn(&Stack<'_>) -> bool| -> u64 {
        let found = stacks.iter().filter(|it| (case.counts)(it) && is_it(it));
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
            .map(|it| format!("{} ({})", it.name, it.binary));
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

/// The innermost frame that is not the kernel's: ticks come in the midst of a function.
pub(super) fn user_leaf<'a>(stack: &Stack<'a>) -> Option<Frame<'a>> {
    let leaf = stack.frames.iter().rev().find(|it| !it.is_kernel());
    leaf.copied()
}
