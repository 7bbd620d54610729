//! A pprof's string table.

use rustc_hash::FxHashMap;

/// Strings by index; the first is empty, as the format requires.
pub(super) struct Strings {
    table: Vec<String>,
    places: FxHashMap<String, i64>,
}

impl Strings {
    pub(super) fn new() -> Self {
        let mut strings = Self {
            table: Vec::new(),
            places: FxHashMap::default(),
        };
        strings.intern("");
        strings
    }

    /// The index of a string.
    pub(super) fn intern(&mut self, text: &str) -> i64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }

    pub(super) fn into_table(self) -> Vec<String> {
        self.table
    }
}
