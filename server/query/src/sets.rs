//! Keys of the frames of stacks (files, reasons, lines), each counted once a stack.

use std::collections::HashMap;

use model::Tables;
use model::tables::{LocationId, StackNode};

use super::series::Usage;

/// Sets of keys, with the samples of their stacks. Keys are numbers that are valid for all parts.
///
/// A set is a path in a tree of sets: a frame with a new key leads to a child. There are as many sets as orders of
/// first occurrences, which are few.
pub struct PathSets {
    entries: Vec<SetEntry>,
    index: HashMap<(u32, u32), u32>,
    sums: Vec<Usage>,
}

#[derive(Clone, Copy)]
struct SetEntry {
    parent: u32,
    key: u32,
}

impl Default for PathSets {
    fn default() -> Self {
        // Set 0 is the empty one, without meaningful fields.
        Self {
            entries: vec![SetEntry { parent: 0, key: 0 }],
            index: HashMap::new(),
            sums: vec![Usage::default()],
        }
    }
}

impl PathSets {
    /// Adds the samples of each stack to the set of its locations' keys.
    pub fn add_stacks<K: IntoIterator<Item = u32>>(
        &mut self,
        tables: &Tables,
        by_stack: &[Usage],
        keys_of: impl Fn(LocationId) -> K,
    ) {
        let mut set_of = vec![0_u32; tables.stacks.len()];
        for (number, StackNode { parent, location }) in
            tables.stacks.iter().copied().enumerate().skip(1)
        {
            let above = set_of[parent.position()];
            set_of[number] = keys_of(location)
                .into_iter()
                .fold(above, |set, key| self.extend(set, key));
        }
        for (set, usage) in set_of.iter().zip(by_stack) {
            self.sums[*set as usize].add(*usage);
        }
    }

    /// The set with one more key; the same set if it has the key.
    fn extend(&mut self, set: u32, key: u32) -> u32 {
        if self.keys(set).any(|known| known == key) {
            return set;
        }
        *self.index.entry((set, key)).or_insert_with(|| {
            self.entries.push(SetEntry { parent: set, key });
            self.sums.push(Usage::default());
            self.entries.len() as u32 - 1
        })
    }

    fn keys(&self, set: u32) -> impl Iterator<Item = u32> {
        let mut at = set;
        std::iter::from_fn(move || {
            let SetEntry { parent, key } = self.entries[at as usize];
            let found = (at != 0).then_some(key);
            at = parent;
            found
        })
    }

    /// The sets that are not empty, each with the samples of stacks with exactly its keys.
    pub fn sums(&self) -> impl Iterator<Item = (impl Iterator<Item = u32>, Usage)> {
        let sums = self.sums.iter().enumerate().skip(1);
        sums.map(|(set, usage)| (self.keys(set as u32), *usage))
    }
}
