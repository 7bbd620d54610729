//! The JSON of answers, as `API.md` describes it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::profile::outcome::is_complete;
use crate::profile::{LabelSet, WhyNot};
use crate::query::functions::FunctionUsage;
use crate::query::lines::{LineReport, LineUsage};
use crate::query::nodes::NodeSummary;
use crate::query::series::Usage;
use crate::query::stacks::{BinaryStops, ProgramChecks, StackReport, Stop, sum};
use crate::query::timeseries::{Group, Timeseries, split_rest};
use crate::query::tree::{Frame, Tree};
use crate::query::unknown::{UnknownBinary, UnknownReport, UnknownUsage};
use crate::render::graph::{FrameColumns, Graph, NodeColumns};
use crate::store::TimeRange;

type LabelMap = BTreeMap<String, String>;

fn label_map(labels: &LabelSet) -> LabelMap {
    labels
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// `/api/v1/labels`
#[derive(Serialize)]
pub struct LabelsAnswer {
    /// Names.
    pub labels: Vec<String>,
}

/// `/api/v1/label/{name}/values`
#[derive(Serialize)]
pub struct ValuesAnswer {
    /// Values.
    pub values: Vec<String>,
}

/// `/api/v1/series`
#[derive(Serialize)]
pub struct SeriesAnswer {
    series: Vec<SeriesEntry>,
    total: usize,
}

#[derive(Serialize)]
struct SeriesEntry {
    labels: LabelMap,
    samples: u64,
    cpu_ns: u64,
}

impl SeriesAnswer {
    /// Shows the first `limit`.
    pub fn new(series: &[(LabelSet, Usage)], limit: usize) -> Self {
        let entry = |(labels, usage): &(LabelSet, Usage)| SeriesEntry {
            labels: label_map(labels),
            samples: usage.samples,
            cpu_ns: usage.ns,
        };
        Self {
            series: series.iter().take(limit).map(entry).collect(),
            total: series.len(),
        }
    }
}

/// Units of a time series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// CPU nanoseconds for each nanosecond.
    Cores,
    /// Samples.
    Samples,
}

/// `/api/v1/timeseries`
#[derive(Serialize)]
pub struct TimeseriesAnswer {
    from_ms: i64,
    to_ms: i64,
    step_ms: i64,
    unit: Unit,
    series: Vec<TimeseriesEntry>,
    rest: Option<TimeseriesRest>,
}

#[derive(Serialize)]
struct TimeseriesEntry {
    labels: LabelMap,
    total_ns: u64,
    values: Vec<Option<f64>>,
}

#[derive(Serialize)]
struct TimeseriesRest {
    count: usize,
    total_ns: u64,
    values: Vec<Option<f64>>,
}

impl TimeseriesAnswer {
    /// Shows the `limit` groups with the most CPU, and the sum of the rest.
    pub fn new(answer: Timeseries, by: Option<&str>, to_ms: i64, unit: Unit, limit: usize) -> Self {
        let Timeseries {
            steps,
            covered_ns,
            mut groups,
        } = answer;
        let rest = split_rest(&mut groups, limit).map(|(count, rest)| TimeseriesRest {
            count,
            total_ns: rest.total.ns,
            values: values(&rest, &covered_ns, unit),
        });
        let entry = |group: &Group| TimeseriesEntry {
            labels: by
                .map(|by| (by.to_owned(), group.value.clone()))
                .into_iter()
                .collect(),
            total_ns: group.total.ns,
            values: values(group, &covered_ns, unit),
        };
        let series = groups.iter().map(entry).collect();
        Self {
            from_ms: steps.from_ms,
            to_ms,
            step_ms: steps.step_ms,
            unit,
            series,
            rest,
        }
    }
}

