//! Parses the Prometheus text format, as far as collector and server use it: text -> samples. Does
//! no IO.

use std::collections::BTreeMap;

/// The metrics of one `/metrics` answer.
#[derive(Debug, Default, Clone)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Parses an exposition. Ignores lines that are not samples (comments, blank or malformed
    /// lines): an unreadable number is shown as absent, not as an error.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            samples: text.lines().filter_map(parse_sample).collect(),
        }
    }

    /// The sum over all label sets of `name`; `None` if there are none.
    #[must_use]
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sum_where(name, &[])
    }

    /// The sum over the label sets of `name` that contain all of `labels`; `None` if there are
    /// none.
    #[must_use]
    pub fn sum_where(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self
            .samples
            .iter()
            .filter(|s| {
                s.name == name
                    && labels
                        .iter()
                        .all(|(k, v)| s.labels.get(*k).is_some_and(|have| have == v))
            })
            .map(|s| s.value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The values of `name` by the value of its label `label`, in that label's order.
    #[must_use]
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::new();
        for sample in self.samples.iter().filter(|s| s.name == name) {
            if let Some(key) = sample.labels.get(label) {
                *values.entry(key.clone()).or_default() += sample.value;
            }
        }
        values
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => parse_labels(inner)?,
        None => (BTreeMap::new(), rest),
    };
    // A timestamp may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Splits the text after an opening brace into the labels and the text after the closing brace.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(after)?;
        labels.insert(name.trim().to_owned(), value);
        rest = after;
    }
}

/// Splits a label value with its escapes (`\\`, `\"`, `\n`) resolved from the text after its
/// closing quote.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((i, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[i + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP entries_total Entries of the BPF program.
# TYPE entries_total counter
entries_total 1204
outcomes_total{outcome="complete"} 1200
outcomes_total{outcome="bad \"frame\\pointer",cpu="0"} 4 1795312800000
cpu_seconds_total{part="collector",mode="user"} 1.5e-1
cpu_seconds_total{part="collector",mode="system"} 0.25
cpu_seconds_total{part="namer",mode="user"} 2
empty_total{} 7
"#;

    #[test]
    fn sums_over_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("entries_total"), Some(1204.0));
        assert_eq!(metrics.sum("cpu_seconds_total"), Some(2.4));
        assert_eq!(
            metrics.sum_where("cpu_seconds_total", &[("part", "collector")]),
            Some(0.4)
        );
        assert_eq!(metrics.sum("empty_total"), Some(7.0));
        assert_eq!(metrics.sum("missing"), None);
    }

    #[test]
    fn values_by_label_undo_the_quoting() {
        let outcomes = Metrics::parse(TEXT).by_label("outcomes_total", "outcome");
        let outcomes: Vec<_> = outcomes.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(
            outcomes,
            [(r#"bad "frame\pointer"#, 4.0), ("complete", 1200.0)]
        );
    }

    #[test]
    fn malformed_lines_are_passed_over() {
        for line in [
            "name",
            "name{",
            "name{a=\"b",
            "name{a=\"b\\",
            "name{a=b} 1",
            "name{} x",
            "{} 1 2 3",
        ] {
            assert_eq!(Metrics::parse(line).sum("name"), None, "{line}");
        }
    }
}
