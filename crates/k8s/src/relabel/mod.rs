//! Relabelling: rules that change the labels of a series, or drop it.
//!
//! In: [`Labels`], those of names `__meta_…` included. Out: the labels that the rules leave, without names that begin with `__`.
//! Rules and semantics are those of Prometheus' `relabel_configs` (source: model/relabel/relabel.go).

mod file;
mod rule;

use crate::{labels::Labels, rule_file::RuleFileError};
use rule::{Rule, Verdict};

/// Rules, in the order in which they are applied.
#[derive(Debug, Default)]
pub struct Relabeling {
    rules: Vec<Rule>,
}

impl Relabeling {
    /// Reads the text of a file with the key `relabel_configs`.
    ///
    /// # Errors
    /// The first mistake, with its line and the number of its rule.
    pub fn parse(text: &str) -> Result<Self, RuleFileError> {
        let rules = file::parse_rules(text)?;
        Ok(Self { rules })
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Applies the rules. Returns whether the series is kept.
    pub fn apply(&self, labels: &mut Labels) -> bool {
        let mut rules = self.rules.iter();
        let is_dropped = rules.any(|rule| rule.apply(labels) == Verdict::Drop);
        labels.retain(|name, value| !name.starts_with("__") && !value.is_empty());
        !is_dropped
    }
}
