//! Counts of stacks by binary and by outcome or result.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use metrics::Figures;

/// Stacks by binary and by an outcome or a result.
#[derive(Clone, Debug, Default)]
pub(super) struct StacksByBinary {
    counts: BTreeMap<(Arc<str>, &'static str), u64>,
    binaries: BTreeSet<Arc<str>>,
}

impl StacksByBinary {
    /// Binaries with a name of their own, those that were seen first. Each has up to ten outcomes,
    /// and a metrics store keeps each of these 500 for as long as it keeps anything.
    const BINARIES_MAX: usize = 50;

    /// The name for all other binaries, and for stacks without any frame.
    const OTHERS: &'static str = "[others]";

    /// Counts a stack.
    pub(super) fn add(&mut self, binary: Option<&Arc<str>>, outcome: &'static str) {
        let is_named = |binary: &&Arc<str>| {
            self.binaries.contains(*binary) || self.binaries.len() < Self::BINARIES_MAX
        };
        let binary = match binary.filter(is_named) {
            Some(binary) => binary.clone(),
            None => Self::OTHERS.into(),
        };
        if *binary != *Self::OTHERS {
            self.binaries.insert(binary.clone());
        }
        *self.counts.entry((binary, outcome)).or_default() += 1;
    }

    /// Stacks with this outcome or result.
    pub(super) fn total(&self, result: &str) -> u64 {
        let counts = self.counts.iter().filter(|((_, kind), _)| *kind == result);
        counts.map(|(_, count)| count).sum()
    }

    /// Writes the counts; `label` is the name of the label for the outcome or result.
    pub(super) fn show(
        &self,
        figures: &mut Figures<'_>,
        name: &str,
        help: &str,
        label: &'static str,
    ) {
        let counts = self.counts.iter();
        let counts = counts
            .map(|((binary, result), count)| ([binary.to_string(), (*result).to_owned()], *count));
        figures.counters(name, help, ["binary", label], counts);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{Exposition, Registry};

    use super::*;
    use crate::metrics::Stats;

    /// Check that paths are escaped, and that the number of binaries is bounded.
    #[test]
    fn incomplete_stacks() {
        let stats: Stats<StacksByBinary> = Stats::default();
        let mut stacks = stats.lock();
        stacks.add(Some(&"/a\"b\\c\n".into()), "no_rows");
        stacks.add(None, "no_rows");
        for number in 0..60 {
            stacks.add(Some(&format!("/{number}").into()), "bad_frame");
        }
        assert_eq!(
            (stacks.total("no_rows"), stacks.total("bad_frame")),
            (2, 60)
        );
        drop(stacks);
        let mut registry = Registry::default();
        stats.register(&mut registry, |stacks, figures| {
            stacks.show(figures, "stacks", "Stacks", "outcome");
        });
        let text = Exposition::Text.encode(&registry).unwrap();
        for line in [
            "{binary=\"/a\\\"b\\\\c\\n\",outcome=\"no_rows\"} 1",
            "{binary=\"[others]\",outcome=\"no_rows\"} 1",
            "{binary=\"[others]\",outcome=\"bad_frame\"} 11",
            "{binary=\"/48\",outcome=\"bad_frame\"} 1",
        ] {
            assert!(text.contains(&format!("stacks_total{line}\n")), "{line}");
        }
    }
}
