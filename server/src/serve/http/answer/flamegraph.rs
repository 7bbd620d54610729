//! Flame graphs, as columns.

use std::collections::BTreeMap;

use model::{TimeRange, WhyNot};
use query::series::Usage;
use query::tree::Tree;
use render::graph::{FrameColumns, Graph, NodeColumns};
use serde::Serialize;

use super::OutcomeEntry;

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
