//! Nodes: the accounts of their windows, and their last reports.

use std::collections::BTreeMap;

use model::node_report::NodeReport;
use model::{Account, LabelSet, WindowTotals};
use store::{Snapshot, Store, StoreError};

use super::overlap::OverlapSum;
use super::selection::Selection;
use super::selector::Selector;
use super::series::Usage;

/// A node and the sums over its windows in a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSummary {
    /// Name of the node.
    pub node: String,
    /// Number of collector instances: more than one after a restart, or when two run at once.
    pub instances: u64,
    /// Windows.
    pub windows: u64,
    /// Start of the first.
    pub first_ms: i64,
    /// Start of the last.
    pub last_ms: i64,
    /// End of the last.
    pub end_ms: i64,
    /// Windows missing between received ones, by their sequence numbers.
    pub missing_windows: u64,
    /// Windows whose account does not balance.
    pub unbalanced_windows: u64,
    /// Samples of two collectors at once. Those that are left out are in no other sum.
    pub overlap: OverlapSum,
    /// Stored samples.
    pub samples: u64,
    /// Sum of the collectors' accounts.
    pub account: Account,
    /// Its last report, if [`add_reports`] was called and it has one.
    pub report: Option<NodeReport>,
}

#[derive(Default)]
struct Sequences {
    first: u64,
    last: u64,
    count: u64,
}

#[derive(Default)]
struct NodeState {
    summary: NodeSummary,
    instances: BTreeMap<[u8; 16], Sequences>,
}

/// The nodes that have a selected series, by name.
///
/// # Errors
/// The store failed.
pub fn list_nodes(
    snapshot: &dyn Snapshot,
    selector: &Selector,
) -> Result<Vec<NodeSummary>, StoreError> {
    let table = selector.find_series(snapshot)?;
    let mut nodes: BTreeMap<String, NodeState> = BTreeMap::new();
    snapshot.scan_totals(&mut |totals| {
        // A window without samples has no series; the empty selector selects it too.
        let selected = totals.series.iter().any(|id| table.position(*id).is_some());
        if selected || totals.series.is_empty() && selector.is_everything() {
            add_window(nodes.entry(totals.head.node.clone()).or_default(), totals);
        }
    })?;
    Ok(nodes.into_values().map(finish_node).collect())
}

/// Adds the reports to their nodes, and the nodes that sent no window and reported in the range. These are selected by their
/// label `node` alone.
///
/// # Errors
/// The store failed.
pub fn add_reports(
    store: &dyn Store,
    selection: &Selection,
    nodes: &mut Vec<NodeSummary>,
) -> Result<(), StoreError> {
    for report in store.reports()? {
        match nodes.binary_search_by(|summary| summary.node.cmp(&report.node)) {
            Ok(position) => nodes[position].report = Some(report),
            Err(position) => {
                let range = selection.range;
                let is_in_range =
                    report.first_ms < range.to_ms && report.content.received_ms >= range.from_ms;
                let labels = LabelSet::from_sorted([("node", report.node.as_str())]);
                let is_selected = labels.is_ok_and(|labels| selection.selector.matches(&labels));
                if is_in_range && is_selected {
                    let summary = NodeSummary {
                        node: report.node.clone(),
                        report: Some(report),
                        ..NodeSummary::default()
                    };
                    nodes.insert(position, summary);
                }
            }
        }
    }
    Ok(())
}

fn add_window(node: &mut NodeState, totals: &WindowTotals) {
    let key = totals.head.key;
    let sequences = node.instances.entry(key.instance).or_default();
    if sequences.count == 0 || key.sequence < sequences.first {
        sequences.first = key.sequence;
    }
    sequences.last = sequences.last.max(totals.messages.last_sequence);
    sequences.count += totals.messages.count;

    let summary = &mut node.summary;
    if summary.windows == 0 {
        summary.node = totals.head.node.clone();
        summary.first_ms = key.start_ms;
    }
    summary.windows += totals.messages.count;
    summary.first_ms = summary.first_ms.min(key.start_ms);
    summary.last_ms = summary.last_ms.max(key.start_ms);
    let end_ms = key.start_ms.saturating_add(totals.head.window_ms);
    summary.end_ms = summary.end_ms.max(end_ms);
    let sum = |numbers: &[u64]| {
        let numbers = numbers.iter();
        numbers.fold(0, |sum: u64, number| sum.saturating_add(*number))
    };
    let usage = Usage {
        samples: sum(&totals.samples),
        ns: sum(&totals.ns),
    };
    if !totals.head.account.is_balanced(usage.samples, usage.ns) {
        summary.unbalanced_windows += totals.messages.count;
    }
    summary.overlap.add(totals, usage);
    if !totals.overlap.is_left_out() {
        summary.samples = summary.samples.saturating_add(usage.samples);
        summary.account.add(&totals.head.account);
    }
}

fn finish_node(node: NodeState) -> NodeSummary {
    let missing = |s: &Sequences| (s.last - s.first).saturating_add(1).saturating_sub(s.count);
    NodeSummary {
        instances: node.instances.len() as u64,
        missing_windows: node
            .instances
            .values()
            .map(missing)
            .fold(0, u64::saturating_add),
        ..node.summary
    }
}
