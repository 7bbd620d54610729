//! CPU time of containers: sampled, and by the kernel's own account.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use model::{ContainerUsage, LabelSet, PROCESS_LABELS, SeriesId};
use store::{Snapshot, StoreError};

use super::selector::Selector;
use super::series::Usage;

/// CPU time of one container or systemd unit, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ContainerSum {
    /// Its samples.
    pub sampled: Usage,
    /// The kernel's account.
    pub account: ContainerUsage,
}

impl ContainerSum {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.sampled.add(other.sampled);
        let ContainerUsage {
            kernel_ns,
            throttled_ns,
            unread_ns,
            excluded_samples,
        } = other.account;
        let own = &mut self.account;
        for (sum, number) in [
            (&mut own.kernel_ns, kernel_ns),
            (&mut own.throttled_ns, throttled_ns),
            (&mut own.unread_ns, unread_ns),
            (&mut own.excluded_samples, excluded_samples),
        ] {
            *sum = sum.saturating_add(number);
        }
    }

    /// Sampled CPU time divided by the kernel's, and its standard deviation: samples are random, so that `n` of them have a relative
    /// one of `1/sqrt(n)`. `None` without samples or without CPU time.
    ///
    /// Samples after the last reading of a cgroup that ended do not count, since the kernel's account lacks their time.
    pub fn ratio(&self) -> Option<(f64, f64)> {
        let Usage { samples, ns } = self.sampled;
        let read_ns = ns.saturating_sub(self.account.unread_ns);
        if samples == 0 || ns == 0 || self.account.kernel_ns == 0 {
            return None;
        }
        let ratio = read_ns as f64 / self.account.kernel_ns as f64;
        let read_samples = samples as f64 * (read_ns as f64 / ns as f64);
        Some((ratio, ratio / read_samples.max(1.0).sqrt()))
    }
}

/// Order of containers: largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerOrder {
    /// By the kernel's account.
    Kernel,
    /// By sampled CPU time.
    Sampled,
    /// By the ratio of both; those without one last.
    Ratio,
    /// By throttled time.
    Throttled,
    /// By excluded samples.
    Excluded,
}

impl ContainerOrder {
    fn sort(self, containers: &mut [(LabelSet, ContainerSum)]) {
        // A stable order: equal ones stay by the kernel's account.
        containers.sort_by_key(|(_, sum)| Reverse(sum.account.kernel_ns));
        match self {
            Self::Kernel => {}
            Self::Sampled => containers.sort_by_key(|(_, sum)| Reverse(sum.sampled.ns)),
            Self::Ratio => {
                let ratio = |sum: &ContainerSum| sum.ratio().map_or(-1.0, |(ratio, _)| ratio);
                containers.sort_by(|(_, a), (_, b)| ratio(b).total_cmp(&ratio(a)));
            }
            Self::Throttled => containers.sort_by_key(|(_, sum)| Reverse(sum.account.throttled_ns)),
            Self::Excluded => {
                containers.sort_by_key(|(_, sum)| Reverse(sum.account.excluded_samples));
            }
        }
    }
}

/// The containers of a selection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerReport {
    /// Each with its labels.
    pub containers: Vec<(LabelSet, ContainerSum)>,
    /// The sum of all.
    pub total: ContainerSum,
    /// Time that hypervisors took from the nodes of these containers, nanoseconds.
    pub stolen_ns: u64,
}

