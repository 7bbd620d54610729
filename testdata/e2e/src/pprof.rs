//! Parses the table of `go tool pprof -top -unit=ns` -> numbers by function.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// One function's row of the table, in CPU nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// In the function itself.
    pub flat_ns: u64,
    /// In the function and its callees.
    pub cum_ns: u64,
}

/// Parses the table: `flat flat% sum% cum cum% name`, below a line with these words.
///
/// # Errors
/// The head line is missing, or a row has another form.
pub fn parse_top(text: &str) -> Result<BTreeMap<String, Row>> {
    let mut lines = text.lines();
    lines
        .find(|line| {
            line.split_whitespace()
                .eq(["flat", "flat%", "sum%", "cum", "cum%"])
        })
        .with_context(|| format!("no table in the output of pprof: `{text}`"))?;
    lines
        .filter(|line| !line.trim().is_empty())
        .map(parse_row)
        .collect()
}

fn parse_row(line: &str) -> Result<(String, Row)> {
    let fields = || line.split_whitespace();
    let ns = |field: usize| {
        let text = fields().nth(field).unwrap_or_default();
        // pprof prints 0 without a unit.
        text.strip_suffix("ns")
            .unwrap_or(text)
            .parse::<u64>()
            .with_context(|| format!("`{text}` in `{line}` is not in ns"))
    };
    let mut name = fields().skip(5).collect::<Vec<_>>().join(" ");
    if let Some(bare) = name.strip_suffix(" (inline)") {
        name = bare.to_owned();
    }
    Ok((
        name,
        Row {
            flat_ns: ns(0)?,
            cum_ns: ns(3)?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_with_spaces_in_names() {
        let text = "\
File: [kernel]
Type: cpu
Showing nodes accounting for 7040000000ns, 100% of 7040000000ns total
      flat  flat%   sum%        cum   cum%
5030000000ns 71.45% 71.45% 5030000000ns 71.45%  <p::W as p::G>::grind
2010000000ns 28.55%   100% 2010000000ns 28.55%  p::churn (inline)
         0     0%   100% 7040000000ns   100%  main
";
        let rows = parse_top(text).unwrap();
        assert_eq!(
            rows["<p::W as p::G>::grind"],
            Row {
                flat_ns: 5_030_000_000,
                cum_ns: 5_030_000_000
            }
        );
        assert_eq!(rows["p::churn"].flat_ns, 2_010_000_000);
        assert_eq!(
            rows["main"],
            Row {
                flat_ns: 0,
                cum_ns: 7_040_000_000
            }
        );
    }

    #[test]
    fn other_output_is_an_error() {
        assert!(parse_top("failed to fetch any source profiles").is_err());
        assert!(parse_top("flat flat% sum% cum cum%\n1.2s 3% 3% 1.2s 3% main").is_err());
    }
}
