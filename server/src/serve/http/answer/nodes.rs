//! Nodes and their accounts.

use std::collections::BTreeMap;

use model::node_report::{NodeStatus, ReportContent};
use query::nodes::NodeSummary;
use serde::Serialize;

/// `/api/v1/nodes`
#[derive(Serialize)]
pub struct NodesAnswer {
    nodes: Vec<NodeEntry>,
}

#[derive(Serialize)]
struct NodeEntry {
    node: String,
    status: NodeStatus,
    report: Option<ReportContent>,
    instances: u64,
    windows: u64,
    first_ms: i64,
    last_ms: i64,
    end_ms: i64,
    missing_windows: u64,
    unbalanced_windows: u64,
    overlap_ns: u64,
    overlap_kept_ns: u64,
    samples: u64,
    sampled_ns: u64,
    busy_ns: u64,
    entries: u64,
    expected: u64,
    outcomes: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
    collector_cpu_ns: u64,
    bpf_ns: u64,
    stolen_ns: u64,
}

impl NodesAnswer {
    /// Shows all nodes, with their status at a time in milliseconds since the Unix epoch.
    pub fn new(nodes: Vec<NodeSummary>, now_ms: i64) -> Self {
        let entry = |summary: NodeSummary| {
            let NodeSummary {
                node,
                instances,
                windows,
                first_ms,
                last_ms,
                end_ms,
                missing_windows,
                unbalanced_windows,
                overlap,
                samples,
                account,
                report,
            } = summary;
            let status = report.as_ref().map(|report| report.status(now_ms));
            NodeEntry {
                node,
                status: status.unwrap_or(NodeStatus::Unknown),
                report: report.map(|report| report.content),
                instances,
                windows,
                first_ms,
                last_ms,
                end_ms,
                missing_windows,
                unbalanced_windows,
                overlap_ns: overlap.left_out.ns,
                overlap_kept_ns: overlap.kept_ns,
                samples,
                sampled_ns: account.sampled_ns,
                busy_ns: account.busy_ns,
                entries: account.entries,
                expected: account.expected,
                outcomes: account.outcomes,
                dropped: account.dropped,
                collector_cpu_ns: account.collector_cpu_ns,
                bpf_ns: account.bpf_ns,
                stolen_ns: account.stolen_ns,
            }
        };
        Self {
            nodes: nodes.into_iter().map(entry).collect(),
        }
    }
}
