//! CPU over time.

use query::series::Usage;
use query::timeseries::{Group, Timeseries, split_rest};
use serde::Serialize;

use super::labels::LabelMap;

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
    /// For each step.
    covered_ms: Vec<u64>,
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
            covered_ms: covered_ns.iter().map(|ns| ns / 1_000_000).collect(),
            series,
            rest,
        }
    }
}

fn values(group: &Group, covered_ns: &[u64], unit: Unit) -> Vec<Option<f64>> {
    let value = |(usage, covered): (&Usage, &u64)| match (*covered, unit) {
        (0, _) => None,
        (_, Unit::Samples) => Some(usage.samples as f64),
        // Four decimals are a ten-thousandth of a core, far below the precision of samples.
        (covered, Unit::Cores) => Some((usage.ns as f64 / covered as f64 * 1e4).round() / 1e4),
    };
    group.steps.iter().zip(covered_ns).map(value).collect()
}
