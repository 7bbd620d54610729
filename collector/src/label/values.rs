//! Limits of label values: how many distinct ones a label may have.
//!
//! Each new value makes new series in the store. A process that renames itself all the time, or a rule that copies an id into a label,
//! would make series without end.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
};

use metrics::Figures;
use rustc_hash::FxHashMap;

/// In place of a value beyond the limit.
pub(super) const OTHER_VALUE: &str = "[other]";

/// Labels whose values are counted. The server takes 128 of a series; with 2,000 values each, of 24 bytes, they take 12 MB at most.
const NAMES_MAX: usize = 256;

/// Time after which a value that no series has counts no more.
const VALUE_KEPT_NS: u64 = 3_600_000_000_000;

/// The values of labels in the last hour.
pub(super) struct LabelValues {
    values_max: usize,
    /// Keyed at random, so that nobody chooses values that collide. Values with one hash count as one.
    hasher: RandomState,
    /// By label name: when each value was last seen, by its hash.
    labels: FxHashMap<Box<str>, FxHashMap<u64, u64>>,
    stats: ValueStats,
}

/// Counts of values.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueStats {
    /// Distinct values in the last hour, by label.
    values: BTreeMap<String, usize>,
    /// Values that were replaced, by label.
    limited: BTreeMap<String, u64>,
    /// Labels left out because there were too many names.
    names_limited: u64,
}

impl LabelValues {
    pub(super) fn new(values_max: usize) -> Self {
        Self {
            values_max,
            hasher: RandomState::new(),
            labels: FxHashMap::default(),
            stats: ValueStats::default(),
        }
    }

    /// The value that a label may have; `None` if the label itself is one too many.
    pub(super) fn admit<'a>(&mut self, name: &str, value: &'a str, now_ns: u64) -> Option<&'a str> {
        if !self.labels.contains_key(name) {
            if self.labels.len() >= NAMES_MAX {
                self.stats.names_limited += 1;
                return None;
            }
            self.labels.insert(name.into(), FxHashMap::default());
        }
        let values = self.labels.get_mut(name)?;
        let hash = self.hasher.hash_one(value);
        if let Some(last_ns) = values.get_mut(&hash) {
            *last_ns = now_ns;
        } else if values.len() < self.values_max {
            values.insert(hash, now_ns);
        } else {
            let limited = self.stats.limited.entry(name.to_owned()).or_default();
            if *limited == 0 {
                tracing::warn!(
                    label = name,
                    values_max = self.values_max,
                    "a label has too many values: further ones become {OTHER_VALUE} (--label-values-max)"
                );
            }
            *limited += 1;
            return Some(OTHER_VALUE);
        }
        Some(value)
    }

    /// Forgets values that no series has had for an hour.
    pub(super) fn end_window(&mut self, now_ns: u64) {
        for values in self.labels.values_mut() {
            values.retain(|_, last_ns| now_ns.saturating_sub(*last_ns) < VALUE_KEPT_NS);
        }
        self.labels.retain(|_, values| !values.is_empty());
    }

    pub(super) fn stats(&self) -> ValueStats {
        let labels = self.labels.iter();
        ValueStats {
            values: labels
                .map(|(name, values)| (name.to_string(), values.len()))
                .collect(),
            ..self.stats.clone()
        }
    }
}

impl ValueStats {
    /// Writes the figures.
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        figures.gauges(
            "label_values",
            "Distinct values of a label in the last hour",
            ["label"],
            self.values
                .iter()
                .map(|(name, count)| ([name.clone()], *count)),
        );
        figures.counters(
            "label_values_limited",
            "Values replaced by [other] because their label has too many",
            ["label"],
            self.limited
                .iter()
                .map(|(name, count)| ([name.clone()], *count)),
        );
        figures.counter(
            "label_names_limited",
            "Labels left out because all series together have too many",
            self.names_limited,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = VALUE_KEPT_NS;

    /// Check that values beyond the limit are replaced and counted by label, that known ones stay, and that there is room again when
    /// values are no longer seen.
    #[test]
    fn values_are_limited() {
        let mut values = LabelValues::new(2);
        for value in ["a", "b", "a"] {
            assert_eq!(values.admit("comm", value, 0), Some(value));
        }
        assert_eq!(values.admit("comm", "c", 0), Some(OTHER_VALUE));
        assert_eq!(values.admit("exe", "c", 0), Some("c"));
        assert_eq!(values.admit("comm", "a", 1), Some("a"));
        let stats = values.stats();
        assert_eq!((stats.limited["comm"], stats.limited.len()), (1, 1));
        assert_eq!((stats.values["comm"], stats.values["exe"]), (2, 1));
        values.end_window(HOUR);
        assert_eq!(values.admit("comm", "c", HOUR), Some("c"));
        assert_eq!(values.admit("comm", "b", HOUR), Some(OTHER_VALUE));
        assert!(!values.stats().values.contains_key("exe"));
    }

    /// Check that labels beyond the limit are left out.
    #[test]
    fn names_are_limited() {
        let mut values = LabelValues::new(2);
        for number in 0..NAMES_MAX {
            assert!(values.admit(&format!("label{number}"), "a", 0).is_some());
        }
        assert_eq!(values.admit("one_more", "a", 0), None);
        assert_eq!(values.stats().names_limited, 1);
        assert_eq!(values.admit("label7", "b", 0), Some("b"));
    }
}
