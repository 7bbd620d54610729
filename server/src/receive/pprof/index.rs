//! The stacks and tag sets of a profile, found by their values.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::tables::{StackId, TagSetId};
use model::{StackNode, Tables, Tag};

use super::child_index::ChildIndex;

/// Positions of stacks and tag sets in tables. The hashes are seeded at random.
#[derive(Default)]
pub(super) struct Index {
    stacks: ChildIndex,
    tag_sets: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Index {
    /// Makes room for some stacks.
    pub(super) fn reserve_stacks(&mut self, tables: &mut Tables, stacks: usize) {
        tables.stacks.reserve(stacks);
        self.stacks.reserve(stacks);
    }

    /// Finds or adds a stack: one more frame on top of a known stack.
    pub(super) fn intern_stack(&mut self, tables: &mut Tables, node: StackNode) -> StackId {
        let StackNode { parent, location } = node;
        let number = self.stacks.find_or_add(parent.0, location.0);
        if number as usize == tables.stacks.len() {
            tables.stacks.push(node);
        }
        StackId(number)
    }

    /// Finds or adds a tag set. The order of tags counts; a sender keeps it the same.
    pub(super) fn intern_tag_set(&mut self, tables: &mut Tables, tags: &[Tag]) -> TagSetId {
        if tags.is_empty() {
            return TagSetId(0);
        }
        let Self {
            hasher, tag_sets, ..
        } = self;
        let hash = hasher.hash_one(tags);
        let is_same = |number: &u32| tables.tag_set(TagSetId(*number)) == tags;
        if let Some(known) = tag_sets.find(hash, is_same) {
            return TagSetId(*known);
        }
        let id = tables.push_tag_set(tags);
        tag_sets.insert_unique(hash, id.0, |number| {
            hasher.hash_one(tables.tag_set(TagSetId(*number)))
        });
        id
    }
}

#[cfg(test)]
mod tests {
    use model::tables::LocationId;

    use super::*;

    /// Check that stacks with few and with many callees are found again, and that each is there once.
    #[test]
    fn stacks_are_found_again() {
        let (mut index, mut tables) = (Index::default(), Tables::default());
        let mut intern = |parent: StackId, location: u32| {
            let location = LocationId(location);
            index.intern_stack(&mut tables, StackNode { parent, location })
        };
        let mut rounds = Vec::new();
        for _ in 0..2 {
            let callers: Vec<StackId> = (0..3)
                .map(|location| intern(StackId(0), location))
                .collect();
            let callees = (0..120).map(|number| intern(callers[number % 3], number as u32));
            rounds.push((callees.collect::<Vec<_>>(), callers.clone()));
        }
        assert_eq!(rounds[0], rounds[1]);
        assert_eq!(tables.stacks.len(), 1 + 3 + 120);
        for (number, stack) in rounds[0].0.iter().enumerate() {
            let StackNode { parent, location } = tables.stacks[stack.position()];
            assert_eq!(
                (parent, location.0),
                (rounds[0].1[number % 3], number as u32)
            );
        }
    }
}
