//! Values of a chunk that come again and again.

use std::collections::HashMap;
use std::hash::Hash;

/// Values, each once.
pub(crate) struct Distinct<T> {
    numbers: HashMap<T, u64>,
    pub(crate) values: Vec<T>,
}

impl<T: Hash + Eq + Clone> Distinct<T> {
    pub(crate) fn new() -> Self {
        Self {
            numbers: HashMap::new(),
            values: Vec::new(),
        }
    }

    pub(crate) fn number(&mut self, value: T) -> u64 {
        let values = &mut self.values;
        *self.numbers.entry(value).or_insert_with_key(|value| {
            values.push(value.clone());
            values.len() as u64 - 1
        })
    }
}