/// Sums up the accounts of the selected containers and their samples, in windows that have accounts.
///
/// A series belongs to the account that has its labels, without those of processes. So the selector can choose by the labels that all
/// series of a container have.
///
/// # Errors
/// The store failed.
pub fn report_containers(
    snapshot: &dyn Snapshot,
    selector: &Selector,
    order: ContainerOrder,
) -> Result<ContainerReport, StoreError> {
    let mut accounts: HashMap<SeriesId, ContainerUsage> = HashMap::new();
    let mut sampled: HashMap<SeriesId, Usage> = HashMap::new();
    let mut stolen: HashMap<String, u64> = HashMap::new();
    snapshot.scan_totals(&mut |totals| {
        if totals.containers.is_empty() || totals.overlap.is_left_out() {
            return;
        }
        for (id, usage) in &totals.containers {
            let mut sum = ContainerSum {
                account: *accounts.entry(*id).or_default(),
                ..ContainerSum::default()
            };
            sum.add(ContainerSum {
                account: *usage,
                ..ContainerSum::default()
            });
            accounts.insert(*id, sum.account);
        }
        for (i, id) in totals.series.iter().enumerate() {
            sampled.entry(*id).or_default().add(Usage {
                samples: totals.samples[i],
                ns: totals.ns[i],
            });
        }
        let sum = stolen.entry(totals.head.node.clone()).or_default();
        *sum = sum.saturating_add(totals.head.account.stolen_ns);
    })?;

    let ids: Vec<SeriesId> = accounts.keys().copied().collect();
    let mut sums: BTreeMap<LabelSet, ContainerSum> = BTreeMap::new();
    for (id, labels) in ids.iter().zip(snapshot.find_labels(&ids)?) {
        if selector.matches(&labels) {
            let sum = sums.entry(LabelSet::clone(&labels)).or_default();
            sum.add(ContainerSum {
                account: accounts[id],
                ..ContainerSum::default()
            });
        }
    }
    let ids: Vec<SeriesId> = sampled.keys().copied().collect();
    for (id, labels) in ids.iter().zip(snapshot.find_labels(&ids)?) {
        if let Some(sum) = sums.get_mut(&without_process(&labels)) {
            sum.sampled.add(sampled[id]);
        }
    }

    let mut report = ContainerReport::default();
    let mut nodes: Vec<String> = sums
        .keys()
        .map(|labels| labels.value("node").to_owned())
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    for node in nodes {
        let stolen_ns = stolen.get(&node).copied().unwrap_or(0);
        report.stolen_ns = report.stolen_ns.saturating_add(stolen_ns);
    }
    for sum in sums.values() {
        report.total.add(*sum);
    }
    report.containers = sums.into_iter().collect();
    order.sort(&mut report.containers);
    Ok(report)
}

/// The labels that all series of the container have.
fn without_process(labels: &LabelSet) -> LabelSet {
    let shared = labels
        .iter()
        .filter(|(name, _)| !PROCESS_LABELS.contains(name));
    // A part of a sorted set is one.
    LabelSet::from_sorted(shared).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(samples: u64, kernel_ms: u64, unread_ms: u64) -> ContainerSum {
        ContainerSum {
            sampled: Usage {
                samples,
                ns: samples * 10_000_000,
            },
            account: ContainerUsage {
                kernel_ns: kernel_ms * 1_000_000,
                unread_ns: unread_ms * 1_000_000,
                ..ContainerUsage::default()
            },
        }
    }

    /// Check the ratio and its deviation: 250 samples are 6.3 %, and samples that the account lacks count for neither.
    #[test]
    fn ratios() {
        let close = |found: Option<(f64, f64)>, ratio: f64, deviation: f64| {
            let (found_ratio, found_deviation) = found.unwrap();
            assert!((found_ratio - ratio).abs() < 1e-9, "{found_ratio}");
            assert!(
                (found_deviation - deviation).abs() < 1e-4,
                "{found_deviation}"
            );
        };
        close(sum(250, 2500, 0).ratio(), 1.0, 0.0632);
        close(sum(250, 5000, 0).ratio(), 0.5, 0.0316);
        close(sum(500, 2500, 2500).ratio(), 1.0, 0.0632);
        close(sum(10, 100, 200).ratio(), 0.0, 0.0);
        assert_eq!(sum(0, 100, 0).ratio(), None);
        assert_eq!(sum(9, 0, 90).ratio(), None);
    }
}
