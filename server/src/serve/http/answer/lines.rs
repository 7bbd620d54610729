//! Lines of a function.

use std::cmp::Reverse;

use query::lines::{LineReport, LineUsage};
use serde::Serialize;

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
