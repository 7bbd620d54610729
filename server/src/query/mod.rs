//! Answers questions about stored windows.
//!
//! In: a selection (labels and a range) and a store. Out: trees, tables and series of numbers for `render` and
//! `http`. Does no IO of its own, knows no file and no URL.

pub mod functions;
pub mod label_values;
pub mod lines;
pub mod nodes;
pub mod selection;
pub mod selector;
pub mod series;
pub mod sets;
pub mod stacks;
#[cfg(test)]
mod test_parts;
pub mod time;
pub mod timeseries;
pub mod tree;
pub mod unknown;

pub use selection::Selection;
pub use selector::{Selector, SelectorError, parse_selector};
pub use tree::{Tree, build_tree};
