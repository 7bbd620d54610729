//! Versions of workloads and programs.

use query::versions::{VersionReport, VersionSeen};
use serde::Serialize;
use store::VersionKind;

use super::labels::{LabelMap, label_map};

/// `/api/v1/versions`
#[derive(Serialize)]
pub struct VersionsAnswer {
    since_ms: Option<i64>,
    count: usize,
    left_out: u64,
    versions: Vec<VersionEntry>,
}

#[derive(Serialize)]
struct VersionEntry {
    labels: LabelMap,
    kind: &'static str,
    version: String,
    first_ms: i64,
    last_ms: i64,
    after: Option<String>,
}

impl VersionsAnswer {
    /// The first `limit` versions.
    pub fn new(report: VersionReport, limit: usize) -> Self {
        let entry = |seen: VersionSeen| VersionEntry {
            labels: label_map(&seen.labels),
            kind: match seen.kind {
                VersionKind::Image => "image",
                VersionKind::BuildId => "build_id",
            },
            version: seen.version,
            first_ms: seen.times.first_ms,
            last_ms: seen.times.last_ms,
            after: seen.after,
        };
        Self {
            since_ms: report.since_ms,
            count: report.versions.len(),
            left_out: report.left_out,
            versions: report.versions.into_iter().take(limit).map(entry).collect(),
        }
    }
}
