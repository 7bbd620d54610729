//! Metrics with labels.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family as Inner;
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::label::Label;

/// Label names and values.
type Labels<const N: usize> = [(&'static str, Label); N];

/// Metrics of one name with `N` labels. Clones share their metrics.
///
/// A metric is never removed. For label values from outside use [`Self::of_limited`], or limit
/// them.
pub struct Family<M, const N: usize = 1> {
    names: [&'static str; N],
    inner: Inner<Labels<N>, M, fn() -> M>,
    /// Number of metrics that [`Self::of_limited`] created.
    made: Arc<AtomicUsize>,
}

impl<M: Clone + Default, const N: usize> Family<M, N> {
    /// A family of metrics that start at zero, with these label names.
    pub fn new(names: [&'static str; N]) -> Self {
        Self::with_constructor(names, M::default)
    }
}

impl<M: Clone, const N: usize> Family<M, N> {
    /// A family whose metrics need a constructor, like histograms.
    pub fn with_constructor(names: [&'static str; N], constructor: fn() -> M) -> Self {
        Self {
            names,
            inner: Inner::new_with_constructor(constructor),
            made: Arc::default(),
        }
    }

    /// The metric with these label values, in the order of the names.
    pub fn of(&self, values: [impl Into<Label>; N]) -> M {
        self.inner.get_or_create_owned(&self.label(values))
    }

    /// The metric with these label values, or, once this function has created `metrics_max`
    /// metrics, the one with the values `others`.
    pub fn of_limited(
        &self,
        metrics_max: usize,
        values: [impl Into<Label>; N],
        others: [impl Into<Label>; N],
    ) -> M {
        let labels = self.label(values);
        if let Some(known) = self.inner.get(&labels) {
            return known.clone();
        }
        let one_more = |made| (made < metrics_max).then_some(made + 1);
        match self.made.fetch_update(Relaxed, Relaxed, one_more) {
            Ok(_) => self.inner.get_or_create_owned(&labels),
            Err(_) => self.of(others),
        }
    }

    fn label(&self, values: [impl Into<Label>; N]) -> Labels<N> {
        let mut names = self.names.into_iter();
        values.map(|value| (names.next().unwrap_or_default(), value.into()))
    }
}

impl<M, const N: usize> Clone for Family<M, N> {
    fn clone(&self) -> Self {
        Self {
            names: self.names,
            inner: self.inner.clone(),
            made: Arc::clone(&self.made),
        }
    }
}

impl<M, const N: usize> fmt::Debug for Family<M, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl<M: EncodeMetric + TypedMetric, const N: usize> EncodeMetric for Family<M, N> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.inner.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    /// Check that beyond the limit all new values share one metric, and that known ones keep
    /// theirs.
    #[test]
    fn a_limited_family_counts_the_rest_together() {
        let family: Family<Counter> = Family::new(["file"]);
        for file in ["a", "b", "c", "a", "d"] {
            family.of_limited(2, [file], ["others"]).inc();
        }
        let counts = ["a", "b", "others"].map(|file| family.of([file]).get());
        assert_eq!(counts, [2, 1, 2]);
    }
}
