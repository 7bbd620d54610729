//! Flame graphs, as columns.

use std::collections::BTreeMap;

use model::{TimeRange, WhyNot};
use query::series::Usage;
use query::tree::Tree;
use render::graph::{FrameColumns, Graph, NodeColumns};
use serde::Serialize;

use super::OutcomeEntry;
use crate::serve::http::columns::{Column, Numbers};

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
    shown_nodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_total_ns: Option<u64>,
    strings: Vec<String>,
    frames: FrameArrays,
    nodes: NodeArrays,
}

/// The columns, which are not in the JSON of the form with columns.
pub struct FlamegraphColumns {
    frames: FrameColumnArrays,
    nodes: NodeColumnArrays,
    sample_ns: Option<u64>,
}

#[derive(Serialize)]
struct FrameArrays {
    #[serde(flatten)]
    columns: Option<FrameColumnArrays>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unnamed: BTreeMap<usize, UnnamedFrame>,
}

#[derive(Default, Serialize)]
struct FrameColumnArrays {
    name: Vec<u32>,
    binary: Vec<u32>,
    file: Vec<u32>,
    line: Vec<i64>,
    kind: Vec<u8>,
}

#[derive(Serialize)]
struct UnnamedFrame {
    reason: &'static str,
    build_id: u32,
}

#[derive(Serialize)]
struct NodeArrays {
    #[serde(flatten)]
    columns: Option<NodeColumnArrays>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_ns: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cut: BTreeMap<usize, u32>,
}

#[derive(Default, Serialize)]
struct NodeColumnArrays {
    depth: Vec<u32>,
    frame: Vec<i32>,
    total_ns: Vec<u64>,
    self_ns: Vec<u64>,
    samples: Vec<u64>,
}

impl FlamegraphColumns {
    /// The columns. `self_ns` is not among them: it is the total less those of the callees. `total_ns` is not, if it follows from the
    /// samples.
    pub fn list(&self) -> Vec<Column<'_>> {
        let Self {
            frames,
            nodes,
            sample_ns,
        } = self;
        let total_ns = ("nodes.total_ns", Numbers::U64(&nodes.total_ns));
        let total_ns = sample_ns.is_none().then_some(total_ns);
        let columns = [
            ("frames.name", Numbers::U32(&frames.name)),
            ("frames.binary", Numbers::U32(&frames.binary)),
            ("frames.file", Numbers::U32(&frames.file)),
            ("frames.line", Numbers::I64(&frames.line)),
            ("frames.kind", Numbers::U8(&frames.kind)),
            ("nodes.depth", Numbers::U32(&nodes.depth)),
            ("nodes.frame", Numbers::I32(&nodes.frame)),
            ("nodes.samples", Numbers::U64(&nodes.samples)),
        ];
        let columns = columns.into_iter().chain(total_ns);
        columns
            .map(|(name, values)| Column { name, values })
            .collect()
    }
}

impl NodeColumnArrays {
    /// The CPU time of a sample, if it is the same in all nodes, as it is if all collectors sample at the same rate.
    fn sample_ns(&self) -> Option<u64> {
        let sample_ns = self.total_ns.first()?.checked_div(*self.samples.first()?)?;
        let mut nodes = self.total_ns.iter().zip(&self.samples);
        let is_same = nodes.all(|(ns, samples)| samples.checked_mul(sample_ns) == Some(*ns));
        is_same.then_some(sample_ns)
    }
}

impl FlamegraphAnswer {
    /// Takes the columns out of the JSON.
    pub fn take_columns(&mut self) -> FlamegraphColumns {
        let nodes = self.nodes.columns.take().unwrap_or_default();
        self.nodes.sample_ns = nodes.sample_ns();
        FlamegraphColumns {
            frames: self.frames.columns.take().unwrap_or_default(),
            sample_ns: self.nodes.sample_ns,
            nodes,
        }
    }

    /// Shows a graph. `whole` is the tree of the selection, `path_total_ns` the total below a path.
    pub fn new(range: TimeRange, whole: &Tree, graph: Graph, path_total_ns: Option<u64>) -> Self {
        let Graph {
            strings,
            frames,
            nodes,
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
            shown_nodes,
            path_total_ns,
            strings,
            frames: FrameArrays {
                columns: Some(FrameColumnArrays {
                    name,
                    binary,
                    file,
                    line,
                    kind,
                }),
                unnamed: why_not.into_iter().map(unnamed).collect(),
            },
            nodes: NodeArrays {
                columns: Some(NodeColumnArrays {
                    depth,
                    frame,
                    total_ns,
                    self_ns,
                    samples,
                }),
                sample_ns: None,
                cut,
            },
        }
    }
}
