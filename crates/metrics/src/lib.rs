//! Metrics of both programs: one registry, two exposition formats.
//!
//! `prometheus-client` has the counters, gauges and histograms. This crate adds missing features:
//!
//! - **Text 0.0.4.** `prometheus-client` writes OpenMetrics only, which `promtool check metrics` and older scrapers do not
//!   read. [`Exposition`] chooses by the `Accept` header between both formats and writes them from one registry.
//! - **Escaping.** `prometheus-client` does not escape label values: one path with a quotation mark makes the whole
//!   answer invalid. [`Family`] takes [`Label`]s, which are escaped when they are encoded.
//! - **Statistics in a stage's own struct.** Many stages count in a struct behind their own lock. [`register_figures`]
//!   reads such a struct at each scrape, without a second copy in atomics.
//!
//! A stage owns its statistics and registers them under the program's prefix; the module that serves `/metrics` knows
//! only the registry. Names follow OpenMetrics: a counter is registered without `_total`, since the encoders add it,
//! and two metrics never have the same name without that suffix. A help text has no line break, backslash or quotation
//! mark, since `prometheus-client` does not escape them, and no full stop, since it adds one.
//!
//! ```
//! use metrics::{Counter, Exposition, Family, Registry};
//!
//! let mut registry = Registry::with_prefix("example");
//! let windows: Family<Counter> = Family::new(["result"]);
//! registry.register("windows", "Windows received, by result", windows.clone());
//! windows.of(["stored"]).inc();
//!
//! let text = Exposition::from_accept("text/plain").encode(&registry).unwrap();
//! assert!(text.contains("example_windows_total{result=\"stored\"} 1\n"));
//! ```

mod exposition;
mod family;
mod figures;
mod label;
mod program;
mod text;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
pub use prometheus_client::registry::{Registry, Unit};

pub use exposition::Exposition;
pub use family::Family;
pub use figures::{Figures, Number, register_figures};
pub use label::Label;
pub use program::register_program;
