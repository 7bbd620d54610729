//! Collectors that sent windows, and the balance of these.

use std::collections::BTreeMap;

use super::selection::Selection;
use crate::profile::Account;
use crate::store::{Store, StoreError, WindowTotals};

/// A node and the sums over its windows in a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSummary {
    /// Name of the node.
    pub node: String,
    /// Collectors that sent its windows: more than one after a restart, or when two run at once.
    pub instances: u64,
    /// Windows.
    pub windows: u64,
    /// Start of the first.
    pub first_ms: i64,
    /// Start of the last.
    pub last_ms: i64,
    /// End of the last: so far all is stored of one collector.
    pub end_ms: i64,
    /// Windows whose numbers are missing between those that came.
    pub missing_windows: u64,
    /// Samples that are stored.
    pub samples: u64,
    /// The collectors' own balance, added up.
    pub account: Account,
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
    store: &dyn Store,
    selection: &Selection,
) -> Result<Vec<NodeSummary>, StoreError> {
    let table = selection.find_series(store)?;
    let mut nodes: BTreeMap<String, NodeState> = BTreeMap::new();
    store.scan_totals(selection.range, &mut |totals| {
        // A window without samples has no series, and is part of what everything selects.
        let selected = totals.series.iter().any(|id| table.position(*id).is_some());
        if selected || totals.series.is_empty() && selection.selector.is_everything() {
            add_window(nodes.entry(totals.head.node.clone()).or_default(), totals);
        }
    })?;
    Ok(nodes.into_values().map(finish_node).collect())
}

fn add_window(node: &mut NodeState, totals: &WindowTotals) {
    let key = totals.head.key;
    let sequences = node.instances.entry(key.instance).or_default();
    if sequences.count == 0 || key.sequence < sequences.first {
        sequences.first = key.sequence;
    }
    sequences.last = sequences.last.max(key.sequence);
    sequences.count += 1;

    let summary = &mut node.summary;
    if summary.windows == 0 {
        summary.node = totals.head.node.clone();
        summary.first_ms = key.start_ms;
    }
    summary.windows += 1;
    summary.first_ms = summary.first_ms.min(key.start_ms);
    summary.last_ms = summary.last_ms.max(key.start_ms);
    let end_ms = key.start_ms.saturating_add(totals.head.window_ms);
    summary.end_ms = summary.end_ms.max(end_ms);
    summary.samples = totals
        .samples
        .iter()
        .fold(summary.samples, |sum, samples| sum.saturating_add(*samples));
    add_account(&mut summary.account, &totals.head.account);
}

fn add_account(sum: &mut Account, account: &Account) {
    let Account {
        entries,
        expected,
        sampled_ns,
        busy_ns,
        collector_cpu_ns,
        bpf_ns,
        outcomes,
        dropped,
    } = account;
    for (sum, number) in [
        (&mut sum.entries, entries),
        (&mut sum.expected, expected),
        (&mut sum.sampled_ns, sampled_ns),
        (&mut sum.busy_ns, busy_ns),
        (&mut sum.collector_cpu_ns, collector_cpu_ns),
        (&mut sum.bpf_ns, bpf_ns),
    ] {
        *sum = sum.saturating_add(*number);
    }
    for (sums, counts) in [(&mut sum.outcomes, outcomes), (&mut sum.dropped, dropped)] {
        for (name, count) in counts {
            let sum = sums.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
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
