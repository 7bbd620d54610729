//! Answers from windows in the test language, without a store: for tests of what reads them.

use model::text::window;
use model::{LabelSet, Row, StackSum, Window};

use crate::profiles::NamedSums;
use crate::tree::Tree;

/// The tree of one window.
///
/// # Panics
/// A line does not have the language's form: the test has a mistake.
pub fn tree(lines: &str) -> Tree {
    let parts = TestParts::new(&[lines]);
    let mut tree = Tree::default();
    parts.for_each(|part| tree.add_part(part));
    tree
}

/// The windows that `texts` describe, and their series.
pub(crate) struct TestParts {
    windows: Vec<Window>,
    series: Vec<LabelSet>,
}

impl TestParts {
    pub(crate) fn new(texts: &[&str]) -> Self {
        let windows: Vec<Window> = texts.iter().map(|text| window(text)).collect();
        let mut series = Vec::new();
        for labels in windows.iter().flat_map(|window| &window.series) {
            if !series.contains(labels) {
                series.push(labels.clone());
            }
        }
        Self { windows, series }
    }

    /// The windows, which a test may change.
    #[cfg(test)]
    pub(crate) fn windows_mut(&mut self) -> &mut [Window] {
        &mut self.windows
    }

    /// The labels of all windows' series.
    #[cfg(test)]
    pub(crate) fn table(&self) -> model::SeriesTable {
        let labels = self.series.iter().cloned().map(std::sync::Arc::new);
        model::SeriesTable::new((0..).map(model::SeriesId).zip(labels).collect())
    }

    /// Visits the samples of each window, each series in a group of its own.
    pub(crate) fn for_each(&self, add: impl FnMut(&NamedSums<'_>)) {
        let each: Vec<u32> = (0..self.series.len() as u32).collect();
        self.for_each_in(&each, add);
    }

    /// Visits the samples of each window, with the group of each series.
    pub(crate) fn for_each_in(&self, groups: &[u32], mut add: impl FnMut(&NamedSums<'_>)) {
        for window in &self.windows {
            let sum = |row: &Row| StackSum {
                group: groups[self.position(&window.series[row.series as usize])],
                stack: row.stack,
                tags: row.tags,
                samples: row.samples,
                ns: row.ns,
            };
            let sums: Vec<StackSum> = window.rows.iter().map(sum).collect();
            add(&NamedSums {
                tables: (&window.tables).into(),
                sums: &sums,
            });
        }
    }

    fn position(&self, labels: &LabelSet) -> usize {
        let position = self.series.iter().position(|known| known == labels);
        position.expect("`new` takes the series of all windows")
    }
}
