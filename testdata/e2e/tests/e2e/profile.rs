//! One workload: runs it, requests its profile in both formats, and compares both with the truth.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::expected::ratio;
use e2e::graph::Stack;
use e2e::statistics::{FALSE_ALARM, binomial_two_sided, poisson_at_least, poisson_at_most};
use serde::Deserialize;

use crate::names::sleep_until;
use crate::rig::{Range, Rig, is_emulated, now_ms};
use crate::workload::{self, Run};

/// Samples a second of CPU time.
const SAMPLES_PER_SECOND: f64 = 100.0;
/// Minimum share of the samples that must be delivered.
const DELIVERED_MIN: f64 = 0.99;
/// The same in an emulator: emulated devices run in this machine's time, and delay the guest's
/// timers.
const DELIVERED_EMULATED_MIN: f64 = 0.9;

/// Additional tolerance for shares in an emulator. Reading a clock takes longer there than the
/// measured code. So do fork and exec: the time before exec is sampled under the parent's name but
/// accounted to the child; for `blink` the difference was 0.14.
const SHARE_TOLERANCE_EMULATED: f64 = 0.2;

/// Maximum share of incomplete stacks: a sample in the first instructions of a function, before the
/// frame pointer is set, misses only the caller.
const INCOMPLETE_MAX: f64 = 0.005;

/// Maximum share of copied stacks in the windows after the first one with rows. Stacks are copied until
/// the rows of a process are in the kernel, which takes 25 ms, or some seconds on a busy machine.
const COPIED_MAX: f64 = 0.25;

/// The workloads that run for seconds: the others consist only of first moments.
const LASTING: [&str; 3] = ["shares_c", "shares_rust", "threads_c"];

/// Time before a window's end at which they start, so that most of their time is in later windows.
const LEAD_MS: u64 = 1_000;

/// Samples in later windows for a verdict on copies.
const LATER_MIN: u64 = 50;

/// Runs for such a verdict. One has no later window if its rows took nearly all of its time.
const RUNS_MAX: usize = 5;

/// A function in the answer of `/api/v1/top`.
#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    self_ns: u64,
    total_ns: u64,
    total_samples: u64,
}

#[derive(Debug, Deserialize)]
struct Top {
    total_ns: u64,
    samples: u64,
    count: usize,
    functions: Vec<Function>,
}

/// Runs the workload `name` with `rig`, and checks everything in its expected profile.
pub(crate) fn check(rig: &Rig, name: &str) -> Result<()> {
    let run = run_and_store(rig, name)?;
    let top = ask_top(rig, &run)?;
    let graph = rig.flame_graph(&run.query, run.range)?;
    let stacks = graph.stacks()?;

    check_count(&run, top.samples)?;
    // In an emulator the start of a program and each system call take a larger part of its time.
    if !is_emulated() {
        run.expected.check_workload(&run.truth)?;
    }
    check_shares(&run, &top)?;
    // The first use builds `go tool pprof`, which takes minutes in an emulator.
    if !is_emulated() {
        check_pprof(rig, &run, &top)?;
        check_threads(rig, &run)?;
    }
    check_complete(&run, &stacks)?;
    if LASTING.contains(&name) {
        check_copied(rig, &run, name)?;
    }
    let in_stacks: u64 = stacks.iter().map(|stack| stack.samples).sum();
    ensure!(
        in_stacks == top.samples,
        "the flame graph has {in_stacks} samples, the table {}",
        top.samples
    );
    check_kernel_below(&run, &stacks)?;
    check_depth(&run, &stacks)?;
    check_inlined(&run, &stacks)?;
    check_named(&run, &stacks)
}

/// Runs a workload, and waits until its windows are stored.
fn run_and_store(rig: &Rig, name: &str) -> Result<Run> {
    if LASTING.contains(&name) {
        let lead_ms = (10_000 - LEAD_MS + 10_000 - now_ms()? % 10_000) % 10_000;
        sleep_until(now_ms()? + lead_ms)?;
    }
    let run = workload::run(name)?;
    rig.wait_stored(run.ended_ms)?;
    Ok(run)
}