fn values(group: &Group, covered_ns: &[u64], unit: Unit) -> Vec<Option<f64>> {
    let value = |(usage, covered): (&Usage, &u64)| match (*covered, unit) {
        (0, _) => None,
        (_, Unit::Samples) => Some(usage.samples as f64),
        // Four decimals are a ten-thousandth of a core, far below what samples can tell.
        (covered, Unit::Cores) => Some((usage.ns as f64 / covered as f64 * 1e4).round() / 1e4),
    };
    group.steps.iter().zip(covered_ns).map(value).collect()
}

/// `/api/v1/flamegraph`
#[derive(Serialize)]
pub struct FlamegraphAnswer {
    from_ms: i64,
    to_ms: i64,
    total_ns: u64,
    samples: u64,
    complete_ns: u64,
    kernel_only_ns: u64,
    unnamed_ns: u64,
    unnamed_self_ns: u64,
    outcomes: Vec<OutcomeEntry>,
    node_count: usize,
    shown_nodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_total_ns: Option<u64>,
    strings: Vec<String>,
    frames: FrameArrays,
    nodes: NodeArrays,
}

#[derive(Serialize)]
struct OutcomeEntry {
    outcome: String,
    complete: bool,
    samples: u64,
    cpu_ns: u64,
}

impl OutcomeEntry {
    fn new(outcome: &str, usage: Usage) -> Self {
        Self {
            outcome: outcome.to_owned(),
            complete: is_complete(outcome),
            samples: usage.samples,
            cpu_ns: usage.ns,
        }
    }
}

#[derive(Serialize)]
struct FrameArrays {
    name: Vec<u32>,
    binary: Vec<u32>,
    file: Vec<u32>,
    line: Vec<i64>,
    kind: Vec<u8>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unnamed: BTreeMap<usize, UnnamedFrame>,
}

#[derive(Serialize)]
struct UnnamedFrame {
    reason: &'static str,
    build_id: u32,
}

#[derive(Serialize)]
struct NodeArrays {
    depth: Vec<u32>,
    frame: Vec<i64>,
    total_ns: Vec<u64>,
    self_ns: Vec<u64>,
    samples: Vec<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cut: BTreeMap<usize, usize>,
}

impl FlamegraphAnswer {
    /// Shows a graph. `whole` is the tree of the selection, `path_total_ns` the total below a path.
    pub fn new(range: TimeRange, whole: &Tree, graph: Graph, path_total_ns: Option<u64>) -> Self {
        let Graph {
            strings,
            frames,
            nodes,
            node_count,
        } = graph;
        let FrameColumns {
            name,
            binary,
            file,
            line,
            kind,
            why_not,
        } = frames;
        let unnamed = |(frame, (reason, build_id)): (usize, (WhyNot, u32))| {
            let reason = reason.code();
            (frame, UnnamedFrame { reason, build_id })
        };
        let shown_nodes = nodes.depth.len();
        let (unnamed_self, unnamed_total) = whole.sum_unnamed();
        let NodeColumns {
            depth,
            frame,
            total_ns,
            self_ns,
            samples,
            cut,
        } = nodes;
        let outcome = |(outcome, usage): (&String, &Usage)| OutcomeEntry::new(outcome, *usage);
        Self {
            from_ms: range.from_ms,
            to_ms: range.to_ms,
            total_ns: whole.total().ns,
            samples: whole.total().samples,
            complete_ns: whole.complete.ns,
            kernel_only_ns: whole.kernel_only.ns,
            unnamed_ns: unnamed_total.ns,
            unnamed_self_ns: unnamed_self.ns,
            outcomes: whole.outcomes.iter().map(outcome).collect(),
            node_count,
            shown_nodes,
            path_total_ns,
            strings,
            frames: FrameArrays {
                name,
                binary,
                file,
                line,
                kind,
                unnamed: why_not.into_iter().map(unnamed).collect(),
            },
            nodes: NodeArrays {
                depth,
                frame,
                total_ns,
                self_ns,
                samples,
                cut,
            },
        }
    }
}

/// `/api/v1/top`
#[derive(Serialize)]
pub struct TopAnswer {
    total_ns: u64,
    samples: u64,
    count: usize,
    functions: Vec<FunctionEntry>,
}

