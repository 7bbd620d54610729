//! Containers and their accounts.

use query::containers::{ContainerReport, ContainerSum};
use serde::Serialize;

use super::labels::{LabelMap, label_map};

/// `/api/v1/containers`
#[derive(Serialize)]
pub struct ContainersAnswer {
    total: SumEntry,
    stolen_ns: u64,
    count: usize,
    containers: Vec<ContainerEntry>,
    rest: Option<SumEntry>,
}

#[derive(Serialize)]
struct ContainerEntry {
    labels: LabelMap,
    #[serde(flatten)]
    sum: SumEntry,
}

#[derive(Serialize)]
struct SumEntry {
    samples: u64,
    sampled_ns: u64,
    kernel_ns: u64,
    ratio: Option<f64>,
    ratio_deviation: Option<f64>,
    throttled_ns: u64,
    unread_ns: u64,
    excluded_samples: u64,
}

impl SumEntry {
    fn new(sum: &ContainerSum) -> Self {
        let (ratio, ratio_deviation) = sum.ratio().unzip();
        Self {
            samples: sum.sampled.samples,
            sampled_ns: sum.sampled.ns,
            kernel_ns: sum.account.kernel_ns,
            ratio,
            ratio_deviation,
            throttled_ns: sum.account.throttled_ns,
            unread_ns: sum.account.unread_ns,
            excluded_samples: sum.account.excluded_samples,
        }
    }
}

impl ContainersAnswer {
    /// Shows the first `limit`.
    pub fn new(report: &ContainerReport, limit: usize) -> Self {
        let shown = report.containers.len().min(limit);
        let (shown, others) = report.containers.split_at(shown);
        let rest = others
            .iter()
            .fold(ContainerSum::default(), |mut sum, (_, other)| {
                sum.add(*other);
                sum
            });
        let entry = |(labels, sum): &(_, _)| ContainerEntry {
            labels: label_map(labels),
            sum: SumEntry::new(sum),
        };
        Self {
            total: SumEntry::new(&report.total),
            stolen_ns: report.stolen_ns,
            count: report.containers.len(),
            containers: shown.iter().map(entry).collect(),
            rest: (!others.is_empty()).then(|| SumEntry::new(&rest)),
        }
    }
}
