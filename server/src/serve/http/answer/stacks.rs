//! Completeness of stacks.

use query::series::Usage;
use query::stacks::{BinaryStops, ProgramChecks, StackReport, Stop};
use serde::Serialize;

use super::OutcomeEntry;

/// `/api/v1/stacks`
#[derive(Serialize)]
pub struct StacksAnswer {
    total_ns: u64,
    samples: u64,
    complete_ns: u64,
    complete_samples: u64,
    kernel_only_ns: u64,
    kernel_only_samples: u64,
    outcomes: Vec<OutcomeEntry>,
    stops: StopList,
    by_binary: BinaryList,
    checks: CheckList,
}

#[derive(Serialize)]
struct StopList {
    count: usize,
    functions: Vec<StopEntry>,
    rest: Option<RestEntry>,
}

#[derive(Serialize)]
struct StopEntry {
    name: String,
    binary: String,
    outcome: String,
    samples: u64,
    cpu_ns: u64,
}

#[derive(Serialize)]
struct BinaryList {
    count: usize,
    binaries: Vec<BinaryEntry>,
    rest: Option<RestEntry>,
}

#[derive(Serialize)]
struct BinaryEntry {
    binary: String,
    samples: u64,
    cpu_ns: u64,
    through_samples: u64,
    through_ns: u64,
    outcomes: Vec<OutcomeEntry>,
}

#[derive(Serialize)]
struct RestEntry {
    count: usize,
    samples: u64,
    cpu_ns: u64,
}

#[derive(Serialize)]
struct CheckList {
    agreed: u64,
    differed: u64,
    count: usize,
    programs: Vec<CheckEntry>,
    rest: Option<CheckRestEntry>,
}

#[derive(Serialize)]
struct CheckEntry {
    exe: String,
    agreed: u64,
    differed: u64,
}

#[derive(Serialize)]
struct CheckRestEntry {
    count: usize,
    agreed: u64,
    differed: u64,
}

impl RestEntry {
    /// Sums the entries that are not shown; `None` if there are none.
    fn new<T>(others: &[T], usage: fn(&T) -> &Usage) -> Option<Self> {
        let Usage { samples, ns } = others.iter().map(usage).copied().sum();
        (!others.is_empty()).then_some(Self {
            count: others.len(),
            samples,
            cpu_ns: ns,
        })
    }
}

impl StacksAnswer {
    /// Shows the first `limit` entries of each list, and the sum of the others.
    pub fn new(report: &StackReport, limit: usize) -> Self {
        let StackReport {
            total,
            complete,
            kernel_only,
            outcomes,
            stops,
            binaries,
            checks,
        } = report;
        let (stops_shown, stops_left) = stops.split_at(limit.min(stops.len()));
        let (binaries_shown, binaries_left) = binaries.split_at(limit.min(binaries.len()));
        let outcome = |(outcome, usage): &(String, Usage)| OutcomeEntry::new(outcome, *usage);
        let stop = |stop: &Stop| StopEntry {
            name: stop.name.clone(),
            binary: stop.binary.clone(),
            outcome: stop.outcome.clone(),
            samples: stop.usage.samples,
            cpu_ns: stop.usage.ns,
        };
        let binary = |stops: &BinaryStops| BinaryEntry {
            binary: stops.binary.clone(),
            samples: stops.stopped.samples,
            cpu_ns: stops.stopped.ns,
            through_samples: stops.through.samples,
            through_ns: stops.through.ns,
            outcomes: stops.outcomes.iter().map(outcome).collect(),
        };
        Self {
            total_ns: total.ns,
            samples: total.samples,
            complete_ns: complete.ns,
            complete_samples: complete.samples,
            kernel_only_ns: kernel_only.ns,
            kernel_only_samples: kernel_only.samples,
            outcomes: outcomes.iter().map(outcome).collect(),
            stops: StopList {
                count: stops.len(),
                functions: stops_shown.iter().map(stop).collect(),
                rest: RestEntry::new(stops_left, |stop| &stop.usage),
            },
            by_binary: BinaryList {
                count: binaries.len(),
                binaries: binaries_shown.iter().map(binary).collect(),
                rest: RestEntry::new(binaries_left, |stops| &stops.stopped),
            },
            checks: CheckList::new(checks, limit),
        }
    }
}

impl CheckList {
    fn new(checks: &[ProgramChecks], limit: usize) -> Self {
        let sums = |programs: &[ProgramChecks]| {
            let agreed: Usage = programs.iter().map(|program| program.agreed).sum();
            let differed: Usage = programs.iter().map(|program| program.differed).sum();
            (agreed.samples, differed.samples)
        };
        let (shown, left) = checks.split_at(limit.min(checks.len()));
        let program = |program: &ProgramChecks| CheckEntry {
            exe: program.exe.clone(),
            agreed: program.agreed.samples,
            differed: program.differed.samples,
        };
        let (agreed, differed) = sums(checks);
        let (agreed_left, differed_left) = sums(left);
        Self {
            agreed,
            differed,
            count: checks.len(),
            programs: shown.iter().map(program).collect(),
            rest: (!left.is_empty()).then_some(CheckRestEntry {
                count: left.len(),
                agreed: agreed_left,
                differed: differed_left,
            }),
        }
    }
}
