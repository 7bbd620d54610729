//! Label sets, reasons for missing names, and the language in which tests write profiles.
//!
//! Collector and server exchange profiles as pprof and keep them in types of their own: the collector counts addresses of
//! running processes, the server stores tables that are joined with names. This crate has what is the same in both
//! programs.
//!
//! # Label sets
//!
//! A series is all samples of a profile with equal labels. A [`LabelSet`] holds these labels in the one form that is sent,
//! stored and compared: sorted by name, each name once, no value empty, names as in Prometheus.
//!
//! ```
//! use profile::{LabelError, LabelSet};
//!
//! let labels = LabelSet::from_sorted([("comm", "sort"), ("node", "a")])?;
//! assert_eq!(labels.value("comm"), "sort");
//! assert_eq!(labels.to_string(), r#"{comm="sort", node="a"}"#);
//! # Ok::<(), LabelError>(())
//! ```
//!
//! # Reasons for missing names
//!
//! The collector sends an [`UnnamedReason`] with each frame that it could not name.
//!
//! # The test language
//!
//! A line of text is a series, a stack and a number of samples. [`parse_samples`] reads such lines; each program's tests make
//! their own tables of them. No other input is read this way: an error is a mistake in a test.
//!
//! ```
//! use profile::parse_samples;
//!
//! let samples = parse_samples("comm=sort,node=a | main sort_lines@/lib/libsort.so | 3 | thread=worker")?;
//! let inner = &samples[0].stack[1];
//! assert_eq!((&inner.functions[..], inner.file), (&["sort_lines"][..], Some("/lib/libsort.so")));
//! # Ok::<(), profile::TextError>(())
//! ```
//!
//! # Limits
//!
//! The crate does no IO and knows neither pprof nor the wire. Callers check lengths: a label's name and value have at most
//! [`LABEL_BYTES_MAX`] bytes each in a message.

mod labels;
mod text;
mod unnamed;

pub use labels::{LABEL_BYTES_MAX, LabelError, LabelSet, is_label_name};
pub use text::{Frame, Sample, TextError, parse_samples};
pub use unnamed::UnnamedReason;
