//! Names and values of labels, and series.

use std::collections::BTreeMap;

use model::LabelSet;
use query::series::Usage;
use serde::Serialize;

pub(super) type LabelMap = BTreeMap<String, String>;

pub(super) fn label_map(labels: &LabelSet) -> LabelMap {
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
