//! Frames without a name.

use model::WhyNot;
use query::unknown::{UnknownBinary, UnknownReport, UnknownUsage};
use serde::Serialize;

/// `/api/v1/unknown`
#[derive(Serialize)]
pub struct UnknownAnswer {
    total_ns: u64,
    samples: u64,
    #[serde(flatten)]
    unnamed: UnknownSums,
    reasons: Vec<ReasonEntry>,
    by_binary: UnknownList,
}

/// Samples whose innermost frame has no name, and those that have such a frame anywhere.
#[derive(Serialize)]
struct UnknownSums {
    unnamed_self_ns: u64,
    unnamed_self_samples: u64,
    unnamed_ns: u64,
    unnamed_samples: u64,
}

#[derive(Serialize)]
struct ReasonEntry {
    reason: &'static str,
    words: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    #[serde(flatten)]
    unnamed: UnknownSums,
}

#[derive(Serialize)]
struct UnknownList {
    count: usize,
    binaries: Vec<UnknownEntry>,
    rest: Option<UnknownRest>,
}

#[derive(Serialize)]
struct UnknownEntry {
    binary: String,
    build_id: String,
    #[serde(flatten)]
    unnamed: UnknownSums,
    reasons: Vec<ReasonEntry>,
}

#[derive(Serialize)]
struct UnknownRest {
    count: usize,
    #[serde(flatten)]
    unnamed: UnknownSums,
}

impl UnknownSums {
    fn new(usage: &UnknownUsage) -> Self {
        let UnknownUsage { own, total } = usage;
        Self {
            unnamed_self_ns: own.ns,
            unnamed_self_samples: own.samples,
            unnamed_ns: total.ns,
            unnamed_samples: total.samples,
        }
    }
}

impl UnknownAnswer {
    /// Shows a report, with a remedy for each file.
    pub fn new(report: &UnknownReport) -> Self {
        let UnknownReport {
            all,
            usage,
            reasons,
            binaries,
            binary_count,
            rest,
        } = report;
        let reason =
            |(reason, usage): &(WhyNot, UnknownUsage), advice: Option<String>| ReasonEntry {
                reason: reason.code(),
                words: reason.words(),
                advice,
                unnamed: UnknownSums::new(usage),
            };
        let binary = |file: &UnknownBinary| UnknownEntry {
            binary: file.binary.clone(),
            build_id: file.build_id.clone(),
            unnamed: UnknownSums::new(&file.usage),
            reasons: file
                .reasons
                .iter()
                .map(|entry| reason(entry, Some(entry.0.advice(&file.binary, &file.build_id))))
                .collect(),
        };
        let left = binary_count - binaries.len();
        Self {
            total_ns: all.ns,
            samples: all.samples,
            unnamed: UnknownSums::new(usage),
            reasons: reasons.iter().map(|entry| reason(entry, None)).collect(),
            by_binary: UnknownList {
                count: *binary_count,
                binaries: binaries.iter().map(binary).collect(),
                rest: (left > 0).then_some(UnknownRest {
                    count: left,
                    unnamed: UnknownSums::new(rest),
                }),
            },
        }
    }
}