#[derive(Serialize)]
struct FunctionEntry {
    name: String,
    binary: String,
    file: String,
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_id: Option<String>,
    self_ns: u64,
    total_ns: u64,
    self_samples: u64,
    total_samples: u64,
}

impl TopAnswer {
    /// Shows a page of functions.
    pub fn new(tree: &Tree, functions: &[FunctionUsage], offset: usize, limit: usize) -> Self {
        let entry = |function: &FunctionUsage| {
            let Frame {
                name,
                binary,
                file,
                kind,
            } = tree.frames()[function.frame.0 as usize];
            let why_not = tree.why_not(function.frame);
            FunctionEntry {
                reason: why_not.map(|why| why.reason.code()),
                build_id: why_not.map(|why| tree.string(why.build_id).to_owned()),
                name: tree.string(name).to_owned(),
                binary: tree.string(binary).to_owned(),
                file: tree.string(file).to_owned(),
                kind: kind as u8,
                self_ns: function.own.ns,
                total_ns: function.total.ns,
                self_samples: function.own.samples,
                total_samples: function.total.samples,
            }
        };
        Self {
            total_ns: tree.total().ns,
            samples: tree.total().samples,
            count: functions.len(),
            functions: functions
                .iter()
                .skip(offset)
                .take(limit)
                .map(entry)
                .collect(),
        }
    }
}

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
    incomplete: StopList,
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
    /// Sums what is not shown; nothing if that is nothing.
    fn new<T>(others: &[T], usage: fn(&T) -> &Usage) -> Option<Self> {
        let Usage { samples, ns } = sum(others.iter().map(usage));
        (!others.is_empty()).then_some(Self {
            count: others.len(),
            samples,
            cpu_ns: ns,
        })
    }
}

