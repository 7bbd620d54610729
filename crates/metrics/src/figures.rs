//! Statistics that a stage keeps in its own struct, and that are read at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::label::Label;

/// Registers statistics that `show` writes at each scrape, under the registry's prefix.
///
/// `show` runs on the thread that answers the scrape, so it should copy its data and hold a stage's
/// lock only for a short time.
pub fn register_figures(
    registry: &mut Registry,
    show: impl Fn(&mut Figures<'_>) + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Shown(show)));
}

struct Shown<F>(F);

impl<F> fmt::Debug for Shown<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl<F: Fn(&mut Figures<'_>) + Send + Sync + 'static> Collector for Shown<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut figures = Figures {
            encoder,
            result: Ok(()),
        };
        (self.0)(&mut figures);
        figures.result
    }
}

/// A value. Integers are written without a decimal point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count or a size.
    Whole(u64),
    /// A time or a ratio.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// Writes metrics during a scrape. Names and helps follow the crate's rules; the suffix of the name
/// is the unit.
pub struct Figures<'a> {
    encoder: DescriptorEncoder<'a>,
    result: fmt::Result,
}

impl Figures<'_> {
    /// Writes a counter.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.counters(name, help, [], [([] as [Label; 0], value)]);
    }

    /// Writes a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.gauges(name, help, [], [([] as [Label; 0], value)]);
    }

    /// Writes counters with these label names; each value comes with its label values.
    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        counts: impl IntoIterator<Item = ([impl Into<Label>; N], impl Into<Number>)>,
    ) {
        let kind = MetricType::Counter;
        let written = self.write(Descriptor { name, help, kind }, labels, counts);
        self.result = self.result.and(written);
    }

    /// Writes gauges with these label names; each value comes with its label values.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        values: impl IntoIterator<Item = ([impl Into<Label>; N], impl Into<Number>)>,
    ) {
        let kind = MetricType::Gauge;
        let written = self.write(Descriptor { name, help, kind }, labels, values);
        self.result = self.result.and(written);
    }

    fn write<const N: usize>(
        &mut self,
        descriptor: Descriptor<'_>,
        names: [&'static str; N],
        values: impl IntoIterator<Item = ([impl Into<Label>; N], impl Into<Number>)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        // As in a registry: no HELP and TYPE for a family without metrics.
        if values.peek().is_none() {
            return Ok(());
        }
        let Descriptor { name, help, kind } = descriptor;
        let (stem, unit) = split_unit(name);
        let help = format!("{help}.");
        let mut encoder = self
            .encoder
            .encode_descriptor(stem, &help, unit.as_ref(), kind)?;
        for (labels, number) in values {
            let mut names = names.into_iter();
            let labels = labels.map(|value| (names.next().unwrap_or_default(), value.into()));
            if N == 0 {
                write_number(number.into(), kind, &mut encoder)?;
            } else {
                write_number(number.into(), kind, &mut encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

struct Descriptor<'a> {
    name: &'a str,
    help: &'a str,
    kind: MetricType,
}

fn split_unit(name: &str) -> (&str, Option<Unit>) {
    if let Some(stem) = name.strip_suffix("_seconds") {
        (stem, Some(Unit::Seconds))
    } else if let Some(stem) = name.strip_suffix("_bytes") {
        (stem, Some(Unit::Bytes))
    } else {
        (name, None)
    }
}

fn write_number(number: Number, kind: MetricType, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match (kind, number) {
        (MetricType::Counter, Number::Whole(value)) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        }
        (MetricType::Counter, Number::Real(value)) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        }
        // `prometheus-client` refuses larger gauges.
        (_, Number::Whole(value)) => encoder.encode_gauge(&value.min(i64::MAX as u64)),
        (_, Number::Real(value)) => encoder.encode_gauge(&value),
    }
}
