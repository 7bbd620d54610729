//! Snapshots of the numbers -> the lines on the terminal. Does no IO.

use serde::Deserialize;

use crate::metrics::Metrics;

/// Outcomes of the BPF program without a record.
pub const LOST_OUTCOMES: [&str; 2] = ["ring_full", "internal"];

/// Figures of the collector and of the operating system at one moment; counts and times are since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Seconds since the run began.
    pub at_s: f64,
    /// Samples: entries of the BPF program.
    pub entries: f64,
    /// Samples that did not reach a window, by reason.
    pub lost: Vec<(String, f64)>,
    /// Distinct stacks in the last window.
    pub stacks: f64,
    /// Processes that the collector knows.
    pub processes: f64,
    /// CPU seconds of the collector and its child.
    pub collector_cpu_s: f64,
    /// CPU seconds of the server.
    pub server_cpu_s: f64,
    /// Seconds that the BPF program took, as it measures itself.
    pub bpf_s: f64,
}

impl Snapshot {
    /// Reads a snapshot from the collector's `/metrics`; missing values are 0.
    #[must_use]
    pub fn new(at_s: f64, collector: &Metrics, server_cpu_s: f64) -> Self {
        let sum = |name: &str| collector.sum(name).unwrap_or_default();
        let outcomes = collector.by_label("pilotlight_collector_outcomes_total", "outcome");
        let dropped = collector.by_label("pilotlight_collector_dropped_total", "stage");
        let lost = outcomes
            .into_iter()
            .filter(|(outcome, _)| LOST_OUTCOMES.contains(&outcome.as_str()))
            .chain(dropped)
            .filter(|(_, count)| *count > 0.0)
            .collect();
        Self {
            at_s,
            entries: sum("pilotlight_collector_entries_total"),
            lost,
            stacks: sum("pilotlight_collector_window_stacks"),
            processes: sum("pilotlight_collector_processes"),
            collector_cpu_s: sum("pilotlight_collector_cpu_seconds_total"),
            server_cpu_s,
            bpf_s: sum("pilotlight_collector_bpf_seconds_total"),
        }
    }
}

/// The used part of the answer of `/api/v1/top`.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
pub struct Top {
    /// CPU nanoseconds of the whole selection: the base of all percentages.
    pub total_ns: u64,
    /// Functions, most self time first.
    pub functions: Vec<Function>,
}

/// One function of [`Top`].
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The file that it is in; the kernel's is `[kernel]`.
    pub binary: String,
    /// CPU nanoseconds in itself.
    pub self_ns: u64,
}

/// Describes the samples so far, their losses, and the cost of sampling between `before` and `now`,
/// in lines that fit a terminal of 80 columns while all counts are below ten million.
#[must_use]
pub fn state_lines(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    let counts = format!(
        "{}  {} samples  {} stacks  {} processes",
        clock(now.at_s),
        grouped(now.entries),
        grouped(now.stacks),
        grouped(now.processes),
    );
    let seconds = (now.at_s - before.at_s).max(0.001);
    let percent = |now: f64, before: f64| 100.0 * (now - before).max(0.0) / seconds;
    let collector = percent(now.collector_cpu_s, before.collector_cpu_s);
    let server = percent(now.server_cpu_s, before.server_cpu_s);
    let bpf = percent(now.bpf_s, before.bpf_s);
    let cost = format!(
        "own CPU {:.2} % of a core (collector {collector:.2}, server {server:.2}, BPF {bpf:.2})",
        collector + server + bpf,
    );
    let lost = now
        .lost
        .iter()
        .map(|(reason, count)| format!("lost {} ({reason})", grouped(*count)));
    [counts, cost].into_iter().chain(lost).collect()
}

/// The functions with the most self time, one line each.
#[must_use]
pub fn top_lines(top: &Top) -> Vec<String> {
    top.functions
        .iter()
        .map(|f| {
            let binary = f.binary.rsplit('/').next().unwrap_or_default();
            format!(
                "{:6.1} %  {}  {binary}",
                share_percent(f.self_ns, top.total_ns),
                f.name
            )
        })
        .collect()
}

/// The functions with the most self time, all in one line.
#[must_use]
pub fn top_line(top: &Top) -> String {
    let shown = top
        .functions
        .iter()
        .map(|f| format!("{} {:.1} %", f.name, share_percent(f.self_ns, top.total_ns)));
    shown.collect::<Vec<_>>().join(", ")
}

/// The first `columns` characters of `line`, so that the terminal does not wrap it. Control
/// characters, which a function name may contain, become `?`.
#[must_use]
pub fn fit(line: &str, columns: usize) -> String {
    line.chars()
        .take(columns)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "a percentage with one digit")]
fn share_percent(part_ns: u64, total_ns: u64) -> f64 {
    if total_ns == 0 {
        0.0
    } else {
        100.0 * part_ns as f64 / total_ns as f64
    }
}

/// `m:ss`.
fn clock(seconds: f64) -> String {
    let minutes = (seconds / 60.0).floor();
    format!("{minutes}:{:02}", (seconds - minutes * 60.0).floor())
}

/// A count with a comma at each thousand.
fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"
pilotlight_collector_entries_total 1234567
pilotlight_collector_outcomes_total{outcome="complete"} 1234500
pilotlight_collector_outcomes_total{outcome="ring_full"} 67
pilotlight_collector_outcomes_total{outcome="internal"} 0
pilotlight_collector_dropped_total{stage="send"} 3
pilotlight_collector_window_stacks 812
pilotlight_collector_processes 45
pilotlight_collector_cpu_seconds_total{part="collector",mode="user"} 1.5
pilotlight_collector_cpu_seconds_total{part="namer",mode="system"} 0.5
pilotlight_collector_bpf_seconds_total 0.25
"#;

    #[test]
    fn everything_is_counted_and_the_cost_is_of_the_interval() {
        let before = Snapshot {
            at_s: 65.0,
            collector_cpu_s: 1.9,
            server_cpu_s: 1.0,
            bpf_s: 0.2,
            ..Snapshot::default()
        };
        let now = Snapshot::new(75.0, &Metrics::parse(METRICS), 1.1);
        assert_eq!(
            state_lines(&before, &now),
            [
                "1:15  1,234,567 samples  812 stacks  45 processes",
                "own CPU 2.50 % of a core (collector 1.00, server 1.00, BPF 0.50)",
                "lost 67 (ring_full)",
                "lost 3 (send)",
            ]
        );
    }

    #[test]
    fn functions_are_shares_of_the_whole_selection() {
        let top: Top = serde_json::from_str(
            r#"{"total_ns": 4000, "samples": 4, "count": 9, "functions": [
                {"name": "sort_lines", "binary": "/usr/bin/sort", "file": "sort.c", "kind": 0, "self_ns": 1000,
                 "total_ns": 3000, "self_samples": 1, "total_samples": 3}]}"#,
        )
        .unwrap();
        assert_eq!(top_lines(&top), ["  25.0 %  sort_lines  sort"]);
        assert_eq!(top_line(&top), "sort_lines 25.0 %");
    }

    #[test]
    fn a_line_is_cut_at_characters_and_has_no_escapes() {
        assert_eq!(fit("größe\u{1b}[31m", 6), "größe?");
    }
}