fn ask_top(rig: &Rig, run: &Run) -> Result<Top> {
    let more = [("sort", "total"), ("limit", "100000")];
    let top: Top =
        serde_json::from_value(rig.get_json("/api/v1/top", &run.query, run.range, &more)?)
            .context("failed to read the top functions")?;
    ensure!(
        top.count == top.functions.len(),
        "{} of {} functions are shown",
        top.functions.len(),
        top.count
    );
    Ok(top)
}

/// Check the number of samples against the CPU time in the kernel's account: at most the number
/// that chance allows at 100 Hz, and at least the number that it allows with 99 % delivered.
fn check_count(run: &Run, samples: u64) -> Result<()> {
    let expected = ratio(run.truth.cpu_ns, 1_000_000_000) * SAMPLES_PER_SECOND;
    let delivered_min = if is_emulated() {
        DELIVERED_EMULATED_MIN
    } else {
        DELIVERED_MIN
    };
    let too_few = poisson_at_most(samples, delivered_min * expected);
    let too_many = poisson_at_least(samples, expected);
    ensure!(
        too_few >= FALSE_ALARM && too_many >= FALSE_ALARM,
        "{samples} samples, but {expected:.1} are expected from its CPU time (p = {:.1e})",
        too_few.min(too_many)
    );
    Ok(())
}

/// Check that each function's share of the samples is its true share, within the statistical error.
fn check_shares(run: &Run, top: &Top) -> Result<()> {
    let mut all_agree = true;
    let mut lines = Vec::new();
    for (function, share) in run.expected.true_shares(&run.truth) {
        let of_name = top.functions.iter().filter(|f| f.name == function);
        let found = of_name.map(|f| f.total_samples).sum();
        let p = binomial_two_sided(found, top.samples, share);
        let agrees = p >= FALSE_ALARM || within_tolerance(run, &function, found, top.samples);
        all_agree &= agrees;
        lines.push(format!(
            "{} `{function}`: {found} samples, {:.2} %, took {:.2} % (p = {p:.1e})",
            if agrees { "  " } else { "->" },
            100.0 * ratio(found, top.samples),
            100.0 * share
        ));
    }
    let others = top
        .functions
        .iter()
        .filter(|f| !run.expected.total_shares.contains_key(&f.name));
    lines.extend(
        others
            .take(8)
            .map(|f| format!("   beside them, `{}`: {} samples", f.name, f.total_samples)),
    );
    ensure!(
        all_agree,
        "of {} samples:\n{}",
        top.samples,
        lines.join("\n")
    );
    Ok(())
}

/// Whether a share is acceptable although the statistics reject it. A share known only by
/// construction has the tolerance of the expected profile, and is not checked in an emulator. A
/// measured share has a tolerance only in an emulator, where clocks continue while the emulated
/// processor stands still.
fn within_tolerance(run: &Run, function: &str, found: u64, samples: u64) -> bool {
    let share = ratio(found, samples);
    let measured = run.truth.functions.get(function);
    if is_emulated() {
        return measured.is_none_or(|&ns| {
            (share - ratio(ns, run.truth.cpu_ns)).abs() <= SHARE_TOLERANCE_EMULATED
        });
    }
    let built = run
        .expected
        .total_shares
        .get(function)
        .copied()
        .unwrap_or_default();
    measured.is_none() && (share - built).abs() <= run.expected.share_tolerance
}