impl StacksAnswer {
    /// Shows the first `limit` of each list, and the sum of the others.
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
            incomplete: StopList {
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
            let agreed = sum(programs.iter().map(|program| &program.agreed)).samples;
            let differed = sum(programs.iter().map(|program| &program.differed)).samples;
            (agreed, differed)
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

/// `/api/v1/lines`
#[derive(Serialize)]
pub struct LinesAnswer {
    all_ns: u64,
    total_ns: u64,
    total_samples: u64,
    self_ns: u64,
    self_samples: u64,
    start_line: i64,
    count: usize,
    lines: Vec<LineEntry>,
}

#[derive(Serialize)]
struct LineEntry {
    file: String,
    line: i64,
    self_ns: u64,
    self_samples: u64,
    total_ns: u64,
    total_samples: u64,
}

impl LinesAnswer {
    /// Shows the `limit` lines with the most CPU, in their order.
    pub fn new(report: LineReport, limit: usize) -> Self {
        let LineReport {
            all,
            usage,
            start_line,
            mut lines,
        } = report;
        let count = lines.len();
        if count > limit {
            lines.sort_by_key(|(_, _, LineUsage { own, total })| Reverse((total.ns, own.ns)));
            lines.truncate(limit);
            lines.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        }
        let entry = |(file, line, LineUsage { own, total }): (String, i64, LineUsage)| LineEntry {
            file,
            line,
            self_ns: own.ns,
            self_samples: own.samples,
            total_ns: total.ns,
            total_samples: total.samples,
        };
        Self {
            all_ns: all.ns,
            total_ns: usage.total.ns,
            total_samples: usage.total.samples,
            self_ns: usage.own.ns,
            self_samples: usage.own.samples,
            start_line,
            count,
            lines: lines.into_iter().map(entry).collect(),
        }
    }
}

/// `/api/v1/unknown`
#[derive(Serialize)]
pub struct UnknownAnswer {
    total_ns: u64,
    samples: u64,
    #[serde(flatten)]
    unnamed: UnknownSums,
    reasons: Vec<ReasonEntry>,
    by_binary: UnknownList,
}

/// Samples whose innermost frame has no name, and those that have such a frame anywhere.
#[derive(Serialize)]
struct UnknownSums {
    unnamed_self_ns: u64,
    unnamed_self_samples: u64,
    unnamed_ns: u64,
    unnamed_samples: u64,
}

#[derive(Serialize)]
struct ReasonEntry {
    reason: &'static str,
    words: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    #[serde(flatten)]
    unnamed: UnknownSums,
}

#[derive(Serialize)]
struct UnknownList {
    count: usize,
    binaries: Vec<UnknownEntry>,
    rest: Option<UnknownRest>,
}

#[derive(Serialize)]
struct UnknownEntry {
    binary: String,
    build_id: String,
    #[serde(flatten)]
    unnamed: UnknownSums,
    reasons: Vec<ReasonEntry>,
}

#[derive(Serialize)]
struct UnknownRest {
    count: usize,
    #[serde(flatten)]
    unnamed: UnknownSums,
}

impl UnknownSums {
    fn new(usage: &UnknownUsage) -> Self {
        let UnknownUsage { own, total } = usage;
        Self {
            unnamed_self_ns: own.ns,
            unnamed_self_samples: own.samples,
            unnamed_ns: total.ns,
            unnamed_samples: total.samples,
        }
    }
}

impl UnknownAnswer {
    /// Shows a report; what to do is said for each file.
    pub fn new(report: &UnknownReport) -> Self {
        let UnknownReport {
            all,
            usage,
            reasons,
            binaries,
            binary_count,
            rest,
        } = report;
        let reason =
            |(reason, usage): &(WhyNot, UnknownUsage), advice: Option<String>| ReasonEntry {
                reason: reason.code(),
                words: reason.words(),
                advice,
                unnamed: UnknownSums::new(usage),
            };
        let binary = |file: &UnknownBinary| UnknownEntry {
            binary: file.binary.clone(),
            build_id: file.build_id.clone(),
            unnamed: UnknownSums::new(&file.usage),
            reasons: file
                .reasons
                .iter()
                .map(|entry| reason(entry, Some(entry.0.advice(&file.binary, &file.build_id))))
                .collect(),
        };
        let left = binary_count - binaries.len();
        Self {
            total_ns: all.ns,
            samples: all.samples,
            unnamed: UnknownSums::new(usage),
            reasons: reasons.iter().map(|entry| reason(entry, None)).collect(),
            by_binary: UnknownList {
                count: *binary_count,
                binaries: binaries.iter().map(binary).collect(),
                rest: (left > 0).then_some(UnknownRest {
                    count: left,
                    unnamed: UnknownSums::new(rest),
                }),
            },
        }
    }
}

/// `/api/v1/nodes`
#[derive(Serialize)]
pub struct NodesAnswer {
    nodes: Vec<NodeEntry>,
}

#[derive(Serialize)]
struct NodeEntry {
    node: String,
    instances: u64,
    windows: u64,
    first_ms: i64,
    last_ms: i64,
    end_ms: i64,
    missing_windows: u64,
    samples: u64,
    sampled_ns: u64,
    busy_ns: u64,
    entries: u64,
    expected: u64,
    outcomes: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
    collector_cpu_ns: u64,
    bpf_ns: u64,
}

impl NodesAnswer {
    /// Shows all nodes.
    pub fn new(nodes: Vec<NodeSummary>) -> Self {
        let entry = |summary: NodeSummary| {
            let NodeSummary {
                node,
                instances,
                windows,
                first_ms,
                last_ms,
                end_ms,
                missing_windows,
                samples,
                account,
            } = summary;
            NodeEntry {
                node,
                instances,
                windows,
                first_ms,
                last_ms,
                end_ms,
                missing_windows,
                samples,
                sampled_ns: account.sampled_ns,
                busy_ns: account.busy_ns,
                entries: account.entries,
                expected: account.expected,
                outcomes: account.outcomes,
                dropped: account.dropped,
                collector_cpu_ns: account.collector_cpu_ns,
                bpf_ns: account.bpf_ns,
            }
        };
        Self {
            nodes: nodes.into_iter().map(entry).collect(),
        }
    }
}
