//! The questions, and whether an answer is right.

use std::io::Read;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use pprof::protos::{self, Message as _};
use serde_json::Value;

use crate::plan::Plan;
use crate::running::HttpResponse;

/// A question.
pub(crate) struct Question {
    pub(crate) name: &'static str,
    /// Of the URL, with parameters if there are some.
    route: &'static str,
    /// The label whose busiest value is selected.
    pub(crate) label: Option<&'static str>,
    /// How its sum is read.
    answer: Answer,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// JSON with `total_ns`.
    Sum,
    /// JSON with series.
    Series,
    Pprof,
}

const fn graph(name: &'static str, label: &'static str) -> Question {
    Question {
        name,
        route: "flamegraph?",
        label: Some(label),
        answer: Answer::Sum,
    }
}

const fn of_all(name: &'static str, route: &'static str, answer: Answer) -> Question {
    Question {
        name,
        route,
        label: None,
        answer,
    }
}

pub(crate) const FLAME_GRAPH: &str = "flame graph of all";
pub(crate) const PPROF: &str = "pprof of all";

pub(crate) const QUESTIONS: [Question; 8] = [
    of_all(FLAME_GRAPH, "flamegraph?", Answer::Sum),
    graph("flame graph of one pod", "pod"),
    graph("flame graph of one namespace", "namespace"),
    graph("flame graph of one program", "comm"),
    of_all("time series of all", "timeseries?", Answer::Series),
    of_all(
        "time series by namespace",
        "timeseries?by=namespace&",
        Answer::Series,
    ),
    of_all("top", "top?", Answer::Sum),
    of_all(PPROF, "pprof?", Answer::Pprof),
];

impl Question {
    pub(crate) fn path(&self, range: &Range<i64>, value: Option<&str>) -> String {
        let Self { route, label, .. } = self;
        let query = match (label, value) {
            (Some(label), Some(value)) => format!("{{{label}=\"{value}\"}}"),
            _ => "{}".to_owned(),
        };
        let Range { start, end } = range;
        format!("/api/v1/{route}query={query}&from={start}&to={end}")
    }

    /// Checks that an answer is whole and adds up to what was pushed, to the nanosecond. Returns its body, unpacked.
    pub(crate) fn check(
        &self,
        answer: &HttpResponse,
        plan: &Plan,
        range: &Range<i64>,
        value: Option<&str>,
    ) -> Result<Vec<u8>> {
        ensure!(
            answer.status == 200,
            "{}: {}",
            answer.status,
            answer.text().trim()
        );
        let body = unpack(answer)?;
        let ns = match self.answer {
            Answer::Pprof => sum_pprof(&body)?,
            Answer::Sum => read_total(&read_json(&body)?)?,
            Answer::Series => sum_series(&read_json(&body)?)?,
        };
        let wanted = plan.total_ns(range, self.label.zip(value));
        let incomplete = answer.header("pilotlight-incomplete");
        ensure!(incomplete.is_empty(), "the answer is incomplete");
        ensure!(ns == wanted, "{ns} ns, and {wanted} were pushed");
        Ok(body)
    }
}

fn read_json(body: &[u8]) -> Result<Value> {
    let json: Value = serde_json::from_slice(body)?;
    ensure!(json["incomplete"].is_null(), "the answer is incomplete");
    Ok(json)
}

fn sum_series(json: &Value) -> Result<u64> {
    let series = json["series"].as_array().context("no `series`")?;
    let series = series.iter().chain([&json["rest"]]);
    let series = series.filter(|series| !series.is_null());
    series.map(read_total).sum()
}

fn read_total(json: &Value) -> Result<u64> {
    json["total_ns"].as_u64().context("no `total_ns`")
}

fn sum_pprof(body: &[u8]) -> Result<u64> {
    let profile = protos::Profile::decode(body)?;
    Ok(profile
        .sample
        .iter()
        .map(|sample| sample.value[1] as u64)
        .sum())
}

fn unpack(answer: &HttpResponse) -> Result<Vec<u8>> {
    let is_pprof = answer.body.starts_with(&[0x1f, 0x8b]);
    let mut body = Vec::new();
    match answer.header("content-encoding").as_str() {
        "zstd" => return Ok(zstd::decode_all(answer.body.as_slice())?),
        "gzip" => GzDecoder::new(answer.body.as_slice()).read_to_end(&mut body)?,
        _ if is_pprof => GzDecoder::new(answer.body.as_slice()).read_to_end(&mut body)?,
        _ => return Ok(answer.body.clone()),
    };
    Ok(body)
}