/// Check that `go tool pprof` has the same numbers for the same selection, to the nanosecond.
fn check_pprof(rig: &Rig, run: &Run, top: &Top) -> Result<()> {
    let rows = rig.pprof_top(&run.query, run.range, &[])?;
    let flat_ns: u64 = rows.values().map(|row| row.flat_ns).sum();
    ensure!(
        flat_ns == top.total_ns,
        "pprof has {flat_ns} ns in all, the table {}",
        top.total_ns
    );
    for function in top
        .functions
        .iter()
        .filter(|f| run.expected.total_shares.contains_key(&f.name))
    {
        let row = rows
            .get(&function.name)
            .with_context(|| format!("pprof does not list `{}`", function.name))?;
        ensure!(
            (row.flat_ns, row.cum_ns) == (function.self_ns, function.total_ns),
            "pprof says {row:?} of {function:?}"
        );
    }
    Ok(())
}

/// Check that stacks through the workload's functions reach its outermost function.
fn check_complete(run: &Run, stacks: &[Stack<'_>]) -> Result<()> {
    let Some(outermost) = &run.expected.outermost else {
        return Ok(());
    };
    let through: Vec<_> = stacks.iter().filter(|s| is_in_workload(run, s)).collect();
    let incomplete: Vec<_> = through.iter().filter(|s| !s.contains(outermost)).collect();
    let (lost, all) = (
        count(incomplete.iter().map(|s| **s)),
        count(through.iter().copied()),
    );
    ensure!(all > 0, "no sample is in a function of the workload");
    ensure!(
        ratio(lost, all) <= INCOMPLETE_MAX,
        "{lost} of {all} stacks do not reach `{outermost}`: {:?}",
        incomplete.iter().take(5).collect::<Vec<_>>()
    );
    Ok(())
}

/// How the stacks of a selection ended.
#[derive(Debug, Deserialize)]
struct Ends {
    samples: u64,
    outcomes: Vec<Ended>,
}

#[derive(Debug, Deserialize)]
struct Ended {
    outcome: String,
    samples: u64,
}

impl Ends {
    fn ask(rig: &Rig, query: &str, range: Range) -> Result<Self> {
        let answer = rig.get_json("/api/v1/stacks", query, range, &[])?;
        serde_json::from_value(answer).context("failed to read how stacks ended")
    }

    fn of(&self, outcome: &str) -> u64 {
        let ended = self.outcomes.iter().find(|ended| ended.outcome == outcome);
        ended.map_or(0, |ended| ended.samples)
    }
}

/// Check that most stacks of a process that runs for seconds are walked in the kernel. Copies are
/// equally complete but much more expensive, and are meant only for a process's first moments.
fn check_copied(rig: &Rig, run: &Run, name: &str) -> Result<()> {
    let mut later = find_later(rig, run)?;
    for _ in 1..RUNS_MAX {
        if later.is_none() {
            later = find_later(rig, &run_and_store(rig, name)?)?;
        }
    }
    let later = later.context("no window after the first one with rows")?;
    ensure!(
        ratio(later.of("copied"), later.samples) <= COPIED_MAX,
        "too many stacks were copied: {later:?}"
    );
    Ok(())
}

/// The stacks in the windows after the first one in which the kernel walked some.
fn find_later(rig: &Rig, run: &Run) -> Result<Option<Ends>> {
    let mut later = run.range;
    while later.from_ms < later.to_ms {
        let window = Range {
            from_ms: later.from_ms,
            to_ms: later.from_ms + 10_000,
        };
        later.from_ms = window.to_ms;
        if Ends::ask(rig, &run.query, window)?.of("complete") > 0 {
            break;
        }
    }
    if later.from_ms >= later.to_ms {
        return Ok(None);
    }
    let ends = Ends::ask(rig, &run.query, later)?;
    Ok((ends.samples >= LATER_MIN).then_some(ends))
}

/// Whether a stack goes through one of the workload's own functions.
fn is_in_workload(run: &Run, stack: &Stack<'_>) -> bool {
    let functions = run.expected.total_shares.keys();
    functions
        .into_iter()
        .any(|function| stack.contains(function))
}

/// Check that samples in the kernel have the user stack below the system call.
fn check_kernel_below(run: &Run, stacks: &[Stack<'_>]) -> Result<()> {
    for (function, &least) in &run.expected.kernel_below {
        let through: Vec<_> = stacks.iter().filter(|s| s.contains(function)).collect();
        let all = count(through.iter().copied());
        let kernel = count(
            through
                .into_iter()
                .filter(|s| s.frames.last().is_some_and(|f| f.is_kernel())),
        );
        ensure!(
            ratio(kernel, all) >= least,
            "{kernel} of {all} samples below `{function}` end in the kernel"
        );
    }
    Ok(())
}

/// Check that each stack through the bottom of the recursion has all its frames.
fn check_depth(run: &Run, stacks: &[Stack<'_>]) -> Result<()> {
    let Some(depth) = &run.expected.depth else {
        return Ok(());
    };
    for below in &depth.below {
        let mut depths: BTreeMap<usize, u64> = BTreeMap::new();
        for stack in stacks.iter().filter(|s| s.contains(below)) {
            let frames = stack
                .frames
                .iter()
                .filter(|f| f.name == depth.function)
                .count();
            *depths.entry(frames).or_default() += stack.samples;
        }
        ensure!(
            depths.len() == 1 && depths.contains_key(&depth.frames),
            "above `{below}` there are {} frames of `{}`; found frames -> samples: {depths:?}",
            depth.frames,
            depth.function
        );
    }
    Ok(())
}

/// Check that inlined functions appear, marked as inlined, in most samples.
fn check_inlined(run: &Run, stacks: &[Stack<'_>]) -> Result<()> {
    for function in &run.expected.inlined {
        let inlined = |s: &&Stack<'_>| {
            s.frames
                .iter()
                .any(|f| f.name == *function && f.is_inlined())
        };
        let (found, all) = (count(stacks.iter().filter(inlined)), count(stacks));
        ensure!(
            ratio(found, all) >= 0.9,
            "{found} of {all} samples are in the inlined `{function}`"
        );
    }
    Ok(())
}

/// Check that samples have names: the innermost frame has a file and a function. Their process name
/// needs no check: it selects them, and [`check_count`] checks their number.
fn check_named(run: &Run, stacks: &[Stack<'_>]) -> Result<()> {
    let Some(least) = run.expected.named_share else {
        return Ok(());
    };
    // In an emulator the dynamic linker uses a third of a short program's time, and its file has no
    // names.
    let counts = |s: &&Stack<'_>| !is_emulated() || is_in_workload(run, s);
    let (named, unnamed): (Vec<_>, Vec<_>) = stacks
        .iter()
        .filter(counts)
        .partition(|s| s.frames.last().is_some_and(|f| f.is_named()));
    let (named, all) = (
        count(named.iter().copied()),
        count(named.iter().chain(&unnamed).copied()),
    );
    ensure!(
        ratio(named, all) >= least,
        "{named} of {all} samples have names; without: {:?}",
        unnamed.iter().take(5).collect::<Vec<_>>()
    );
    Ok(())
}

/// Check that only its thread ran each function, by `go tool pprof` and the label `thread`.
fn check_threads(rig: &Rig, run: &Run) -> Result<()> {
    for (thread, function) in &run.expected.threads {
        let rows = rig.pprof_top(
            &run.query,
            run.range,
            &[&format!("-tagfocus=thread=^{thread}$")],
        )?;
        ensure!(
            rows.contains_key(function),
            "thread `{thread}` has no sample in `{function}`"
        );
        for other in run
            .expected
            .threads
            .values()
            .filter(|other| *other != function)
        {
            ensure!(
                !rows.contains_key(other),
                "thread `{thread}` has samples in `{other}`"
            );
        }
    }
    Ok(())
}

fn count<'a>(stacks: impl IntoIterator<Item = &'a Stack<'a>>) -> u64 {
    stacks.into_iter().map(|stack| stack.samples).sum()
}
