//! Values of the chart that the collector's checks name.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::tools::repository;

/// Check that each value that a remedy names is one of the chart, or a part of one.
pub(super) fn check() -> Result<()> {
    let read = |path: &str| {
        fs::read_to_string(repository().join(path))
            .with_context(|| format!("failed to read `{path}`"))
    };
    let checks = read("collector/src/preflight/checks.rs")?;
    let table = read("deploy/chart/README.md")?;
    let values: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .collect();
    let named = checks.split("chart: ").skip(1).filter_map(|rest| {
        rest.split(|char: char| !char.is_ascii_alphanumeric() && char != '.')
            .next()
    });
    let mut count = 0;
    for name in named {
        count += 1;
        let is_value = values
            .iter()
            .any(|value| name == *value || name.starts_with(&format!("{value}.")));
        ensure!(is_value, "the chart has no value `{name}`");
    }
    ensure!(count > 3, "only {count} values are named");
    Ok(())
}
