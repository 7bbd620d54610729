//! What a store gives to a query, made of the tests' language.

use std::sync::Arc;

use crate::profile::text::window;
use crate::profile::{LabelSet, Window};
use crate::store::{Part, SeriesId, SeriesTable, WindowRows};

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

    /// The windows, to be changed before they are asked.
    pub(crate) fn windows_mut(&mut self) -> &mut [Window] {
        &mut self.windows
    }

    /// The labels of all windows' series.
    pub(crate) fn table(&self) -> SeriesTable {
        let numbered = (0..).map(SeriesId).zip(&self.series);
        SeriesTable::new(
            numbered
                .map(|(id, it)| (id, Arc::new(it.clone())))
                .collect(),
        )
    }

    /// Gives each window as a part of its own.
    pub(crate) fn for_each(&self, mut add: impl FnMut(&Part<'_>)) {
        for window in &self.windows {
            let rows = WindowRows {
                key: window.head.key,
                window_ms: window.head.window_ms,
                series: window.series.iter().map(|it| self.id_of(it)).collect(),
                rows: window.rows.clone(),
            };
            add(&Part {
                tables: &window.tables,
                windows: &[Arc::new(rows)],
            });
        }
    }

    fn id_of(&self, labels: &LabelSet) -> SeriesId {
        let position = self.series.iter().position(|known| known == labels);
        SeriesId(position.unwrap() as u64)
    }
}
