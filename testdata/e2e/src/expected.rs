//! A workload's expected profile (`NAME.expected.json`), and the report of a run.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// The expected profile of one workload.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The program to run, with [`cpu_seconds`](Self::cpu_seconds) as its argument.
    pub program: String,
    /// The program to select samples of, if the first one starts another.
    pub sampled: Option<String>,
    /// The program's CPU time: 100 samples per second of it.
    pub cpu_seconds: f64,
    /// Share of the program's CPU time in each function and its callees, by construction.
    pub total_shares: BTreeMap<String, f64>,
    /// Tolerance of those shares, as a share of the program's CPU time.
    pub share_tolerance: f64,
    /// The reason for the tolerance.
    pub why_tolerance: String,
    /// Thread name -> the only one of the functions that the thread calls.
    #[serde(default)]
    pub threads: BTreeMap<String, String>,
    /// Functions that only debug information names, and that use most of the program's own time.
    #[serde(default)]
    pub inlined: Vec<String>,
    /// Function -> minimum share of its samples whose innermost frame is in the kernel.
    #[serde(default)]
    pub kernel_below: BTreeMap<String, f64>,
    /// A recursion of a known depth.
    pub depth: Option<Depth>,
    /// The function that calls all functions of the shares. A stack through one of them without
    /// this function is incomplete.
    pub outermost: Option<String>,
    /// Minimum share of the samples with a process name, a mapping and function names.
    pub named_share: Option<f64>,
}

/// Every stack through one of `below` has exactly `frames` frames of `function`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depth {
    /// The recursive function.
    pub function: String,
    /// The number of its frames.
    pub frames: usize,
    /// The functions at the bottom.
    pub below: Vec<String>,
}

/// The last line of a workload's output: its own measurements.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// CPU nanoseconds of the sampled program, user and system, in the kernel's account.
    pub cpu_ns: u64,
    /// CPU nanoseconds in each function and its callees, by the thread's CPU clock.
    pub functions: BTreeMap<String, u64>,
}

impl Expected {
    /// Parses the text of a `NAME.expected.json`.
    ///
    /// # Errors
    /// The text is not in that format.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("failed to read the expected profile")
    }

    /// The name of the program to select samples of.
    #[must_use]
    pub fn sampled(&self) -> &str {
        self.sampled.as_deref().unwrap_or(&self.program)
    }

    /// The true share of each expected function: measured by the run if it measures the function,
    /// else by construction.
    #[must_use]
    pub fn true_shares(&self, truth: &Truth) -> BTreeMap<String, f64> {
        self.total_shares
            .iter()
            .map(|(function, &built)| {
                let measured = truth.functions.get(function);
                let share = measured.map_or(built, |&ns| ratio(ns, truth.cpu_ns));
                (function.clone(), share)
            })
            .collect()
    }

    /// Compares the measurements of a run with the shares by construction.
    ///
    /// # Errors
    /// They differ: the workload is wrong, not the profiler.
    pub fn check_workload(&self, truth: &Truth) -> Result<()> {
        for (function, share) in self.true_shares(truth) {
            let built = self
                .total_shares
                .get(&function)
                .copied()
                .unwrap_or_default();
            ensure!(
                (share - built).abs() <= self.share_tolerance,
                "workload `{}` is at fault: `{function}` took {share:.4} of its time, was built for {built} ± {} ({})",
                self.program,
                self.share_tolerance,
                self.why_tolerance
            );
        }
        Ok(())
    }
}

impl Truth {
    /// Parses the last line of a workload's output.
    ///
    /// # Errors
    /// There is no last line, or it is not a report.
    pub fn parse(output: &str) -> Result<Self> {
        let line = output
            .lines()
            .last()
            .context("the workload printed nothing")?;
        serde_json::from_str(line)
            .with_context(|| format!("the workload's last line is not its report: `{line}`"))
    }
}

/// `part` / `whole`, or 0 if `whole` is 0.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "a share, and nanoseconds of minutes are below 2^53"
)]
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: &str = r#"{"program": "p", "cpu_seconds": 2, "total_shares": {"f": 0.25, "g": 0.7},
        "share_tolerance": 0.02, "why_tolerance": "because"}"#;

    #[test]
    fn the_measured_share_goes_before_the_built_one() {
        let expected = Expected::parse(EXPECTED).unwrap();
        let truth =
            Truth::parse("noise\n{\"cpu_ns\": 1000, \"functions\": {\"f\": 260}}\n").unwrap();
        let shares = expected.true_shares(&truth);
        assert_eq!(
            shares,
            BTreeMap::from([("f".to_owned(), 0.26), ("g".to_owned(), 0.7)])
        );
    }

    #[test]
    fn a_workload_that_missed_its_shares_is_at_fault() {
        let truth = Truth::parse(r#"{"cpu_ns": 1000, "functions": {"f": 300}}"#).unwrap();
        let error = Expected::parse(EXPECTED)
            .unwrap()
            .check_workload(&truth)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("workload `p` is at fault: `f` took 0.3000"),
            "{error}"
        );
    }

    #[test]
    fn a_crashed_workload_has_no_report() {
        assert!(Truth::parse("").is_err());
        assert!(Truth::parse("failed to open `/dev/zero`").is_err());
    }
}
