//! Located stacks -> counts per window.
//!
//! In: located samples in the order of their times. Out: a [`Window`]: each distinct (series,
//! thread name, outcome, stack) with its number of samples. Stacks form one tree of (parent, frame)
//! nodes, compared by value, never only by hash. Does not name anything, and does no IO.

mod window;

pub use window::{
    Check, FrameIndex, Maker, NodeIndex, Row, SeriesKey, Window, WindowFile, WindowFrame,
};
