//! Located stacks -> counts per window.
//!
//! In: located samples in the order of their times. Out: a [`Window`]: each
//! distinct (series, thread name, outcome, stack) with its number of samples.
//! Stacks are one tree of (parent, frame) nodes, compared by their whole value,
//! never by a hash alone. It never names anything and does no IO.

mod window;

pub use window::{Check, FrameIndex, NodeIndex, Row, SeriesKey, Window, WindowFile, WindowFrame};
