//! Series -> labels.
//!
//! In: what is known of a process (name, program, container, unit), and the node's pods. Out: label sets in Prometheus' form. It never
//! decides what is sampled.

mod labeller;
mod values;

pub use labeller::{LabelSources, LabelStats, Labeller, OWN_LABELS, WindowLabels};
